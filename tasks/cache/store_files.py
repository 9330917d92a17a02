"""The files of a store (see cache/store.py).

Where they lie, how they are read, and which of them go when it is full.

    store/CACHEDIR.TAG              says that the folder is a store, and of which format
    store/blobs/AB/...              contents, each named by its digest
    store/results/KEY/NAMES/list    names of inputs
    store/results/KEY/NAMES/STATE   a result; its time is when it was used last
    store/refused                   digests of contents that turned out to be wrong
    store/used                      how many bytes it takes, counted now and then

Nothing in the store is believed: each file in it is checked against a digest when it is read, and
one that fails is dropped. So nothing is flushed to disk, and whoever dies in the middle of writing
costs that result. Everything appears whole; a result is written after its blobs.

A digest does not say who wrote a file. So what others can write to is not read (see
system/owned.py). And the folder is named by the user, who may err: one that is not empty and has no
tag is left alone, and in a store only files are touched whose names are of the form above.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from tasks.cache.store_tag import FILES, FOLDERS, HASH, LIST, PARTS, REFUSED, USED
from tasks.system import lock, owned
from tasks.system.files import open_regular, write_whole

# seconds for which something that nothing refers to may be another run's, at work just now
GRACE = 600.0
COUNTED = 600.0  # seconds until the files are looked at again; other runs' may have been missed
BLOCK = 4096  # bytes; what a file takes on the disk is a multiple of it
REFUSED_MOST = 1000  # digests; the oldest go
LONGEST = 1 << 26  # bytes of a list or a result that are read; the kernel's have some 100,000


class Output(msgspec.Struct, frozen=True, array_like=True):
    """One output: the digest of its content, its size in bytes, its mode."""

    digest: Annotated[str, msgspec.Meta(pattern=rf"\A{HASH}\Z")]
    size: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)]


class Result(msgspec.Struct, frozen=True):
    """What a task made: time (seconds since 1970), values, targets, and digests of the rest.

    The values are those that it returned; the targets are in their order; the rest is not kept.
    """

    task: str
    time: Annotated[float, msgspec.Meta(ge=0, le=1e11)]
    values: dict[str, Any]
    outputs: list[Output]
    made: dict[str, str] = {}


class Place(NamedTuple):
    """Where a result lies: its key, the digest of its list of names, its state."""

    key: str
    names: str
    state: str


class Room(msgspec.Struct):
    """A store's files, in `folder`. Several runs may work on them at once."""

    folder: Path

    def blob(self, digest: str) -> Path:
        """Return where the content of this digest lies, or would.

        Raises:
            ValueError: It is no digest.
        """
        if not re.fullmatch(HASH, digest):
            raise ValueError(f"{digest!r} is no digest")
        return self.folder / "blobs" / digest[:2] / digest[2:]

    def drop(self, digest: str) -> None:
        """Throw the content of this digest out, and so every result that has it."""
        with contextlib.suppress(ValueError):
            self.discard(self.blob(digest))

    def discard(self, path: Path) -> None:
        """Remove a file of the store.

        Whatever else lies at its place stays, and what has another name.
        """
        if FILES.fullmatch(os.path.relpath(path, self.folder)):
            with contextlib.suppress(OSError):
                owned.remove(self.folder, path)

    def names(self, folder: Path) -> list[str] | None:
        """Return the names that a list holds; None for one that is missing or not what it was."""
        data = self.listed(folder)
        return None if data is None else names_in(data)

    def listed(self, folder: Path) -> bytes | None:
        """Return a list of names as it is written; None for one missing or not what it was."""
        data = self._content(folder / LIST)
        return data if data is not None and short_hash(data) == folder.name else None

    def read(self, path: Path) -> Result | None:
        """Return a result from its file; None for one that is missing or not whole."""
        data = self._content(path)
        if data is None or hashlib.sha256(data[32:]).digest() != data[:32]:
            return None
        try:
            result = msgspec.msgpack.decode(data[32:], type=Result)
            msgspec.json.encode(result.values)  # they go into the journal
        except (
            msgspec.MsgspecError,
            ValueError,
            TypeError,
            RecursionError,
        ):  # ValueError: text that is no UTF-8
            return None
        return result

    def refuse(self, digest: str) -> None:
        """Throw the content of this digest out, and take it from no shared store again."""
        self.drop(digest)
        with contextlib.suppress(OSError), owned.folder(self.folder):
            lines = [*self._refused_digests(), digest][-REFUSED_MOST:]
            write_whole(self.folder / REFUSED, "".join(f"{line}\n" for line in lines))

    def refuses(self, digest: str) -> bool:
        """Tell whether the content of this digest was refused."""
        return digest in self._refused_digests()

    def _refused_digests(self) -> list[str]:
        return (self._content(self.folder / REFUSED) or b"").decode(errors="replace").split()

    def _content(self, path: Path) -> bytes | None:
        try:
            with owned.reading(self.folder, path) as stream:
                return stream.read() if os.fstat(stream.fileno()).st_size <= LONGEST else None
        except OSError:
            return None

    def size(self) -> int:
        """Return how many bytes the store takes."""
        return sum(blocks(info.st_size) for _, info in self._files())

    def grown(self, more: int) -> int:
        """Return how many bytes the store takes, after a result was written.

        All files are looked at only if that was not done lately, as there are thousands. Until then
        what other runs write at the same moment may be missed.

        Args:
            more: The bytes by which it grew.
        """
        now = time.time()
        told = re.fullmatch(rb"(\d{1,11}) (\d{1,18})", self._content(self.folder / USED) or b"")
        looked = int(told[1]) if told else 0
        if told and 0 <= now - looked < COUNTED:
            used = int(told[2]) + more
        else:
            looked, used = int(now), self.size()
        with contextlib.suppress(OSError):
            write_whole(self.folder / USED, f"{looked} {used}")
        return used

    def _forget_used(self) -> None:
        with contextlib.suppress(OSError):
            owned.remove(self.folder, self.folder / USED)

    def results(self) -> list[tuple[float, Path, Result]]:
        """Return every result with the time of its last use and its place, the last used first.

        Times are seconds since 1970.
        """
        found = []
        for path, info in self._files():
            if path.parts[-4] == "results" and path.name != LIST and (result := self.read(path)):
                found.append((info.st_mtime, path, result))
        return sorted(found, key=lambda one: one[0], reverse=True)

    def clear(self) -> None:
        """Throw everything out that is the store's."""
        with contextlib.suppress(FileNotFoundError), self._alone():
            for path, _ in list(self._files()):
                self.discard(path)
            self._prune(time.time() + GRACE)
            with contextlib.suppress(OSError):
                owned.remove(self.folder, self.folder / REFUSED)
            self._forget_used()

    def trim(self, limit: int) -> None:
        """Throw out what was not used for longest until `limit` bytes are enough.

        And what a run left that was killed.

        Another run that is about to refer to a blob which goes now has a result that can't be
        brought back; no more than that.
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
                        needs[place] = blocks(place.lstat().st_size)
                more = sum(size for place, size in needs.items() if place not in kept)
                full = full or used + more > limit
                if full:
                    given_up |= {*needs}
                else:
                    kept |= needs
                    used += more
            since = time.time() - GRACE
            for path, info in list(self._files()):
                if path not in kept and (path in given_up or info.st_mtime < since):
                    self.discard(path)
            self._prune(since)
            self._forget_used()

    @contextlib.contextmanager
    def _alone(self, wait: bool = True) -> Iterator[bool]:
        """Keep other runs from throwing things out meanwhile.

        Args:
            wait: Wait for one that does so just now.

        Yields:
            Whether that worked.

        Raises:
            FileNotFoundError: There is no store.
        """
        os.stat(self.folder)
        with contextlib.ExitStack() as stack:
            try:
                fd = open_regular(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
                stack.callback(os.close, fd)
                if wait:
                    lock.wait_for(fd)
                else:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
            except OSError:
                alone = False
            yield alone

    def _walk(self) -> Iterator[tuple[str, list[str], int]]:
        """Each folder of the store that only we can write to, with its files and its descriptor.

        Folders are relative to the store, files those with names of our form; those above come
        before those in them. No links are followed.
        """
        for part in PARTS:
            with contextlib.suppress(OSError):  # it is not there
                for where, folders, names, fd in os.fwalk(self.folder / part):
                    short = os.path.relpath(where, self.folder)
                    if not owned.trusted(os.fstat(fd)):
                        folders.clear()
                        continue
                    folders[:] = [name for name in folders if FOLDERS.fullmatch(f"{short}/{name}")]
                    yield short, [name for name in names if FILES.fullmatch(f"{short}/{name}")], fd

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Every file of the store; what vanishes meanwhile is passed over."""
        for short, names, fd in self._walk():
            for name in names:
                with contextlib.suppress(OSError):
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISREG(info.st_mode) and owned.ours(info):
                        yield self.folder / short / name, info

    def _prune(self, since: float) -> None:
        """Remove the folders with nothing in them that were not touched since then.

        The time is in seconds since 1970.
        """
        for short in reversed(
            [short for short, _, fd in self._walk() if os.fstat(fd).st_mtime < since]
        ):
            with (
                contextlib.suppress(OSError),
                owned.folder(self.folder, Path(short).parts[:-1]) as fd,
            ):
                os.rmdir(Path(short).name, dir_fd=fd)


def short_hash(data: bytes) -> str:
    """Return the digest by which something is named, as long as those of files."""
    return hashlib.sha256(data).hexdigest()[:32]


def state(digests: Sequence[str]) -> str:
    """Return the name of a state: of the digests of a list's names, in their order."""
    return short_hash("\0".join(digests).encode(errors="surrogateescape"))


def names_in(listed: bytes) -> list[str]:
    """Return the names that a list holds."""
    return listed.decode(errors="surrogateescape").split("\0") if listed else []


def blocks(size: int) -> int:
    """Return how many bytes a file of that size takes on a disk."""
    return -(-size // BLOCK) * BLOCK
