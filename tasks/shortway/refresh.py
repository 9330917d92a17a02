"""Where an edit made no difference, let make, too, see that nothing that comes later is stale.

A target that came out with the bytes that it had is newer than what was made from it. Doit stops
there, by content; make goes by time, and would make the rest of the chain again. So what was fresh
before gets a new time, in the order in which it is made; what was stale before stays so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tasks.kbuild import trace
from tasks.kbuild.depfiles import Depfiles
from tasks.system import files


def refresh(
    obj: Path, source: Path, edges: Mapping[str, Iterable[str]], renewed: Mapping[str, int]
) -> list[str]:
    """Give a new time to the targets that were fresh before others were renewed, and return them.

    obj, source: object folder and tree; edges: what each target is made from; renewed: the targets
    that got a new time, but no other content, with the time (ns since 1970) that they had before.
    """
    known = Depfiles(obj, source, [trace.record_of(obj, target) for target in edges])
    inputs = {}
    for target, names in edges.items():
        record = trace.record_of(obj, target)
        if record in known.records and target not in renewed:
            inputs[target] = {*names, *known.made(record), *known.given([record])} - {target}
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
            ]
            if made >= max(0, *times):
                before[target] = made
                touched.append(target)
    for target in touched:
        os.utime(obj / target)
        os.utime(trace.record_of(obj, target))
    return touched
