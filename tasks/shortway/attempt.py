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
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.cache.digests import Stamps
from tasks.graph.history import Work
from tasks.graph.journal import UNFINISHED
from tasks.graph.reason import Reason
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
from tasks.kbuild.trace import Said, Trace
from tasks.shortway import ahead, computed, early, folders, link_script
from tasks.shortway.early import Early
from tasks.shortway.refresh import refresh_others
from tasks.shortway.replay import Replay
from tasks.system import files
from tasks.system.process import CommandError

SUFFIXES = (".c", ".h", ".S")
# Files that have the whole configuration.
_KCONFIG = {".config", *manifest.KCONFIG}


class Goal(msgspec.Struct, frozen=True):
    """What is to be made.

    Attributes:
        name: The name of its trace (see kbuild/trace.py).
        target: The target, relative to the object folder.
        outputs: Kbuild's names of all outputs of earlier runs.
        before: Kbuild's name of each earlier link of the chain, to its copy in images/; both must
            be equal.
        later: The names of later goals, to their targets, of which parts may be made beside it.
        then: The two links after vmlinux, name and target each, if the second is the compressor's
            and on the way to the image that is booted: it begins at once.
        named: The files and folders that symbols name. Make may have begun to read them after it
            told what the target is made from: usr/Makefile includes the list that gen_initramfs.sh
            writes.
    """

    name: str
    target: str
    outputs: Collection[str]
    before: Mapping[str, Path] = {}
    later: Mapping[str, str] = {}
    then: Sequence[tuple[str, str]] = ()
    named: Collection[str] = ()


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
        state = _ordinary(job, folder, goal)
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
    sources = _edited(
        reasons, {os.fspath(path) for path in (job.project.layout.config, *goal.before.values())}
    )
    _none_newer(obj, goal)
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
    _same(obj, traces, replay, stamps)
    _compiled_in(replay, sources)
    others = ahead.replays(folder, traces, replay, goal.later) if goal.later and not places else []
    for one in others:
        _same(obj, traces, one, stamps)
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
                _nothing_new(obj, one, known)
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


def _ordinary(job: Job, folder: ObjectFolder, goal: Goal) -> GoalState:
    """Check that the folder is as the last make or the short way left it, and return its state.

    Raises:
        Unfamiliar: Make has to decide.
    """
    obj, digest = folder.path, folder.stamps.digest
    if (obj / make.RUNNING).exists() or not ledger.trusted(obj):
        raise Unfamiliar("the last run did not end well")
    state = goal_state.read(obj, goal.name)
    if state is None:
        raise Unfamiliar("make has not told yet what it is made from")
    if goal.before and not folder.present:
        raise Unfamiliar("vmlinux came from the store, and the folder has another state")
    if spoilt := [reason for reason in job.reasons if reason.part == "outputs"]:
        raise Unfamiliar(str(spoilt[0]))
    if not job.reasons:
        raise Unfamiliar("there is no reason to run")
    for name in goal.outputs:
        if state.outputs.get(name) != digest(obj / name):
            raise Unfamiliar(f"{name} is not as it was left")
    for name, image in goal.before.items():
        if not name or digest(obj / name) != digest(image):
            raise Unfamiliar(f"{name or image} is not as it was left")
    config, auto = obj / ".config", obj / "include" / "config" / "auto.conf"
    try:
        if config.stat().st_mtime_ns > auto.stat().st_mtime_ns:
            raise Unfamiliar("Kconfig has to look at the configuration")
    except FileNotFoundError as error:
        raise Unfamiliar(f"{error.filename} is missing") from None
    return state


def _none_newer(obj: Path, goal: Goal) -> None:
    """Check that no file that a symbol names got a new time since the goal was made.

    Raises:
        Unfamiliar: One did.
    """
    made = files.changed(obj / goal.target)
    for name in goal.named:
        if files.changed(name, follow=False) > made:
            raise Unfamiliar(f"{name}, which a symbol names, is newer than {goal.target}")


def _is_edit(reason: Reason) -> bool:
    """Tell whether a reason is the changed content of a discovered input."""
    return (
        reason.part == "discovered"
        and reason.changed
        and not reason.symbol
        and not reason.name.endswith("/")
    )


def _edited(reasons: Iterable[Reason], others: Collection[str] = ()) -> set[str]:
    """Return the edited sources.

    Args:
        reasons: How the inputs differ from those that the folder's state was made from.
        others: Declared inputs that may differ: the configuration and earlier links.

    Raises:
        Unfamiliar: Something else differs.
    """
    sources = set()
    for reason in reasons:
        if _is_edit(reason):
            sources.add(reason.name)
        elif not (reason.part == "files" and reason.changed and reason.name in others):
            raise Unfamiliar(str(reason))
    for source in sources:
        if not source.endswith(SUFFIXES) or source.endswith(".lds.S"):
            raise Unfamiliar(f"{source} changed")
    return sources


def _same(obj: Path, traces: Trace, replay: Replay, stamps: Stamps) -> None:
    """Check that no other program made, changed or truncated one of the targets.

    Raises:
        Unfamiliar: One of them differs.
    """
    for target in replay.said.edges:
        if trace.meddled(obj, traces, target, stamps):
            raise Unfamiliar(f"{target} was made by somebody else")
    if name := manifest.spoilt(
        obj, set(replay.targets.inputs).union(*replay.targets.inputs.values())
    ):
        raise Unfamiliar(f"{name} is not as it was left")


def _compiled_in(replay: Replay, sources: set[str]) -> None:
    """Check that the .cmd files of the targets name all edited sources.

    Raises:
        Unfamiliar: They lack one, or a target without a .cmd file is made from one.
    """
    records = set(replay.targets.recorded.values())
    naming = replay.known.naming(sources, commands=False)
    named = {name for record, names in naming.items() if record in records for name in names}
    if sources - named:
        raise Unfamiliar(f"{min(sources - named)} is not what anything here was compiled from")
    for target, names in replay.targets.inputs.items():
        if target not in replay.targets.recorded and names & sources:
            raise Unfamiliar(
                f"{target}, which make writes without a record, is made from an edited file"
            )


def _nothing_new(obj: Path, replay: Replay, after: Depfiles) -> None:
    """Check that no target is now compiled from another generated file.

    An older target of the trace is allowed.

    Raises:
        Unfamiliar: One is.
    """
    for target in replay.made:
        for name in (
            set(after.made(replay.targets.recorded[target])) - replay.targets.inputs[target]
        ):
            if (
                name not in replay.targets.inputs
                or os.stat(obj / name).st_mtime_ns > os.stat(obj / target).st_mtime_ns
            ):
                raise Unfamiliar(f"{target} is now compiled from {name}")
