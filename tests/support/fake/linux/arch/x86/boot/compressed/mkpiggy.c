/* mkpiggy FILE: prints the assembler source that carries FILE. */
#include <stdio.h>

int main(int argc, char **argv)
{
	FILE *f = fopen(argv[argc - 1], "rb");

	if (!f || fseek(f, 0, SEEK_END))
		return 1;
	printf(".section \".rodata..compressed\",\"a\",@progbits\n.globl input_data, z_input_len\nz_input_len = %ld\n"
	       "input_data:\n.incbin \"%s\"\ninput_data_end:\n.section .note.GNU-stack,\"\",@progbits\n", ftell(f), argv[1]);
	return 0;
}
