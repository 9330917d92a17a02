#include <linux/kernel.h>

unsigned long strlen(const char *s)
{
	const char *p = s;

	while (*p)
		p++;
	return p - s;
}
