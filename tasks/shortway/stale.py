"""Stale targets by make's rule, from make's trace and Kbuild's records.

A target is stale if it is missing, older than one of its inputs, or if make would now compute
another command for it (see computed.py).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from tasks.cache.digests import MISSING
from tasks.kbuild import object_rules, saved, symbol_times, trace
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.saved import Saved, Unfamiliar
from tasks.kbuild.trace import Said
from tasks.shortway import computed
from tasks.system import files

_ALONE = (b"\x7fELF", b"!<arch>\n")
_TEXT = (".c", ".h", ".S", ".s", ".lds")


class Targets(msgspec.Struct, dict=True):
    """The targets of one goal, and their inputs.

    Names are relative in the object folder, else absolute.

    Attributes:
        obj: The object folder.
        said: The goal's trace.
        known: The .cmd files.
        given: Returns the mtime of a file outside of the object folder (ns since 1970), -1 if it is
            missing.
        inputs: Target to its inputs.
        recorded: Target to its .cmd file, if it has one.
    """

    obj: Path
    said: Said
    known: Depfiles
    given: Callable[[str], int] = files.changed

    def __post_init__(self) -> None:
        self.times: dict[str, int] = {}
        self.newest: dict[str, int] = {}
        self.prefix = f"{self.obj}/"
        self.own = object_rules.Own(self.known.tree, self.said.makefiles)
        self.learn()

    def learn(self) -> None:
        """Take the inputs from trace and records."""
        self.inputs: dict[str, set[str]] = {}
        self.recorded: dict[str, str] = {}
        self._loader: list[str] | None = None
        for target, names in self.said.edges.items():
            record = trace.record_of(self.obj, target)
            inputs = set(names)
            if record in self.known.records:
                self.recorded[target] = record
                inputs.update(self.known.made(record))
            self.inputs[target] = inputs - {target}

    def look_at_sources(self) -> None:
        """Read the times of the sources, once, before the first command.

        Raises:
            Unfamiliar: A source is missing.
        """
        self.newest = self._newest_sources()

    def _newest_sources(self) -> dict[str, int]:
        """Return the mtime of each target's newest source or symbol, for those that may be older.

        Raises:
            Unfamiliar: A source is missing.
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
        times = symbol_times.times(self.obj)
        symbols = {name for name, when in times.items() if when > oldest}
        for record, names in self.known.reading(symbols).items() if symbols else ():
            if record in targets:
                when = max(times[name] for name in names)
                newest[targets[record]] = max(when, newest.get(targets[record], 0))
        return newest

    def stale(self) -> set[str]:
        """Return the targets with a .cmd file that make would make again.

        Raises:
            Unfamiliar: A command holds what only make can compute.
        """
        self.times = {name: when for name, when in self.times.items() if name.startswith("/")}
        when, newest = self.when, self.newest
        return {
            target
            for target in self.recorded
            if when(target) < max(0, newest.get(target, 0))
            or any(when(name) > when(target) for name in self.inputs[target])
        } | self._recomputed()

    def _recomputed(self) -> set[str]:
        """Return the targets whose command would now hold another computed value."""
        if self._loader is None:
            self._loader = [name for name in self.recorded if computed.in_loader(name)]
        found = set()
        for target in self._loader:
            if self.when(target) >= 0:
                command = saved.read(self.recorded[target])
                if computed.current(command, self.obj).text != command.text:
                    found.add(target)
        return found

    def when(self, name: str) -> int:
        """Return a file's mtime in ns since 1970, -1 if it is missing."""
        when = self.times.get(name)
        if when is None:
            when = self.times[name] = (
                self.given(name) if name[0] == "/" else files.changed(self.prefix + name)
            )
        return when

    def command(self, target: str) -> Saved:
        """Return the saved command of a target.

        Raises:
            Unfamiliar: It can't be run without make, or builds a program of the build itself.
        """
        command = saved.read(self.recorded.get(target, trace.record_of(self.obj, target)))
        if os.path.normpath(command.target) != target:
            raise Unfamiliar(f"the record of {target} speaks of {command.target}")
        host = {
            self.said.env.get(name, name)
            for name in ("HOSTCC", "HOSTCXX", "HOSTLD", "HOSTRUSTC", "RUSTC")
        }
        if command.command.split(" ", 1)[0] in host and " -nostdinc " not in command.command:
            raise Unfamiliar(f"{target} is a program that the build itself runs")
        if target.endswith(".o") and (makefile := self.own.of(target)):
            raise Unfamiliar(f"{makefile} has a rule of its own for objects")
        return command

    def downstream(self, stale: set[str], goal: str) -> set[str]:
        """Return stale targets and all that is made from them, but for the goal.

        The users of a target without a .cmd file are left out, too.
        """
        users = users_of(self.inputs)
        affected: set[str] = set()
        waiting = list(stale)
        while waiting:
            target = waiting.pop()
            if target not in affected and target != goal:
                affected.add(target)
                if target in self.recorded:
                    waiting.extend(users.get(target, ()))
        return affected


def users_of(inputs: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Return for each file the targets that are made from it."""
    users: dict[str, list[str]] = {}
    for target, names in inputs.items():
        for name in names:
            users.setdefault(name, []).append(target)
    return users


def made_from(targets: Collection[str], edges: Mapping[str, Collection[str]]) -> set[str]:
    """Return all that is made from these targets, directly or not.

    Args:
        targets: The targets.
        edges: Each target to its prerequisites.
    """
    users, found, waiting = users_of(edges), set[str](), list(targets)
    while waiting:
        for user in users.get(waiting.pop(), ()):
            if user not in found:
                found.add(user)
                waiting.append(user)
    return found


def content(path: str) -> str:
    """Return the digest of a file; MISSING if it may name other files, whose content counts.

    Such are thin archives, scripts and lists of files, and sources with `.incbin`.
    """
    try:
        with open(path, "rb") as stream:
            if stream.read(8).startswith(_ALONE):
                stream.seek(0)
                return hashlib.file_digest(stream, "sha256").hexdigest()  # vmlinux may be large
            if not path.endswith(_TEXT):
                return MISSING
            stream.seek(0)
            data = stream.read()
    except OSError:
        return MISSING
    return MISSING if b"incbin" in data else hashlib.sha256(data).hexdigest()
