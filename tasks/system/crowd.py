"""How crowded the host is: how much longer this process takes than the processor time it uses.

A build beside others takes several times as long as alone. What a process that has just started has
met of that holds for the commands that it starts next, too.
"""

from __future__ import annotations

import resource
import time
from functools import cache

MOST = 20.0
SHORTEST = 0.05  # seconds of processor time from which on the ratio tells something


def _used() -> float:
    """Return the seconds of processor time of this process and of the children it waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


class _Clock:
    """The two times at the import, which comes early; no plain values, as code is an input."""

    def __init__(self) -> None:
        self.began, self.used = time.monotonic(), _used()


_CLOCK = _Clock()


def crowd() -> float:
    """Return seconds by the clock for each second of processor time so far; at least 1.

    It holds while this process computes, or waits for a child that does.
    """
    used, passed = _used() - _CLOCK.used, time.monotonic() - _CLOCK.began
    return min(max(passed / used, 1.0), MOST) if used > SHORTEST else 1.0


@cache
def at_start() -> float:
    """Return the value of `crowd` at the first call, before anything was waited for."""
    return crowd()
