#include "libbb.h"
int sh_main(int argc, char **argv) { return argc > 1; }
