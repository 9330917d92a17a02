"""The conditions of the short way: what changed is known, and nobody else was at work.

Each of these raises Unfamiliar where make has to decide.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.cache.digests import Stamps
from tasks.graph.reason import Reason
from tasks.graph.task import Job
from tasks.kbuild import goal_state, ledger, make, makefile_text, manifest, trace
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.goal_state import GoalState
from tasks.kbuild.object_folder import ObjectFolder
from tasks.kbuild.saved import Unfamiliar
from tasks.kbuild.trace import Said, Trace
from tasks.shortway.replay import Replay
from tasks.system import files

SUFFIXES = (".c", ".h", ".S")


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


def ordinary(job: Job, folder: ObjectFolder, goal: Goal) -> GoalState:
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


def none_newer(obj: Path, goal: Goal) -> None:
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


def edited(reasons: Iterable[Reason], others: Collection[str] = ()) -> set[str]:
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


def same(obj: Path, traces: Trace, replay: Replay, stamps: Stamps) -> None:
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


def compiled_in(replay: Replay, sources: set[str]) -> None:
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


def read_by_none(tree: Path, said: Said, sources: Collection[str]) -> None:
    """Check that no makefile has the shell read an edited source.

    Raises:
        Unfamiliar: One may.
    """
    top = os.path.realpath(tree)
    makefiles = trace.makefiles_of(said, tree) if sources else ()
    if makefile := makefile_text.reading(top, makefiles, sources):
        raise Unfamiliar(f"{os.path.relpath(makefile, top)} may have the shell read what changed")


def nothing_new(obj: Path, replay: Replay, after: Depfiles) -> None:
    """Check that no target is now compiled from another generated file.

    An older target of the trace is allowed.

    Raises:
        Unfamiliar: One is.
    """
    for target in replay.made:
        record = replay.targets.recorded.get(target)  # a folder's make writes files without one
        for name in set(after.made(record)) - replay.targets.inputs[target] if record else ():
            if (
                name not in replay.targets.inputs
                or os.stat(obj / name).st_mtime_ns > os.stat(obj / target).st_mtime_ns
            ):
                raise Unfamiliar(f"{target} is now compiled from {name}")
