"""A folder for QEMU's sockets.

Nobody but us can enter it, and its path is short enough, however deep the checkout lies.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.system.errors import PiggyError

LONGEST = 107  # bytes of a socket's path: sun_path has 108 with the zero that ends it, unix(7)
_UNKNOWN = (
    65534  # who root outside of a user namespace is inside of it (overflowuid, user_namespaces(7))
)
_NAME = 16  # bytes for a slash and the longest name in it


@contextlib.contextmanager
def folder(environ: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """Give a new folder of mode 0700 for the body of a `with`; afterwards it is gone.

    It lies in $XDG_RUNTIME_DIR (the Base Directory Specification), else where temporary files do,
    else in /tmp. Raises PiggyError where none of these will do.
    """
    places = [environ.get("XDG_RUNTIME_DIR", ""), environ.get("TMPDIR", ""), "/tmp"]
    with contextlib.ExitStack() as stack:
        for place in places:
            if place.startswith("/") and _safe(place):
                with contextlib.suppress(OSError):
                    made = Path(
                        stack.enter_context(tempfile.TemporaryDirectory(prefix="piggy.", dir=place))
                    )
                    break
        else:
            raise PiggyError(
                "there is no place for QEMU's sockets: none of $XDG_RUNTIME_DIR, $TMPDIR and /tmp"
                " can be written to, is safe from others and has a path of at most"
                f" {LONGEST - _NAME - 15} bytes",
                "mkdir -m 700 a folder with a short path, and set TMPDIR to it",
            )
        yield made


def _safe(place: str) -> bool:
    """Is the path short enough, and can nobody exchange what we make in it?

    The sticky bit of chmod(2) sees to the latter.
    """
    try:
        info = os.stat(place)
    except OSError:
        return False
    alone = not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or info.st_mode & stat.S_ISVTX
    return (
        len(os.fsencode(place)) + len("/piggy.12345678") + _NAME <= LONGEST
        and bool(alone)
        and (
            info.st_uid in (0, os.geteuid())
            or info.st_uid == _UNKNOWN
            and bool(info.st_mode & stat.S_ISVTX)
        )
    )


def option(path: Path) -> str:
    """Return a path as a value among QEMU's options, where a comma is written twice."""
    return os.fspath(path).replace(",", ",,")
