#include "libbb.h"

int echo_main(int argc, char **argv)
{
#ifdef CONFIG_FEATURE_FANCY_ECHO
	if (argc > 1 && !strcmp(argv[1], "-n"))
		return fputs(argv[2], stdout) < 0;
#endif
	return puts(argv[1]) < 0;
}
