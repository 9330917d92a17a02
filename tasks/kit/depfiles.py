"""What Kbuild's records say, read once: each .cmd file is parsed again only when it changed.

A small kernel has 1,300 of them with 50 MB of text, of which an edit renews a handful.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tasks.kit import kbuild
from tasks.kit.fs import write_whole

CACHE = "piggyback.deps"
Entry = tuple[int, int, list[int], bool]  # a record's time, size, the numbers of its names, and whether it is a module's


class _Store(msgspec.Struct):
    """The cache file: file names once, and an entry for each record."""

    names: list[str] = []
    records: dict[str, Entry] = {}


class Depfiles:
    """The records of an object folder, as of when this was made.

    obj: the object folder; source: the tree. Files are absolute and normalised; those in the object folder, which are
    made and not given, are left out.
    """

    def __init__(self, obj: Path, source: Path) -> None:
        self.obj, self.top, self.tree = obj, os.path.abspath(obj), os.path.realpath(source)
        try:
            store = msgspec.msgpack.decode((obj / CACHE).read_bytes(), type=_Store)
        except (OSError, ValueError, msgspec.DecodeError):
            store = _Store()
        numbers = {name: number for number, name in enumerate(store.names)}
        fresh: dict[str, Entry] = {}
        for record in kbuild.records(obj):
            info = os.stat(record)
            kept = store.records.get(record)
            if kept is None or kept[:2] != (info.st_mtime_ns, info.st_size):
                with open(record, encoding="utf-8", errors="surrogateescape") as stream:
                    module = kbuild.of_module(stream.read(), record)
                found = [numbers.setdefault(name, len(numbers)) for name in self._given(record)]
                kept = (info.st_mtime_ns, info.st_size, found, module)
            fresh[record] = kept
        self.store = _Store(list(numbers), fresh)
        if fresh != store.records:
            write_whole(obj / CACHE, msgspec.msgpack.encode(self.store))

    @property
    def records(self) -> Mapping[str, Entry]:
        """The .cmd files, in the order of the folders."""
        return self.store.records

    def files(self, records: Iterable[str] | None = None) -> list[str]:
        """Return the sources, headers, scripts and tables that the given records (default: all) name and that exist."""
        chosen = self.records if records is None else records
        numbers = {number for record in chosen for number in self.records[record][2]}
        return sorted(path for path in (self.store.names[number] for number in numbers) if os.path.isfile(path))

    def of_modules(self) -> list[str]:
        """Return the records of loadable modules and their parts."""
        return [record for record, entry in self.records.items() if entry[3]]

    def naming(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """Return the records that name one of `paths`, each with those it names."""
        wanted = set(paths)
        numbers = {number: name for number, name in enumerate(self.store.names) if name in wanted}
        named = {record: [numbers[number] for number in entry[2] if number in numbers]
                 for record, entry in self.records.items()}
        return {record: found for record, found in named.items() if found}

    def _given(self, record: str) -> list[str]:
        names = kbuild.dependencies(record)
        if not record.endswith(".o.cmd"):
            names |= kbuild.mentioned(record, self.tree)
        paths = {os.path.normpath(os.path.join(self.top, name)) for name in names}
        return sorted(path for path in paths if not path.startswith(self.top + "/"))
