"""The folders of build/toolchains: one for each ID, shared by all machines.

A folder is locked while it is filled. When it is complete it is sealed: the file .sha256 lists the
hashes of its key files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.system import files, restart
from tasks.system.files import write_whole
from tasks.system.lock import Lock

SEAL = ".sha256"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a toolchain's folder for the body of a `with`."""
    with Lock(path.parent / f".{path.name}.lock", os.fspath(path)).held():
        yield


def seal(path: Path, names: Sequence[str]) -> None:
    """Mark a folder as complete, by one line with hash and name for each key file.

    Args:
        path: The folder.
        names: The key files, relative to it.
    """
    restart.flush(path)
    write_whole(path / SEAL, _lines(path, names))


def intact(path: Path) -> bool:
    """Tell whether a folder is sealed and its key files are unchanged since."""
    try:
        text = files.read_regular(path / SEAL, 1 << 20).decode()
        return text == _lines(path, [line.partition("  ")[2] for line in text.splitlines()])
    except (OSError, ValueError):
        return False


def key_files(path: Path) -> list[str]:
    """Return the paths of the files that the seal names."""
    return [str(path / line.partition("  ")[2]) for line in (path / SEAL).read_text().splitlines()]


def _lines(path: Path, names: Sequence[str]) -> str:
    """Return the text of a seal.

    Raises:
        ValueError: A name leads out of the folder.
    """
    for name in names:
        if not name or name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise ValueError(f"{name!r} is no file of {path}")
    return "".join(
        f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    )


def clear(path: Path) -> None:
    """Remove an incomplete folder."""
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def staged(path: Path, names: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Give scratch folders for a build, and make the result the toolchain's folder at the end.

    Args:
        path: The toolchain's folder.
        names: Its key files, relative to it.

    Yields:
        A folder to build in, and one to install into. The latter ends with the absolute path of the
        toolchain's folder, as a DESTDIR does.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        work, made = Path(scratch) / "work", Path(scratch) / "stage" / path.relative_to("/")
        work.mkdir()
        yield work, made
        seal(made, names)
        os.replace(made, path)


def add(source: Path, target: Path) -> None:
    """Copy the content of a folder into another one."""
    shutil.copytree(source, target, dirs_exist_ok=True)
