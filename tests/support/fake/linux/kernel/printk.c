#include <linux/kernel.h>
#include <linux/level.h>

int console_loglevel = LOGLEVEL_DEFAULT;

int printk(const char *text)
{
	return strlen(text);
}
