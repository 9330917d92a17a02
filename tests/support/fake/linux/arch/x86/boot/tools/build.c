/* build SETUP VMLINUX.BIN BZIMAGE: the setup code, padded to a sector with the boot sector's signature in it, and the rest. */
#include <stdio.h>
#include <string.h>

static char buffer[65536];

int main(int argc, char **argv)
{
	FILE *setup = fopen(argv[1], "rb"), *system = fopen(argv[2], "rb"), *out = fopen(argv[3], "wb");
	size_t got;

	if (argc != 4 || !setup || !system || !out)
		return 1;
	got = fread(buffer, 1, 510, setup);
	memset(buffer + got, 0, 512 - got);
	memcpy(buffer + 510, "\x55\xaa", 2);
	fwrite(buffer, 1, 512, out);
	while ((got = fread(buffer, 1, sizeof(buffer), system)))
		fwrite(buffer, 1, got, out);
	return fclose(out) != 0;
}
