/* Preloaded into doit: the FAULTY-th of its writes fails with EIO, as do those after it, up to FAULTY_FOR of them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static int fails(int fd)
{
	static long count;
	const char *from = getenv("FAULTY"), *length = getenv("FAULTY_FOR");

	if (!from || fd <= 2)
		return 0;
	count++;
	if (count < atol(from) || count >= atol(from) + (length ? atol(length) : 1))
		return 0;
	errno = EIO;
	return 1;
}

ssize_t write(int fd, const void *data, size_t size)
{
	ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");

	return fails(fd) ? -1 : real(fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
	ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");

	return fails(fd) ? -1 : real(fd, data, size, at);
}

int fsync(int fd)
{
	int (*real)(int) = dlsym(RTLD_NEXT, "fsync");

	return fails(fd) ? -1 : real(fd);
}

int rename(const char *old, const char *new)
{
	int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");

	return fails(3) ? -1 : real(old, new);
}
