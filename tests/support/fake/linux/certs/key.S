	.section .rodata
	.incbin "certs/signing_key.pem"
