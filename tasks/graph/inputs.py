"""Judge whether a task is up to date, and if not, why.

Every input and output of a task is in one record, which is compared part by part. The record of the
last success lies in doit's database among the task's values. It holds the settings used, the code
of the action, the tools, the declared files and folders, what the action discovered while it ran
(the sources that the compiler really read), and the outputs. One mechanism for all tasks, so that
one kind of reason explains any of them.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.cache.code import code_id
from tasks.cache.digests import MISSING, Stamps, gone_since
from tasks.cache.store_files import Output, Result
from tasks.graph.journal import UNFINISHED
from tasks.graph.reason import UNREADABLE, Reason, Record, compare, unread
from tasks.graph.stored import Stored
from tasks.kconfig.dotconfig import read_known
from tasks.system import owned, terminal
from tasks.system.errors import PiggyError
from tasks.system.files import touched
from tasks.system.process import clean_env

CHANGING = "changed while it was read"
RESTORED = (
    "restored"  # the value that says that a task did not run, but had its outputs from the store
)
NOT_KEPT = ("record", RESTORED)  # values that hold for one run
DECLARED = ("settings", "code", "tools", "files", "trees")


class Inputs:
    """An `uptodate` callable for doit.

    It is true when nothing that the task depends on, and none of its outputs, has changed.

    Attributes:
        reasons: Why the task is not up to date, as of the last look.
        notes: What the action says of its inputs, once it has run.
        work: What it says of its own work (see history.Work), once it has run.
        forced: The task is made by force (`doit -a`), as the runner knows.
        previous: The values of the last success.
        now: The record as of the last look.
        mark: What the record says of a run that did not end (see journal.unfinish).
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
        store: Stored | None = None,
        gone: Sequence[str] = (),
        within: str = "",
        goes_on: bool = False,
        identify: Callable[[Callable[..., Any]], str] = code_id,
    ) -> None:
        """Hold what decides whether a task is up to date; nothing is looked at yet.

        Args:
            stamps: Digests of files.
            action: The function that does the work; its code is an input.
            settings: What else decides the output, by name (versions, command lines, orders).
            files: Declared input files.
            trees: By label, functions that list a folder's state as `{path: state}`.
            tools: Programs, looked up on PATH; the content of the binary counts.
            outputs: The task's targets.
            config: A .config file, if an action may discover single symbols of it, as CONFIG_NAME.
            store: Where what the task made is kept, and looked for before it runs; None: nowhere.
            gone: Files that must go before anything is brought back.
            within: The folder below which all that is made lies; nothing else is removed.
            goes_on: What was written to an output since is no reason.
            identify: Gives an action's identity.
        """
        self.stamps, self.action, self.identify, self.settings = stamps, action, identify, settings
        self.files, self.trees, self.tools, self.outputs, self.config = (
            files,
            trees,
            tools,
            outputs,
            config,
        )
        self.store, self.gone, self.within, self._goes_on = store, gone, within, goes_on
        self.reasons: list[Reason] = []
        self.notes: list[Reason] = []  # what the action says of them, once it has run
        self.work: Any = None
        self.forced = False  # by `doit -a`, as the runner knows
        self.previous: dict[str, Any] = {}
        self.now: Record = {}
        self.mark: dict[str, str] | bool = True
        self._started = 0  # when the action could begin, ns since 1970

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        """Tell doit whether the task is up to date, and have the new record saved on success.

        Args:
            task: doit's task.
            values: The values of its last success.
        """
        began = time.time_ns()
        self.previous = dict(values)
        old: Record = values.get("record", {})
        now = self._declared()
        now["discovered"] = self._digests(old.get("discovered", {}))
        now["outputs"] = self._digests(dict.fromkeys([*self.outputs, *old.get("outputs", {})]))
        self.reasons = compare(old, now)
        if self._goes_on:
            self.reasons = [why for why in self.reasons if why.part != "outputs" or not why.changed]
            # of a run that failed, and left what it found
            untouched = values.get(UNFINISHED, now["outputs"]) == now["outputs"]
            self.mark = now["outputs"] if untouched else values[UNFINISHED]
        else:
            self.mark, untouched = True, UNFINISHED not in values
        if not self.reasons and not untouched:
            self.reasons = [Reason("unfinished")]
        if values.get(RESTORED) and self.store is None:
            self.reasons.append(Reason("store"))
        self.now = now
        self._started = started = time.time_ns()
        task.value_savers[:] = [lambda: {"record": self._success(task, now, began, started)}]
        return not self.reasons

    def __repr__(self) -> str:
        """Return what `doit info TASK` shows: why the task would run."""
        return "; ".join(map(str, self.reasons[:10])) or "nothing changed"

    def _declared(self) -> Record:
        """Return what is known before the task runs."""
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

    def record(self, discovered: Iterable[str]) -> Record:
        """Return the record of the inputs as of the last look, with these discovered ones.

        The content of one that was touched since is not known: no other record has its digest.
        """
        before = self.now or {**self._declared(), "discovered": {}}
        known = self._after(before, discovered, (), self._started)
        return {part: known[part] for part in (*DECLARED, "discovered")}

    def _after(
        self, before: Record, discovered: Iterable[str], made: Iterable[str], started: int
    ) -> Record:
        """Return the record of a success.

        It has the inputs as they were before the action: an edit made meanwhile is not lost.
        """
        known = before["discovered"]
        found = {
            path: known[path] if path in known else self._settled(path, started)
            for path in discovered
        }
        return {**before, "discovered": found, "outputs": self._digests([*self.outputs, *made])}

    def _success(self, task: Any, before: Record, began: int, started: int) -> Record:
        """Return the record of a success; put what the task really made into the store."""
        made = [os.fspath(path) for path in task.values.pop("made", ())]
        unsure = task.values.pop("unsure", False) or task.values.get(RESTORED)
        holding = task.values.pop("holding", ())
        record = self._after(before, task.values.pop("discovered", ()), made, started)
        if (
            self.store
            and not unsure
            and self._all_there(task.name, record)
            and self._sure(before, record, began)
        ):
            self._keep(task, self.store, before, record, made, holding)
        return record

    def _keep(
        self,
        task: Any,
        store: Stored,
        before: Record,
        record: Record,
        made: Sequence[str],
        holding: Sequence[str],
    ) -> None:
        """Put what the task made into the store."""
        with contextlib.suppress(OSError):  # an output vanished: the reason of the next run
            outputs = [
                Output(record["outputs"][path], info.st_size, stat.S_IMODE(info.st_mode))
                for path, info in ((path, os.stat(path)) for path in self.outputs)
            ]
            result = Result(
                task.name,
                time.time(),
                {name: value for name, value in task.values.items() if name not in NOT_KEPT},
                outputs,
                {path: record["outputs"][path] for path in made},
            )
            key = store.key(task.name, before, self.outputs, self.config)
            targets = [Path(path) for path in self.outputs]
            store.put(key, record["discovered"], result, targets, holding)

    def _all_there(self, name: str, record: Record) -> bool:
        """Tell whether all discovered inputs are there, and say it if not.

        One that is missing each time nobody would miss: the task is not stale, but it would never
        be stored.
        """
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
        """Tell whether the record is what the action really read.

        It is not where an input was touched since just before the action ran: of that the record
        has the old content, so that the task is stale, but what it made need not be made from that.
        Nothing is said here: the next run has the reason.
        """
        found = record["discovered"]
        symbols = {path for path in found if self.config and path.startswith("CONFIG_")}
        inputs = {**found, **record["files"]}
        return (
            not {MISSING, CHANGING, UNREADABLE} & {*inputs.values(), *record["outputs"].values()}
            and not unread(before["trees"])
            and self._declared() == {part: before[part] for part in DECLARED}
            and self._digests(found) == found
            and not any(
                self.stamps.touched(path, began) for path in {*self.files, *found} - symbols
            )
            and not (symbols and self.config and touched(self.config, began, missing=False))
        )

    def _found(self, store: Stored, name: str, known: Record) -> tuple[Result, list[str]] | None:
        """Return a result for the inputs as they are, with the names of the discovered ones."""
        return store.find(store.key(name, known, self.outputs, self.config), self._digests)

    def bring_back(self, name: str) -> tuple[dict[str, Any], float] | None:
        """Have the outputs of the task as they were made from the same inputs before.

        What keeps a file from being written (a full disk, say) is not said here: the task runs, and
        meets it.

        Args:
            name: The task.

        Returns:
            The values that its action returned then, and when that was (seconds since 1970); None
            when the store has no such result, or when the task is made by force (`doit -a`).
        """
        if not self.store or self.forced:
            return None
        found = self._found(self.store, name, self.now or self._declared())
        if not found:
            return None
        result, names = found
        try:
            for path in self.gone:
                Path(path).unlink(missing_ok=True)
            if not self.store.store.bring_back(result, list(map(Path, self.outputs))):
                return None
            return {
                **result.values,
                "discovered": names,
                "made": self._left(result.made),
                RESTORED: True,
            }, result.time
        except OSError:
            return None

    def kept(self, name: str) -> Result | None:
        """Return what the store has of the task, made from its inputs as they are."""
        found = self._found(self.store, name, self._declared()) if self.store else None
        return found[0] if found else None

    def _left(self, made: Mapping[str, str]) -> list[str]:
        """Return which of the files that were made with a result are there as they were.

        These are files elsewhere than the targets. Others of them are removed: a tool that goes by
        time would take them for good.
        """
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
        """Return the digest of an input learned of only now.

        One touched since the start may not be what the action read; nor may one that went since.
        """
        digest = self._digests([path])[path]
        if self.config and path.startswith("CONFIG_"):
            return digest
        gone = digest == MISSING and gone_since(path, started)
        return CHANGING if gone or touched(path, started, missing=False) else digest


def inputs_of(task: Any) -> Inputs | None:
    """Return what decides whether one of doit's tasks is up to date.

    None for a task that runs whenever it is asked for.
    """
    return next((test[0] for test in task.uptodate if isinstance(test[0], Inputs)), None)


def _values(config: str) -> Callable[[str], str]:
    """Return what gives the value of each symbol of a .config file.

    It is UNREADABLE for all where the file is missing or damaged.
    """
    try:
        known = read_known(Path(config))
    except PiggyError:  # the task that makes it says why
        return lambda symbol: UNREADABLE
    return lambda symbol: known.get(symbol, "n")


def _listed(listing: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
    """Return the listing of a folder, or the error in its place.

    Then the task is stale: it meets the same failure, and can report it.
    """
    try:
        return listing()
    except (PiggyError, OSError) as error:
        return {"": f"{UNREADABLE}: {error}"}
