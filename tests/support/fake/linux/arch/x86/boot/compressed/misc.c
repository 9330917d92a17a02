#include "misc.h"
#include "../voffset.h"

unsigned long extract_kernel(void)
{
	return input_data[0] + VO__end;
}
