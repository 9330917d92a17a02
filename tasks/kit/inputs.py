"""Is a task up to date, and if not, why: every input and output of a task in one record, compared part by part.

The record of the last success lies in doit's database among the task's values. It holds the settings used, the code of
the action, the tools, the declared files and folders, what the action discovered while it ran (the sources that the
compiler really read), and the outputs. One mechanism for all tasks, so that one sentence explains any of them.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.kit.errors import PiggyError
from tasks.kit.identity import code_id
from tasks.kit.journal import UNFINISHED
from tasks.kit.kcontract import read_config
from tasks.kit.run import clean_env
from tasks.kit.stamps import MISSING, Stamps

Record = dict[str, dict[str, str]]
CHANGING = "changed while it was read"
_WORDS = {"settings": "setting", "code": "code of", "tools": "tool", "files": "file", "trees": "", "discovered": "",
          "outputs": "output"}


class Inputs:
    """An `uptodate` callable for doit: true when nothing that the task depends on, and none of its outputs, has changed.

    stamps:   digests of files.
    action:   the function that does the work; its code is an input.
    settings: what else decides the output, by name (versions, command lines, orders of lists).
    files:    declared input files.
    trees:    by label, functions that list a folder's state as `{path: state}`.
    tools:    programs, looked up on PATH; the content of the binary counts.
    outputs:  the task's targets.
    config:   a .config file, where an action may discover single symbols of it, as CONFIG_NAME.
    """

    def __init__(self, stamps: Stamps, action: Callable[..., Any], *, settings: Mapping[str, str],
                 files: Sequence[str], trees: Mapping[str, Callable[[], Mapping[str, str]]], tools: Sequence[str],
                 outputs: Sequence[str], config: str = "") -> None:
        self.stamps, self.action, self.settings = stamps, action, settings
        self.files, self.trees, self.tools, self.outputs, self.config = files, trees, tools, outputs, config
        self.reasons: list[str] = []
        self.previous: dict[str, Any] = {}

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        """Called by doit to learn whether `task` is up to date; arranges for the new record to be saved on success."""
        self.previous = dict(values)
        old: Record = values.get("record", {})
        now = self._declared()
        now["discovered"] = self._digests(old.get("discovered", {}))
        now["outputs"] = self._digests(dict.fromkeys([*self.outputs, *old.get("outputs", {})]))
        self.reasons = compare(old, now) or (["unfinished: its last run did not end well"] if UNFINISHED in values else [])
        started = time.time_ns()
        task.value_savers[:] = [lambda: {"record": self._after(now, task.values.pop("discovered", ()),
                                                               task.values.pop("made", ()), started)}]
        return not self.reasons

    def __repr__(self) -> str:
        """What `doit info TASK` shows: why the task would run."""
        return "; ".join(reason.partition(": ")[2] for reason in self.reasons[:10]) or "nothing changed"

    def _declared(self) -> Record:
        """What is known before the task runs."""
        return {"settings": dict(self.settings), "code": {self.action.__name__: code_id(self.action)},
                "tools": {tool: self._tool(tool) for tool in self.tools}, "files": self._digests(self.files),
                "trees": {f"{label} {path}": state for label, listing in self.trees.items()
                          for path, state in _listed(listing).items()}}

    def _tool(self, name: str) -> str:
        path = shutil.which(name, path=clean_env()["PATH"])  # where `run` looks, too
        return f"{path} {self.stamps.digest(path)[:12]}" if path else MISSING

    def _digests(self, paths: Iterable[str]) -> dict[str, str]:
        digest, values = self.stamps.digest, None
        found = {}
        for path in paths:
            if self.config and path.startswith("CONFIG_"):
                values = _values(self.config) if values is None else values
                found[path] = values.get(path.removeprefix("CONFIG_"), "n")
            else:
                found[path] = digest(path)
        return found

    def _after(self, before: Record, discovered: Iterable[str], made: Iterable[str], started: int) -> Record:
        """The record of a success: inputs as they were before the action, so that an edit made meanwhile is not lost."""
        known = before["discovered"]
        found = {path: known[path] if path in known else self._settled(path, started) for path in discovered}
        return {**before, "discovered": found, "outputs": self._digests([*self.outputs, *made])}

    def _settled(self, path: str, started: int) -> str:
        """The digest of an input learned of only now; one touched since the start may not be what the action read."""
        digest = self._digests([path])[path]
        if self.config and path.startswith("CONFIG_"):
            return digest
        try:
            return CHANGING if os.stat(path).st_ctime_ns >= started else digest
        except OSError:
            return digest


def _values(config: str) -> Mapping[str, str]:
    """The symbols of a .config file; none where it is missing or damaged."""
    try:
        return read_config(Path(config))
    except PiggyError:
        return {}


def _listed(listing: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
    """The listing of a folder. Where that fails the task counts as stale: it meets the same failure, and can report it."""
    try:
        return listing()
    except (PiggyError, OSError) as error:
        return {"": f"can't be listed: {error}"}


def compare(old: Record, now: Record) -> list[str]:
    """Return why the state `now` differs from the record `old`, as `part: sentence` lines; empty when it does not."""
    if not old:
        return ["never: not built yet"]
    reasons = []
    for part, mine in now.items():
        theirs = old.get(part, {})
        if mine == theirs:
            continue
        names = [*theirs, *(name for name in mine if name not in theirs)]
        for name in sorted(names, key=lambda name: name.endswith("/")):  # a file says more than its folder
            before, after = theirs.get(name), mine.get(name)
            if before != after:
                reasons.append(f"{part}: {_sentence(part, name, before, after)}")
    return reasons


def _sentence(part: str, name: str, before: str | None, after: str | None) -> str:
    symbol = part == "discovered" and name.startswith("CONFIG_")
    what = name if symbol else f"{_WORDS[part]} {name}".strip()
    if name.endswith("/") and before and after:
        return f"other headers or makefiles are in {name}"
    if (part == "settings" or symbol) and before is not None and after is not None and len(before) + len(after) < 80:
        return f"{what} {before or '(empty)'} -> {after or '(empty)'}"
    if before in (None, MISSING):
        return f"{what} is new"
    if after in (None, MISSING):
        return f"{what} is gone"
    return f"{what} changed"
