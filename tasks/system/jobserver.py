"""GNU make's jobserver: one limit on parallel commands for all makes of a run and for our own.

We are its server, or the client of the make that runs us.

A token is the right to run one command. The free tokens lie in a pipe, one byte each; every make
takes and returns them there. Each make runs one command without asking, by the token that its
starter holds. So we hold a token while a make runs, and while a command of our own runs. Source:
GNU make's manual, "POSIX Jobserver Interaction".

A make killed by SIGKILL loses its tokens (on any other signal it first waits for its children and
returns them). When a token is taken while none is held, the lost ones are replaced, so nothing
waits for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import select
import stat
import struct
import termios
import threading
from collections.abc import Callable, Iterator

from tasks.system.pattern import pattern

WAIT = 0.2  # seconds after which a thread that waits for a token checks whether some were lost
_AUTH = pattern(r"--jobserver-(?:auth|fds)=(?:fifo:(?P<path>(?:\\.|[^\s\\])+)|(?P<fds>\d+,\d+))")


class Budget:
    """A jobserver with `size` tokens.

    The pipe is opened at the first use, as a run that starts nothing needs none.

    Args:
        size: Number of tokens, at least 1.
        makeflags: $MAKEFLAGS of a make that we run under. If it names a jobserver, its tokens are
            used, however many there are, and the one with which that make started us.
    """

    def __init__(self, size: int, makeflags: str = "") -> None:
        self.size = size
        self._parent = makeflags
        self._words = ""  # make's option that names the pipe
        self._own = False  # whether the pipe is ours: then lost tokens are replaced
        self._read, self._write = -1, -1
        self._lock = threading.Lock()
        self._spare: list[bytes] = []  # free tokens that are not in the pipe
        self._held = 0
        self._mine = threading.local()

    def __str__(self) -> str:
        """Return the number after make's -j."""
        return str(self.size)

    def environment(self) -> dict[str, str]:
        """Return MAKEFLAGS, by which make and gcc's -flto=jobserver share the tokens."""
        with self._lock:
            self._open()
        return {"MAKEFLAGS": f" -j{self.size} {self._words}"}

    @contextlib.contextmanager
    def token(self) -> Iterator[None]:
        """Wait for a token and hold it for the body of a `with`: a make, or a command of our own.

        A thread that holds a token takes no second one.
        """
        if getattr(self._mine, "token", None) is not None:
            yield
            return
        self._mine.token = token = self._take()
        try:
            yield
        finally:
            self._mine.token = None
            self._give(token)

    def claim(self) -> Callable[[], None] | None:
        """Take a token if one is free now, and return what gives it back; None if there is none."""
        token = self._free()
        return functools.partial(self._give, token) if token else None

    def _free(self) -> bytes:
        """Return a token that is free now; nothing if there is none."""
        with self._lock:
            self._open()
            if not self._held:
                self._make_whole()
            token = self._spare.pop() if self._spare else self._from_pipe()
            self._held += bool(token)
            return token

    def _take(self) -> bytes:
        while True:
            if token := self._free():
                return token
            # One token may wake two threads; then one of them waits on.
            select.select([self._read], [], [], WAIT)

    def _give(self, token: bytes) -> None:
        with self._lock:
            self._held -= 1
            if self._own:
                self._put(token)
            else:
                self._spare.append(token)  # it may be the one that is not the pipe's
                self._return_spare()

    def _from_pipe(self) -> bytes:
        try:
            return os.read(self._read, 1)
        except BlockingIOError:
            return b""

    def _return_spare(self) -> None:
        """Return all tokens but one to the make that we run under."""
        while len(self._spare) + self._held > 1 and self._spare:
            self._put(self._spare.pop())

    def _put(self, tokens: bytes) -> None:
        """Write tokens into the pipe; those that it does not take are lost (see _make_whole)."""
        with contextlib.suppress(OSError):
            os.write(self._write, tokens)

    def _make_whole(self) -> None:
        """Put back lost tokens, or take surplus ones out, while none is held."""
        if self._own:
            missing = self.size - _waiting(self._read)
            if missing > 0:
                self._put(b"+" * missing)
            elif missing < 0:
                os.read(self._read, -missing)

    def _open(self) -> None:
        if self._write >= 0:
            return
        parent = _of_parent(self._parent)
        if parent:
            self._read, self._write, self._words = parent
            self._spare = [b"+"]
            return
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_inheritable(end, True)
        # A file description of our own that never blocks: O_NONBLOCK of the inherited one is up to
        # make, whose versions differ in it.
        self._read = os.open(f"/proc/self/fd/{reader}", os.O_RDONLY | os.O_NONBLOCK)
        self._write, self._own, self._words = writer, True, f"--jobserver-auth={reader},{writer}"


def _of_parent(makeflags: str) -> tuple[int, int, str] | None:
    """Open the jobserver that $MAKEFLAGS names.

    Returns:
        The descriptors to read and write tokens, and make's option that names it. None if there is
        no jobserver, or its pipe is closed here (make passes it only to what it takes for a make).
    """
    options = list(_AUTH.finditer(makeflags))
    if not options:
        return None
    path, fds = options[-1]["path"], options[-1]["fds"]
    if path:  # make 4.4 has it in $TMPDIR; what it quotes: quote_for_env() in its src/main.c
        path = re.sub(r"\\(.)", r"\1", path.replace("$$", "$"))
    reader, writer = (path, path) if path else (f"/proc/self/fd/{end}" for end in fds.split(","))
    try:
        if not stat.S_ISFIFO(os.stat(reader).st_mode) or not stat.S_ISFIFO(os.stat(writer).st_mode):
            return None
        return (
            os.open(reader, os.O_RDONLY | os.O_NONBLOCK),
            os.open(writer, os.O_WRONLY | os.O_NONBLOCK),
            options[-1][0],
        )
    except OSError:
        return None


def _waiting(reader: int) -> int:
    """Return how many bytes lie in a pipe (FIONREAD, pipe(7))."""
    return int(struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, b"\0\0\0\0"))[0])
