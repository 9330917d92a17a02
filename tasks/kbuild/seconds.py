"""Seconds that the compilation of each object took, for estimates.

While make runs, trace.mk creates an empty file when make comes to an object; the .cmd file, which
Kbuild writes last, has the time of the end. The short way measures its own commands.

How fast the host is differs from run to run. So the seconds of a target are kept as of a host with
nothing else to do (see system/crowd.py), and the pace of the last runs apart from them: a pace of 2
means twice the seconds.
"""

from __future__ import annotations

import heapq
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tasks.cache.store_files import Result
from tasks.graph.history import Work
from tasks.kbuild import trace
from tasks.system import crowd, files
from tasks.system.files import decoded, write_whole

FILE = "piggyback.seconds"
LONGEST = 3600.0  # seconds; longer ones are of a host that slept
SLOWEST = 8.0  # a pace beyond this, or below its inverse, is of no use
INERTIA = 1.0  # seconds of compiling that count as much for the pace as all earlier runs
MOST = 100_000  # targets


class Seconds(msgspec.Struct):
    """The content of piggyback.seconds.

    Attributes:
        of: Each object, to the seconds of its compilation at pace 1 on an idle host.
        pace: How much longer the last runs took.
        last: What the last run did.
        when: When that ended, ns since 1970.
    """

    of: dict[str, float] = {}
    pace: float = 1.0
    last: Work = msgspec.field(default_factory=Work)
    when: int = 0


def read(obj: Path) -> Seconds:
    """Return what is known of an object folder; nothing if the file is missing or damaged."""
    known = decoded(obj / FILE, Seconds, Seconds())
    sound = {name: took for name, took in known.of.items() if 0 <= took <= LONGEST}
    pace = known.pace if 1 / SLOWEST <= known.pace <= SLOWEST else 1.0
    return msgspec.structs.replace(known, of=sound, pace=pace)


def measured(obj: Path, begun: Path) -> dict[str, float]:
    """Return the seconds of the objects that make compiled.

    Args:
        obj: The object folder.
        begun: The folder of trace.mk's files; a "!" in a name stands for a "/".
    """
    took = {}
    for name in os.listdir(begun) if begun.is_dir() else ():
        target = name.replace("!", "/")
        ended, began = (
            files.changed(path) for path in (trace.record_of(obj, target), begun / name)
        )
        if ended > began >= 0:
            took[target] = (ended - began) / 1e9
    return took


def alone(took: Mapping[str, float]) -> dict[str, float]:
    """Return measured seconds as of an idle host, without those that can't be right."""
    crowded = crowd.at_start()
    return {name: one / crowded for name, one in took.items() if 0 < one <= LONGEST}


def learn(
    obj: Path, took: Mapping[str, float], work: Work, others: Mapping[str, float] | None = None
) -> None:
    """Record what a run measured.

    Args:
        obj: The object folder.
        took: Each compiled object to its seconds, as measured.
        work: What the run did.
        others: Seconds of objects that came from the store, on an idle host.
    """
    known = read(obj)
    took = alone(took)
    again = [name for name in took if name in known.of]
    if len(took) * 2 > len(known.of):
        known.pace, known.of = 1.0, {**known.of, **took}
    else:
        before, now = (sum(one[name] for name in again) for one in (known.of, took))
        if before and now:
            weight = before / (before + INERTIA)
            found = known.pace ** (1 - weight) * (now / before) ** weight
            known.pace = min(max(found, 1 / SLOWEST), SLOWEST)
        for name, seconds in took.items():
            fresh = seconds / known.pace
            known.of[name] = math.sqrt(known.of[name] * fresh) if name in known.of else fresh
    known.of = {**{name: one for name, one in (others or {}).items() if one}, **known.of}
    if len(known.of) > MOST:
        known.of = dict(took)
    known.last, known.when = work, time.time_ns()
    write_whole(obj / FILE, files.packed(known))


def work_since(obj: Path, started: int, way: str) -> Work:
    """Return what a task did in the object folder.

    Args:
        obj: The object folder.
        started: When the task began, ns since 1970.
        way: How it worked: "make" or "saved commands".
    """
    known = read(obj)
    done = known.last if known.when >= started else Work()
    return msgspec.structs.replace(done, way=way)


def of_result(result: Result) -> float:
    """Return the seconds that an object of the store took on an idle host; 0 if not known."""
    took = result.values.get("seconds")
    return float(took) if isinstance(took, int | float) and 0 < took <= LONGEST else 0.0


def schedule(seconds: Iterable[float], jobs: int) -> float:
    """Return how long commands of these seconds take one after the other on `jobs` processors."""
    free = [0.0] * max(1, jobs)
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)
