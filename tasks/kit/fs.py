"""Outputs appear whole: everything is written aside on the same file system, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is renamed to `path`, on any exception it is removed.

    The body may create the temporary path as a file or as a directory. A directory replaces only a missing `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as aside:
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
