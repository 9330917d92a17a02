"""Standard output and error, for all of doit's commands alike.

What may go to them, and what happens when they fail.

- What a terminal would obey is made visible, whoever wrote it (a server, a guest, the name of a
  file); only what draws progress bars goes through `plain`.
- A reader that has gone (`doit list | head -1`) ends the run quietly with 141, as a program that
  SIGPIPE kills does; a full device is named. Either ends it as a signal does: children are stopped,
  and what was finished is kept.
- A stream that was closed (`>&-`) leads nowhere; else the next file that is opened would have its
    number.

doit makes its commands before it loads dodo.py, so they ask for standard output anew at each use
(see `install`).
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from tasks.system.terminal import printable

BROKEN = 141  # what a shell says of a program that SIGPIPE (13) killed: 128 + 13
NAMES = {1: "standard output", 2: "standard error"}
_late = threading.local()  # .waiting: this thread is to finish something before it ends
_ended: list[int] = []  # what doit is to end with since a stream failed


class Gone(SystemExit):
    """A stream can't be written to any more."""


class _Sink(io.RawIOBase):
    """The bytes' way out, a descriptor that stays open.

    After its first failure it takes everything and writes nothing.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd, self.lost, self.name = fd, False, NAMES[fd]

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.fd

    def isatty(self) -> bool:
        return os.isatty(self.fd)

    def write(self, data: Any) -> int:
        """Write some of the bytes and return how many. Raises Gone at the first failure."""
        while not self.lost:
            try:
                return os.write(self.fd, data)
            except BlockingIOError:  # whoever shares it set O_NONBLOCK
                import select

                select.select([], [self.fd], [], 1)
            except OSError as error:
                self._lose(error)
        return len(data)

    def _lose(self, error: OSError) -> None:
        self.lost = True
        _ended.append(BROKEN if error.errno == errno.EPIPE else 1)
        if error.errno != errno.EPIPE and self.fd != 2:
            sys.stderr.write(f"ERROR: {self.name}: {error.strerror}\n")
        if not getattr(_late, "waiting", False):
            raise Gone(_ended[0])


class Plain:
    """The same stream for our own text with control characters, such as a progress bar's."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def write(self, text: str) -> int:
        """Write text as it is."""
        return io.TextIOWrapper.write(self.console, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.console, name)


class Console(io.TextIOWrapper):
    """Text to descriptor `fd`, line by line; what can't be encoded is escaped."""

    def __init__(self, fd: int, encoding: str) -> None:
        super().__init__(
            io.BufferedWriter(_Sink(fd)),
            encoding=encoding,
            errors="backslashreplace",
            line_buffering=True,
        )
        self.plain = Plain(self)

    def write(self, text: str) -> int:
        """Write text with what a terminal would obey made visible."""
        super().write(printable(text))
        return len(text)


def install() -> None:
    """Make standard output and error Consoles, for doit's own commands, too."""
    from doit.cmd_base import DoitCmdBase

    closed = [fd for fd in range(3) if not _is_open(fd)]
    for _ in closed:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    for fd, name in ((1, "stdout"), (2, "stderr")):
        present = getattr(sys, name)
        if present is None or present is getattr(
            sys, f"__{name}__"
        ):  # and not something that a test put there
            if present is not None:
                present.flush()
            setattr(sys, name, Console(fd, getattr(present, "encoding", None) or "utf-8"))
    DoitCmdBase.outstream = property(lambda command: sys.stdout, lambda command, stream: None)
    atexit.register(_at_exit)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def afterwards() -> Iterator[None]:
    """Let nothing in the body end the run: something was done that must be recorded first.

    `check` ends it then.
    """
    _late.waiting = True
    try:
        yield
    finally:
        _late.waiting = False


def check() -> None:
    """End the run if a stream failed meanwhile, in whichever thread. Raises Gone."""
    if _ended:
        raise Gone(_ended[0])


def _at_exit() -> None:
    """Write what is left, a line without an end.

    End with the status of a failure that nobody has seen.
    """
    with contextlib.suppress(Gone):
        sys.stdout.flush()
        sys.stderr.flush()
    if _ended:
        os._exit(_ended[0])  # Python has no other way to end with another status from here
