"""The short way: after an edit of compiled sources, run Kbuild's saved commands without make.

Make takes two seconds to find out, in each of its folders, that next to nothing is to be done. Its
decisions are known if only the content of C, assembler or header files changed since it last ran.
In any other or unknown case make decides. The result equals make's, and make finds nothing to do
afterwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tasks.cache.digests import Stamps
from tasks.graph.inputs import RESTORED
from tasks.graph.journal import UNFINISHED
from tasks.graph.reason import Reason
from tasks.graph.task import Job
from tasks.kbuild import ledger, make, manifest, object_rules, trace
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.object_folder import PRESENT
from tasks.kbuild.saved import Unfamiliar
from tasks.kbuild.trace import Trace
from tasks.shortway.refresh import refresh
from tasks.shortway.replay import Replay
from tasks.system.process import CommandError

SUFFIXES = (".c", ".h", ".S")


def taken(
    job: Job, goal: str, target: str, kept: Mapping[str, Path], before: Iterable[Path] = ()
) -> list[str] | None:
    """Bring a target of Kbuild up to date without make, if possible; the log tells why not.

    Args:
        job: The task's job.
        goal: The name of the target's trace (see kbuild/trace.py).
        target: The target, relative to the object folder.
        kept: Kbuild's name of each output of earlier runs, to its copy in images/; both must be
            equal.
        before: The declared inputs that may have changed.

    Returns:
        The discovered inputs of the target; None if make has to decide.

    Raises:
        CommandError: A source has errors.
    """
    try:
        replay = _replayed(job, goal, target, kept, before)
    except Unfamiliar as reason:
        _log(job, f"make decides: {reason.message}")
        return None
    _log(job, f"the short way: {len(replay.made)} targets, {len(replay.changed)} of them changed")
    previous = job.previous["record"]["discovered"]
    return replay.known.with_folders(
        {*previous, *replay.known.given([replay.targets.recorded[name] for name in replay.made])}
    )


def _log(job: Job, text: str) -> None:
    with job.log.open("a", encoding="utf-8") as log:
        log.write(f"# {text}\n")


def _replayed(
    job: Job, goal: str, target: str, kept: Mapping[str, Path], before: Iterable[Path]
) -> Replay:
    """Check all conditions, and run the saved commands; the arguments are those of `taken`.

    Raises:
        Unfamiliar: Make has to decide.
        CommandError: A source has errors.
    """
    project = job.project
    obj, tree = project.layout.kernel_obj, project.layout.kernel_src
    _ordinary(job, obj, kept, before)
    sources = _edited(job.reasons)
    traces = trace.read(obj)
    said = traces.goals.get(goal)
    if said is None or target not in said.edges or not said.env:
        raise Unfamiliar("make has not told yet what it is made from")
    checks = object_rules.checks(obj, tree)
    few = not sources and UNFINISHED not in job.previous
    known = Depfiles(
        obj, tree, [trace.record_of(obj, name) for name in said.edges] if few else None, save=False
    )
    replay = Replay(
        obj, target, said, known, project.jobs, job.log, checks, job.name, project.stamps.when
    )
    _same(obj, traces, replay, project.stamps)
    _compiled_in(replay, sources)
    renewed: list[str] = []
    with ledger.renewed(obj, project.stamps, known, renewed) as possible:
        if not possible:
            raise Unfamiliar("a source changed that was not said to have changed")
        marker = obj / make.RUNNING
        marker.touch()
        started = time.time_ns()
        failure, later = None, []
        try:
            replay.run()
        except CommandError as error:
            failure = error
        renewed += [replay.targets.recorded[name] for name in replay.made]
        known.refresh(renewed)
        if not failure:
            _nothing_new(obj, replay, known)
            later = [] if target in replay.changed else _refreshed(obj, tree, traces, goal, replay)
        for name in [*replay.made, *later]:
            trace.learn(obj, traces, name, project.stamps)
        manifest.update(obj, [*replay.made, *later], started)
        trace.write(obj, traces)
        marker.unlink()
    if known.whole:
        known.save()
    if failure:  # the folder is consistent: the target that failed is missing
        raise failure
    return replay


def _refreshed(obj: Path, tree: Path, traces: Trace, goal: str, replay: Replay) -> list[str]:
    """Renew the times of targets made from a goal whose content did not change; return them.

    Args:
        obj: The object folder.
        tree: The source tree.
        traces: The traces of all goals.
        goal: The name of the goal's trace.
        replay: The run that made the goal again.
    """
    edges: dict[str, set[str]] = {}
    for name, said in traces.goals.items():
        if name != goal:
            for target, names in said.edges.items():
                edges.setdefault(target, set()).update(names)
    return refresh(
        obj,
        tree,
        edges,
        {name: when for name, when in replay.made.items() if name not in replay.changed},
    )


def _ordinary(job: Job, obj: Path, kept: Mapping[str, Path], before: Iterable[Path]) -> None:
    """Check that the folder is as the last run left it, and that only sources changed.

    Args:
        job: The task's job, with the reasons for its run.
        obj: The object folder.
        kept: As in `taken`.
        before: As in `taken`.

    Raises:
        Unfamiliar: Make has to decide.
    """
    digest = job.project.stamps.digest
    if (obj / make.RUNNING).exists() or not ledger.trusted(obj):
        raise Unfamiliar("the last run did not end well")
    if job.previous.get(RESTORED) or not (obj / PRESENT).exists():
        raise Unfamiliar("the last result came from the store, and the folder has another state")
    known = {os.fspath(path) for path in before}
    others = [
        reason
        for reason in job.reasons
        if not (reason.part == "files" and reason.changed and reason.name in known)
        and reason.part != "unfinished"
        and not _is_edit(reason)
    ]
    if others or not job.reasons:
        raise Unfamiliar(str(others[0]) if others else "there is no reason to run")
    for name, image in kept.items():
        if not name or digest(obj / name) != digest(image):
            raise Unfamiliar(f"{name or image} is not as it was left")
    config, auto = obj / ".config", obj / "include" / "config" / "auto.conf"
    try:
        if config.stat().st_mtime_ns > auto.stat().st_mtime_ns:
            raise Unfamiliar("Kconfig has to look at the configuration")
    except FileNotFoundError as error:
        raise Unfamiliar(f"{error.filename} is missing") from None


def _is_edit(reason: Reason) -> bool:
    """Tell whether a reason is the changed content of a discovered input."""
    return (
        reason.part == "discovered"
        and reason.changed
        and not reason.symbol
        and not reason.name.endswith("/")
    )


def _edited(reasons: Iterable[Reason]) -> set[str]:
    """Return the edited sources.

    Raises:
        Unfamiliar: One of them is neither C, nor assembler, nor a header.
    """
    sources = {reason.name for reason in reasons if _is_edit(reason)}
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
