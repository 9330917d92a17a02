	.text
	.globl startup
startup: call extract_kernel
1:	jmp 1b
	.section .note.GNU-stack,"",@progbits
