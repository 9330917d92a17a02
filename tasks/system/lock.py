"""Locks between runs of doit: the second run waits, and prints the process that it waits for.

The lock is a flock(2) on an open file that children inherit. When doit is killed, the lock stays
until the last compiler that doit started has ended, so that no other run writes into the same
folder meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tasks.system.errors import PiggyError
from tasks.system.files import open_regular

POLL = 0.1  # seconds between two looks at a lock that another process holds


class Lock:
    """An exclusive lock on a file.

    Args:
        path: The file; made if it is missing.
        what: What it protects, for the message to a run that waits.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        self._fd = -1

    @property
    def taken(self) -> bool:
        """Whether this process holds the lock."""
        return self._fd >= 0

    def acquire_if_free(self) -> bool:
        """Take the lock without waiting, and return whether this process holds it now."""
        with contextlib.suppress(PiggyError):
            self.acquire(wait=False)
        return self.taken

    def acquire(self, wait: bool = True) -> None:
        """Take the lock.

        Args:
            wait: Whether to wait for another process that holds it, with a message on stderr.

        Raises:
            PiggyError: The file can't be opened or locked, or is held by another process and `wait`
                is false.
        """
        while self._fd < 0:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                fd = open_regular(self.path, os.O_RDWR | os.O_CREAT)
            except OSError as error:
                raise _not_opened(self.path, error) from error
            try:
                self._wait(fd, wait)
                if _is_at(fd, self.path):
                    os.set_inheritable(fd, True)
                    self._fd = fd
            except OSError as error:
                raise PiggyError(
                    f"{self.path} can't be locked: {error.strerror}",
                    "does the file system have locks? 'build=' can lie on another one",
                ) from error
            finally:
                if self._fd != fd:
                    os.close(fd)
        with contextlib.suppress(OSError):  # a full disk: a run that waits can't name our pid
            # Any other content is not ours, and is left alone.
            if re.fullmatch(rb"\d{0,20}\n?", os.pread(self._fd, 64, 0)):
                os.ftruncate(self._fd, os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0))

    def _wait(self, fd: int, wait: bool) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            pid = re.match(rb"\d{1,20}\n", os.pread(fd, 64, 0))
            owner = pid[0].decode().strip() if pid else "unknown"
            print(
                f"  WAIT    {self.what} is in use by another run (pid {owner}); Ctrl-C gives up",
                file=sys.stderr,
                flush=True,
            )
            wait_for(fd)

    def release(self) -> None:
        """Release the lock, so that an interactive guest or editor lets other runs build."""
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Release the lock for the body of a `with`, and take it again however the body ends.

        When a signal ends the body, the lock is taken only if it is free: the run is over.
        """
        self.release()
        try:
            yield
        except Exception:
            self.acquire()
            raise
        except BaseException:
            self.acquire_if_free()
            raise
        self.acquire()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the body of a `with`."""
        self.acquire()
        try:
            yield
        finally:
            self.release()


def wait_for(fd: int) -> None:
    """Take a flock(2) that another process holds, as soon as that gives it up.

    It is asked for again and again: a signal that comes right before Python sleeps in flock(2)
    would not be heard before the lock is free, so that Ctrl-C did nothing.

    Args:
        fd: The open file.

    Raises:
        OSError: The file can't be locked.
    """
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(POLL)


def _not_opened(path: Path, error: OSError) -> PiggyError:
    if error.errno == errno.ELOOP:  # open(2), O_NOFOLLOW
        return PiggyError(
            f"{path} can't be locked: it is a link", "remove it: Piggyback makes the file itself"
        )
    if error.errno in (
        errno.EINVAL,
        errno.ENXIO,
        errno.EISDIR,
    ):  # a pipe or a device, a socket, a folder
        return PiggyError(
            f"{path} can't be locked: it is no file",
            "move it away: Piggyback makes the file itself",
        )
    return PiggyError(
        f"{path} can't be opened: {error.strerror}",
        "is the folder writable, and the disk not full?",
    )


def _is_at(fd: int, path: Path) -> bool:
    """Tell whether an open file is still the one at `path`.

    While we waited, its folder may have been removed and made anew.
    """
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
