"""Is a task up to date, and if not, why: every input and output of a task in one record, compared
part by part.

The record of the last success lies in doit's database among the task's values. It holds the
settings used, the code of the action, the tools, the declared files and folders, what the action
discovered while it ran (the sources that the compiler really read), and the outputs. One mechanism
for all tasks, so that one sentence explains any of them.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.cache.code import code_id
from tasks.cache.digests import MISSING, Stamps
from tasks.cache.store import FORMAT, Store
from tasks.cache.store_files import Output, Result, short_hash
from tasks.graph.journal import UNFINISHED
from tasks.graph.reason import NEVER, UNREADABLE, Reason
from tasks.kconfig.dotconfig import read_config
from tasks.system import owned, terminal
from tasks.system.errors import PiggyError
from tasks.system.files import touched
from tasks.system.process import clean_env

Record = dict[str, dict[str, str]]
CHANGING = "changed while it was read"
RESTORED = (
    "restored"  # the value that says that a task did not run, but had its outputs from the store
)
NOT_KEPT = ("record", RESTORED)  # values that hold for one run
DECLARED = ("settings", "code", "tools", "files", "trees")


class Inputs:
    """An `uptodate` callable for doit: true when nothing that the task depends on, and none of its
    outputs, has changed.

    stamps:   digests of files.
    action:   the function that does the work; its code is an input.
    settings: what else decides the output, by name (versions, command lines, orders of lists).
    files:    declared input files.
    trees:    by label, functions that list a folder's state as `{path: state}`.
    tools:    programs, looked up on PATH; the content of the binary counts.
    outputs:  the task's targets.
    config:   a .config file, where an action may discover single symbols of it, as CONFIG_NAME.
    store:    where what the task made is kept, and looked for before it runs; None: nowhere.
    place:    the folder that relative paths start from: results may hold it.
    gone:     files that must go before anything is brought back.
    within:   the folder below which all that is made lies; nothing else is removed.
    identify: gives an action's identity.
    """

    def __init__(
        self,
        stamps: Stamps,
        action: Callable[..., Any],
        *,
        settings: Mapping[str, str],
        files: Sequence[str],
        trees: Mapping[str, Callable[[], Mapping[str, str]]],
        tools: Sequence[str],
        outputs: Sequence[str],
        config: str = "",
        store: Store | None = None,
        place: str = "",
        gone: Sequence[str] = (),
        within: str = "",
        identify: Callable[[Callable[..., Any]], str] = code_id,
    ) -> None:
        self.stamps, self.action, self.identify, self.settings = stamps, action, identify, settings
        self.files, self.trees, self.tools, self.outputs, self.config = (
            files,
            trees,
            tools,
            outputs,
            config,
        )
        self.store, self.place, self.gone, self.within = store, place, gone, within
        self.reasons: list[Reason] = []
        self.notes: list[Reason] = []  # what the action says of them, once it has run
        self.forced = False  # by `doit -a`, as the runner knows
        self.previous: dict[str, Any] = {}
        self.now: Record = {}

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        """Called by doit to learn whether `task` is up to date; arranges for the new record to be
        saved on success."""
        began = time.time_ns()
        self.previous = dict(values)
        old: Record = values.get("record", {})
        now = self._declared()
        now["discovered"] = self._digests(old.get("discovered", {}))
        now["outputs"] = self._digests(dict.fromkeys([*self.outputs, *old.get("outputs", {})]))
        self.reasons = compare(old, now) or ([Reason("unfinished")] if UNFINISHED in values else [])
        if values.get(RESTORED) and self.store is None:
            self.reasons.append(Reason("store"))
        self.now = now
        started = time.time_ns()
        task.value_savers[:] = [lambda: {"record": self._success(task, now, began, started)}]
        return not self.reasons

    def __repr__(self) -> str:
        """What `doit info TASK` shows: why the task would run."""
        return "; ".join(map(str, self.reasons[:10])) or "nothing changed"

    def _declared(self) -> Record:
        """What is known before the task runs."""
        return {
            "settings": dict(self.settings),
            "code": {self.action.__name__: self.identify(self.action)},
            "tools": self._programs(),
            "files": self._digests(self.files),
            "trees": {
                f"{label} {path}": state
                for label, listing in self.trees.items()
                for path, state in _listed(listing).items()
            },
        }

    def _programs(self) -> dict[str, str]:
        path = clean_env()["PATH"]  # where `run` looks, too
        return {tool: self.stamps.program(tool, path) for tool in self.tools}

    def _digests(self, paths: Iterable[str]) -> dict[str, str]:
        digest, values = self.stamps.digest, None
        found = {}
        for path in paths:
            if self.config and path.startswith("CONFIG_"):
                values = _values(self.config) if values is None else values
                found[path] = values(path.removeprefix("CONFIG_"))
            else:
                found[path] = digest(path)
        return found

    def _after(
        self, before: Record, discovered: Iterable[str], made: Iterable[str], started: int
    ) -> Record:
        """The record of a success: inputs as they were before the action, so that an edit made
        meanwhile is not lost."""
        known = before["discovered"]
        found = {
            path: known[path] if path in known else self._settled(path, started)
            for path in discovered
        }
        return {**before, "discovered": found, "outputs": self._digests([*self.outputs, *made])}

    def _success(self, task: Any, before: Record, began: int, started: int) -> Record:
        """The record of a success; what the task really made goes into the store."""
        made = [os.fspath(path) for path in task.values.pop("made", ())]
        unsure = task.values.pop("unsure", False) or task.values.get(RESTORED)
        record = self._after(before, task.values.pop("discovered", ()), made, started)
        if (
            self.store
            and self.store.limit
            and not unsure
            and self._all_there(task.name, record)
            and self._sure(before, record, began)
        ):
            self._keep(task, self.store, before, record, made)
        return record

    def _keep(
        self, task: Any, store: Store, before: Record, record: Record, made: Sequence[str]
    ) -> None:
        """Put what the task made into the store."""
        try:
            outputs = [
                Output(record["outputs"][path], info.st_size, stat.S_IMODE(info.st_mode))
                for path, info in ((path, os.stat(path)) for path in self.outputs)
            ]
        except OSError:  # an output vanished since it was digested: the reason of the next run
            return
        result = Result(
            task.name,
            time.time(),
            {name: value for name, value in task.values.items() if name not in NOT_KEPT},
            outputs,
            {path: record["outputs"][path] for path in made},
        )
        store.put(
            self._key(task.name, before),
            dict(sorted(record["discovered"].items())),
            result,
            list(map(Path, self.outputs)),
        )

    def _all_there(self, name: str, record: Record) -> bool:
        """Are all discovered inputs there? One that is missing each time, nobody would miss: the
        task is not stale, but it would never be stored, so it is said."""
        lost = [path for path, digest in record["discovered"].items() if digest == MISSING]
        if lost:
            terminal.line(
                "store",
                terminal.printable(
                    f"{name.lstrip('_')} is not kept: {lost[0]}, which it was made from, is missing"
                ),
            )
        return not lost

    def _sure(self, before: Record, record: Record, began: int) -> bool:
        """Is the record what the action really read? Not where an input was touched since just
        before it ran: of that the record has the old content, so that the task is stale, but what
        it made need not be made from that. Nothing is said here: the next run has the reason."""
        found = record["discovered"]
        files = {
            *self.files,
            *(
                self.config if self.config and path.startswith("CONFIG_") else path
                for path in found
            ),
        }
        inputs = {**found, **record["files"]}
        return (
            not {MISSING, CHANGING, UNREADABLE} & {*inputs.values(), *record["outputs"].values()}
            and not _unread(before["trees"])
            and self._declared() == {part: before[part] for part in DECLARED}
            and self._digests(found) == found
            and not any(touched(path, began, missing=False) for path in files)
        )

    def _key(self, name: str, now: Record) -> str:
        """What is known before the task runs, as one digest."""
        known = [
            FORMAT,
            name,
            self.place,
            list(self.outputs),
            self.config,
            *(now[part] for part in DECLARED),
        ]
        return short_hash(json.dumps(known, sort_keys=True).encode())

    def bring_back(self, name: str) -> tuple[dict[str, Any], float] | None:
        """Have the outputs of the task as they were made from the same inputs before. Returns the
        values that its action returned then, and when that was (seconds since 1970); None when the
        store has no such result, or when the task is made by force (`doit -a`)."""
        if not self.store or not self.store.limit or self.forced:
            return None
        found = self.store.find(self._key(name, self.now or self._declared()), self._digests)
        if not found:
            return None
        result, names = found
        try:
            for path in self.gone:
                Path(path).unlink(missing_ok=True)
            if not self.store.bring_back(result, list(map(Path, self.outputs))):
                return None
            return {
                **result.values,
                "discovered": names,
                "made": self._left(result.made),
                RESTORED: True,
            }, result.time
        except OSError:
            return None

    def kept(self, name: str) -> bool:
        """Would the store have what the task makes from its inputs as they are?"""
        return bool(
            self.store
            and self.store.limit
            and self.store.find(self._key(name, self._declared()), self._digests)
        )

    def _left(self, made: Mapping[str, str]) -> list[str]:
        """Which of the files that were made with a result, elsewhere than the targets, are there as
        they were. Others of them are removed: a tool that goes by time would take them for good."""
        here = {
            os.path.dirname(path) for path in self.outputs
        }  # which may hold targets under another setting
        for path in {
            *made,
            *(
                path
                for path in self.previous.get("record", {}).get("outputs", {})
                if os.path.dirname(path) not in here
            ),
        }:
            if self.stamps.digest(path) != made.get(path) and owned.below(path, self.within):
                Path(path).unlink(missing_ok=True)
        return [path for path in made if owned.below(path, self.within) and os.path.exists(path)]

    def _settled(self, path: str, started: int) -> str:
        """The digest of an input learned of only now; one touched since the start may not be what
        the action read."""
        digest = self._digests([path])[path]
        if self.config and path.startswith("CONFIG_"):
            return digest
        return CHANGING if touched(path, started, missing=False) else digest


def inputs_of(task: Any) -> Inputs | None:
    """Return what decides whether one of doit's tasks is up to date; None for a task that runs
    whenever it is asked for."""
    return next((test[0] for test in task.uptodate if isinstance(test[0], Inputs)), None)


def _values(config: str) -> Callable[[str], str]:
    """What gives the value of each symbol of a .config file; UNREADABLE for all where it is missing
    or damaged."""
    try:
        known = read_config(Path(config))
    except PiggyError:  # the task that makes it says why
        return lambda symbol: UNREADABLE
    return lambda symbol: known.get(symbol, "n")


def _listed(listing: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
    """The listing of a folder. Where that fails the task is stale: it meets the same failure, and
    can report it."""
    try:
        return listing()
    except (PiggyError, OSError) as error:
        return {"": f"{UNREADABLE}: {error}"}


def _unread(states: Mapping[str, str]) -> list[str]:
    """The names of what could not be looked at."""
    return [name for name, state in states.items() if state.startswith(UNREADABLE)]


def compare(old: Record, now: Record) -> list[Reason]:
    """Return how the state `now` differs from the record `old`, and what can't be looked at; empty
    where there is no such thing."""
    if not old:
        return [NEVER]
    reasons = []
    for part, mine in now.items():
        theirs = old.get(part, {})
        unread = (
            _unread(mine)
            if part == "trees" or part == "discovered" and UNREADABLE in mine.values()
            else ()
        )
        if mine == theirs and not unread:
            continue
        names = [*theirs, *(name for name in mine if name not in theirs)]
        for name in sorted(
            names, key=lambda name: name.endswith("/")
        ):  # a file says more than its folder
            before, after = theirs.get(name), mine.get(name)
            if before != after or name in unread:
                reasons.append(Reason(part, name.strip(), before, after))
    return reasons
