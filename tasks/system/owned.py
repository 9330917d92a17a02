"""Files below one folder, handled only where nobody but us or root can have put them.

To handle is to open, make and remove.

Below that folder no link is followed: each folder on the way is opened by itself, relative to the
one before (openat(2) with O_NOFOLLOW). It must belong to us or to root, and not be writable by
anybody else; so must a file that is read. Who can write to a folder decides what stands in it,
whoever owns the files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

OTHERS = stat.S_IWGRP | stat.S_IWOTH
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def ours(info: os.stat_result) -> bool:
    """Does it belong to us or to root?"""
    return info.st_uid in (0, os.geteuid())


def trusted(info: os.stat_result) -> bool:
    """Does it belong to us or to root, and can nobody else write to it?

    (An ACL shows in the bits
    of the group: acl(5), "Correspondence between ACL entries and file permission bits".)
    """
    return ours(info) and not info.st_mode & OTHERS


@contextlib.contextmanager
def folder(top: Path, parts: Sequence[str] = (), make: bool = False) -> Iterator[int]:
    """Give the descriptor of the folder `parts` below `top`, for the body of a `with`.

    top:   may be a link, or below one: the user names it.
    make:  make what is missing on the way (mode 0755 at most), but not `top`. Raises OSError:
    ENOTDIR or ELOOP for anything else than a folder, EPERM for one that others can write to.
    """
    fd = os.open(top, _FOLDER)
    place = os.fspath(top)
    try:
        _trust(fd, place)
        for name in parts:
            place = os.path.join(place, name)
            try:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=fd)
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
            except OSError as error:
                error.filename = place
                raise
            os.close(fd)
            fd = inner
            _trust(fd, place)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def reading(top: Path, path: Path) -> Iterator[BinaryIO]:
    """Give a file below `top` to read.

    Raises OSError as `folder` does, and EINVAL for what is no regular file.
    """
    parts = path.relative_to(top).parts
    with (
        folder(top, parts[:-1]) as fd,
        open(
            os.open(
                parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd
            ),
            "rb",
        ) as stream,
    ):
        info = os.fstat(stream.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
        if not trusted(info):
            raise OSError(errno.EPERM, "others can write to it", os.fspath(path))
        yield stream


def remove(top: Path, path: Path) -> None:
    """Remove a file of ours below `top`; leave anything else alone.

    Raises OSError as `folder` does.
    """
    parts = path.relative_to(top).parts
    with folder(top, parts[:-1]) as fd:
        info = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)
        if stat.S_ISREG(info.st_mode) and ours(info):
            os.unlink(parts[-1], dir_fd=fd)


def below(path: str, top: str) -> bool:
    """Would removing `path` remove something below the folder `top`?

    Links in its folders are followed, the last part is not; "" stands for the working folder.
    """
    try:
        where, bounds = os.path.realpath(os.path.dirname(path)), os.path.realpath(top)
    except ValueError:  # a NUL in it
        return False
    return (
        os.path.basename(path) not in ("", ".", "..")
        and os.path.commonpath([where, bounds]) == bounds
    )


def _trust(fd: int, place: str) -> None:
    info = os.fstat(fd)
    if not trusted(info):
        raise OSError(
            errno.EPERM,
            "others can write there" if ours(info) else "it belongs to somebody else",
            place,
        )
