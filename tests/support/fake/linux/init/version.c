#include <linux/kernel.h>
#include "compile.h"
#include "utsrelease.h"

const char linux_banner[] = "Linux version " UTS_RELEASE " (" LINUX_COMPILE_BY "@" LINUX_COMPILE_HOST ") " UTS_VERSION;
