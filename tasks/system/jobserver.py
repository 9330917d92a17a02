"""One budget of commands at once for all that a run starts.

GNU make's jobserver, with us as its master or its client.

A token is the right to run one command. The free ones lie in a pipe, a byte each, and every make
takes and returns them there. One command each make runs without asking, by the token that whoever
started it holds; so we hold one while a make runs, and while a command of our own does. Source: GNU
make's manual, "POSIX Jobserver Interaction".

A make that is killed by SIGKILL takes its tokens to the grave (by any other signal it first waits
for its children, and returns them). The next token that is taken while nobody holds one makes the
budget whole again, so nothing waits for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import stat
import struct
import termios
import threading
from collections.abc import Iterator

WAIT = 0.2  # seconds; after that, whoever waits for a token looks whether some were lost
_AUTH = re.compile(r"--jobserver-(?:auth|fds)=(?:fifo:(?P<path>(?:\\.|[^\s\\])+)|(?P<fds>\d+,\d+))")


class Budget:
    """The right to run `size` commands at once.

    Opened at its first use, for a run that starts nothing needs none.

    size:      how many tokens there are, at least 1.
    makeflags: $MAKEFLAGS of a make that we run under. If it names a jobserver, its tokens are used,
               however many they are; and the one with which that make started us is added to them.
    """

    def __init__(self, size: int, makeflags: str = "") -> None:
        self.size = size
        self._parent = makeflags
        self._words = ""  # make's own word for the pipe
        self._own = False  # do we make up for lost tokens?
        self._read, self._write = -1, -1
        self._lock = threading.Lock()
        self._spare: list[bytes] = []  # free tokens that are not in the pipe
        self._held = 0
        self._mine = threading.local()

    def __str__(self) -> str:
        """As after make's -j."""
        return str(self.size)

    def environment(self) -> dict[str, str]:
        """Return the variable by which make and gcc's -flto=jobserver share the budget."""
        with self._lock:
            self._open()
        return {"MAKEFLAGS": f" -j{self.size} {self._words}"}

    @contextlib.contextmanager
    def token(self) -> Iterator[None]:
        """Hold a token for the body of a `with`, waiting until one is free.

        While a make runs, or a command of our own. A thread that holds one already takes no second.
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

    def _take(self) -> bytes:
        while True:
            with self._lock:
                self._open()
                if not self._held:
                    self._make_whole()
                token = self._spare.pop() if self._spare else self._from_pipe()
                if token:
                    self._held += 1
                    return token
            select.select(
                [self._read], [], [], WAIT
            )  # two may be told of one token; then one of them waits on

    def _give(self, token: bytes) -> None:
        with self._lock:
            self._held -= 1
            if self._own:
                os.write(self._write, token)
            else:
                self._spare.append(token)  # it may be the one that is not the pipe's
                self._return_spare()

    def _from_pipe(self) -> bytes:
        try:
            return os.read(self._read, 1)
        except BlockingIOError:
            return b""

    def _return_spare(self) -> None:
        """Give back to the make that we run under what is its own: all but one."""
        while len(self._spare) + self._held > 1 and self._spare:
            os.write(self._write, self._spare.pop())

    def _make_whole(self) -> None:
        """Have all tokens in our own pipe, as is right while nobody holds one."""
        if self._own:
            missing = self.size - _waiting(self._read)
            if missing > 0:
                os.write(self._write, b"+" * missing)
            elif missing < 0:
                os.read(self._read, -missing)

    def _open(self) -> None:
        if self._write >= 0:
            return
        found = _of_parent(self._parent)
        if found:
            self._read, self._write, self._words = found
            self._spare = [b"+"]
            return
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_inheritable(end, True)
        # An own way in that never blocks: whether a read of make's blocks, each version of make
        # sees to itself.
        self._read = os.open(f"/proc/self/fd/{reader}", os.O_RDONLY | os.O_NONBLOCK)
        self._write, self._own, self._words = writer, True, f"--jobserver-auth={reader},{writer}"


def _of_parent(makeflags: str) -> tuple[int, int, str] | None:
    """Open the jobserver that $MAKEFLAGS names: where to read and write, and make's word for it.

    None if there is none, or if we were not given it (make hands its pipe only to what it takes for
    a make).
    """
    found = list(_AUTH.finditer(makeflags))
    if not found:
        return None
    path, fds = found[-1]["path"], found[-1]["fds"]
    if path:  # make 4.4 has it in $TMPDIR; what it quotes: quote_for_env() in its src/main.c
        path = re.sub(r"\\(.)", r"\1", path.replace("$$", "$"))
    reader, writer = (path, path) if path else (f"/proc/self/fd/{end}" for end in fds.split(","))
    try:
        if not stat.S_ISFIFO(os.stat(reader).st_mode) or not stat.S_ISFIFO(os.stat(writer).st_mode):
            return None
        return (
            os.open(reader, os.O_RDONLY | os.O_NONBLOCK),
            os.open(writer, os.O_WRONLY | os.O_NONBLOCK),
            found[-1][0],
        )
    except OSError:
        return None


def _waiting(reader: int) -> int:
    """How many bytes lie in a pipe."""
    return int(struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, b"\0\0\0\0"))[0])
