"""What an object folder was last made from, for each goal.

A task's record says what its images were made from. These may have come from the store, and then
the object folder has an earlier state. The short way starts from that state, so it must know how
the inputs of then differ from those of now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from tasks.cache.digests import Stamps
from tasks.graph.reason import Reason, Record, compare
from tasks.kbuild import symbol_times
from tasks.system import files

FOLDER = "piggyback.state"  # a file for each goal


class GoalState(msgspec.Struct):
    """The state of a goal in an object folder.

    Attributes:
        record: The inputs of its task, by part and name, each with its digest or value.
        symbols: The configuration: symbol, without CONFIG_, to value.
        outputs: Each output, relative to the folder, to its digest.
    """

    record: Record
    symbols: dict[str, str]
    outputs: dict[str, str]

    def reasons(self, record: Callable[[Iterable[str]], Record]) -> list[Reason]:
        """Return how the inputs differ now.

        Args:
            record: Returns the record of the task's inputs as they are now; called with the names
                of the discovered ones (see Job.record).
        """
        return compare(self.record, record(self.record.get("discovered", {})))


def read(obj: Path, goal: str) -> GoalState | None:
    """Return a goal's state; None if it is not known."""
    state = files.decoded(obj / FOLDER / goal, GoalState, GoalState({}, {}, {}))
    return state if state.record else None


def keep(obj: Path, goal: str, record: Record, outputs: Collection[str], stamps: Stamps) -> None:
    """Record a goal's state after it was made.

    Args:
        obj: The object folder.
        goal: The name of the goal's trace.
        record: The record of the task's inputs.
        outputs: The goal's outputs, relative to the folder.
        stamps: Digests of files.
    """
    values = symbol_times.values_of(obj)
    state = GoalState(record, values, {name: stamps.digest(obj / name) for name in outputs})
    files.write_whole(obj / FOLDER / goal, files.packed(state))


def forget(obj: Path, goal: str) -> None:
    """Remove a goal's state before make makes the goal."""
    files.remove(obj / FOLDER / goal)


def forget_others(obj: Path, goal: str, edges: Mapping[str, Collection[str]]) -> None:
    """Remove the states of goals that were made last with another configuration than the present.

    A make for one goal may bring a part of another's targets to the present configuration.

    Args:
        obj: The object folder.
        goal: The goal that is made.
        edges: By goal, the targets that make looks at; without those of `goal` they may be any.
    """
    mine = set(edges[goal]) if goal in edges else None
    now = symbol_times.values_of(obj)
    for other, targets in edges.items():
        if other != goal and (mine is None or not mine.isdisjoint(targets)):
            state = read(obj, other)
            if state and state.symbols != now:
                forget(obj, other)
