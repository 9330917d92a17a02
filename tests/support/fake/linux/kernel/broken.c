#include <linux/kernel.h>

int broken(void)
{
	return no_such_function();
}
