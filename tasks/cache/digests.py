"""Content digests of files, computed again only when the file was touched.

Of a folder named with a "/" at its end counts which headers, makefiles and folders there are: a new
one may be found, or have a header that is found, before the one that was read until now.

A digest is kept under (mtime, ctime, size, inode). The ctime is what makes it safe: no tool can set
it, so a file put back with its old mtime and size is still seen. A file whose ctime lies within a
clock tick of the moment at which it was read may change again without a new ctime; such an entry is
not kept (git's "racy" rule, Documentation/technical/racy-git.txt).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

from tasks.system import files
from tasks.system.files import write_whole

MISSING = ""
# What is included by its name, and so may hide another one.
HEADERS = (".h", ".inc", ".def", ".dtsi")
_Entry = tuple[int, int, int, int, str]


class Stamps:
    """The digests known so far; read from `store` at first use, written back by `save`."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._known: dict[str, _Entry] | None = None
        self._looked = set[str]()  # in this run: an entry of an earlier one says nothing of now
        self._dirty = False
        self._seen: dict[str, str] | None = None

    def look_once(self, once: bool) -> None:
        """Take what was found of a file for granted from now on, or look at it each time again.

        It is taken for granted until the first task runs: most sources belong to several tasks.
        What somebody else edits meanwhile is found at the next run at the latest, since a record
        holds what was found.
        """
        self._seen = {} if once else None

    def digest(self, path: str | Path) -> str:
        """Return the digest of a file's content, or of where a link's chain ends.

        MISSING when there is no such file.

        Of a folder whose name ends with "/" it is that of the names of headers, makefiles and
        folders in it; if it ends with "/*", of all names in it but hidden ones. Of any other
        folder, a pipe or a device it counts only that it is there; none of them is read.
        """
        path = os.fspath(path)
        if self._seen is None:
            return self._digest(path)
        value = self._seen.get(path)
        if value is None:
            value = self._seen[path] = self._digest(path)
        return value

    def program(self, name: str, path: str) -> str:
        """Return where a program is found on `path`, and the start of its digest; or MISSING.

        `path` is written as PATH is.
        """
        key = f"{name}\0{path}"
        value = None if self._seen is None else self._seen.get(key)
        if value is None:
            place = _which(name, path)
            value = f"{place} {self.digest(place)[:12]}" if place else MISSING
            if self._seen is not None:
                self._seen[key] = value
        return value

    def _digest(self, path: str) -> str:
        if self._known is None:
            self._known = self._load()
        self._looked.add(path)
        entry, place = self._known.get(path), path.removesuffix("/*")
        try:
            info = os.stat(place)
            if entry is not None and entry[:4] == files.state(info):
                return entry[4]
            now = time.time_ns()  # before the last look: a change after it gives a new ctime, or
            info = os.stat(place)  # one that is too near to be kept
        except (OSError, ValueError):  # ValueError: a NUL in a name that the journal holds
            self._known.pop(path, None)
            return MISSING
        if stat.S_ISREG(info.st_mode):
            value = _hash(path)
        elif stat.S_ISDIR(info.st_mode):
            if path.endswith(("/", "/*")):
                value = _listed(place, _names if path.endswith("/") else _all_names)
            else:
                value = "folder"
        else:
            return "special"
        if value != MISSING and now - info.st_ctime_ns > files.RACY_NS:
            self._known[path] = (*files.state(info), value)
            self._dirty = True
        else:
            self._known.pop(path, None)
        return value

    def touched(self, path: str, since: int) -> bool:
        """Tell as `files.touched` does, with the file's ctime as of this run's last look at it.

        Args:
            path: The file; one that is missing was not touched.
            since: Nanoseconds since 1970.
        """
        entry = self._entry(path)
        if entry is None:
            return files.touched(path, since, missing=False)
        return max(entry[1], files.turned(path)) >= since

    def when(self, path: str) -> int:
        """Return when a file was changed (mtime, ns) as of this run's last look at its content.

        As of now if there was none; -1 if it is missing.
        """
        entry = self._entry(path)
        return files.changed(path) if entry is None else entry[0]

    def _entry(self, path: str) -> _Entry | None:
        return self._known.get(path) if self._known and path in self._looked else None

    def save(self) -> None:
        """Write the digests back if there are new ones.

        A failure to do so costs time at the next run and nothing else.
        """
        if self._dirty and self._known is not None:
            try:
                write_whole(
                    self.store,
                    files.packed(
                        {path: entry for path, entry in self._known.items() if _is_text(path)}
                    ),
                )
            except OSError:
                return
            self._dirty = False

    def _load(self) -> dict[str, _Entry]:
        return files.decoded(self.store, dict[str, _Entry], {})


def _which(name: str, path: str) -> str | None:
    """Return where a program is found, as shutil.which does, in a fifth of its time."""
    if "/" in name:
        return shutil.which(name, path=path)
    for folder in path.split(":"):
        place = f"{folder}/{name}"
        if folder and os.access(place, os.X_OK) and not os.path.isdir(place):
            return place
    return None


def _is_text(path: str) -> bool:
    """Return False for a path that is no UTF-8, which can't be written.

    Such a file is read again at each run.
    """
    try:
        return path.isascii() or bool(path.encode())
    except UnicodeEncodeError:
        return False


def _names(folder: str) -> list[str]:
    """Return the headers, makefiles and folders in a folder by name, in order.

    A new folder may have a header that is found before another one: #include "zz/z.h" looks beside
    the file that has it first. Hidden folders and Python's caches are left out. Of a pair of x.c
    and x.S the former is there, too: Kbuild compiles it before the latter.
    """
    found, sources = list[str](), list[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.endswith((".c", ".S")):
                sources.append(name)
            elif (
                name.endswith(HEADERS)
                or name in ("Makefile", "Kbuild")
                or name[0] != "."
                and name != "__pycache__"
                and entry.is_dir()
            ):
                found.append(name)
    assembler = {f"{name[:-1]}c" for name in sources if name[-1] == "S"}
    return sorted([*found, *assembler.intersection(sources)])


def _all_names(folder: str) -> list[str]:
    """Return the names in a folder but hidden ones and editors' copies, in order."""
    return sorted(name for name in os.listdir(folder) if name[0] not in ".#" and name[-1] != "~")


def _listed(folder: str, names: Callable[[str], list[str]]) -> str:
    try:
        return hashlib.sha256(
            "\0".join(names(folder)).encode(errors="surrogateescape")
        ).hexdigest()[:32]
    except OSError:
        return MISSING


def content_digest(path: Path) -> str:
    """Return the digest of a file's content as it is now, nothing remembered.

    MISSING when it can't be read.
    """
    return _hash(os.fspath(path))


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:32]
    except OSError:
        return MISSING


def gone_since(path: Path | str, since: int) -> bool:
    """Tell whether a file that is missing may have gone at or after a time.

    That is so where the nearest folder above it that there is, or above what the link leads to, was
    touched since.

    Args:
        path: The file.
        since: Nanoseconds since 1970.
    """
    for place in {os.path.abspath(path), os.path.realpath(path)}:
        folder = os.path.dirname(place)
        while not os.path.exists(folder):
            folder = os.path.dirname(folder)
        if files.touched(folder, since, missing=True):
            return True
    return False
