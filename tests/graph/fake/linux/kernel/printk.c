#include <linux/kernel.h>

int printk(const char *text)
{
	return strlen(text);
}
