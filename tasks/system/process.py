"""Running of other programs: clean environment, full log, errors with a command to paste.

Children die with doit. They inherit only descriptors that were made inheritable (PEP 446): the
locks, which so outlive a doit that is killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from tasks.system import address, parent_death
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern

TAIL_LINES = 15
_JOBSERVER = pattern(r"^ +(?=-j)| --jobserver-\w+=\S+")
_KEPT = (
    "HOME",
    "USER",
    "LOGNAME",
    "TERM",
    "TMPDIR",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "DEBIAN_FRONTEND",
)


class Completed(msgspec.Struct, frozen=True):
    """A finished program: arguments, exit status (-N: signal N), stdout and stderr, seconds."""

    argv: tuple[str, ...]
    returncode: int
    output: str
    seconds: float


class CommandError(PiggyError):
    """A program that ended with a status other than 0."""

    def __init__(
        self, done: Completed, cwd: Path | None, env: Mapping[str, str], log: Path | None
    ) -> None:
        tail = done.output.rstrip().splitlines()[-TAIL_LINES:]
        how = (
            f"was killed by {signal_name(-done.returncode)}"
            if done.returncode < 0
            else f"ended with status {done.returncode}"
        )
        full = "\n".join(
            ["command: " + pasteable(done.argv, cwd, env)]
            + ([f"log: {log}"] if log else [])
            + ["last lines:"]
            + ["    " + line for line in tail]
        )
        super().__init__(f"'{Path(done.argv[0]).name}' {how}", address.shown(full))
        self.done = done


def signal_name(number: int) -> str:
    """Return a signal's name, such as SIGSEGV, or "signal 35" for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a build step.

    It has the C locale, UTC, a PATH with the sbin folders, the variables `extra`, and none of the
    user's that could change an output (MAKEFLAGS, CFLAGS, KBUILD_*, ...).
    """
    env = {name: os.environ[name] for name in _KEPT if name in os.environ}
    path = [part for part in os.environ.get("PATH", os.defpath).split(":") if part.startswith("/")]
    path += [part for part in ("/usr/local/sbin", "/usr/sbin", "/sbin") if part not in path]
    env.update({"PATH": ":".join(path), "LC_ALL": "C", "TZ": "UTC"})
    env.update(extra or {})
    return env


def pasteable(
    argv: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Return a shell line that repeats by hand what `run` did.

    The jobserver is left out of MAKEFLAGS: by hand, make opens its own for the same number of jobs.
    Arguments are as in `run`.
    """
    words = [
        f"{name}={shlex.quote(_JOBSERVER.sub('', value))}"
        for name, value in sorted((env or {}).items())
    ]
    line = " ".join([*words, shlex.join(str(arg) for arg in argv)])
    return f"cd {shlex.quote(str(cwd))} && {line}" if cwd else line


@contextlib.contextmanager
def child(
    argv: Sequence[str], *, vfork: bool = False, **popen: object
) -> Iterator[subprocess.Popen]:
    """Start a program in a process group of its own, and end the group with the body of a `with`.

    Args:
        argv: The program and its arguments.
        vfork: Whether to start it in the faster way; only for what surely is there, as `sh`.
        popen: Other arguments of subprocess.Popen.

    Raises:
        PiggyError: The program is missing or can't be executed.
    """
    before = parent_death.words(clean_env()["PATH"]) if vfork else ()
    try:
        process = subprocess.Popen(
            [*before, *(str(arg) for arg in argv)],
            start_new_session=True,
            close_fds=False,
            preexec_fn=None if before else parent_death.dying(),  # noqa: PLW1509
            **popen,
        )  # type: ignore[call-overload]
    except (FileNotFoundError, PermissionError) as error:
        raise _not_started(argv, error) from error
    try:
        yield process
    finally:
        if process.poll() is None:
            stop(process)


def _not_started(argv: Sequence[str], error: OSError) -> PiggyError:
    """Return the error for a program that did not start; its working folder may be at fault."""
    if error.filename not in (None, str(argv[0]), os.fsencode(str(argv[0]))):
        return PiggyError(f"'{argv[0]}' can't run in {error.filename}: {error.strerror}")
    if isinstance(error, PermissionError):
        return PiggyError(
            f"'{argv[0]}' can't be executed: {error.strerror}",
            "is it a program, and not on a disk mounted noexec?",
        )
    return PiggyError(
        f"'{argv[0]}' is not installed",
        "'doit setup' installs what is missing; 'doit doctor' shows what that is",
    )


def stop(process: subprocess.Popen, patience: float = 5.0) -> None:
    """End a process group started by `child`: SIGTERM, then SIGKILL to the rest.

    Args:
        process: The leader of the group.
        patience: Seconds that the leader has to end after each signal.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def stop_all(busy: Callable[[], bool], patience: float = 5.0) -> None:
    """End every program that `child` started in any thread, and those still to be started.

    Each process group gets SIGTERM once, and SIGKILL when its leader has ended or is late. The
    function returns when `busy` does, or a second after the last program has ended.

    Args:
        busy: Tells whether threads are still at work.
        patience: Seconds that a leader has to end after SIGTERM.
    """
    signalled, until = dict[int, float](), time.monotonic() + 1
    while busy() and time.monotonic() < until:
        for pid, ended in _leaders():
            now = time.monotonic()
            # Not for ever, as one may hang in the kernel.
            if now - signalled.get(pid, now) < 2 * patience:
                until = now + 1
            number = (
                signal.SIGKILL
                if pid in signalled and (ended or now - signalled[pid] > patience)
                else signal.SIGTERM
            )
            if number == signal.SIGKILL or pid not in signalled:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, number)
                signalled.setdefault(pid, now)
        time.sleep(0.02)


def _leaders() -> Iterator[tuple[int, bool]]:
    """Yield each child of ours that leads a process group, and whether it has ended.

    Source: proc(5), /proc/PID/stat; the program's name, in brackets, may hold any characters.
    """
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = (
                    Path("/proc", name, "stat")
                    .read_text(errors="replace")
                    .rpartition(")")[2]
                    .split()
                )
                if int(fields[1]) == os.getpid() and fields[2] == name:
                    yield int(name), fields[0] == "Z"


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    stdin: str | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return its status and output.

    Args:
        argv: The program and its arguments; never a shell line.
        cwd: Its working folder.
        env: Variables on top of `clean_env`.
        log: A file to append the command and its full output to.
        on_line: Called with each output line as it comes (for progress).
        stdin: Text for its standard input; None for an empty one.
        check: Whether to raise CommandError on a status other than 0.

    Raises:
        PiggyError: The program is missing or can't be executed.
        CommandError: It failed, and `check` is true.
    """
    started = time.monotonic()
    lines: list[str] = []
    with contextlib.ExitStack() as stack:
        sink: IO[str] | None = None
        if log:
            log.parent.mkdir(parents=True, exist_ok=True)
            sink = stack.enter_context(log.open("a", encoding="utf-8", errors="replace"))
            sink.write(f"$ {address.hidden(pasteable(argv, cwd, env))}\n")
            sink.flush()
        source: IO[bytes] | int = subprocess.DEVNULL
        if stdin is not None:
            source = stack.enter_context(tempfile.TemporaryFile())
            source.write(stdin.encode())
            source.seek(0)
        process = stack.enter_context(
            child(
                argv,
                cwd=cwd,
                env=clean_env(env),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        )
        assert process.stdout is not None
        threading.Thread(target=_end_group_if_killed, args=[process], daemon=True).start()
        for line in process.stdout:
            lines.append(line)
            if sink:
                sink.write(address.hidden(line))
            if on_line:
                on_line(line.rstrip("\n"))
        returncode = process.wait()
    done = Completed(
        tuple(str(arg) for arg in argv), returncode, "".join(lines), time.monotonic() - started
    )
    if check and returncode:
        raise CommandError(done, cwd, env or {}, log)
    return done


def _end_group_if_killed(process: subprocess.Popen) -> None:
    """Wait for a program; if it was killed, end the rest of its process group.

    A make that was killed leaves its sub-makes at work, and we would wait for them.
    """
    if process.wait() < 0:
        stop(process)


def foreground(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    on_line: Callable[[str], None] | None = None,
) -> int:
    """Run a program in the terminal's foreground (an editor, a guest's console).

    Ctrl-C goes to the program alone, which shares our terminal's foreground process group.

    Args:
        argv: The program and its arguments.
        cwd: Its working folder.
        env: Variables on top of `clean_env`.
        stdin: What it reads instead of the terminal, from a file without a name.
        on_line: Called with each line of output, in place of the terminal; standard input is then
            empty. The program still has the terminal, where sudo asks for a password (sudo(8), -S).

    Returns:
        Its exit status.

    Raises:
        PiggyError: The program is missing or can't be executed.
    """
    previous = signal.signal(signal.SIGINT, _ignore)
    process, source = None, None
    pipe, same = (subprocess.PIPE, subprocess.STDOUT) if on_line else (None, None)
    try:
        if stdin is not None or on_line:
            source = tempfile.TemporaryFile()  # noqa: SIM115
            source.write(stdin or b"")
            source.seek(0)
        process = subprocess.Popen(
            [str(arg) for arg in argv],
            cwd=cwd,
            env=clean_env(env),
            stdin=source,
            stdout=pipe,
            stderr=same,
            preexec_fn=parent_death.dying(),  # noqa: PLW1509
        )
        for line in _lines(process) if on_line else ():
            on_line(line)  # type: ignore[misc]
        return process.wait()
    except (FileNotFoundError, PermissionError) as error:
        raise _not_started(argv, error) from error
    finally:
        signal.signal(signal.SIGINT, previous)
        if process and process.poll() is None:
            process.terminate()
            process.wait()
        if source:
            source.close()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Yield the output lines of a program until it has ended.

    The pipe's end is not waited for: a service that the program started may keep it open for ever.
    """
    assert process.stdout is not None
    fd, rest = process.stdout.fileno(), b""
    while True:
        ended = process.poll() is not None
        if select.select([fd], [], [], 0 if ended else 0.1)[0]:
            data = os.read(fd, 1 << 16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
        elif ended:
            break
    if rest:
        yield rest.decode(errors="replace")


def _ignore(number: int, frame: object) -> None:
    """Ignore a signal, as a handler.

    Unlike SIG_IGN, exec resets a handler, so it can be set before the program starts (signal(7)).
    """
