#include "libbb.h"

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
#ifdef CONFIG_CAT
	if (!strcmp(name, "cat"))
		return cat_main(argc, argv);
#endif
#ifdef CONFIG_ECHO
	if (!strcmp(name, "echo"))
		return echo_main(argc, argv);
#endif
#ifdef CONFIG_SH
	if (!strcmp(name, "sh"))
		return sh_main(argc, argv);
#endif
	puts("busybox: applet not found");
	return 127;
}
