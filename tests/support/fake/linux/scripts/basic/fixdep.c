/* fixdep DEPFILE TARGET COMMAND: prints the record of a target: its command, and the files that it was made from, those of
 * them that mention CONFIG_X followed by the file that stands for X. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *slurp(const char *path)
{
	FILE *f = fopen(path, "rb");
	char *text = NULL;
	size_t n = 0, got;

	if (!f) {
		perror(path);
		exit(2);
	}
	do {
		text = realloc(text, n + 65537);
		n += got = fread(text + n, 1, 65536, f);
	} while (got);
	text[n] = 0;
	fclose(f);
	return text;
}

static void symbols(const char *path)
{
	char *text = slurp(path), *p = text, *end;

	while ((p = strstr(p, "CONFIG_"))) {
		for (end = p += 7; isalnum(*end) || *end == '_'; end++)
			;
		if (end > p)
			printf("    $(wildcard include/config/%.*s) \\\n", (int)(end - p), p);
		p = end;
	}
	free(text);
}

int main(int argc, char **argv)
{
	char *word = strchr(slurp(argv[1]), ':'), *next;
	int first = 1;

	printf("cmd_%s := %s\n\n", argv[2], argv[3]);
	for (word = strtok_r(word + 1, " \\\n\t", &next); word; word = strtok_r(NULL, " \\\n\t", &next)) {
		if (strstr(word, "include/generated/autoconf.h"))
			continue;
		if (first)
			printf("source_%s := %s\n\ndeps_%s := \\\n", argv[2], word, argv[2]);
		else
			printf("  %s \\\n", word);
		symbols(word);
		first = 0;
	}
	printf("\n%s: $(deps_%s)\n\n$(deps_%s):\n", argv[2], argv[2], argv[2]);
	return argc != 4;
}
