"""What was made earlier, kept by the hash of all that it was made from.

So going back to earlier inputs brings it back.

What is known before a task runs (settings, code, tools, declared files and folders) is hashed to a
key. What it discovered while it ran (the sources and headers that the compiler read) is kept under
that key as a list of names, and the result under the hash of the digests that these had. To look a
result up is to digest the listed files as they are now, and to see whether there is a file of that
name. (ccache's direct mode works like that.) cache/store_files.py has the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tasks.cache import store_tag
from tasks.cache.digests import content_digest
from tasks.cache.store_files import Output, Place, Result, Room, blocks, short_hash, state
from tasks.cache.store_tag import LIST
from tasks.system import owned, terminal
from tasks.system.errors import PiggyError
from tasks.system.files import replacing_file, write_whole

FORMAT = 1  # of what is kept; part of every key, so that another one is never looked at
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
LISTS = 64  # lists of names under one key that are tried, those used last first
# of the limit is what is left when something has to go, so that not every new result has to make
# room
ROOM = 0.9


class _Damaged(Exception):
    """A file is not what its digest says."""


def bytes_of(size: str) -> int:
    """Return how many bytes a size such as 500M or 1.5G is."""
    unit = size[-1:] if size[-1:] in UNITS else ""
    return int(float(size.removesuffix(unit)) * UNITS[unit])


class Store(Room):
    """A store in `folder` for at most `limit` bytes; 0 keeps nothing and gives nothing.

    `remote` is a shared store that is asked for what this one lacks (see cache/remote.py), or None.
    """

    limit: int
    remote: Any = None
    _refused: bool = False
    _usable: bool | None = None  # None until it is looked at

    def find(
        self, key: str, digests: Callable[[Sequence[str]], Mapping[str, str]]
    ) -> tuple[Result, list[str]] | None:
        """Return a result for the discovered inputs as they are now.

        Args:
            key: All that is known before the task runs, as one digest.
            digests: Gives the digests of inputs by name.

        Returns:
            The result and the names of the inputs, None if there is none.
        """
        known: dict[str, str] = {}
        for folder, names in self.lists(key):
            known.update(digests([name for name in names if name not in known]))
            result = self.at(folder, [known[name] for name in names])
            if result:
                return result, names
        if self.remote and self._can_be_used():
            offer: tuple[Result, list[str]] | None = self.remote.find(self, key, digests)
            return offer
        return None

    def lists(self, key: str) -> Iterator[tuple[Path, list[str]]]:
        """Yield the lists of names under a key, the one used last first, each with its place."""
        for folder in self._lists(key) if self._can_be_used() else ():
            names = self.names(folder)
            if names is None:
                self.discard(folder / LIST)
            else:
                yield folder, names

    def at(self, folder: Path, states: Sequence[str]) -> Result | None:
        """Return the result for the present states of a list's names; None if there is none.

        Args:
            folder: The list's place.
            states: In the order of the names.
        """
        place = folder / state(states)
        result = self.read(place)
        if result is None:
            self.discard(place)
            return None
        for path in (place, folder):
            with contextlib.suppress(OSError):  # read-only: it can't be thrown out either
                os.utime(path, follow_symlinks=False)
        return result

    def bring_back(self, result: Result, targets: Sequence[Path]) -> bool:
        """Write the targets as they were.

        Args:
            result: What is brought back.
            targets: The files, in the order of its outputs.

        Returns:
            Whether they are there; False, with nothing written, when the store has lost or damaged
            one of them.
        """
        if self.remote and not self.remote.fetch(self, result):
            return False
        try:
            with contextlib.ExitStack() as stack:
                for output, path in zip(result.outputs, targets, strict=True):
                    draft = stack.enter_context(replacing_file(path))
                    with owned.reading(self.folder, self.blob(output.digest)) as blob:
                        _copy(blob, draft, output.digest)
                    draft.chmod(output.mode & 0o755 | 0o400)
            return True
        except _Damaged:
            for output in result.outputs:  # all of them: who knows what else the disk did
                self.drop(output.digest)
        except (OSError, ValueError):
            pass  # a full disk, say: the task runs, and meets it in its own way
        return False

    def put(
        self, key: str, found: Mapping[str, str], result: Result, targets: Sequence[Path]
    ) -> Place:
        """Keep a result; whatever goes wrong costs the result alone, and is said.

        Args:
            key: All that is known before the task runs, as one digest.
            found: The discovered inputs with their digests; their order counts.
            result: What is kept.
            targets: The files, in the order of its outputs.

        Returns:
            Where it lies, if it could be kept.
        """
        listed = "\0".join(found).encode(errors="surrogateescape")
        place = Place(key, short_hash(listed), state(list(found.values())))
        if self.remote:
            self.remote.checks.compare(place, result, targets)
        if self._refused or not self._can_be_used():
            return place
        size = sum(blocks(output.size) for output in result.outputs)
        if size > self.limit:
            _not_kept(
                result,
                f"it takes {terminal.size(size)}, and store_size= allows"
                f" {terminal.size(self.limit)}",
            )
            return place
        try:
            msgspec.msgpack.encode(result)
            msgspec.json.encode(result.values)  # as they go into the journal, once brought back
            for output in result.outputs:
                self.blob(output.digest)
        except (
            msgspec.MsgspecError,
            ValueError,
            TypeError,
            OverflowError,
            RecursionError,
        ) as error:
            _not_kept(result, str(error))
            return place

        def fill(number: int, draft: Path) -> None:
            with targets[number].open("rb") as content:
                _copy(content, draft, result.outputs[number].digest)

        try:
            if len(targets) != len(result.outputs):
                raise ValueError(f"{len(targets)} files for {len(result.outputs)} outputs")
            self.receive(place, listed, result, fill)
        except (FileNotFoundError, _Damaged):
            _not_kept(result, "an output changed, or the store was cleared, while it was copied")
        except OSError as error:
            self._refused = True  # for this run: the next result would fare no better
            terminal.line("store", f"{self.folder} takes nothing now: {error.strerror or error}")
        else:
            if self.remote:
                self.remote.push(self, place, result.task)
        return place

    def fetch_pack(self, key: str) -> None:
        """Get what the shared store has for a key in one go (see cache/remote_pack.py)."""
        if self.remote and self.limit and self._can_be_used():
            self.remote.fetch_pack(self, key)

    def push_pack(self, key: str, places: Sequence[Place]) -> None:
        """Have results sent to the shared store as one, for a key."""
        if self.remote:
            self.remote.push_pack(self, key, places)

    def receive(
        self, place: Place, listed: bytes, result: Result, fill: Callable[[int, Path], None]
    ) -> None:
        """Write a result, whose parts are all of the right form, with its contents.

        Args:
            place: Where.
            listed: The list of names.
            result: The result.
            fill: Writes the content of the output of a number to a file, or raises an error.

        Raises:
            OSError: It can't be written.
        """
        key, names, at = place
        data = msgspec.msgpack.encode(result)
        folder = self.folder / "results" / key / names
        store_tag.tag(self.folder)
        with owned.folder(self.folder, ("results", key, names), make=True):
            pass
        grown = sum([self._keep(number, out, fill) for number, out in enumerate(result.outputs)])
        if self.names(folder) is None:
            write_whole(folder / LIST, listed)
            grown += blocks(len(listed))
        write_whole(folder / at, hashlib.sha256(data).digest() + data)
        self._make_room(grown + blocks(len(data)))

    def finish(self, wait: bool = True) -> bool:
        """End the exchange with the shared store, at the end of a run.

        Args:
            wait: Wait for what is still to be sent.

        Returns:
            Whether something of it was not what was made here, which was said.
        """
        if self.remote:
            self.remote.finish(wait)
        return bool(self.remote and self.remote.checks.wrong)

    def _can_be_used(self) -> bool:
        """Look at the store, once, and say what keeps it from being used."""
        if self._usable is None:
            try:
                why = store_tag.opened(self.folder)
                said = why and f"{self.folder} is not used: {why}"
            except PiggyError as error:
                said = error.message
            if said:
                terminal.line("store", said)
            self._usable = not said
        return self._usable

    def _make_room(self, grown: int) -> None:
        if self.grown(grown) > self.limit:
            self.trim(int(self.limit * ROOM))

    def _keep(self, number: int, output: Output, fill: Callable[[int, Path], None]) -> int:
        """Have an output's content in the store; return by how many bytes that grew."""
        blob = self.blob(output.digest)
        with contextlib.suppress(OSError), owned.reading(self.folder, blob) as there:
            if os.fstat(there.fileno()).st_size == output.size:
                os.utime(there.fileno())
                return 0
        with (
            owned.folder(self.folder, ("blobs", output.digest[:2]), make=True),
            replacing_file(blob) as draft,
        ):
            fill(number, draft)
            draft.chmod(0o444)
        return blocks(output.size)

    def _lists(self, key: str) -> list[Path]:
        """Return the folders of a key, those used last first."""
        try:
            with owned.folder(self.folder, ("results", key)) as fd, os.scandir(fd) as entries:
                found = sorted(
                    (-entry.stat(follow_symlinks=False).st_mtime, entry.name) for entry in entries
                )
        except OSError:
            return []
        return [self.folder / "results" / key / name for _, name in found[:LISTS]]


def _not_kept(result: Result, why: str) -> None:
    terminal.line("store", terminal.printable(f"{result.task.lstrip('_')} is not kept: {why}"))


def _copy(read: BinaryIO, draft: Path, digest: str) -> None:
    """Copy a file, sharing its blocks where the file system can.

    Args:
        read: The file, open.
        draft: The path to write to.
        digest: What was written must have it.

    Raises:
        _Damaged: It has not.
    """
    with draft.open("wb") as write:
        try:
            while os.copy_file_range(read.fileno(), write.fileno(), 1 << 30):
                pass
        except OSError:  # not between these file systems
            read.seek(0)
            write.seek(0)
            write.truncate()
            shutil.copyfileobj(read, write, 1 << 20)
    if content_digest(draft) != digest:
        raise _Damaged
