"""The files of a store (see kit/store.py): where they lie, how they are read, and which of them go when it is full.

    store/blobs/AB/...              contents, each named by its digest
    store/results/KEY/NAMES/list    names of inputs
    store/results/KEY/NAMES/STATE   a result; its time is when it was used last

Nothing in the store is believed: each file in it is checked against a digest when it is read, and one that fails is
dropped. So nothing is flushed to disk, and whoever dies in the middle of writing costs that result. Everything appears
whole; a result is written after its blobs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

LIST = "list"
GRACE = 600.0  # seconds for which something that nothing refers to may be another run's, at work just now
BLOCK = 4096  # bytes; what a file takes on the disk is a multiple of it


class Output(msgspec.Struct, frozen=True, array_like=True):
    """One output: the digest of its content, its size in bytes, its mode."""

    digest: str
    size: int
    mode: int


class Result(msgspec.Struct, frozen=True):
    """What a task made: when (seconds since 1970), the values that it returned, its targets in their order, and the digests
    of what else it made, which is not kept."""

    task: str
    time: float
    values: dict[str, Any]
    outputs: list[Output]
    made: dict[str, str] = {}


class Room(msgspec.Struct):
    """A store's files, in `folder`. Several runs may work on them at once."""

    folder: Path

    def blob(self, digest: str) -> Path:
        """Where the content of this digest lies, or would."""
        return self.folder / "blobs" / digest[:2] / digest[2:]

    def drop(self, digest: str) -> None:
        """Throw the content of this digest out, and so every result that has it."""
        with contextlib.suppress(OSError):
            self.blob(digest).unlink()

    def names(self, folder: Path) -> list[str] | None:
        """Return the names that a list holds; None for one that is not what it was."""
        try:
            data = (folder / LIST).read_bytes()
        except OSError:
            return None
        if short_hash(data) == folder.name:
            return data.decode(errors="surrogateescape").split("\0") if data else []
        with contextlib.suppress(OSError):
            (folder / LIST).unlink()
        return None

    def read(self, path: Path) -> Result | None:
        """Return a result from its file; one that is not whole is thrown out."""
        try:
            data = path.read_bytes()
        except OSError:
            return None
        try:
            if hashlib.sha256(data[32:]).digest() == data[:32]:
                return msgspec.msgpack.decode(data[32:], type=Result)
        except msgspec.DecodeError:
            pass
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def size(self) -> int:
        """Return how many bytes the store takes."""
        return sum(blocks(info.st_size) for _, info in _files(self.folder))

    def results(self) -> list[tuple[float, Path, Result]]:
        """Return every result with the time of its last use (seconds since 1970) and its place, the last used first."""
        found = []
        for path, info in _files(self.folder / "results"):
            if path.name != LIST and not path.parent.name.endswith(".part") and (result := self.read(path)):
                found.append((info.st_mtime, path, result))
        return sorted(found, key=lambda one: one[0], reverse=True)

    def clear(self) -> None:
        """Throw everything out."""
        with self._alone():
            for part in ("results", "blobs"):
                shutil.rmtree(self.folder / part, ignore_errors=True)

    def trim(self, limit: int) -> None:
        """Throw out what was not used for longest until `limit` bytes are enough; and what a run left that was killed.

        Another run that is about to refer to a blob which goes now has a result that can't be brought back; no more than
        that.
        """
        with self._alone(wait=False) as alone:
            if not alone:
                return
            kept: dict[Path, int] = {}
            given_up: set[Path] = set()
            used, full = 0, False
            for _, path, result in self.results():
                needs = {self.blob(output.digest): blocks(output.size) for output in result.outputs}
                for place in (path, path.parent / LIST):
                    with contextlib.suppress(OSError):
                        needs[place] = blocks(place.stat().st_size)
                more = sum(size for place, size in needs.items() if place not in kept)
                full = full or used + more > limit
                if full:
                    given_up |= {*needs}
                else:
                    kept |= needs
                    used += more
            since = time.time() - GRACE
            for path, info in list(_files(self.folder)):
                if path not in kept and path.name != "lock" and (path in given_up or info.st_mtime < since):
                    with contextlib.suppress(OSError):
                        path.unlink()
            _prune(self.folder, since)

    @contextlib.contextmanager
    def _alone(self, wait: bool = True) -> Iterator[bool]:
        """Keep other runs from throwing things out meanwhile; yields whether that worked."""
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((self.folder / "lock").open("w"))
                fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
            except OSError:
                alone = False
            yield alone


def short_hash(data: bytes) -> str:
    """Return the digest by which something is named: as long as those of files (kit/stamps.py)."""
    return hashlib.sha256(data).hexdigest()[:32]


def blocks(size: int) -> int:
    """Return how many bytes a file of that size takes on a disk."""
    return -(-size // BLOCK) * BLOCK


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below a folder; what vanishes meanwhile is passed over."""
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                path = Path(where, name)
                info = path.lstat()
                if stat.S_ISREG(info.st_mode):
                    yield path, info


def _prune(folder: Path, since: float) -> None:
    """Remove the folders with nothing in them that were not touched since then."""
    for where, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            if os.stat(where).st_mtime < since and where != os.fspath(folder):
                os.rmdir(where)
