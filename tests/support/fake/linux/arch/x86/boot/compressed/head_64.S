	.text
	.globl startup
startup: call extract_kernel
1:	jmp 1b
	.quad _kernel_bss_size
	.section .note.GNU-stack,"",@progbits
