/*
 * Run a command, and write down which files it looked at, so that what it said can be taken for
 * given as long as those are the same.
 *
 *   cc -DPIGGYBACK_MAIN watch.c      watch LOG COMMAND...: runs the command
 *
 * answers.c includes this, too. LOG gets netstrings (LENGTH:BYTES,): command, output, wait status,
 * why it can't be remembered ("" if it can), then the files, each after one letter, then "".
 * r: looked at; d: a folder that was listed; w: written.
 *
 * How: seccomp(2) with SECCOMP_RET_TRACE stops a process at the system calls that take a path, and
 * ptrace(2) reads them. Where the kernel allows neither, nothing is remembered.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <search.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

extern long ptrace(int request, ...); /* <sys/ptrace.h> and <linux/ptrace.h> exclude one another */

#if defined(__x86_64__) && !defined(__ILP32__)
#define NATIVE AUDIT_ARCH_X86_64
#elif defined(__i386__)
#define NATIVE AUDIT_ARCH_I386
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#elif defined(__arm__)
#define NATIVE AUDIT_ARCH_ARM
#elif defined(__riscv) && __riscv_xlen == 64
#define NATIVE AUDIT_ARCH_RISCV64
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
#define NATIVE AUDIT_ARCH_PPC64LE
#elif defined(__s390x__)
#define NATIVE AUDIT_ARCH_S390X
#else
#error "which AUDIT_ARCH_ is this?"
#endif

/* A system call that takes a path. at: the argument with the folder's descriptor, -1 for the working
 * folder; path: the argument with the path, -1 if nobody can tell what the call depends on; flags:
 * the argument with open(2)'s flags, -1 for none; kind: 'r' or 'w'. */
static const struct call {
	int number, at, path, flags;
	char kind;
} calls[] = {
#ifdef SYS_open
	{ SYS_open, -1, 0, 1, 'r' },
#endif
#ifdef SYS_stat
	{ SYS_stat, -1, 0, -1, 'r' },
	{ SYS_lstat, -1, 0, -1, 'r' },
#endif
#ifdef SYS_stat64
	{ SYS_stat64, -1, 0, -1, 'r' },
	{ SYS_lstat64, -1, 0, -1, 'r' },
	{ SYS_fstatat64, 0, 1, -1, 'r' },
#endif
#ifdef SYS_access
	{ SYS_access, -1, 0, -1, 'r' },
#endif
#ifdef SYS_readlink
	{ SYS_readlink, -1, 0, -1, 'r' },
#endif
#ifdef SYS_newfstatat
	{ SYS_newfstatat, 0, 1, -1, 'r' },
#endif
#ifdef SYS_creat
	{ SYS_creat, -1, 0, -1, 'w' },
#endif
#ifdef SYS_mkdir
	{ SYS_mkdir, -1, 0, -1, 'w' },
	{ SYS_rmdir, -1, 0, -1, 'w' },
	{ SYS_unlink, -1, 0, -1, 'w' },
#endif
#ifdef SYS_rename
	{ SYS_rename, -1, 0, -1, 'w' },
	{ SYS_rename, -1, 1, -1, 'w' },
#endif
#ifdef SYS_renameat
	{ SYS_renameat, 0, 1, -1, 'w' },
	{ SYS_renameat, 2, 3, -1, 'w' },
#endif
#ifdef SYS_link
	{ SYS_link, -1, 0, -1, 'r' },
	{ SYS_link, -1, 1, -1, 'w' },
	{ SYS_symlink, -1, 1, -1, 'w' },
	{ SYS_mknod, -1, 0, -1, 'w' },
#endif
	{ SYS_openat, 0, 1, 2, 'r' },
	{ SYS_execve, -1, 0, -1, 'r' },
	{ SYS_execveat, 0, 1, -1, 'r' },
	{ SYS_faccessat, 0, 1, -1, 'r' },
	{ SYS_statx, 0, 1, -1, 'r' },
	{ SYS_readlinkat, 0, 1, -1, 'r' },
	{ SYS_mkdirat, 0, 1, -1, 'w' },
	{ SYS_unlinkat, 0, 1, -1, 'w' },
	{ SYS_renameat2, 0, 1, -1, 'w' },
	{ SYS_renameat2, 2, 3, -1, 'w' },
	{ SYS_linkat, 0, 1, -1, 'r' },
	{ SYS_linkat, 2, 3, -1, 'w' },
	{ SYS_symlinkat, 1, 2, -1, 'w' },
	{ SYS_mknodat, 0, 1, -1, 'w' },
#ifdef SYS_faccessat2
	{ SYS_faccessat2, 0, 1, -1, 'r' },
#endif
#ifdef SYS_openat2
	{ SYS_openat2, 0, -1, -1, 'r' },
#endif
#ifdef SYS_io_uring_setup
	{ SYS_io_uring_setup, -1, -1, -1, 'r' },
#endif
#ifdef SYS_socket
	{ SYS_socket, -1, -1, -1, 'r' },
#endif
};
#define CALLS (sizeof(calls) / sizeof(*calls))
#define NO_FILTER SIGUSR2 /* what a child tells before it begins */
#define FOREIGN 1 /* SECCOMP_RET_DATA of a call in another architecture's numbers */

static void *seen;	 /* of tsearch(3): the files so far, each after its letter */
static FILE *names;	 /* where they are written */
static const char *odd; /* why the command can't be remembered; 0 if it can */

static void put(FILE *file, const char *bytes, size_t length)
{
	fprintf(file, "%zu:", length);
	fwrite(bytes, 1, length, file);
	fputc(',', file);
}

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void note(char kind, const char *path)
{
	char *entry, **found;

	if (asprintf(&entry, "%c%s", kind, path) < 0)
		abort();
	found = tsearch(entry, &seen, compare);
	if (*found == entry)
		put(names, entry, strlen(entry));
	else
		free(entry);
}

/* Read a string of a stopped process; 0 if it can't be read. */
static int read_string(pid_t pid, unsigned long address, char *text)
{
	size_t done = 0;

	while (done < PATH_MAX) {
		size_t part = 4096 - (address + done) % 4096;
		struct iovec here, there;
		ssize_t got;

		if (part > PATH_MAX - done)
			part = PATH_MAX - done;
		here = (struct iovec){ text + done, part };
		there = (struct iovec){ (void *)(address + done), part };
		got = process_vm_readv(pid, &here, 1, &there, 1, 0);
		if (got <= 0)
			return 0;
		if (memchr(text + done, 0, got))
			return 1;
		done += got;
	}
	return 0;
}

static void look(pid_t pid, const struct call *call, const __u64 *args)
{
	char path[PATH_MAX], link[64], folder[PATH_MAX], whole[2 * PATH_MAX + 1];
	unsigned long flags = call->flags < 0 ? 0 : args[call->flags];
	char kind = call->kind;
	ssize_t length;

	if (call->path < 0) {
		odd = "it uses sockets, or a system call that can't be followed";
		return;
	}
	if (!read_string(pid, args[call->path], path)) {
		if (args[call->path])
			odd = "a path can't be read";
		return;
	}
	if (!*path)
		return; /* of an open file, or of none */
	if (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
		kind = 'w';
	else if (flags & O_DIRECTORY)
		kind = 'd';
	if (*path == '/') {
		note(kind, path);
		return;
	}
	if (call->at < 0 || (int)args[call->at] == AT_FDCWD)
		snprintf(link, sizeof(link), "/proc/%d/cwd", pid);
	else
		snprintf(link, sizeof(link), "/proc/%d/fd/%d", pid, (int)args[call->at]);
	length = readlink(link, folder, sizeof(folder) - 1);
	if (length <= 0) {
		odd = "a folder can't be found";
		return;
	}
	folder[length] = 0;
	snprintf(whole, sizeof(whole), "%s/%s", folder, path);
	note(kind, whole);
}

static void stopped(pid_t pid)
{
	struct ptrace_syscall_info info;
	unsigned long data = 0;
	size_t i;

	ptrace(PTRACE_GETEVENTMSG, pid, 0, &data);
	if (data == FOREIGN ||
	    ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) < (long)sizeof(info.op) ||
	    info.op != PTRACE_SYSCALL_INFO_SECCOMP) {
		odd = "a program of another architecture ran";
		return;
	}
	for (i = 0; i < CALLS; i++)
		if (calls[i].number == (int)info.seccomp.nr)
			look(pid, &calls[i], info.seccomp.args);
}

/* Stop at those calls from now on; 0 if the kernel does not let us. */
static int filter(void)
{
	struct sock_filter code[2 * CALLS + 8], *end = code;
	struct sock_fprog program;
	size_t i;

#define STATEMENT(...) (*end++ = (struct sock_filter)BPF_STMT(__VA_ARGS__))
#define JUMP(...) (*end++ = (struct sock_filter)BPF_JUMP(__VA_ARGS__))
	STATEMENT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE, 1, 0);
	STATEMENT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | FOREIGN);
	STATEMENT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
	JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1); /* x32 */
	STATEMENT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | FOREIGN);
#endif
	for (i = 0; i < CALLS; i++) {
		JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 1);
		STATEMENT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
	}
	STATEMENT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program = (struct sock_fprog){ end - code, code };
	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Follow a process and all that it starts to the end of the first; return its wait status. */
static int follow(pid_t first)
{
	int status, result = -1, patience = 200, begun = 0;

	for (;;) {
		pid_t pid = waitpid(-1, &status, __WALL | (result < 0 ? 0 : WNOHANG));
		int signal = 0;

		if (pid < 0 && errno == EINTR)
			continue;
		if (pid < 0)
			return result;
		if (!pid) { /* something was left running; when we end, it is ended */
			if (!patience--) {
				odd = "it left something running";
				return result;
			}
			usleep(1000);
			continue;
		}
		if (!WIFSTOPPED(status)) {
			if (pid == first)
				result = status;
			continue;
		}
		if (status >> 16 == PTRACE_EVENT_SECCOMP) {
			stopped(pid);
			begun = 1;
		} else if (!(status >> 16)) {
			signal = WSTOPSIG(status);
		}
		if (!begun && signal == NO_FILTER) {
			odd = "the kernel does not let system calls be watched";
			begun = 1;
			signal = 0;
		}
		ptrace(PTRACE_CONT, pid, 0, signal);
	}
}

/* Run a command with its standard output in `out`; return its wait status, and note its files. */
static int watched(char *const argv[], int out)
{
	int gate[2], status;
	long traced;
	char go;
	pid_t pid;

	odd = 0;
	fflush(0);
	if (pipe2(gate, O_CLOEXEC))
		return -1;
	pid = fork();
	if (pid < 0)
		return -1;
	if (!pid) {
		close(gate[1]);
		if (read(gate[0], &go, 1) == 1 && go && !filter())
			raise(NO_FILTER);
		dup2(out, 1);
		execvp(*argv, argv);
		_exit(127);
	}
	close(gate[0]);
	traced = ptrace(PTRACE_SEIZE, pid, 0,
			PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
				PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL);
	go = !traced;
	if (traced)
		odd = "the kernel does not let programs be watched";
	if (write(gate[1], &go, 1) != 1)
		odd = "it did not start";
	close(gate[1]);
	status = follow(pid);
	return status;
}

/* Write what was noted of a command. */
static void record(const char *file, const char *command, const char *output, size_t length,
		   int status, const char *files, size_t size)
{
	FILE *log = fopen(file, "a");
	char number[16];

	if (!log)
		return;
	put(log, command, strlen(command));
	put(log, output, length);
	put(log, number, snprintf(number, sizeof(number), "%d", status));
	put(log, odd ? odd : "", odd ? strlen(odd) : 0);
	fwrite(files, 1, size, log);
	put(log, "", 0);
	fclose(log);
}

static char *files;
static size_t files_size;

static void start_noting(void)
{
	tdestroy(seen, free);
	seen = 0;
	names = open_memstream(&files, &files_size);
	if (!names)
		abort();
}

#ifdef PIGGYBACK_MAIN
int main(int argc, char **argv)
{
	int status;

	if (argc < 3)
		return 2;
	start_noting();
	status = watched(argv + 2, 1);
	fclose(names);
	record(argv[1], "", "", 0, status, files, files_size);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
#endif
