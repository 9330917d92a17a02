// SPDX-License-Identifier: GPL-2.0
/* An external module: says hello, and shows what it was told in /sys/module/piggyback_hello/parameters/rider. */
#include <linux/bcd.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/utsname.h>

static char *rider = "nobody";
module_param(rider, charp, 0444);
MODULE_PARM_DESC(rider, "who rides piggy-back");

static int __init hello_init(void)
{
	pr_info("piggyback: %s rides on Linux %s (%u)\n", rider, init_utsname()->release, bcd2bin(0x42));
	return 0;
}

static void __exit hello_exit(void)
{
	pr_info("piggyback: %s gets off\n", rider);
}

module_init(hello_init);
module_exit(hello_exit);
MODULE_DESCRIPTION("An example for the external-module task");
MODULE_LICENSE("GPL");
