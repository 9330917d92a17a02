"""Access to files that only this user or root can have put into a folder.

Below that folder no link is followed: each folder on the way is opened relative to the one before
(openat(2) with O_NOFOLLOW). It must belong to us or to root, and must not be writable by others;
the same holds for a file that is read. Who can write to a folder decides what stands in it, whoever
owns the files.
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
    """Tell whether a file belongs to us or to root."""
    return info.st_uid in (0, os.geteuid())


def trusted(info: os.stat_result) -> bool:
    """Tell whether a file belongs to us or to root, and nobody else can write to it.

    The group's bits show an ACL, too: acl(5), "Correspondence between ACL entries and file
    permission bits".
    """
    return ours(info) and not info.st_mode & OTHERS


@contextlib.contextmanager
def folder(top: Path, parts: Sequence[str] = (), make: bool = False) -> Iterator[int]:
    """Open the folder `parts` below `top` for the body of a `with`, and yield its descriptor.

    Args:
        top: The folder that the user named; it may be a link, or lie below one.
        parts: Names of the folders below it, outermost first.
        make: Whether to make missing folders (mode 0755 at most), but not `top`.

    Raises:
        OSError: ENOTDIR or ELOOP for anything but a folder, EPERM for a folder that others can
            write to.
    """
    fd = os.open(top, _FOLDER)
    path = os.fspath(top)
    try:
        _trust(fd, path)
        for name in parts:
            path = os.path.join(path, name)
            try:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=fd)
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
            except OSError as error:
                error.filename = path
                raise
            os.close(fd)
            fd = inner
            _trust(fd, path)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def reading(top: Path, path: Path) -> Iterator[BinaryIO]:
    """Open a file below `top` for reading, for the body of a `with`.

    Raises:
        OSError: As `folder` does; EINVAL for anything but a regular file, EPERM for a file that
            others can write to.
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
    """Remove a regular file below `top` if it belongs to us or to root.

    Raises:
        OSError: As `folder` does.
    """
    parts = path.relative_to(top).parts
    with folder(top, parts[:-1]) as fd:
        info = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)
        if stat.S_ISREG(info.st_mode) and ours(info):
            os.unlink(parts[-1], dir_fd=fd)


def below(path: str, top: str) -> bool:
    """Tell whether removing `path` removes something below the folder `top`.

    Links among the folders of `path` are followed, its last part is not. An empty folder name
    stands for the working folder.
    """
    try:
        where, bounds = os.path.realpath(os.path.dirname(path)), os.path.realpath(top)
    except ValueError:  # a NUL in it
        return False
    return (
        os.path.basename(path) not in ("", ".", "..")
        and os.path.commonpath([where, bounds]) == bounds
    )


def _trust(fd: int, path: str) -> None:
    info = os.fstat(fd)
    if not trusted(info):
        raise OSError(
            errno.EPERM,
            "others can write there" if ours(info) else "it belongs to somebody else",
            path,
        )
