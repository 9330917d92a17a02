"""The folders of build/toolchains: one for each ID, shared by machines.

A folder is locked while it is made, and sealed when it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.system import files
from tasks.system.files import write_whole
from tasks.system.lock import Lock

SEAL = ".sha256"


@contextlib.contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold the lock of a toolchain's folder for the body of a `with`."""
    with Lock(place.parent / f".{place.name}.lock", os.fspath(place)).held():
        yield


def seal(place: Path, names: Sequence[str]) -> None:
    """Mark the folder as whole: one line with hash and name for each of its key files."""
    write_whole(place / SEAL, _lines(place, names))


def intact(place: Path) -> bool:
    """Tell whether the toolchain at `place` is there and whole.

    Its key files must be what they were when it was sealed.
    """
    try:
        text = files.read_regular(place / SEAL, 1 << 20).decode()
        return text == _lines(place, [line.partition("  ")[2] for line in text.splitlines()])
    except (OSError, ValueError):
        return False


def key_files(place: Path) -> list[str]:
    """The paths of the files that the seal names."""
    return [
        str(place / line.partition("  ")[2]) for line in (place / SEAL).read_text().splitlines()
    ]


def _lines(place: Path, names: Sequence[str]) -> str:
    """Return a seal's text. Raises ValueError for a name that leads out of the folder."""
    for name in names:
        if not name or name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise ValueError(f"{name!r} is no file of {place}")
    return "".join(
        f"{hashlib.sha256((place / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    )


def clear(place: Path) -> None:
    """Remove what is there: it is not whole."""
    shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def staged(place: Path, names: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Give a folder to work in, and one to install into.

    The latter is as with DESTDIR: it ends with the path of `place`. On success it is sealed and
    becomes `place`.
    """
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as scratch:
        work, made = Path(scratch) / "work", Path(scratch) / "stage" / place.relative_to("/")
        work.mkdir()
        yield work, made
        seal(made, names)
        os.replace(made, place)


def add(source: Path, target: Path) -> None:
    """Lay a folder over another one."""
    shutil.copytree(source, target, dirs_exist_ok=True)
