"""The short way: after an edit of compiled sources or symbols, run saved commands without make.

Make takes two seconds to find out, in each of its folders, that next to nothing is to be done. Its
decisions are known if only the content of C, assembler or header files changed since it last ran,
or symbols that no makefile uses. If the makefiles of single folders use them, make looks at these
alone. In any other or unknown case make decides. The result equals make's, and make finds nothing
to do afterwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence

from tasks.graph.history import Work
from tasks.graph.journal import UNFINISHED
from tasks.graph.task import Job
from tasks.kbuild import (
    goal_state,
    ledger,
    make,
    manifest,
    object_rules,
    seconds,
    symbol_times,
    trace,
)
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.goal_state import GoalState
from tasks.kbuild.object_folder import ObjectFolder
from tasks.kbuild.saved import Unfamiliar
from tasks.kbuild.trace import Said
from tasks.shortway import ahead, computed, conditions, early, folders, link_script
from tasks.shortway.conditions import Goal
from tasks.shortway.early import Early
from tasks.shortway.refresh import refresh_others
from tasks.shortway.replay import Replay
from tasks.system.process import CommandError

# Files that have the whole configuration.
_KCONFIG = {".config", *manifest.KCONFIG}


def taken(job: Job, folder: ObjectFolder, goal: Goal) -> list[str] | None:
    """Bring a goal of Kbuild up to date without make, if possible; the log tells why not.

    Args:
        job: The task's job.
        folder: The object folder.
        goal: The goal.

    Returns:
        The discovered inputs of the target; None if make has to decide.

    Raises:
        CommandError: A source has errors.
    """
    begun = early.of(folder.path, folder.jobs)
    try:
        state = conditions.ordinary(job, folder, goal)
        replay = _replayed(job, folder, goal, state, begun)
    except Unfamiliar as reason:
        begun.drop()
        _log(job, f"make decides: {reason.message}")
        return None
    except BaseException:
        begun.drop()
        raise
    begun.drop(later=False)
    _log(job, f"the short way: {len(replay.made)} targets, {len(replay.changed)} of them changed")
    made = [
        replay.targets.recorded[name] for name in replay.made if name in replay.targets.recorded
    ]
    read = trace.makefiles_of(replay.said, folder.tree) | replay.known.lost(job.started, made)
    read.update(state.record["discovered"], replay.known.files(made))
    return replay.known.with_folders(read)


def _log(job: Job, text: str) -> None:
    with job.log.open("a", encoding="utf-8") as log:
        log.write(f"# {text}\n")


def _replayed(job: Job, folder: ObjectFolder, goal: Goal, state: GoalState, begun: Early) -> Replay:
    """Check all conditions, and run the saved commands.

    Raises:
        Unfamiliar: Make has to decide.
        CommandError: A source has errors.
    """
    obj, tree, stamps = folder.path, folder.tree, folder.stamps
    reasons = state.reasons(job.record)
    symbols = symbol_times.different(state.symbols, symbol_times.values_of(obj))
    sources = conditions.edited(
        reasons, {os.fspath(path) for path in (job.project.layout.config, *goal.before.values())}
    )
    conditions.none_newer(obj, goal)
    traces = trace.read(obj)
    said = traces.goals.get(goal.name)
    if said is None or goal.target not in said.edges or not said.env:
        raise Unfamiliar("make has not told yet what it is made from")
    checks = object_rules.checks(obj, tree)
    few = not sources and UNFINISHED not in job.previous
    if not symbols and not few and len(sources) <= folder.jobs.size:
        begun.compile_edited(said, sources, tree)
    asked = False
    if computed.in_loader(goal.target):
        packs = computed.holds_size(obj, said.edges)
        asked = computed.check(state.record["discovered"], os.path.realpath(tree), packs)
    places = _symbols_for_folders(folder, symbols, state, said)
    known = Depfiles(
        obj, tree, [trace.record_of(obj, name) for name in said.edges] if few else None, save=False
    )
    replay = Replay(
        obj,
        goal.target,
        said,
        known,
        folder.jobs,
        job.log,
        checks,
        job.name,
        stamps.when,
        objects=folder.objects(),
        name=goal.name,
        early=begun,
        then=early.commands_of(obj, traces, goal.target, goal.then),
    )
    if goal.target == "vmlinux":
        command = replay.targets.command(goal.target)
        replay.unread = link_script.unread(obj, tree, said, command)
        replay.goal_command = link_script.with_last_table(obj, tree, command.command)
        if not symbols and link_script.calls_make_for_nothing(tree, said):
            replay.goal_env = {"MAKE": "true"}
    conditions.same(obj, traces, replay, stamps)
    conditions.compiled_in(replay, sources)
    conditions.read_by_none(tree, said, sources)
    others = ahead.replays(folder, traces, replay, goal.later) if goal.later and not places else []
    for one in others:
        conditions.same(obj, traces, one, stamps)
        known.refresh(one.known.records)
    runs, renewed = [replay, *others], list[str]()
    with ledger.renewed(obj, stamps, known, renewed, bool(places)) as possible:
        if not possible:
            raise Unfamiliar("a source changed that was not said to have changed")
        marker = obj / make.RUNNING
        marker.touch()
        if places:
            goal_state.forget(obj, goal.name)
        started = replay.started = time.time_ns()
        failure, later = None, []
        try:
            if places:
                stale = replay.stale()
                for place in places:
                    folders.remake(replay, goal.name, place, stale)
            with ahead.beside(others, job.log):
                replay.run()
        except CommandError as error:
            failure = error
        for one in runs:
            recorded = one.targets.recorded
            renewed += [recorded[name] for name in one.made if name in recorded]
        known.refresh(renewed)
        if not failure:
            for one in runs:
                conditions.nothing_new(obj, one, known)
            if goal.target not in replay.changed:
                same = {
                    name: when
                    for one in runs
                    for name, when in one.made.items()
                    if name not in one.changed
                }
                later = refresh_others(obj, tree, traces, goal.name, same)
        made = [name for one in runs for name in one.made]
        for name in [*made, *later]:
            trace.learn(obj, traces, name, stamps)
        if symbols or symbol_times.changed(obj):  # what is made now is not of the recorded times
            symbol_times.keep(obj)
        manifest.update(obj, [*made, *later], started)
        trace.write(obj, traces)
        marker.unlink()
    _learn(folder, runs)
    if known.whole:
        known.save()
    for one in runs:
        if one.objects:
            one.objects.keep(one.name, started, one.compiled, seconds.alone(one.took))
            one.objects.report(one.name)
    if failure:  # the folder is consistent: the target that failed is missing
        if places:  # a folder's make may have compiled more than was told
            ledger.doubt(obj)
        raise failure
    if (
        asked
        and computed.is_loader(goal.target)
        and computed.bad_symbols(obj, goal.target, replay.env)
    ):
        raise Unfamiliar(f"{goal.target} has local symbols in .bss")
    return replay


def _learn(folder: ObjectFolder, runs: Sequence[Replay]) -> None:
    """Record how long the compilations took."""
    took = {name: each for one in runs for name, each in one.took.items() if name.endswith(".o")}
    stores = [one.objects for one in runs if one.objects]
    copied = {name: each for one in stores for name, each in one.laid.items()}
    work = Work(
        compiled=len(took),
        compiling=seconds.schedule(took.values(), folder.jobs.size),
        copied=len(copied),
        copying=sum(one.copying for one in stores),
    )
    seconds.learn(folder.path, took, work, copied)


def _symbols_for_folders(
    folder: ObjectFolder, symbols: Collection[str], state: GoalState, said: Said
) -> list[str]:
    """Return the folders of which make has to look at the makefile, as it uses a changed symbol.

    Raises:
        Unfamiliar: Make has to decide about the whole tree.
    """
    if not symbols:
        return []
    now = symbol_times.values_of(folder.path)
    if modules := [name for name in symbols if "m" in (now.get(name), state.symbols.get(name))]:
        raise Unfamiliar(f"CONFIG_{min(modules)} is of a module")
    for target, names in said.edges.items():
        if (
            target not in _KCONFIG
            and not _KCONFIG.isdisjoint(names)
            and not os.path.exists(trace.record_of(folder.path, target))
        ):
            raise Unfamiliar(f"{target} is made from the whole configuration")
    tree = os.path.realpath(folder.tree)
    return folders.concerned(tree, symbols, state.record["discovered"], said)
