"""How long tasks should take, by the history of runs and the measured seconds of objects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tasks.graph.history import Line
from tasks.graph.inputs import RESTORED

RECENT = 5  # runs of a task that an estimate is made from
NEAREST = 3  # of them, for a task that compiles, those that compiled a like number of objects
MAKE, SAVED = "make", "saved commands"  # the ways in which a link of the kernel is made
# Until there is a history, measured on a small configuration of 6.1 with two processors (seconds):
FIRST = {MAKE: 4.0, SAVED: 0.5}  # a link without its objects
EACH = 0.03  # what make takes for each object besides its compilation
COPY = 0.005  # an object from the store
FROM_STORE = 0.03  # a task whose targets come from the store
AROUND = 0.25  # the start of doit, and its end


class Past:
    """The history, by task, with all times as of a host as crowded as it is now."""

    def __init__(self, lines: Iterable[Line], crowd: float) -> None:
        """Sort the lines.

        Args:
            lines: The lines, in their order.
            crowd: How crowded the host is (see system/crowd.py).
        """
        self._crowd = crowd
        self._made: dict[str, list[Line]] = {}
        self._restored: dict[str, list[float]] = {}
        self._runs: dict[float, list[Line]] = {}
        for line in lines:
            if line.seconds is None or line.result not in ("ok", RESTORED):
                continue
            if line.result == RESTORED:
                self._restored.setdefault(line.task, []).append(self._now(line, line.seconds))
            else:
                self._made.setdefault(line.task, []).append(line)
            if line.run:
                self._runs.setdefault(line.run, []).append(line)

    def _now(self, line: Line, seconds: float | None) -> float:
        """Return how long something that took `seconds` in a line's run would take now."""
        return (seconds or 0.0) * self._crowd / line.crowd

    def ordinary(self, name: str) -> float | None:
        """Return the usual seconds of a task; None if it never ran.

        The first time counts only if there is no other: it often does what later ones need not.
        """
        lines = self._made.get(name, [])
        found = [self._now(line, line.seconds) for line in (lines[1:] or lines)[-RECENT:]]
        return _median(found) if found else None

    def restored(self, name: str) -> float:
        """Return the seconds in which a task's targets come from the store."""
        found = self._restored.get(name, ())[-RECENT:]
        return _median(found) if found else FROM_STORE * self._crowd

    def fixed(self, name: str, way: str, count: int) -> float | None:
        """Return the seconds of a task besides those of its objects.

        Args:
            name: The task.
            way: How it will work.
            count: How many objects it will compile or copy.

        Returns:
            The median of the runs that are nearest; None if the task never ran in any known way.
        """
        lines = [line for line in self._made.get(name, ()) if line.work.way]
        same = [line for line in reversed(lines) if line.work.way == way][: RECENT * 4]
        if not same:
            first = FIRST[way] + (EACH * count if way == MAKE else 0)
            return first * self._crowd if lines else None
        found = sorted(same, key=lambda line: _far(_count(line), count))[:NEAREST]
        least = _far(_count(found[0]), count)
        near = [line for line in found if _far(_count(line), count) < least + 1.5]
        rest = [
            max(
                self._now(line, (line.seconds or 0) - line.work.compiling - line.work.copying)
                + (EACH * (count - _count(line)) * self._crowd if way == MAKE else 0),
                FIRST[way] / 4,
            )
            for line in near
        ]
        return _median(rest)

    def copying(self) -> float:
        """Return the seconds in which one object comes from the store."""
        lines = [line for lines in self._made.values() for line in lines if line.work.copied]
        recent = sorted(lines, key=lambda line: line.time)[-RECENT:]
        copied = sum(line.work.copied for line in recent)
        took = sum(self._now(line, line.work.copying) for line in recent)
        return took / copied if copied else COPY * self._crowd

    def around(self) -> float:
        """Return the seconds of a run besides its tasks."""
        found = [
            self._now(lines[-1], lines[-1].time - run - sum(line.seconds or 0 for line in lines))
            for run, lines in list(self._runs.items())[-RECENT:]
        ]
        return AROUND * self._crowd + max(0.0, _median(found) if found else 0.0)


def _median(values: Sequence[float]) -> float:
    """Return the median; of an even number of values that between the middle ones."""
    from statistics import median  # only here: it is slow to load

    return median(values)


def _count(line: Line) -> int:
    return line.work.compiled + line.work.copied


def _far(one: int, other: int) -> float:
    """Return how much two numbers of objects differ."""
    return abs(math.log((one + 1) / (other + 1)))
