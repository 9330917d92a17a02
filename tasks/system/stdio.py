"""Standard output and standard error of all doit commands.

- Control characters are escaped, whoever wrote them (a server, a guest, the name of a file); only
  progress bars are drawn through `plain`.
- A closed pipe (`doit list | head -1`) ends the run quietly with 141, as SIGPIPE does; a full
  device is an error that names the stream. Either ends the run as a signal does: children are
  stopped, and finished tasks stay recorded.
- A stream that was closed (`>&-`) is replaced by /dev/null; else the next file that is opened would
  get its number.

doit makes its command objects before it loads dodo.py, so `install` has them look up sys.stdout at
each use.
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
full = 1  # the exit status for a device that is full
NAMES = {1: "standard output", 2: "standard error"}
_late = threading.local()  # .waiting: this thread must record something before it ends
_ended: list[int] = []  # exit statuses for streams that failed; the first one counts


class Gone(SystemExit):
    """A stream can't be written to any more."""


class _Sink(io.RawIOBase):
    """A raw stream on a descriptor that stays open; after a failure it discards all data."""

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
        """Write some of the bytes and return how many.

        Raises:
            Gone: The first write that failed, unless in the body of `afterwards`.
        """
        while not self.lost:
            try:
                return os.write(self.fd, data)
            except BlockingIOError:  # another process that shares it set O_NONBLOCK
                import select

                select.select([], [self.fd], [], 1)
            except OSError as error:
                self._lose(error)
        return len(data)

    def _lose(self, error: OSError) -> None:
        self.lost = True
        _ended.append(BROKEN if error.errno == errno.EPIPE else full)
        if error.errno != errno.EPIPE and self.fd != 2:
            sys.stderr.write(f"ERROR: {self.name}: {error.strerror}\n")
        if not getattr(_late, "waiting", False):
            raise Gone(_ended[0])


class Plain:
    """A console for our own text with control characters, such as a progress bar's."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def write(self, text: str) -> int:
        """Write text unchanged."""
        return io.TextIOWrapper.write(self.console, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.console, name)


class Console(io.TextIOWrapper):
    """A text stream on descriptor `fd`, line-buffered; what can't be encoded is escaped."""

    def __init__(self, fd: int, encoding: str) -> None:
        super().__init__(
            io.BufferedWriter(_Sink(fd)),
            encoding=encoding,
            errors="backslashreplace",
            line_buffering=True,
        )
        self.plain = Plain(self)

    def write(self, text: str) -> int:
        """Write text with its control characters escaped."""
        super().write(printable(text))
        return len(text)


def install() -> None:
    """Replace sys.stdout and sys.stderr by Consoles, for doit's own commands, too."""
    from doit.cmd_base import DoitCmdBase

    closed = [fd for fd in range(3) if not _is_open(fd)]
    for _ in closed:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    for fd, name in ((1, "stdout"), (2, "stderr")):
        present = getattr(sys, name)
        # Streams that a test put there stay.
        if present is None or present is getattr(sys, f"__{name}__"):
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
    """Delay the end of the run by a failed stream: the body records what was done.

    `check` ends the run afterwards.
    """
    _late.waiting = True
    try:
        yield
    finally:
        _late.waiting = False


def check() -> None:
    """End the run if a stream has failed, in whichever thread.

    Raises:
        Gone: A stream has failed.
    """
    if _ended:
        raise Gone(_ended[0])


def _at_exit() -> None:
    """Flush the streams; end with the status of a failed one that no thread has raised yet."""
    with contextlib.suppress(Gone):
        sys.stdout.flush()
        sys.stderr.flush()
    if _ended:
        os._exit(_ended[0])  # Python has no other way to end with another status from here
