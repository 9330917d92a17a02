"""What Kbuild's records say, read once: each .cmd file is parsed again only when it changed.

A small kernel has 1,300 of them with 50 MB of text, of which an edit renews a handful.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import msgspec

from tasks.kbuild.records import below, dependencies, makefiles, mentioned, of_module
from tasks.kbuild.records import symbols as asked
from tasks.system.files import decoded, write_whole

CACHE = "piggyback.deps"  # one of another form is read as none

SYMBOL = "CONFIG_"  # stands before a symbol among the names


class Entry(msgspec.Struct, array_like=True):
    """One record.

    when, size: of the .cmd file (ns since 1970, bytes); given, made, mentioned: by number, the
    names among its dependencies that were given, those that were made in the object folder, and
    those that its command alone names; module: whether it is a loadable module's; symbols: by
    number, the CONFIG symbols that its sources ask for.
    """

    when: int
    size: int
    given: list[int]
    made: list[int]
    mentioned: list[int]
    module: bool
    symbols: list[int]


class _Store(msgspec.Struct):
    """The cache file: file names once, and the records, which hold the numbers of names.

    Each record is an Entry, which is decoded only when it is asked for.
    """

    names: list[str] = []
    records: dict[str, msgspec.Raw] = {}


_DECODER = msgspec.msgpack.Decoder(Entry)


class Depfiles:
    """The records of an object folder, as of when this was made.

    obj: the object folder; source: the tree; only: the records to look at (default: all there are);
    save: keep at once what was learned. Files are absolute and normalised; those in the object
    folder, which are made and not given, are told by `made` alone.
    """

    def __init__(
        self, obj: Path, source: Path, only: Iterable[str] | None = None, save: bool = True
    ) -> None:
        self.obj, self.top, self.tree = obj, os.path.abspath(obj), os.path.realpath(source)
        store = decoded(obj / CACHE, _Store, _Store())
        self.names = store.names
        self._numbers: dict[str, int] = {}
        self._cached = store.records
        self.records: dict[str, Entry] = {}
        self.whole = only is None
        renewed = self.refresh(below(obj) if only is None else filter(os.path.exists, only))
        if save and self.whole and (renewed or len(self.records) != len(self._cached)):
            self.save()

    def refresh(self, records: Iterable[str]) -> bool:
        """Look at these records again, or for the first time.

        Returns:
            Whether any of them is not as it was kept.
        """
        renewed = False
        for record in records:
            info = os.stat(record)
            kept = self._entry(record)
            if kept is None or (kept.when, kept.size) != (info.st_mtime_ns, info.st_size):
                with open(record, encoding="utf-8", errors="surrogateescape") as stream:
                    module = of_module(stream.read(), record)
                given, made, mentioned, symbols = (
                    [self._number(name) for name in part] for part in self._named(record)
                )
                kept = Entry(
                    info.st_mtime_ns, info.st_size, given, made, mentioned, module, symbols
                )
                renewed = True
            self.records[record] = kept
        return renewed

    def save(self) -> None:
        """Keep what is known for the next run."""
        records: dict[str, Any] = {**({} if self.whole else self._cached), **self.records}
        write_whole(
            self.obj / CACHE, msgspec.msgpack.encode({"names": self.names, "records": records})
        )

    def given(self, records: Iterable[str] | None = None) -> set[str]:
        """Return the files outside of the object folder that records name as compiled from.

        Args:
            records: Those to look at; all by default.
        """
        chosen = self.records if records is None else records
        return {
            self.names[number]
            for number in set().union(*(self.records[record].given for record in chosen))
        }

    def files(self, records: Iterable[str] | None = None) -> list[str]:
        """Return the sources, headers, scripts and tables that records name and that exist.

        Args:
            records: Those to look at; all by default.
        """
        chosen = [self.records[record] for record in (self.records if records is None else records)]
        numbers = set().union(
            *(entry.given for entry in chosen), *(entry.mentioned for entry in chosen)
        )
        return sorted(
            path for path in (self.names[number] for number in numbers) if os.path.isfile(path)
        )

    def inputs(
        self, records: Collection[str] | None = None, unsaid: Iterable[str] = ()
    ) -> list[str]:
        """Return what the targets of records depend on.

        That is the files that these name, the makefiles and scripts that steer the build, and the
        folders in which a new file would count.

        Args:
            records: Those to look at; all by default.
            unsaid: Files that no record names.
        """
        chosen = self.records if records is None else records
        return self.with_folders(
            [*self.files(chosen), *unsaid, *makefiles(self.obj, Path(self.tree), chosen)]
        )

    def with_folders(self, files: Iterable[str]) -> list[str]:
        """Add to files of the tree their folders, each with a "/" at its end.

        The folders above them in which headers are looked for are added, too. Of a folder counts
        which headers and makefiles there are (see Stamps).
        """
        found = set(files)
        waiting = {os.path.dirname(path) for path in found if path.startswith(self.tree + "/")}
        while waiting:
            folder = waiting.pop()
            above = os.path.dirname(folder)
            if "/include" in above[len(self.tree) :] and above + "/" not in found:
                waiting.add(above)
            found.add(folder + "/")
        return sorted(found)

    def of_modules(self) -> list[str]:
        """Return the records of loadable modules and their parts."""
        return [record for record, entry in self.records.items() if entry.module]

    def naming(self, paths: Collection[str], commands: bool = True) -> dict[str, list[str]]:
        """Return the records that name one of `paths`, each with those it names.

        Args:
            paths: The files that are looked for.
            commands: What a command names counts, too, and not only what a compiler read.
        """
        numbers = (
            {number: name for number, name in enumerate(self.names) if name in paths}
            if paths
            else {}
        )
        wanted = set(numbers)
        named = {}
        for record, entry in self.records.items():
            if not wanted.isdisjoint(entry.given):
                named[record] = [numbers[number] for number in entry.given if number in wanted]
            if commands and not wanted.isdisjoint(entry.mentioned):
                named.setdefault(record, []).extend(
                    numbers[number] for number in entry.mentioned if number in wanted
                )
        return named

    def made(self, record: str) -> list[str]:
        """Return the files of the object folder that a record's target was compiled from.

        They are relative to the folder.
        """
        return [self.names[number][len(self.top) + 1 :] for number in self.records[record].made]

    def asking(self, symbols: Collection[str]) -> set[str]:
        """Return the records whose sources ask for one of these symbols (without CONFIG_)."""
        wanted = {f"{SYMBOL}{name}" for name in symbols}
        numbers = {number for number, name in enumerate(self.names) if name in wanted}
        return {
            record
            for record, entry in self.records.items()
            if not numbers.isdisjoint(entry.symbols)
        }

    def _entry(self, record: str) -> Entry | None:
        raw = self._cached.get(record)
        try:
            return None if raw is None else _DECODER.decode(raw)
        except (RecursionError, msgspec.DecodeError):
            return None

    def _number(self, name: str) -> int:
        if not self._numbers:
            self._numbers = {known: number for number, known in enumerate(self.names)}
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]

    def _named(self, record: str) -> tuple[list[str], list[str], list[str], list[str]]:
        """What a record names: files given, made, and in its command alone; symbols."""
        paths = self._paths(dependencies(record))
        said = (
            set()
            if record.endswith(".o.cmd")
            else self._paths(mentioned(record, self.tree)) - paths
        )
        here = self.top + "/"
        return (
            sorted(path for path in paths if not path.startswith(here)),
            sorted(path for path in paths if path.startswith(here)),
            sorted(path for path in said if not path.startswith(here)),
            [f"{SYMBOL}{name}" for name in sorted(asked(record))],
        )

    def _paths(self, names: Iterable[str]) -> set[str]:
        return {os.path.normpath(os.path.join(self.top, name)) for name in names}
