#include <linux/kernel.h>
#include <linux/panic.h>

static const char file[] __attribute__((used)) = __FILE__;
int panic_timeout = PANIC_TIMEOUT;

void panic(const char *why)
{
	printk(why);
	for (;;)
		panic_timeout--;
}
