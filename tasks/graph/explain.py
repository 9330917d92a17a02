"""Why tasks run, joined along the graph.

It leads from a task back to the files, settings and symbols that made it stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec

from tasks.graph.inputs import Inputs
from tasks.graph.reason import Reason
from tasks.system import terminal

ARROW = " <- "


class Node(msgspec.Struct, frozen=True):
    """A task as far as its place in the graph goes.

    Attributes:
        name: Its name.
        files: The files that it is made from.
        targets: The files that it makes.
        after: The tasks that go first without a file between them.
        inputs: What judges whether it is stale; None for what runs whenever it is asked for.
    """

    name: str
    files: tuple[str, ...]
    targets: tuple[str, ...]
    after: tuple[str, ...]
    inputs: Inputs | None


class Graph:
    """All tasks by name, and which of them makes which file.

    Attributes:
        nodes: The tasks, by name.
        owners: The task that makes a file, by its path.
    """

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
        """Return the tasks that a task waits for, in the order of its files."""
        node = self.nodes[name]
        found = [self.owners[file] for file in node.files if file in self.owners]
        return [one for one in dict.fromkeys([*found, *node.after]) if one in self.nodes]

    def paths(
        self, start: str, roots: Iterable[str], edges: Callable[[str], Iterable[str]]
    ) -> list[list[str]]:
        """Return the longest way from a task to each of others, the shorter ones first.

        The longest, for it goes link by link: that bzImage also looks at the configuration by
        itself is no news.

        Args:
            start: The task.
            roots: The others.
            edges: Gives the tasks that are one step away from one; the steps form no circle.
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


def stale(graph: Graph, values: Callable[[str], Mapping[str, Any]]) -> dict[str, list[Reason]]:
    """Return the tasks that would run now for reasons of their own, each with these.

    Args:
        graph: The graph.
        values: Gives what the journal holds of a task's last success, by its name.
    """
    found = {}
    for node in graph.nodes.values():
        if node.inputs is not None:
            node.inputs(SimpleNamespace(value_savers=[], values={}), values(node.name) or {})
            if node.inputs.reasons:
                found[node.name] = node.inputs.reasons
    return found


def left_alone(graph: Graph, is_ignored: Callable[[Node], object]) -> tuple[list[str], set[str]]:
    """Return the tasks that `doit ignore` was told, and all that do not run because of them.

    The latter are they and what is made from them.

    Args:
        graph: The graph.
        is_ignored: Tells of a task whether doit was told to ignore it.
    """
    named = [node.name for node in graph.nodes.values() if is_ignored(node)]
    alone = set(named)
    while more := {
        name
        for name in graph.nodes
        if name not in alone and not alone.isdisjoint(graph.producers(name))
    }:
        alone |= more
    return named, alone


def own(
    graph: Graph, name: str, ran: Mapping[str, Sequence[Reason]]
) -> tuple[list[str], list[Reason]]:
    """Part the reasons of a task that ran.

    Args:
        graph: The graph.
        name: The task.
        ran: All tasks of that run, each with its reasons.

    Returns:
        The tasks of the same run that gave it a changed file, and the reasons that are its own.
    """
    causes, rest = [], []
    for reason in ran[name]:
        owner = graph.owners.get(reason.file, "")
        if owner and owner in ran and owner != name:
            causes.append(owner)
        else:
            rest.append(reason)
    return list(dict.fromkeys(causes)), rest


def plain(reasons: Sequence[Reason], shorten: Callable[[str], str], most: int = 3) -> str:
    """Return reasons in one line.

    Notes (which symbols, say) stand in place of what they explain.

    Args:
        reasons: The reasons.
        shorten: Gives a sentence with short names of files.
        most: How many of them are named.
    """
    notes = [str(reason) for reason in reasons if reason.part == "note"]
    said = notes or [shorten(reason.brief) for reason in reasons]
    more = f" and {len(said) - most} more" if len(said) > most else ""
    return terminal.printable(", ".join(said[:most])) + more
