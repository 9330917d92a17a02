"""New times for the users of a target that was made again with the same content.

Such a target is newer than the files that are made from it. doit compares content and stops there,
but make compares times and would make the rest of the chain again. So each user that was up to date
before gets a new time, in the order of the build; a stale one stays stale.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tasks.kbuild import symbol_times, trace
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.trace import Trace
from tasks.system import files


def refresh(
    obj: Path, source: Path, edges: Mapping[str, Iterable[str]], renewed: Mapping[str, int]
) -> list[str]:
    """Give a new time to targets that were up to date before their inputs were renewed.

    Args:
        obj: The object folder.
        source: The tree.
        edges: Target to its prerequisites.
        renewed: Each target that got a new time but has its old content, to its old mtime, ns since
            1970.

    Returns:
        The targets with a new time.
    """
    known = Depfiles(obj, source, [trace.record_of(obj, target) for target in edges])
    inputs = {}
    for target, names in edges.items():
        record = trace.record_of(obj, target)
        if record in known.records and target not in renewed:
            inputs[target] = {*names, *known.made(record), *known.given([record])} - {target}
    when = symbol_times.times(obj)
    read = known.reading(when)
    before, touched = dict(renewed), []
    try:
        order = list(TopologicalSorter(inputs).static_order())
    except CycleError:
        return []
    for target in order:
        if not before.keys().isdisjoint(inputs.get(target, ())):
            made = files.changed(obj / target)
            times = [
                before[name] if name in before else files.changed(obj / name)
                for name in inputs[target]
            ] + [when[name] for name in read.get(trace.record_of(obj, target), ())]
            if made >= max(0, *times):
                before[target] = made
                touched.append(target)
    for target in touched:
        os.utime(obj / target)
        os.utime(trace.record_of(obj, target))
    return touched


def refresh_others(
    obj: Path, source: Path, traces: Trace, goal: str, renewed: Mapping[str, int]
) -> list[str]:
    """Give a new time to the targets of all goals but one, of which targets were renewed.

    Args:
        obj: The object folder.
        source: The tree.
        traces: The traces of all goals.
        goal: The name of that one's trace.
        renewed: See `refresh`.

    Returns:
        The targets with a new time.
    """
    others = [said for name, said in traces.goals.items() if name != goal]
    return refresh(obj, source, trace.edges_of(others), renewed)
