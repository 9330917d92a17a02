#include <linux/unused.h>
int unused = NOBODY_INCLUDES_THIS;
