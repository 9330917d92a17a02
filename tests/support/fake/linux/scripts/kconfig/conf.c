/* conf --GOAL[=FILE] KCONFIG: asks the compiler something, as $(shell,...) of a real one does, and leaves the rest to conf.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char script[4096], command[4096], answer[80] = "", *goal;
	FILE *stream;

	if (argc != 3 || strncmp(argv[1], "--", 2))
		return 1;
	goal = argv[1] + 2;
	goal[strcspn(goal, "=")] = 0;
	snprintf(command, sizeof(command),
		 "{ %s -Werror -fno-common -c -x c /dev/null -o /dev/null; } >/dev/null 2>&1 && cat %s/scripts/kconfig/answer",
		 getenv("CC"), getenv("srctree"));
	stream = popen(command, "r");
	if (!stream || !fgets(answer, sizeof(answer), stream) || pclose(stream) == -1)
		return 1;
	answer[strcspn(answer, "\n")] = 0;
	setenv("CC_ANSWER", answer, 1);
	snprintf(script, sizeof(script), "%s/scripts/kconfig/conf.py", getenv("srctree"));
	execlp(getenv("PYTHON3"), getenv("PYTHON3"), script, goal, argv[2], (char *)0);
	return 1;
}
