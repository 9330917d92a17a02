"""The objects that the next run will compile for a goal, told without make, for estimates.

What is compiled from changed files and symbols is in the records. Which objects come with a symbol,
or get other flags, is read from the makefiles (makefiles.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from tasks.cache.digests import Stamps
from tasks.cache.store_tag import LIST
from tasks.kbuild import ledger, make, seconds, symbol_times, trace
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.makefiles import Makefiles
from tasks.kbuild.object_state import States
from tasks.kbuild.objects import Objects
from tasks.system import files

UNKNOWN = 0.5  # seconds of an object, if no object was measured


class Pending:
    """The object folder, and a configuration that is to be built in it.

    Attributes:
        values: The configuration, as auto.conf would have it.
        switched: The symbols that have another value in the object folder.
        edited: The sources that have another content than objects were compiled from.
        seconds: Measured seconds of objects.
    """

    def __init__(
        self,
        tree: Path,
        obj: Path,
        stamps: Stamps,
        values: Mapping[str, str],
        store: Objects | None,
    ) -> None:
        """Read the records.

        Args:
            tree: The source tree.
            obj: The object folder.
            stamps: Digests of files.
            values: The configuration, as a .config file has it.
            store: The object store; None for none.
        """
        self.tree, self.obj, self._store = tree, obj, store
        self.known = Depfiles(obj, tree, save=False)
        self.traces = trace.read(obj)
        self.seconds = seconds.read(obj)
        values = symbol_times.as_auto_conf(obj, values)
        if store:
            store.states = States(store.roots, stamps, values)
        self.values = values
        self.switched = symbol_times.changed(obj, values)
        self.edited = ledger.edited(obj, stamps)
        self._makefiles = Makefiles(tree, values)

    @cached_property
    def _concerned(self) -> set[str]:
        """The .cmd files of objects that changed files and symbols concern."""
        concerned = self.known.asking(self.switched) if self.switched else set()
        return concerned.union(self.known.naming(self.edited, commands=False))

    @cached_property
    def _times(self) -> list[int]:
        """The mtime of each name of `known`; 0 for symbols, whose values count."""
        return [
            0 if name.startswith("CONFIG_") else files.changed(name) for name in self.known.names
        ]

    def of(self, goal: str) -> list[str]:
        """Return the objects of a goal that are to be compiled or copied from the store."""
        targets = {name for name in self._targets(goal) if name.endswith(".o")}
        folders = {os.path.dirname(name) for name in targets}
        folders |= {os.path.dirname(name) for name in folders}
        steered = self._makefiles.steered(folders, self.switched) if self.switched else set()
        stale = {
            name
            for name in targets
            if trace.record_of(self.obj, name) in self.known.records
            and (self._old(name) or not steered.isdisjoint({"", name, os.path.dirname(name)}))
        }
        coming = self._makefiles.coming(folders, self.switched) if self.switched else set()
        here = {trace.record_of(self.obj, name) for name in coming} & self.known.records.keys()
        stale |= {name for name in coming if trace.record_of(self.obj, name) not in here}
        return sorted(stale)

    def _targets(self, goal: str) -> Iterable[str]:
        """Return the targets of a goal; of vmlinux without a trace, all but modules and boot/.

        A make that failed leaves no trace.
        """
        if said := self.traces.goals.get(goal):
            return said.edges
        if goal != "vmlinux":
            return ()
        names = {
            os.path.relpath(os.path.join(os.path.dirname(record), name), self.obj)
            for record, entry in self.known.records.items()
            if not entry.module and (name := os.path.basename(record)[1 : -len(".cmd")])
        }
        return {
            name
            for name in names
            if not name.startswith("scripts/") and not make.LOADER.search(f"/{name}")
        }

    def _old(self, target: str) -> bool:
        """Tell whether an object was compiled from other files or symbols."""
        record = trace.record_of(self.obj, target)
        entry = self.known.records[record]
        made = files.changed(self.obj / target)
        return record in self._concerned or made < max(
            (self._times[number] for number in (*entry.given, *entry.made)), default=0
        )

    def compiled(self, targets: Iterable[str]) -> list[str]:
        """Return those of the objects that the store does not have."""
        store = self._store
        return [
            name
            for name in targets
            if store is None or store.found(name, {}, store.command(name), "") is None
        ]

    def cost(self, target: str) -> float:
        """Return the seconds that the compilation of an object should take, at pace 1."""
        known = self.seconds.of.get(target)
        if known is None and self._store:
            known = _elsewhere(self._store, target)
        return self._by_size(target) if known is None else known

    def _by_size(self, target: str) -> float:
        """Estimate the seconds of an object that was never measured, by the files that it reads."""
        entry = self.known.records.get(trace.record_of(self.obj, target))
        base, each = self._line
        return max(base + each * len(entry.given), base / 4) if entry else self._mean

    @cached_property
    def _mean(self) -> float:
        took = self.seconds.of.values()
        return sum(took) / len(took) if took else UNKNOWN

    @cached_property
    def _line(self) -> tuple[float, float]:
        """Seconds of an object, and of each file that it reads, by those that were measured."""
        pairs = [
            (len(entry.given), took)
            for name, took in self.seconds.of.items()
            if (entry := self.known.records.get(trace.record_of(self.obj, name)))
        ]
        if len({size for size, _ in pairs}) < 2:
            return self._mean, 0.0
        from statistics import linear_regression  # only here: it is slow to load

        line = linear_regression(*zip(*pairs, strict=True))
        return line.intercept, line.slope


def _elsewhere(store: Objects, target: str) -> float | None:
    """Return the seconds that an object took in another configuration; None if none is known."""
    for folder, _ in store.store.lists(store.key(target)):
        for path in sorted(folder.iterdir()):
            result = None if path.name == LIST else store.store.read(path)
            if result and (took := seconds.of_result(result)):
                return took
    return None
