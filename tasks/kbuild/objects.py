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
import re
import stat
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from tasks.cache.digests import Stamps
from tasks.cache.store import FORMAT, Store
from tasks.cache.store_files import Output, Result, short_hash
from tasks.kbuild import make, object_key, object_rules, saved, symbol_times, trace
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.object_key import HIDING, OBJTOOL, PLACE, Roots
from tasks.kbuild.saved import Unfamiliar
from tasks.kconfig import dotconfig
from tasks.system import terminal
from tasks.system.files import write_whole

TASK = "objects"  # the task's name in the store
FEW = 30  # objects; for more of them it pays to run `make prepare` first, which tells make's flags
# Makefiles whose flags go into every object.
_STEERING = ("Makefile", "scripts/Makefile.*", "scripts/Kbuild.include")
# Directives that read files which no .cmd file names.
_CONTENTS = re.compile(rb"\.incbin|\.include\b|__has_include|#\s*embed\b")


class Objects:
    """The objects of an object folder, and the store.

    Attributes:
        laid: The targets that were copied from the store.
        compiled: The targets that make compiled.
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
        self.tools, self.arch = tools, arch
        folder = os.path.dirname(prefix)
        self.roots = Roots(os.path.realpath(tree), self.top, os.path.dirname(folder))
        self.laid: set[str] = set()
        self.compiled: list[str] = []
        self._absent: set[str] = set()
        self._forget()

    def _forget(self) -> None:
        """Clear the caches of file states: make may have changed the files."""
        self._values = dotconfig.read_config(self.obj / "include" / "config" / "auto.conf")
        self._digests: dict[str, str] = {}
        self._hiding = object_key.Hiding(self.top)

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
        known = Depfiles(self.obj, Path(self.roots.tree), save=False)
        changed = symbol_times.changed(self.obj)
        env: Mapping[str, str] = {}
        stale = self._stale(known)
        steering = bool(changed) and self._steers(changed)
        absent = [
            target
            for target in self._listed(goal)
            if trace.record_of(self.obj, target) not in known.records
            and (not complete or self._switched(target, changed))
        ]
        if prepare and (steering or (absent and not complete) or len(stale) > FEW):
            prepare()
            self._forget()
            env = trace.environment(self.obj)
            stale = self._stale(known)
        marker = self.obj / make.RUNNING
        marker.touch()
        candidates = dict.fromkeys([*sorted(stale), *absent], "")
        if steering and env:  # all others, if the store has them made with more fitting flags
            for target in self._targets(known) - stale:
                candidates[target] = self._command(known, target)
        bar = (
            terminal.bar("objects", len(candidates), "objects")
            if len(candidates) > FEW
            else contextlib.nullcontext()
        )
        with bar as progress:
            for target, made_by in candidates.items():
                command = "" if env else self._command(known, target)
                self._lay(target, env, command, better_than=made_by)
                if progress is not None:
                    progress.step()
        marker.unlink()
        self._absent = self.laid.intersection(absent)

    def _targets(self, known: Depfiles) -> set[str]:
        """Return the objects with a .cmd file."""
        cut = len(self.top) + 1
        return {
            os.path.join(os.path.dirname(short), os.path.basename(short)[1 : -len(".cmd")])
            for short in (
                os.path.abspath(record)[cut:]
                for record, entry in known.records.items()
                if record.endswith(".o.cmd") and entry.given
            )
        }

    def _stale(self, known: Depfiles) -> set[str]:
        """Return the objects with a .cmd file that make would compile, judged by times."""
        times: dict[str, int] = {}

        def when(path: str) -> int:
            if path not in times:
                try:
                    times[path] = os.stat(path).st_mtime_ns
                except OSError:
                    times[path] = -1
            return times[path]

        of_symbols = {
            number: max(
                when(f"{self.top}/include/config/{path}") for path in symbol_times.paths(name[7:])
            )
            for number, name in enumerate(known.names)
            if name.startswith("CONFIG_")
        }
        of_names = [0 if name.startswith("CONFIG_") else when(name) for name in known.names]
        stale = set()
        for target in self._targets(known):
            entry = known.records[trace.record_of(known.obj, target)]
            made = when(f"{self.top}/{target}")
            newest = max(
                max((of_names[number] for number in entry.given), default=0),
                max((of_names[number] for number in entry.made), default=0),
                max((of_symbols[number] for number in entry.symbols), default=0),
            )
            if made < 0 or newest > made:
                stale.add(target)
        return stale

    def _steers(self, symbols: Collection[str]) -> bool:
        """Tell whether a makefile with flags for all objects uses one of these symbols."""
        tree = Path(self.roots.tree)
        patterns = (*_STEERING, "arch/*/Makefile*")
        paths = [path for pattern in patterns for path in tree.glob(pattern)]
        return any(self._names_one(path, symbols) for path in paths)

    @staticmethod
    def _names_one(path: Path, symbols: Collection[str]) -> bool:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            return False
        return any(name in symbols for name in re.findall(r"\bCONFIG_(\w+)", text))

    def _switched(self, target: str, changed: Collection[str]) -> bool:
        """Tell whether the makefile of an object's folder uses one of these symbols."""
        folder = Path(self.roots.tree, os.path.dirname(target))
        return any(self._names_one(folder / name, changed) for name in ("Makefile", "Kbuild"))

    def _command(self, known: Depfiles, target: str) -> str:
        """Return the saved command of an object, with its key; "" if there is none."""
        record = trace.record_of(known.obj, target)
        with contextlib.suppress(Unfamiliar):
            if record in known.records:
                command = saved.read(record)
                return f"{command.key} {command.text}"
        return ""

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
        best: tuple[Result, list[str]] | None = None
        least = self._distance(env, better_than) if better_than else 1 << 30
        for folder, names in self.store.lists(self._key(target)):
            head = self.roots.shown(names[0]) if names else ""
            distance = self._distance(env, head) if head else least
            if (command and head != command) or distance >= least:
                continue
            result = self.store.at(folder, [self._state(names, name) for name in names])
            if result:
                best, least = (result, names), distance
        if best is None:
            return
        result, names = best
        try:
            text = object_key.record_of(_of_record(names), self.roots)
        except Unfamiliar:
            return
        if self.store.bring_back(result, [self.obj / target]):
            write_whole(Path(trace.record_of(self.obj, target)), text)
            self.laid.add(target)

    @staticmethod
    def _distance(env: Mapping[str, str], head: str) -> int:
        """Count the words by which a command and make's flags differ; 0 if these are not known."""
        if not env:
            return 0
        words = head.split()
        return len(object_key.flags(env, words[-1]) ^ {*words})

    # after make ----------------------------------------------------------------------------------

    def keep(self, goal: str, started: int) -> None:
        """Copy the objects that make compiled into the store; remove copied ones that it ignored.

        Args:
            goal: As in `lay`.
            started: When make began, ns since 1970.
        """
        self._forget()
        goal_trace = trace.read(self.obj).goals.get(goal)
        for target in self._absent if goal_trace else ():
            if goal_trace and target not in goal_trace.edges:
                for path in (self.obj / target, Path(trace.record_of(self.obj, target))):
                    path.unlink(missing_ok=True)
                self.laid.discard(target)
        known = Depfiles(self.obj, Path(self.roots.tree))
        for target in self._targets(known):
            record = trace.record_of(self.obj, target)
            made = os.stat(record).st_mtime_ns
            if made < started:
                continue
            self.laid.discard(target)
            with contextlib.suppress(Unfamiliar, OSError):
                self._keep(target, record, started)
        self._list(goal)

    def _keep(self, target: str, record: str, started: int) -> None:
        """Copy one object into the store.

        Raises:
            Unfamiliar: It may have unrecorded inputs.
        """
        parsed = saved.read(record)
        with open(record, encoding="utf-8") as stream:
            text = stream.read()
        object_key.familiar(parsed)
        self.compiled.append(target)
        names = object_key.names_of(parsed, text, self.roots)
        path = self.obj / target
        content = path.read_bytes()
        held = [path.encode() for path, _ in self.roots.pairs()]
        if object_key.debugs(parsed) or any(root in content for root in held):
            names.append(PLACE)
        names += [HIDING, *object_key.programs(parsed)]
        info = path.stat()
        for name in names[1:]:
            self._settled(name, started, info.st_mtime_ns)
        digest = short_hash(content)
        states = {name: self._state(names, name) for name in names}
        result = Result(
            TASK, time.time(), {}, [Output(digest, info.st_size, stat.S_IMODE(info.st_mode))]
        )
        self.store.put(self._key(target), states, result, [path])

    def _settled(self, name: str, started: int, made: int) -> None:
        """Check that an input has not changed since the compiler read it, and names no others.

        `started` is when make began, `made` the object's mtime, both in ns since 1970.

        Raises:
            Unfamiliar: It may have changed, or it names files that no .cmd file names.
        """
        path = self._path(name)
        if not path:
            return
        info = os.stat(path)
        limit = made if path.startswith(self.top + "/") else started
        if max(info.st_mtime_ns, info.st_ctime_ns) > limit:
            raise Unfamiliar(f"{path} changed")
        key = f"{path}\0{info.st_mtime_ns}"
        if key not in self._digests:
            with open(path, "rb") as stream:
                self._digests[key] = "strange" if _CONTENTS.search(stream.read()) else ""
        if self._digests[key]:
            raise Unfamiliar(f"{path} names files that no record names")

    # keys ----------------------------------------------------------------------------------------

    def _key(self, target: str) -> str:
        return short_hash("\0".join([TASK, str(FORMAT), self.tools, target]).encode())

    def _path(self, name: str) -> str:
        """Return the file that a name stands for; "" if it is no file's."""
        if not name or name[0] in "#$\n" or " := " in name:
            return ""
        return os.path.join(self.top, self.roots.shown(name))

    def _state(self, names: Sequence[str], name: str) -> str:
        """Return the present state of the input `name` of an object with these names."""
        if name == HIDING:
            shown = [self.roots.shown(one) for one in _of_record(names)]
            deps = [one for one in shown[1:-1] if one[:1] != "$"]
            hiding = self._hiding.of(shown[0], shown[1], deps)
            return self.roots.hidden("\0".join(hiding))
        if name == PLACE:
            return "\0".join(path for path, _ in self.roots.pairs())
        if name not in self._digests:
            symbol = object_key.symbol_of(name)
            if symbol:
                state = self._values.get(symbol, "n")
            elif name == OBJTOOL:
                state = self.stamps.digest(f"{self.top}/{object_key.PROGRAM}")
            else:
                path = self._path(name)
                state = self.stamps.digest(path) if path else ""
            self._digests[name] = state
        return self._digests[name]

    # which objects a goal has --------------------------------------------------------------------

    def _goal_key(self, goal: str) -> str:
        return short_hash("\0".join([TASK, "goal", self.tools, self.arch, goal]).encode())

    def _listed(self, goal: str) -> list[str]:
        """Return the objects that the goal had in earlier builds, in any folder."""
        for folder, _ in self.store.lists(self._goal_key(goal)):
            result = self.store.at(folder, [])
            if result:
                targets = result.values.get("targets")
                if isinstance(targets, list):
                    return [one for one in targets if isinstance(one, str) and _relative(one)]
        return []

    def _list(self, goal: str) -> None:
        """Record the goal's objects in the store."""
        before = self._listed(goal)
        more = sorted({*before, *self.compiled})
        if len(more) > len(before):
            self.store.put(
                self._goal_key(goal), {}, Result(TASK, time.time(), {"targets": more}, []), []
            )


def _of_record(names: Sequence[str]) -> list[str]:
    """Return the names of the .cmd file, without those of unrecorded inputs."""
    return [name for name in names if not name.startswith("#")]


def _relative(target: str) -> bool:
    """Tell whether a target's name, read from the store, stays in the object folder."""
    return not target.startswith("/") and ".." not in target.split("/")


def usable(obj: Path, tree: Path) -> str:
    """Return why objects of this configuration can't use the store; "" if they can."""
    try:
        object_rules.checks(obj, tree)
    except Unfamiliar as reason:
        return reason.message
    return ""
