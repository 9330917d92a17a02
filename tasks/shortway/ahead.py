"""Targets of later links, made beside the compressor.

The links of the chain are tasks, one after the other. The compressor takes longest of them, on one
processor. What a later link is made from besides the earlier ones (on x86 misc.o, which has
addresses of vmlinux) is made meanwhile. The task of the later link checks all of it as ever, and
finds it up to date.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.kbuild import goal_state, symbol_times, trace
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.object_folder import ObjectFolder
from tasks.kbuild.saved import Unfamiliar
from tasks.kbuild.trace import Said, Trace
from tasks.shortway import folders
from tasks.shortway.replay import Replay
from tasks.shortway.stale import made_from
from tasks.system.beside import beside as working_beside
from tasks.system.process import CommandError


def replays(
    folder: ObjectFolder, traces: Trace, first: Replay, later: Mapping[str, str]
) -> list[Replay]:
    """Return what can be made beside a goal: for each later goal, a run of its stale targets.

    Left out is what is made from the first goal or from something stale of it, and a later goal
    with an edited source or with a symbol that a makefile uses: its own task decides about that.

    Args:
        folder: The object folder.
        traces: The traces of all goals.
        first: The run of the first goal; nothing of it was made yet.
        later: The names of later goals' traces, to their targets.
    """
    if folder.jobs.size < 2:
        return []
    pending = first.stale() | {first.goal}
    said = {name: traces.goals[name] for name in later if name in traces.goals}
    pending |= made_from(pending, trace.edges_of([first.said, *said.values()]))
    found, taken = [], {*first.said.edges}
    for name, one in said.items():
        names = one.edges.keys() - pending - taken - {*later.values()}
        with contextlib.suppress(Unfamiliar):
            replay = _replay(folder, name, one, names, first, pending)
            if replay:
                found.append(replay)
                taken |= names
    return found


def _replay(
    folder: ObjectFolder,
    goal: str,
    said: Said,
    names: set[str],
    first: Replay,
    pending: Collection[str],
) -> Replay | None:
    """Return a run of those of a later goal's targets that are stale; None if none is.

    Args:
        folder: The object folder.
        goal: The name of the later goal's trace.
        said: That trace.
        names: The targets.
        first: The run beside which they are made.
        pending: What that run makes, or is made from it: none of this may be read.

    Raises:
        Unfamiliar: The goal's own task has to decide.
    """
    obj = folder.path
    state = goal_state.read(obj, goal)
    if state is None or not said.env:
        raise Unfamiliar("make has not told yet what it is made from")
    symbols = symbol_times.different(state.symbols, symbol_times.values_of(obj))
    tree = os.path.realpath(folder.tree)
    if folders.concerned(tree, symbols, state.record["discovered"], said):
        raise Unfamiliar("a makefile uses a symbol that changed")
    part = msgspec.structs.replace(said, edges={name: said.edges[name] for name in names})
    known = Depfiles(obj, folder.tree, [trace.record_of(obj, name) for name in names], save=False)
    replay = Replay(
        obj,
        "",
        part,
        known,
        folder.jobs,
        first.log,
        first.checks,
        given=first.given,
        objects=folder.objects(),
        name=goal,
    )
    stale = replay.stale()
    targets = replay.targets
    for target in targets.downstream(stale, ""):
        if target not in targets.recorded or targets.newest.get(target, 0) > targets.when(target):
            raise Unfamiliar(f"a source of {target} changed")
        if not targets.inputs[target].isdisjoint(pending):  # by a record, which makefiles need not
            raise Unfamiliar(f"{target} includes what is made meanwhile")
        targets.command(target)
    return replay if stale else None


@contextlib.contextmanager
def beside(runs: Sequence[Replay], log: Path) -> Iterator[None]:
    """Make what `replays` found beside the body of a `with`, which it ends with.

    A failure is left to the tasks that the targets belong to; what was made before it stays.

    Args:
        runs: The runs.
        log: The file for a failure.
    """
    if not runs:
        yield
        return
    with working_beside(lambda: _run(runs, log)):
        yield


def _run(runs: Sequence[Replay], log: Path) -> None:
    for one in runs:
        try:
            one.run_part()
        except (Unfamiliar, CommandError) as reason:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"# not made ahead for {one.name}: {reason.message}\n")
