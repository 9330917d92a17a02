"""Files of our own: they appear whole, and are read only where they are what they should be.

Whatever is written is written aside on the same file system, then renamed. What is read or locked
may have been put there by anybody: a pipe would hang us, a device would never end, a link would
lead to another file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`.

    On success it is renamed to `path`, on any exception it is removed.

    The body may create the temporary path as a file or as a directory. A directory replaces only a
    missing `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}.", suffix=".part", dir=path.parent
    ) as aside:
        draft = Path(aside) / path.name
        try:
            yield draft
            os.replace(draft, path)
        except OSError as error:
            if error.errno and (error.filename is None or str(error.filename).startswith(aside)):
                error.filename = os.fspath(path)  # the name that the user knows
            raise


def write_whole(path: Path, data: str | bytes, mode: int = 0o644) -> None:
    """Write `data` to `path` so that a reader sees the old content or the new, never a part."""
    with replacing(path) as draft:
        draft.write_bytes(data.encode() if isinstance(data, str) else data)
        draft.chmod(mode)


def copy_whole(source: Path, path: Path) -> None:
    """Copy a file's content and mode to `path`, whole (see `replacing`)."""
    with replacing(path) as draft:
        shutil.copyfile(source, draft)
        shutil.copymode(source, draft)


def open_regular(
    path: Path | str, flags: int = os.O_RDONLY, mode: int = 0o666, follow: bool = False
) -> int:
    """Open a file of our own and return its descriptor.

    Never waits, never follows a link, never truncates.

    path:   only its last part may not be a link; folders on the way may be (the user may have put
        them there).
    flags:  as of os.open; O_TRUNC has no place here.
    mode:   of a file that O_CREAT makes.
    follow: it is the user's own (settings, a fragment): a link to a regular file will do. Raises
    OSError: ELOOP for a link (open(2), O_NOFOLLOW), EISDIR for a folder, EINVAL for a pipe, socket
    or device.
    """
    assert not flags & os.O_TRUNC
    fd = os.open(
        path,
        flags | (0 if follow else os.O_NOFOLLOW) | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY,
        mode,
    )
    try:
        kind = os.fstat(fd).st_mode
        if not stat.S_ISREG(kind):
            number = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
            raise OSError(number, "it is no regular file", os.fspath(path))
    except OSError:
        os.close(fd)
        raise
    return fd


def read_regular(path: Path | str, most: int = 1 << 30, follow: bool = False) -> bytes:
    """Return the content of a file of our own.

    most: bytes; a longer file is none of ours. follow: see `open_regular`.
    Raises OSError as `open_regular` does, and EFBIG for a longer file.
    """
    with open(open_regular(path, follow=follow), "rb") as stream:
        data = b""
        step = (
            os.fstat(stream.fileno()).st_size + 1
        )  # not `most`, which read() would have room made for
        while len(data) <= most and (more := stream.read(min(step, most + 1 - len(data)))):
            data, step = data + more, 1 << 16
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is longer than {most} bytes", os.fspath(path))
    return data
