#include <linux/kernel.h>

int start_kernel(void)
{
#ifdef CONFIG_PRINTK
	printk(linux_banner);
#endif
	panic("no init");
	return CONFIG_LOG_BUF_SHIFT;
}
