"""Judge which targets are stale, as make judges it, by what make said and Kbuild recorded.

A target is stale when it is missing, or older than a file that it is made from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from tasks.kbuild import saved, trace
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.saved import Saved, Unfamiliar
from tasks.kbuild.trace import Said
from tasks.system import files


class Targets(msgspec.Struct, dict=True):
    """The targets of one goal, and what each is made from.

    obj: the object folder; said: what make said of the goal; known: the records as they are now;
    given: when a file outside of the object folder was changed (ns since 1970), -1 if it is
    missing.

    inputs: by target, what it is made from; recorded: by target, the .cmd file of those that have
    one. Names are relative to the object folder, or absolute.
    """

    obj: Path
    said: Said
    known: Depfiles
    given: Callable[[str], int] = files.changed

    def __post_init__(self) -> None:
        self.times: dict[str, int] = {}
        self.newest: dict[str, int] = {}
        self.prefix = f"{self.obj}/"
        self.inputs: dict[str, set[str]] = {}
        self.recorded: dict[str, str] = {}
        for target, names in self.said.edges.items():
            record = trace.record_of(self.obj, target)
            found = set(names)
            if record in self.known.records:
                self.recorded[target] = record
                found.update(self.known.made(record))
            self.inputs[target] = found - {target}

    def look_at_sources(self) -> None:
        """Find the times of the sources, once, before anything is made.

        Raises:
            Unfamiliar: A file that a target was compiled from is gone.
        """
        self.newest = self._newest_sources()

    def _newest_sources(self) -> dict[str, int]:
        """Return the time of the newest given file that each target was compiled from.

        Only targets that may be older than that are there.

        Raises:
            Unfamiliar: A file is gone.
        """
        oldest = min(map(self.when, self.recorded), default=0)
        young = {name for name in self.known.given() if not -1 < self.when(name) <= oldest}
        targets = {record: target for target, record in self.recorded.items()}
        newest = {}
        for record, names in self.known.naming(young, commands=False).items():
            if record in targets:
                if gone := [name for name in names if self.when(name) < 0]:
                    raise Unfamiliar(f"{gone[0]}, which {targets[record]} was made from, is gone")
                newest[targets[record]] = max(map(self.when, names))
        return newest

    def stale(self) -> set[str]:
        """Return the targets with a record that make would make again, judging by times."""
        self.times = {name: when for name, when in self.times.items() if name.startswith("/")}
        when, newest = self.when, self.newest
        return {
            target
            for target in self.recorded
            if when(target) < max(0, newest.get(target, 0))
            or any(when(name) > when(target) for name in self.inputs[target])
        }

    def when(self, name: str) -> int:
        """When a file was changed (ns since 1970), -1 if it is missing."""
        when = self.times.get(name)
        if when is None:
            when = self.times[name] = (
                self.given(name) if name[0] == "/" else files.changed(self.prefix + name)
            )
        return when

    def command(self, target: str) -> Saved:
        """The command of a target. Raises Unfamiliar if it can't be run as it stands."""
        command = saved.read(self.recorded.get(target, trace.record_of(self.obj, target)))
        if os.path.normpath(command.target) != target:
            raise Unfamiliar(f"the record of {target} speaks of {command.target}")
        host = {
            self.said.env.get(name, name)
            for name in ("HOSTCC", "HOSTCXX", "HOSTLD", "HOSTRUSTC", "RUSTC")
        }
        if command.command.split(" ", 1)[0] in host and " -nostdinc " not in command.command:
            raise Unfamiliar(f"{target} is a program that the build itself runs")
        return command

    def downstream(self, stale: set[str], goal: str) -> set[str]:
        """Return stale targets, and what is made, directly or not, from them.

        The goal is left out, and so is all that is made from a file without a record.
        """
        users = users_of(self.inputs)
        found: set[str] = set()
        waiting = list(stale)
        while waiting:
            target = waiting.pop()
            if target not in found and target != goal:
                found.add(target)
                if target in self.recorded:
                    waiting.extend(users.get(target, ()))
        return found


def users_of(inputs: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """For each file, what is made from it."""
    users: dict[str, list[str]] = {}
    for target, names in inputs.items():
        for name in names:
            users.setdefault(name, []).append(target)
    return users
