#include <asm/errno.h>
extern const unsigned char input_data[];
