"""A private folder for QEMU's sockets, with a path that is short enough for a Unix socket."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.system.errors import PiggyError

LONGEST = 107  # bytes of a socket's path: sun_path has 108 with the final zero, unix(7)
# The uid of outside's root within a user namespace (overflowuid, user_namespaces(7)).
_UNKNOWN = 65534
_NAME = 16  # bytes for a slash and the longest name in it


@contextlib.contextmanager
def folder(environ: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """Make a folder of mode 0700 for the body of a `with`, and remove it afterwards.

    It lies in $XDG_RUNTIME_DIR (XDG Base Directory Specification), $TMPDIR or /tmp, the first that
    is writable, safe and short enough.

    Raises:
        PiggyError: None of these is.
    """
    candidates = [environ.get("XDG_RUNTIME_DIR", ""), environ.get("TMPDIR", ""), "/tmp"]
    with contextlib.ExitStack() as stack:
        for candidate in candidates:
            if candidate.startswith("/") and _safe(candidate):
                with contextlib.suppress(OSError):
                    made = Path(
                        stack.enter_context(
                            tempfile.TemporaryDirectory(prefix="piggy.", dir=candidate)
                        )
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
    """Tell whether a folder's path is short enough, and no other user can replace files in it.

    A world-writable folder needs the sticky bit for the latter (chmod(2)).
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
    """Return a path as a value in a QEMU option, with commas doubled."""
    return os.fspath(path).replace(",", ",,")
