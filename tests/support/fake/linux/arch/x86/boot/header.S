	.text
	.globl _start
_start:	jmp main
	.ascii "HdrS"
	.section .note.GNU-stack,"",@progbits
