#ifndef _LINUX_KERNEL_H
#define _LINUX_KERNEL_H
extern const char linux_banner[];
void panic(const char *why);
int printk(const char *text);
unsigned long strlen(const char *s);
#endif
