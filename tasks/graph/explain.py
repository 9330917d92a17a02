"""Why tasks run, joined along the graph: from a task back to the files, settings and symbols that
made it stale."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from tasks.graph.inputs import RESTORED, Inputs
from tasks.system import terminal
from tasks.system.files import open_regular

ARROW = " <- "
_LAST_RUNS = 4_000_000  # bytes of the history's end that are read


class Node(msgspec.Struct, frozen=True):
    """A task as far as its place in the graph goes. inputs: None for tasks that run whenever they
    are asked for."""

    name: str
    files: tuple[str, ...]
    targets: tuple[str, ...]
    after: tuple[str, ...]
    inputs: Inputs | None


class Graph:
    """All tasks by name, and which of them makes which file."""

    def __init__(self, dicts: Iterable[Mapping[str, Any]]) -> None:
        self.nodes: dict[str, Node] = {}
        for one in dicts:
            if "actions" in one:
                name = one["basename"] + (f":{one['name']}" if one.get("name") else "")
                inputs = next((test for test in one["uptodate"] if isinstance(test, Inputs)), None)
                self.nodes[name] = Node(
                    name,
                    tuple(one["file_dep"]),
                    tuple(one["targets"]),
                    tuple(one["task_dep"]),
                    inputs,
                )
        self.owners = {target: node.name for node in self.nodes.values() for target in node.targets}

    def producers(self, name: str) -> list[str]:
        """The tasks that a task waits for, in the order of its files."""
        node = self.nodes[name]
        found = [self.owners[file] for file in node.files if file in self.owners]
        return [one for one in dict.fromkeys([*found, *node.after]) if one in self.nodes]

    def paths(
        self, start: str, roots: Iterable[str], edges: Callable[[str], Iterable[str]]
    ) -> list[list[str]]:
        """The longest way from `start` to each of `roots` along `edges`, which form no circle; the
        shorter ones first.

        The longest, for it goes link by link: that bzImage also looks at the configuration by
        itself is no news.
        """
        ways = []
        for root in dict.fromkeys(roots):
            known: dict[str, list[str]] = {root: [root]}

            def way(name: str, known: dict[str, list[str]] = known) -> list[str]:
                if name not in known:
                    known[name] = []
                    found = max((way(other) for other in edges(name)), key=len, default=[])
                    known[name] = [name, *found] if found else []
                return known[name]

            ways += [way(start)] if way(start) else []
        return sorted(ways, key=len)


def stale(graph: Graph, values: Callable[[str], Mapping[str, Any]]) -> dict[str, list[str]]:
    """The tasks that would run now for reasons of their own, each with these (see Inputs.reasons).

    values: what the journal holds of a task's last success, by its name.
    """
    found = {}
    for node in graph.nodes.values():
        if node.inputs is not None:
            node.inputs(SimpleNamespace(value_savers=[], values={}), values(node.name) or {})
            if node.inputs.reasons:
                found[node.name] = node.inputs.reasons
    return found


def left_alone(graph: Graph, is_ignored: Callable[[Node], object]) -> tuple[list[str], set[str]]:
    """Return the tasks that `doit ignore` was told, and all that do not run because of them: they
    and what is made from them."""
    named = [node.name for node in graph.nodes.values() if is_ignored(node)]
    alone = set(named)
    while more := {
        name
        for name in graph.nodes
        if name not in alone and not alone.isdisjoint(graph.producers(name))
    }:
        alone |= more
    return named, alone


def brought_back(history: Path) -> list[str]:
    """The tasks that the last run that made anything did not run, but had from the store, in their
    order."""
    made = [entry for entry in entries(history) if entry["why"]]
    return [
        entry["task"]
        for entry in made
        if entry.get("run") == made[-1].get("run") and entry.get("result") == RESTORED
    ]


def last_run(history: Path) -> dict[str, list[str]]:
    """The tasks of the last run that made anything, each with its reasons, from the history's
    lines; {} without one."""
    found: dict[str, list[str]] = {}
    run = None
    for entry in reversed(entries(history)):
        task, why = entry["task"], list(entry["why"])
        if run is None and why:
            run = entry.get("run")
        if run is not None and entry.get("run") == run and why:
            found[task] = [*why, *(f"note: {note}" for note in entry.get("notes", ()))]
        elif run is not None and entry.get("run") != run:
            break
    return dict(reversed(found.items()))


def entries(history: Path) -> list[dict[str, Any]]:
    """The history's last lines (see journal.append_history), oldest first; what was cut off is left
    out."""
    try:
        with open(open_regular(history), "rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - _LAST_RUNS))
            lines = stream.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        found += [entry] if _well_formed(entry) else []
    return found


def _well_formed(entry: Any) -> bool:
    """Is it a line of the history as we write it, or wrote it once, with less in it?"""
    if not isinstance(entry, dict):
        return False
    numbers, lists = (
        (entry.get("seconds", 0), entry.get("run", 0)),
        (entry.get("why"), entry.get("notes", [])),
    )
    return (
        isinstance(entry.get("task"), str)
        and isinstance(entry.get("result", ""), str)
        and all(isinstance(number, int | float) and 0 <= number < 1e11 for number in numbers)
        and all(
            isinstance(lines, list) and all(isinstance(line, str) for line in lines)
            for lines in lists
        )
    )


def durations(history: Path, recent: int) -> dict[str, list[float]]:
    """For each task how many seconds its last successes took, newest last, at most `recent` of
    them."""
    found: dict[str, list[float]] = {}
    for entry in entries(history):
        if entry.get("result") == "ok" and "seconds" in entry:
            found.setdefault(entry["task"], []).append(entry["seconds"])
    return {task: seconds[-recent:] for task, seconds in found.items()}


def own(graph: Graph, name: str, ran: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Part the reasons of a task that ran: the tasks of the same run that gave it a changed file,
    and what is its own."""
    causes, rest = [], []
    for reason in ran[name]:
        found = re.match(
            r"(?:files|discovered): (?:file )?(.+) (?:changed|is new|is gone)$", reason
        )
        owner = graph.owners.get(found[1], "") if found else ""
        if owner and owner in ran and owner != name:
            causes.append(owner)
        else:
            rest.append(reason)
    return list(dict.fromkeys(causes)), rest


def plain(reasons: Sequence[str], shorten: Callable[[str], str], most: int = 3) -> str:
    """Reasons in one line: files by their short names; notes (which symbols, say) in place of what
    they explain."""
    notes = [reason.partition(": ")[2] for reason in reasons if reason.startswith("note: ")]
    said = notes or [
        shorten(
            re.sub(
                r"^(?:file|output|setting|tool) (?=\S+ (?:changed|is))",
                lambda word: word[0] if word[0] in ("output ", "tool ", "setting ") else "",
                reason.partition(": ")[2],
            )
        )
        for reason in reasons
    ]
    more = f" and {len(said) - most} more" if len(said) > most else ""
    return terminal.printable(", ".join(said[:most])) + more
