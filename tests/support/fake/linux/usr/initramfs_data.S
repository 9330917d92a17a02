	.section .rodata
	.incbin "usr/initramfs_data.cpio"
