"""What a disk refuses, said clearly, and the room on it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tasks.system.errors import PiggyError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


def human(size: float) -> str:
    """Return a number of bytes as people read it.

    "812 bytes", "1.1 MB", "139.3 MB" (decimal units, as apt prints).
    """
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def free(path: Path) -> int:
    """Return the bytes that this user may still write at `path`, or at its nearest parent."""
    for place in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            found = os.statvfs(place)
            return found.f_bavail * found.f_frsize
    return 0


def no_space(path: Path, needed: int) -> PiggyError:
    """Return the error for a disk too small for `needed` bytes (0: not known) at `path`."""
    wants = f"{human(needed)} needed, " if needed else ""
    return PiggyError(
        f"no space left on the disk for {path}: {wants}{human(free(path.parent))} free",
        "free some (or inodes, or raise the quota); 'build=' and 'dl=' can lie on another disk",
    )


@contextlib.contextmanager
def explained(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn an OSError of the body into a PiggyError that names the file, the cause and the remedy.

    path: what is being written; needed: bytes that it takes in all, 0 when that is not known.
    """
    try:
        yield
    except OSError as error:
        where = (
            Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
        )
        if error.errno in NO_SPACE:
            raise no_space(path, needed) from error
        if error.errno in _NO_RIGHT:
            raise PiggyError(
                f"can't write {where}: {error.strerror}",
                f"make {where.parent} writable for this user, "
                "or choose another place with 'build=' or 'dl='",
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise PiggyError(
                f"can't write {where}: a file stands where a folder is wanted",
                "move that file away",
            ) from error
        raise PiggyError(f"can't write {where}: {error.strerror or error}") from error


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
