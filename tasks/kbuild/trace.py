"""What make says of its targets while it runs: the files it makes each from, the environment.

A saved command does not tell all that its target is made from: `.incbin` and scripts like
link-vmlinux.sh name files that stand neither in the command nor in a depfile. Make knows them, as
prerequisites. trace.mk has it say them, at each real run, and the short way (shortway/attempt.py)
goes by what was said last.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tasks.cache.digests import Stamps
from tasks.kbuild import saved
from tasks.system.files import decoded, write_whole
from tasks.system.process import clean_env

RULES = Path(__file__).with_name("trace.mk")
GOAL = "piggyback-env"  # to be asked for beside the real goal
FILE = "piggyback.trace"
_FOLDER = "piggyback.said"
_OURS = re.compile(
    r"-j\d*|--jobserver-(?:auth|fds)=.*"
)  # words of MAKEFLAGS that hold for one run only


class Said(msgspec.Struct):
    """What make said of one goal.

    env: of the recipes; edges: for each target that is a file, the files that make holds it to be
    made from. Names are relative to the object folder where they lie in it, else absolute; all are
    normalised.
    """

    env: dict[str, str]
    edges: dict[str, list[str]]


class Trace(msgspec.Struct):
    """What make said of all goals, and how the targets are now.

    goals: what was said, by what was asked for; commands: of each target with a record, the
    record's time and size (ns, bytes) and the digest of its command; generated: digests of the
    files that make writes without a record.
    """

    goals: dict[str, Said] = {}
    commands: dict[str, tuple[int, int, str]] = {}
    generated: dict[str, str] = {}


def read(obj: Path) -> Trace:
    """Return what is known of an object folder; nothing where it can't be read."""
    return decoded(obj / FILE, Trace, Trace())


def prerequisites(obj: Path, goal: str = "") -> set[tuple[str, str]]:
    """Return pairs of a target and a file outside of the object folder that it is made from.

    Make takes it so.

    Args:
        obj: The object folder.
        goal: As in Trace.goals; "" for all of them.
    """
    return {
        (target, name)
        for known, said in read(obj).goals.items()
        if goal in ("", known)
        for target, names in said.edges.items()
        for name in names
        if name.startswith("/")
    }


def environment(obj: Path) -> dict[str, str]:
    """Return the environment of a recipe, as make said it in the `listening` that goes on."""
    return _environment(obj / _FOLDER / "environment")


def write(obj: Path, trace: Trace) -> None:
    """Keep what is known of an object folder."""
    write_whole(obj / FILE, msgspec.msgpack.encode(trace))


@contextlib.contextmanager
def listening(obj: Path, goal: str, stamps: Stamps) -> Iterator[dict[str, str]]:
    """Run make in the body of a `with`, and keep what it says of its targets under `goal`.

    Yields the variables that make must have in its environment. When the body fails, nothing is
    known of that goal any more.
    """
    trace = read(obj)
    if trace.goals.pop(goal, None):
        write(obj, trace)
    folder = obj / _FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield {
        "MAKEFILES": str(RULES),
        "PIGGYBACK_TRACE": str(folder.resolve()),
        "PIGGYBACK_TOP": str(obj.resolve()),
    }
    edges = {target: sorted(names) for target, names in _edges(obj, folder).items()}
    trace.goals[goal] = Said(_environment(folder / "environment"), edges)
    for target in edges:
        learn(obj, trace, target, stamps)
    write(obj, trace)
    shutil.rmtree(folder, ignore_errors=True)


def learn(obj: Path, trace: Trace, target: str, stamps: Stamps) -> None:
    """Write down how a target is now: the state of its record, or its content where it has none."""
    record = record_of(obj, target)
    try:
        info = os.stat(record)
    except FileNotFoundError:
        trace.commands.pop(target, None)
        trace.generated[target] = stamps.digest(obj / target)
    else:
        known = trace.commands.get(target)
        if known is None or known[:2] != (info.st_mtime_ns, info.st_size):
            trace.commands[target] = (info.st_mtime_ns, info.st_size, _digest(record))
        trace.generated.pop(target, None)


def meddled(obj: Path, trace: Trace, target: str, stamps: Stamps) -> bool:
    """Tell whether somebody else made a target since, in another way.

    That is with another command or other content. Make would see that.
    """
    if target in trace.generated:
        return stamps.digest(obj / target) != trace.generated[target]
    known = trace.commands.get(target)
    try:
        info = os.stat(record_of(obj, target))
    except FileNotFoundError:
        return True
    return (
        known is None
        or known[:2] != (info.st_mtime_ns, info.st_size)
        and known[2] != _digest(record_of(obj, target))
    )


def record_of(obj: Path, target: str) -> str:
    """The path of a target's .cmd file."""
    folder, name = os.path.split(os.path.join(obj, target))
    return os.path.join(folder, f".{name}.cmd")


def _digest(record: str) -> str:
    try:
        return hashlib.sha256(saved.read(record).text.encode()).hexdigest()[:16]
    except saved.Unfamiliar:
        return "?"


def _edges(obj: Path, folder: Path) -> dict[str, set[str]]:
    """What the makes of a run said, of targets that are files now."""
    top = os.path.realpath(obj)
    edges: dict[str, set[str]] = {}
    for path in folder.iterdir():
        if path.name != "environment":
            for line in path.read_text(errors="surrogateescape").splitlines():
                target, _, names = line.partition(" : ")
                edges.setdefault(_normal(target.strip(), top), set()).update(
                    _normal(name, top) for name in names.split()
                )
    there = {
        name for name in {*edges}.union(*edges.values()) if os.path.isfile(os.path.join(top, name))
    }
    return {target: part & there for target, part in edges.items() if target in there}


def _normal(name: str, top: str) -> str:
    path = os.path.normpath(os.path.join(top, name))
    return path[len(top) + 1 :] if path.startswith(top + "/") else path


def _environment(path: Path) -> dict[str, str]:
    """The environment of a recipe, without what belongs to the run in which it was taken."""
    words = path.read_text(errors="surrogateescape").split("\0") if path.exists() else []
    env = {name: value for name, _, value in (word.partition("=") for word in words if word)}
    for name in [
        name for name in env if name.startswith("PIGGYBACK_") or name in ("MAKEFILES", "_")
    ]:
        del env[name]
    for name, value in clean_env().items():  # what may be another one when the environment is used
        if env.get(name) == value:
            del env[name]
    for name in ("MAKEFLAGS", "MFLAGS"):
        if name in env:
            env[name] = " ".join(word for word in env[name].split(" ") if not _OURS.fullmatch(word))
    return env
