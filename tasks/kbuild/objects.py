"""The object store: an object is compiled once for the same inputs.

An object's .cmd file has its inputs: command, source, headers, and by fixdep the CONFIG_ symbols
that these use, unset ones included. If all of them are as in an earlier build, so is the object,
whatever the rest of the configuration.

Before make runs, the objects that it would compile are copied from the store into the object
folder, with their .cmd files. They are newer than their inputs, so make finds nothing to do. Make
still checks each of them: an object with another command than make's is compiled. The objects that
make compiled are then copied into the store. Host programs, generated files and links are left to
make.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from tasks.cache.digests import Stamps
from tasks.cache.store import FORMAT, Store
from tasks.cache.store_files import Output, Place, Result, short_hash, state
from tasks.kbuild import (
    make,
    makefiles,
    object_key,
    object_rules,
    saved,
    seconds,
    symbol_times,
    trace,
)
from tasks.kbuild.depfiles import SYMBOL, Depfiles
from tasks.kbuild.object_goals import TASK, Goals, relative, within
from tasks.kbuild.object_key import HIDING, PLACE, Roots
from tasks.kbuild.object_state import States
from tasks.kbuild.saved import Unfamiliar
from tasks.system import files, terminal

FEW = 30  # objects; for more of them it pays to run `make prepare` first, which tells make's flags
FORM = 4  # of an object's names; part of every key, so that another one is never looked at
SAID = ("vmlinux", "modules")  # goals whose objects are reported even if all were compiled
LAID = "piggyback.laid"  # objects that make may turn out not to want


class Objects:
    """The objects of an object folder, and the store.

    Attributes:
        states: The states of inputs under the configuration in force; another one can be put here.
        laid: The targets that were copied from the store, to the seconds of their compilation.
        compiled: The targets that make compiled.
        copying: The seconds that it took to look the laid ones up, and to copy them.
    """

    def __init__(
        self,
        tree: Path,
        obj: Path,
        store: Store,
        stamps: Stamps,
        tools: str,
        prefix: str,
        arch: str,
    ) -> None:
        """Prepare for one run of make.

        Args:
            tree: The source tree.
            obj: The object folder.
            store: The store.
            stamps: Digests of files.
            tools: A digest of compiler and binutils.
            prefix: CROSS_COMPILE; may have a folder in it.
            arch: ARCH.
        """
        self.obj, self.top, self.store, self.stamps = obj, os.path.abspath(obj), store, stamps
        self.tools = tools
        folder = os.path.dirname(prefix)
        self.roots = Roots(os.path.realpath(tree), self.top, os.path.dirname(folder))
        self.laid: dict[str, float] = {}
        self.compiled: set[str] = set()
        self.copying = 0.0
        self._absent: set[str] = set()
        self._kept: dict[str, int] = {}  # targets to their .cmd file's mtime, ns since 1970
        self._places: dict[str, Place] = {}  # in the store, of what was found or kept
        self.states = States(self.roots, stamps)
        self.goals = Goals(store, tools, arch)
        self._own = object_rules.Own(tree, {})

    def told_by(self, traces: trace.Trace) -> None:
        """Know the makefiles that a folder's make reads by what earlier makes told."""
        self._own = object_rules.Own(self.roots.tree, trace.readers(traces))

    # before make ---------------------------------------------------------------------------------

    def lay(self, goal: str, complete: bool, prepare: Callable[[], object] | None) -> None:
        """Copy the objects that make would compile for a goal from the store into the folder.

        Args:
            goal: The name of the goal's trace (see kbuild/trace.py).
            complete: Whether the folder has all objects of the goal, of an earlier configuration.
            prepare: Makes the generated headers and traces make's flags; None if that can't be.

        Raises:
            CommandError: `prepare` failed.
        """
        if not self.goals.targets(goal):
            self.store.fetch_pack(self.goals.key(goal))
        targets, tree = within(self.top, self.goals.targets(goal)), Path(self.roots.tree)
        records = {target: trace.record_of(self.obj, target) for target in targets}
        known = Depfiles(self.obj, tree, records.values(), save=False)
        here = [target for target, record in records.items() if record in known.records]
        absent = [target for target in records if records[target] not in known.records]
        changed = symbol_times.changed(self.obj)
        if complete:
            folders = {os.path.dirname(target) for target in absent}
            switched = {one for one in folders if makefiles.switches(tree, one, changed)}
            absent = [target for target in absent if os.path.dirname(target) in switched]
        env: Mapping[str, str] = {}
        stale = self.stale(known, here)
        steering = bool(changed) and makefiles.steers(tree, changed)
        if prepare and (steering or (absent and not complete) or len(stale) > FEW):
            prepare()
            self.states = States(self.roots, self.stamps)
            env = trace.environment(self.obj)
            stale = self.stale(known, here)
        marker, doubtful = self.obj / make.RUNNING, self._doubtful()
        marker.touch()
        if absent or doubtful:
            files.write_whole(self.obj / LAID, "\0".join({*absent, *doubtful}))
        began = time.monotonic()
        candidates = dict.fromkeys([*sorted(stale), *absent], "")
        if steering and env:  # all others, if the store has them made with more fitting flags
            for target in set(here) - stale:
                candidates[target] = self.command(target)
        bar = (
            terminal.bar("objects", len(candidates), "objects")
            if len(candidates) > FEW
            else contextlib.nullcontext()
        )
        with bar as progress:
            for target, made_by in candidates.items():
                command = "" if env else self.command(target)
                self._lay(target, env, command, better_than=made_by)
                if progress is not None:
                    progress.step()
        marker.unlink()
        self.copying = time.monotonic() - began
        self._absent = doubtful.union(self.laid.keys() & set(absent))

    def take(self, target: str) -> bool:
        """Copy an object into the folder, if the store has it made by its saved command.

        Args:
            target: The object.

        Returns:
            Whether it was copied.
        """
        began, command = time.monotonic(), self.command(target)
        if command:
            self._lay(target, {}, command)
        self.copying += time.monotonic() - began
        return target in self.laid

    def lay_folder(self, goal: str, folder: str, stale: Collection[str]) -> None:
        """Copy the objects that a make of one folder may compile from the store.

        Args:
            goal: As in `lay`.
            folder: The folder, relative to the object folder.
            stale: Its objects that make would compile.
        """
        of_folder = [one for one in self.goals.targets(goal) if os.path.dirname(one) == folder]
        absent = [
            target
            for target in within(self.top, of_folder)
            if not os.path.exists(trace.record_of(self.obj, target))
        ]
        if absent:
            files.write_whole(self.obj / LAID, "\0".join({*absent, *self._doubtful()}))
        for target in (*stale, *absent):
            self._lay(target, {}, self.command(target))
        self._absent |= self.laid.keys() & set(absent)

    def renew(self) -> None:
        """Look at all inputs anew, after a generated file changed."""
        self.states = States(self.roots, self.stamps)

    def stale(self, known: Depfiles, targets: Collection[str]) -> set[str]:
        """Return the objects with a .cmd file that make would compile, judged by times.

        Args:
            known: The .cmd files of the objects.
            targets: The objects.
        """
        times = [
            files.changed(
                f"{self.top}/include/config/{name.removeprefix(SYMBOL)}"
                if name.startswith(SYMBOL)
                else name
            )
            for name in known.names
        ]
        stale, when = set(), symbol_times.times(self.obj)
        pasting = known.pasting(when)
        for target in targets:
            record = trace.record_of(self.obj, target)
            entry = known.records[record]
            made = files.changed(self.obj / target)
            inputs = (*entry.given, *entry.made, *entry.symbols)
            young = [when[name] for name in pasting.get(record, ())]
            if made < max((*young, *(times[number] for number in inputs)), default=0):
                stale.add(target)
        return stale

    def command(self, target: str) -> str:
        """Return the saved command of an object, with its key; "" if there is none."""
        try:
            command = saved.read(trace.record_of(self.obj, target))
        except Unfamiliar:
            return ""
        return f"{command.key} {command.text}"

    def _lay(
        self, target: str, env: Mapping[str, str], command: str, better_than: str = ""
    ) -> None:
        """Copy one object into the folder, if the store has it.

        Args:
            target: The object.
            env: The environment of a recipe, with make's flags; {} if that is not known.
            command: The required command; "" for the one nearest to make's flags.
            better_than: A command that the result must be nearer to make's flags than; "" for none.
        """
        best = self.found(target, env, command, better_than)
        if best is None:
            return
        result, names = best
        try:
            text = object_key.record_of(object_key.of_record(names), self.roots)
        except Unfamiliar:
            return
        if self.store.bring_back(result, [self.obj / target]):
            files.write_whole(Path(trace.record_of(self.obj, target)), text)
            self.laid[target] = seconds.of_result(result)

    def found(
        self, target: str, env: Mapping[str, str], command: str, better_than: str
    ) -> tuple[Result, list[str]] | None:
        """Return the object that `_lay` copies, with its names; None if the store has none."""
        if self._own.of(target):
            return None
        best: tuple[Result, list[str]] | None = None
        least = self._distance(env, better_than) if better_than else 1 << 30
        key = self.key(target)
        for folder, names in self.store.lists(key):
            head = self.roots.shown(names[0]) if names else ""
            distance = self._distance(env, head) if head else least
            if (command and head != command) or distance >= least:
                continue
            try:
                states = self.states.of_all(names)
            except Unfamiliar:  # of a path with one of our words in it
                continue
            result = self.store.at(folder, states)
            if result:
                best, least = (result, names), distance
                self._places[target] = Place(key, folder.name, state(states))
        return best

    @staticmethod
    def _distance(env: Mapping[str, str], head: str) -> int:
        """Count the words by which a command and make's flags differ; 0 if these are not known."""
        if not env:
            return 0
        words = head.split()
        return len(object_key.flags(env, words[-1] if words else "") ^ {*words})

    # after make ----------------------------------------------------------------------------------

    def keep(
        self,
        goal: str,
        started: int,
        made: Collection[str] | None = None,
        took: Mapping[str, float] | None = None,
    ) -> None:
        """Copy the objects that were compiled into the store; remove copied ones that make ignored.

        Args:
            goal: As in `lay`.
            started: When make or the first command began, ns since 1970.
            made: The targets that were made; None for those with a .cmd file of since then.
            took: The seconds of each compilation on an idle host, where that is known.
        """
        said = trace.read(self.obj).goals[goal]
        targets, self._own = said.edges, object_rules.Own(self.roots.tree, said.makefiles)
        self._remove(self._absent.difference(targets))
        files.remove(self.obj / LAID)
        self.keep_made(targets if made is None else made, started, took or {})
        self.goals.add(goal, self.compiled)
        found = [self._places[target] for target in targets if target in self._places]
        left = [one for one in targets if one.endswith(".o") and one not in self._places]
        # Sent is what has all objects but those that may have unrecorded inputs.
        if found and all(files.changed(trace.record_of(self.obj, one)) >= started for one in left):
            key = self.goals.key(goal)
            self.store.push_pack(key, [Place(key, short_hash(b""), state([])), *found])

    def keep_made(self, made: Collection[str], started: int, took: Mapping[str, float]) -> None:
        """Copy objects into the store that were compiled, those that are not there yet.

        All inputs are looked at now, so nothing of these may be compiled any more.

        Args:
            made: As in `keep`.
            started: As in `keep`.
            took: As in `keep`.
        """
        records = {one: trace.record_of(self.obj, one) for one in made if one.endswith(".o")}
        times = {target: files.changed(record) for target, record in records.items()}
        new = [one for one in times if times[one] >= started and self._kept.get(one) != times[one]]
        states = States(self.roots, self.stamps) if new else self.states
        for target in new:
            self._kept[target] = times[target]
            self.laid.pop(target, None)
            with contextlib.suppress(Unfamiliar, OSError):
                self._keep(target, records[target], states, started, took.get(target, 0.0))

    def _remove(self, targets: Collection[str]) -> None:
        """Remove objects that make does not want from the folder."""
        for target in targets:
            files.remove(self.obj / target, trace.record_of(self.obj, target))
            self.laid.pop(target, None)

    def _doubtful(self) -> set[str]:
        """Return the objects laid for a make that did not end well, which it may not have wanted.

        They have a record, so they would count as the configuration's own.
        """
        try:
            names = files.read_regular(self.obj / LAID).decode(errors="replace").split("\0")
        except OSError:
            return set()
        return set(within(self.top, [name for name in names if relative(name)]))

    def _keep(self, target: str, record: str, states: States, started: int, took: float) -> None:
        """Copy one object into the store.

        Raises:
            Unfamiliar: It may have unrecorded inputs.
        """
        parsed = saved.read(record)
        with open(record, encoding="utf-8") as stream:
            text = stream.read()
        object_key.familiar(parsed)
        self.compiled.add(target)
        if makefile := self._own.of(target):
            raise Unfamiliar(f"{makefile} has a rule of its own")
        names = object_key.names_of(parsed, text, self.roots)
        path = self.obj / target
        content = path.read_bytes()
        if object_key.placed(parsed, content, self.roots):
            names.append(PLACE)
        names += [HIDING, *object_key.unrecorded(parsed)]
        info = path.stat()
        found = {name: states.of(names, name) for name in names}
        for name in names[1:]:
            states.check(name, started, info.st_mtime_ns)
        states.check_hiding(found[HIDING], started, info.st_mtime_ns)
        digest = short_hash(content)
        output = Output(digest, info.st_size, stat.S_IMODE(info.st_mode))
        result = Result(TASK, time.time(), {"seconds": took} if took else {}, [output])
        self._places[target] = self.store.put(self.key(target), found, result, [path])

    def report(self, goal: str) -> None:
        """Print how many objects were copied and compiled; nothing for the links of the chain."""
        if (everything := len(self.laid) + len(self.compiled)) and (self.laid or goal in SAID):
            terminal.line(
                "objects",
                f"{len(self.laid):,} of {everything:,} from the store,"
                f" {len(self.compiled):,} compiled",
            )

    # keys ----------------------------------------------------------------------------------------

    def key(self, target: str) -> str:
        """Return the key of an object in the store."""
        return short_hash("\0".join([TASK, str(FORMAT), str(FORM), self.tools, target]).encode())
