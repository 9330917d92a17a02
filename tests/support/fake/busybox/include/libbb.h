#include <stdio.h>
#include <string.h>
#include <linux/piggy.h>
int cat_main(int argc, char **argv);
int echo_main(int argc, char **argv);
int sh_main(int argc, char **argv);
