	.text
	.globl start
start:	call start_kernel
1:	jmp 1b
	.section .note.GNU-stack,"",@progbits
