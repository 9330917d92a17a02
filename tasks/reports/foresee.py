"""What a run would do, task by task: make it, have it from the store, or leave it alone.

A task that the store has gives the digests of its targets. So what is made from them can be looked
up, too, before anything is brought back.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec

from tasks.cache.digests import Stamps
from tasks.cache.store_files import Result
from tasks.graph.explain import Graph, Node
from tasks.graph.inputs import Inputs
from tasks.graph.reason import Reason


class Step(msgspec.Struct, frozen=True):
    """A task that would run.

    Attributes:
        name: The task.
        reasons: Its reasons, by what is known of the tasks before it.
        result: What the store has for it; None if it is to be made.
        certain: Whether it runs whatever comes of the tasks before it.
    """

    name: str
    reasons: tuple[Reason, ...] = ()
    result: Result | None = None
    certain: bool = True


class Foreseen:
    """Digests of files as they will be."""

    def __init__(self, stamps: Stamps, digests: Mapping[str, str]) -> None:
        self._stamps, self._digests = stamps, digests

    def digest(self, path: Any) -> str:
        """Return the digest that a file will have."""
        known = self._digests.get(str(path))
        return self._stamps.digest(path) if known is None else known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stamps, name)


def steps(
    graph: Graph,
    order: Sequence[str],
    values: Callable[[str], Mapping[str, Any]],
    told: Callable[[str], Mapping[str, str]],
) -> list[Step]:
    """Return the tasks that would run, in their order.

    Args:
        graph: The graph.
        order: The tasks to look at, each after its producers.
        values: Gives what the journal holds of a task's last success.
        told: Gives the digests of targets of a task, if they can be known before it runs.
    """
    found: list[Step] = []
    digests: dict[str, str] = {}
    unknown: set[str] = set()
    for name in order:
        node = graph.nodes[name]
        step = _step(node, digests, unknown, values(name) or {}, {one.name for one in found})
        if step is None:
            continue
        found.append(step)
        if step.result:
            made = zip(node.targets, (one.digest for one in step.result.outputs), strict=False)
            digests.update(made)
        else:
            known = told(name)
            digests.update(known)
            unknown.update(path for path in node.targets if path not in known)
    return found


def _step(
    node: Node,
    digests: Mapping[str, str],
    unknown: set[str],
    values: Mapping[str, Any],
    before: set[str],
) -> Step | None:
    """Return what becomes of one task; None if it would not run."""
    if node.inputs is None:
        return Step(node.name)
    open_ = not unknown.isdisjoint(node.files)
    inputs = _with(node.inputs, digests)
    inputs(SimpleNamespace(value_savers=[], values={}), values)
    if not inputs.reasons:
        waits = open_ or not before.isdisjoint(node.after)
        return Step(node.name, certain=False) if waits else None
    result = None if open_ else inputs.kept(node.name)
    return Step(node.name, tuple(inputs.reasons), result)


def _with(inputs: Inputs, digests: Mapping[str, str]) -> Inputs:
    """Return the inputs of a task with the digests that files will have."""
    foreseen = copy.copy(inputs)
    foreseen.stamps = Foreseen(inputs.stamps, digests)  # type: ignore[assignment]
    return foreseen
