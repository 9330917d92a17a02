"""Cache of Kbuild's parsed .cmd files: each is parsed again only when it changed.

A small kernel has 1,300 of them with 50 MB of text, and an edit changes a few.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import msgspec

from tasks.cache.digests import gone_since
from tasks.cache.store_files import short_hash
from tasks.kbuild import include_folders, record_names, symbol_times, texts
from tasks.kbuild.records import below, makefiles, of_module
from tasks.kbuild.texts import Texts
from tasks.system.files import decoded, packed, remembering, remove, write_whole

CACHE = "piggyback.records"
PLACED = "piggyback.placed"  # holds the folders' paths, if a command tells where one lies
FORM = 3  # of the cache: one of another form, or with names of another meaning, counts as missing

SYMBOL = "CONFIG_"  # stands among the names before the file of a symbol


class Entry(msgspec.Struct, array_like=True):
    """One parsed .cmd file; names are indexes into `_Store.names`.

    Attributes:
        when: The .cmd file's mtime, ns since 1970.
        size: Its size in bytes.
        given: The dependencies outside of the object folder.
        made: The dependencies in the object folder, which make builds.
        mentioned: Files that only the command names, not the dependencies.
        module: Whether the target belongs to a loadable module.
        symbols: The CONFIG symbols that the sources use.
        look: The folders of -I outside of the object folder, in their order.
        told: Those of its sources that say what no .cmd file does (see texts.py).
        text: A digest of the .cmd file's text.
        asked: The symbols that the compiler's command names, with both names of their files.
        begins: How the names of symbols begin of which the command has a part.
        systems: The folders of the tree of which the compiler lists no headers.
        placed: Whether a compiler's command tells where a folder lies (see compiler.py).
    """

    when: int
    size: int
    given: list[int]
    made: list[int]
    mentioned: list[int]
    module: bool
    symbols: list[int]
    look: list[int]
    told: list[int]
    text: str
    asked: list[str]
    begins: list[str]
    systems: list[int]
    placed: bool


class _Store(msgspec.Struct):
    """The cache file.

    Attributes:
        names: Each file name and symbol once.
        records: Path of a .cmd file to its Entry, which is decoded at its first use.
        made_for: FORM, the object folder and the tree; a folder that was moved has other names.
    """

    names: list[str] = []
    records: dict[str, msgspec.Raw] = {}
    made_for: tuple[int, str, str] = (0, "", "")


_DECODER = msgspec.msgpack.Decoder(Entry)


@remembering
def _read(path: Path) -> _Store:
    """Return the cache file's content; each link of the chain asks for it."""
    return decoded(path, _Store, _Store())


class Depfiles:
    """The .cmd files of an object folder, as of the object's creation.

    File names are absolute and normalised. Only `made` returns files in the object folder.

    Args:
        obj: The object folder.
        source: The tree.
        only: The .cmd files to read; None for all.
        save: Whether to update the cache file at once.
    """

    def __init__(
        self, obj: Path, source: Path, only: Iterable[str] | None = None, save: bool = True
    ) -> None:
        self.obj, self.top, self.tree = obj, os.path.abspath(obj), os.path.realpath(source)
        store = _read(obj / CACHE)
        if store.made_for != (FORM, self.top, self.tree):
            store = _Store()
        self.names = store.names.copy()
        self._numbers: dict[str, int] = {}
        self._cached = store.records
        self.records: dict[str, Entry] = {}
        self._given: frozenset[str] | None = None  # of all records
        self._texts = Texts(obj)
        self._candidates: dict[tuple[int, ...], set[str]] = {}  # by sources and folders of -I
        self.whole = only is None
        renewed = self.refresh(below(obj) if only is None else filter(os.path.exists, only))
        if save and self.whole:
            self._tell_place()
            if renewed or len(self.records) != len(self._cached):
                self.save()

    def refresh(self, records: Iterable[str]) -> bool:
        """Read these .cmd files, those that changed anew.

        Returns:
            Whether any of them differs from the cache.
        """
        renewed = False
        for record in records:
            info = os.stat(record)
            entry = self._entry(record)
            if entry is None or (entry.when, entry.size) != (info.st_mtime_ns, info.st_size):
                entry = self._parsed(record, entry, info)
                renewed = True
            if self.records.get(record) is not entry:
                self.records[record], self._given = entry, None
        return renewed

    def _tell_place(self) -> None:
        """Have a file that holds the folders' paths, if a command tells where one lies."""
        path, text = self.obj / PLACED, f"{self.tree}\n{self.top}\n"
        if not any(entry.placed for entry in self.records.values()):
            remove(path)
        elif not path.is_file() or path.read_text(errors="replace") != text:
            write_whole(path, text)

    def save(self) -> None:
        """Write the cache file."""
        records: dict[str, Any] = {**({} if self.whole else self._cached), **self.records}
        content = _Store(self.names, records, (FORM, self.top, self.tree))
        write_whole(self.obj / CACHE, packed(content))
        self._texts.save()

    def given(self, records: Iterable[str] | None = None) -> set[str]:
        """Return the dependencies outside of the object folder.

        Args:
            records: The .cmd files to consider; None for all.
        """
        if records is None and self._given is not None:
            return set(self._given)
        chosen = self.records if records is None else records
        numbers = set[int]().union(*(self.records[record].given for record in chosen))
        found = {self.names[number] for number in numbers}
        if records is None:
            self._given = frozenset(found)
        return found

    def files(self, records: Collection[str] | None = None, missing: bool = False) -> list[str]:
        """Return the existing files outside of the object folder that targets are made from.

        These are sources, headers, scripts and tables, and what the text of a source names.

        Args:
            records: The .cmd files to consider; None for all.
            missing: Whether those count that a text names and that are missing (see texts.py).
        """
        recorded, unsaid = self._read_by(records)
        found = {path for path in recorded | unsaid if os.path.isfile(path)}
        return sorted(found | unsaid if missing else found)

    def lost(self, since: int, records: Collection[str] | None = None) -> set[str]:
        """Return what targets may have been made from, and that may have gone since a time.

        A dependency that is a folder now is gone, too.

        Args:
            since: The time, ns since 1970.
            records: The .cmd files to consider; None for all.
        """
        recorded, unsaid = self._read_by(records)
        gone = {path for path in recorded | unsaid if not os.path.isfile(path)}
        gone -= {path for path in gone - self.given(records) if os.path.isdir(path)}
        return {path for path in gone if gone_since(path, since)}

    def _read_by(self, records: Iterable[str] | None) -> tuple[set[str], set[str]]:
        """Return the names of files outside of the object folder: recorded, and not (`_unsaid`)."""
        chosen = [self.records[record] for record in (self.records if records is None else records)]
        numbers = (part for one in chosen for part in (one.given, one.mentioned))
        unsaid = (self._unsaid(entry) for entry in chosen)
        return {self.names[one] for one in set[int]().union(*numbers)}, set[str]().union(*unsaid)

    def inputs(
        self, since: int, records: Collection[str] | None = None, unsaid: Iterable[str] = ()
    ) -> list[str]:
        """Return all inputs of the targets of .cmd files.

        These are the files that the .cmd files name, makefiles and scripts of the build, and the
        folders in which a new file would count.

        Args:
            since: When the run began that made the targets, ns since 1970: what went since then,
                they may have been made from.
            records: The .cmd files to consider; None for all.
            unsaid: Further inputs, which no .cmd file names.
        """
        chosen = self.records if records is None else records
        found = {*self.files(chosen), *self.lost(since, chosen), *unsaid}
        found.update(makefiles(self.obj, Path(self.tree), chosen))
        return self.with_folders(found)

    def with_folders(self, files: Iterable[str]) -> list[str]:
        """Add to files of the tree the folders where a new header would count, each with a "/".

        Args:
            files: The files; see include_folders.added.
        """
        return include_folders.added(self.tree, files, self._watched())

    def searched(self) -> set[str]:
        """Return the folders that are searched; for one that does not exist, the one above it."""
        return include_folders.existing(self.tree, self._watched())

    def look(self) -> set[str]:
        """Return the folders of -I outside of the object folder, whether they exist or not."""
        numbers = set().union(*(entry.look for entry in self.records.values()))
        return {self.names[number] for number in numbers}

    def _watched(self) -> set[str]:
        """Return those of `look`, and where the text of a source may find a file (see texts.py)."""
        unsaid = set[str]().union(*map(self._unsaid, self.records.values()))
        own = {os.path.dirname(path) for path in unsaid if path.startswith(f"{self.tree}/")}
        return own | self.look()

    def _unsaid(self, entry: Entry) -> set[str]:
        """Return the files, existing or not, that a target may be made from without a record."""
        if not entry.told and not entry.systems:
            return set()
        # mostly many objects have the same
        key = (*entry.told, -1, *entry.look, -1, *entry.systems)
        if key not in self._candidates:
            told, look, systems = (
                [self.names[number] for number in part]
                for part in (entry.told, entry.look, entry.systems)
            )
            self._candidates[key] = texts.unsaid(self._texts, told, systems, self.top, look)
        return self._candidates[key]

    def of_modules(self) -> list[str]:
        """Return the .cmd files of loadable modules and their objects."""
        return [record for record, entry in self.records.items() if entry.module]

    def of_tools(self) -> list[str]:
        """Return the .cmd files of the programs that modules are made with.

        Modpost and objtool, above all, and the linker script scripts/module.lds; kallsyms and other
        programs for vmlinux alone are among them. Source: scripts/Makefile.modfinal and
        Makefile.modpost.
        """
        folders = tuple(os.path.join(self.obj, name, "") for name in ("scripts", "tools"))
        return [record for record in self.records if record.startswith(folders)]

    def naming(self, paths: Collection[str], commands: bool = True) -> dict[str, list[str]]:
        """Return the .cmd files that name one of `paths`, each with those that it names.

        Args:
            paths: The files to search for.
            commands: Whether files count, too, that only a command or the text of a source names.
        """
        known = self._known_names() if paths else {}
        numbers = {known[name]: name for name in paths if name in known}
        named: dict[str, list[str]] = {}
        for record, entry in self.records.items():
            for part in (entry.given, entry.mentioned) if commands else (entry.given,):
                if not numbers.keys().isdisjoint(part):
                    found = (numbers[number] for number in part if number in numbers)
                    named.setdefault(record, []).extend(found)
            if commands and paths and (unsaid := self._unsaid(entry).intersection(paths)):
                named.setdefault(record, []).extend(unsaid)
        return named

    def made(self, record: str) -> list[str]:
        """Return the dependencies of a .cmd file's target in the object folder, relative to it."""
        return [self.names[number][len(self.top) + 1 :] for number in self.records[record].made]

    def asking(self, symbols: Collection[str]) -> set[str]:
        """Return the .cmd files whose sources use one of these symbols (without CONFIG_)."""
        return set(self.reading({path for name in symbols for path in symbol_times.paths(name)}))

    def reading(self, paths: Collection[str]) -> dict[str, list[str]]:
        """Return the .cmd files whose sources use one of these symbols, each with those.

        Args:
            paths: The symbols' files below include/config/.
        """
        known = self._known_names()
        numbers = {known[SYMBOL + path]: path for path in paths if SYMBOL + path in known}
        named = {
            record: [numbers[number] for number in entry.symbols if number in numbers]
            for record, entry in self.records.items()
            if not numbers.keys().isdisjoint(entry.symbols)
        }
        for record, names in self.pasting(paths).items():
            named[record] = sorted({*named.get(record, ()), *names})
        return named

    def pasting(self, paths: Collection[str]) -> dict[str, list[str]]:
        """Return as `reading` does what no .cmd file tells (see texts.py)."""
        if not paths:
            return {}
        found: dict[str, list[str]] = {}
        for record, entry in self.records.items():
            said = [self._texts.of(self.names[number]) for number in entry.told]
            begins = {name for text in said for name in text.pasted}.union(entry.begins)
            names = texts.matching(begins, paths) if begins else set[str]()
            if entry.asked:
                names |= {path for path in entry.asked if path in paths}
            if names:
                found[record] = sorted(names)
        return found

    def _entry(self, record: str) -> Entry | None:
        raw = self._cached.get(record)
        try:
            return None if raw is None else _DECODER.decode(raw)
        except (RecursionError, msgspec.DecodeError):
            return None

    def _parsed(self, record: str, before: Entry | None, info: os.stat_result) -> Entry:
        """Parse a .cmd file; one that was written anew mostly has the same text.

        Args:
            record: The .cmd file.
            before: What is known of it.
            info: Its time and size.
        """
        when, size = info.st_mtime_ns, info.st_size
        data = Path(record).read_bytes()
        digest = short_hash(data)
        if before is not None and before.text == digest:
            told = self._saying([*before.given, *before.made])
            return msgspec.structs.replace(before, when=when, size=size, told=told)
        module = of_module(data.decode(errors="surrogateescape"), record)
        said = record_names.of(record, self.top, self.tree)
        given, made, mentioned, symbols, look, systems = (
            [self._number(name) for name in part]
            for part in (
                said.given,
                said.made,
                said.mentioned,
                [f"{SYMBOL}{name}" for name in said.symbols],
                said.look,
                said.systems,
            )
        )
        told = self._saying([*given, *made])
        own = (said.asked, said.begins, systems, said.placed)
        return Entry(when, size, given, made, mentioned, module, symbols, look, told, digest, *own)

    def _saying(self, sources: Iterable[int]) -> list[int]:
        """Return those of these sources that say what no .cmd file does.

        Of the system's headers, which all host programs read, none counts.
        """
        return [
            number
            for number in sources
            if not (name := self.names[number]).startswith("/usr/include/")
            and self._texts.of(name) != texts.NOTHING
        ]

    def _number(self, name: str) -> int:
        known = self._known_names()
        if name not in known:
            known[name] = len(self.names)
            self.names.append(name)
        return known[name]

    def _known_names(self) -> dict[str, int]:
        """Return each name's index in `names`."""
        if not self._numbers:
            self._numbers = {known: number for number, known in enumerate(self.names)}
        return self._numbers
