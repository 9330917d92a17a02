	.section .rodata
	.incbin "lib/banner.txt"
