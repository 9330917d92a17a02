"""The trace of a make: the prerequisites of its targets, and the environment of its recipes.

A .cmd file lacks some inputs of its target: `.incbin` and scripts like link-vmlinux.sh read files
that are neither in the command nor in a depfile. Make knows them as prerequisites. trace.mk makes
it print them at each run, and the short way (shortway/attempt.py) uses the last trace.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from tasks.cache.digests import Stamps, gone_since
from tasks.kbuild import saved
from tasks.kbuild.records import located
from tasks.system import files
from tasks.system.files import decoded, packed, write_whole
from tasks.system.pattern import pattern
from tasks.system.process import clean_env

RULES = Path(__file__).with_name("trace.mk")
GOAL = "piggyback-env"  # a goal of trace.mk that prints the environment
FILE = "piggyback.trace"
_FOLDER = "piggyback.said"
BEGUN = "begun"  # a folder in it; see seconds.py
_SINCE = "since"  # a file in it, as old as itself
_OURS = pattern(r"-j\d*|--jobserver-(?:auth|fds)=.*")  # options in MAKEFLAGS of a single run


class Call(msgspec.Struct):
    """A make that built a folder: `make -f scripts/Makefile.build obj=FOLDER ...`.

    Attributes:
        variables: Its make variables, as MAKEOVERRIDES has them.
        targets: The targets that it looked at.
        others: The folders below that it built for something else than an archive (subdir-y).
    """

    variables: str
    targets: list[str] = []
    others: list[str] = []


class Said(msgspec.Struct):
    """The trace of one goal.

    Attributes:
        env: The environment of the recipes.
        edges: Each target that is a file, to its prerequisites. Names are normalised; they are
            relative in the object folder, else absolute.
        calls: Each folder that one make built, and that without a goal of its own, to that call.
        makefiles: Each makefile, absolute, to the folders that the makes were called for that read
            it; "." for the top of the tree.
        earlier: The edges of targets that exist, and that this make had no reason to look at: those
            without FORCE are looked at when they are made.
    """

    env: dict[str, str]
    edges: dict[str, list[str]]
    calls: dict[str, Call] = {}
    makefiles: dict[str, list[str]] = {}
    earlier: dict[str, list[str]] = {}


class Trace(msgspec.Struct):
    """The traces of all goals, and the state of their targets.

    Attributes:
        goals: Name of a goal to its trace.
        commands: Each target with a .cmd file, to the latter's mtime (ns since 1970), size (bytes)
            and the digest of its command.
        generated: Each target without a .cmd file, to the digest of its content.
        before: Each goal whose last make did not end well, to the edges that were printed before.
        begun: The goal of the make that runs, or was ended.
    """

    goals: dict[str, Said] = {}
    commands: dict[str, tuple[int, int, str]] = {}
    generated: dict[str, str] = {}
    before: dict[str, dict[str, list[str]]] = {}
    begun: str = ""


def edges_of(goals: Iterable[Said], earlier: bool = False) -> dict[str, set[str]]:
    """Return the edges of several goals as one graph: each target to its prerequisites.

    Args:
        goals: The traces.
        earlier: Whether those count that are known from an earlier make.
    """
    edges: dict[str, set[str]] = {}
    for said in goals:
        for part in (said.edges, *([said.earlier] if earlier else [])):
            for target, names in part.items():
                edges.setdefault(target, set()).update(names)
    return edges


def read(obj: Path) -> Trace:
    """Return an object folder's traces; none if the file is missing or damaged."""
    return decoded(obj / FILE, Trace, Trace())


def prerequisites(obj: Path, goal: str = "") -> set[tuple[str, str]]:
    """Return pairs of a target and a prerequisite outside of the object folder.

    Args:
        obj: The object folder.
        goal: A key of Trace.goals; "" for all of them, and those whose make did not end well.
    """
    trace = read(obj)
    chosen = [said for known, said in trace.goals.items() if goal in ("", known)]
    edges = [part for said in chosen for part in (said.edges, said.earlier)]
    if not goal:
        edges += [*trace.before.values(), _left(obj)]
    return {
        (target, name)
        for one in edges
        for target, names in one.items()
        for name in names
        if name.startswith("/")
    }


def _left(obj: Path) -> dict[str, list[str]]:
    """Return the edges that a make printed which did not end well; none after one that did."""
    folder = obj / _FOLDER
    try:
        edges = _edges(obj, folder, Said({}, {}))
    except OSError:
        return {}
    return {target: sorted(names) for target, names in edges.items()}


def makefiles(obj: Path, tree: Path, goal: str) -> set[str]:
    """Return the makefiles of a tree that the makes of a goal read.

    Args:
        obj: The object folder.
        tree: The tree.
        goal: A key of Trace.goals.
    """
    said = read(obj).goals.get(goal)
    return makefiles_of(said, tree) if said else set()


def makefiles_of(said: Said, tree: Path) -> set[str]:
    """Return the makefiles that a trace has, of the tree and of elsewhere, but not our own."""
    top, own = os.path.realpath(tree), os.path.dirname(os.path.realpath(RULES))
    return {
        name
        for name in said.makefiles
        if name.startswith(f"{top}/") or (name[0] == "/" and os.path.dirname(name) != own)
    }


def begun(obj: Path) -> Path:
    """Return the folder of the files that tell, in the present `listening`, when objects began."""
    return obj / _FOLDER / BEGUN


def environment(obj: Path) -> dict[str, str]:
    """Return the environment of a recipe, as make printed it in the present `listening`."""
    return _environment(obj / _FOLDER / "environment")


def write(obj: Path, trace: Trace) -> None:
    """Write an object folder's traces."""
    write_whole(obj / FILE, packed(trace))


@contextlib.contextmanager
def listening(obj: Path, goal: str, stamps: Stamps) -> Iterator[dict[str, str]]:
    """Trace a run of make in the body of a `with`.

    After a failure the goal has no trace, but `prerequisites` knows its edges.

    Args:
        obj: The object folder.
        goal: The name of the trace.
        stamps: Digests of files.

    Yields:
        Environment variables for make.
    """
    trace = read(obj)
    _merge(trace.before.setdefault(trace.begun or goal, {}), _left(obj))
    if said := trace.goals.pop(goal, None):
        _merge(trace.before.setdefault(goal, {}), said.edges)
        _merge(trace.before[goal], said.earlier)
    trace.before = {name: edges for name, edges in trace.before.items() if edges}
    trace.begun = goal
    write(obj, trace)
    heard = Said({}, {})
    with hearing(obj, heard) as variables:
        yield variables
    trace.goals[goal], trace.begun = heard, ""
    heard.earlier = _still_needed(obj, heard.edges, trace.before.pop(goal, {}))
    for target in heard.edges:
        learn(obj, trace, target, stamps)
    write(obj, trace)


def _still_needed(
    obj: Path, edges: Mapping[str, list[str]], before: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """Return the edges of before that still count: of what the present ones lead to, and is there.

    Args:
        obj: The object folder.
        edges: What make told now.
        before: What it told earlier.
    """
    found: dict[str, list[str]] = {}
    waiting = {name for names in edges.values() for name in names} - edges.keys()
    while waiting:
        target = waiting.pop()
        if target in before and target not in found and os.path.isfile(obj / target):
            found[target] = [one for one in before[target] if os.path.isfile(obj / one)]
            waiting.update(one for one in found[target] if one not in edges)
    return found


def readers(traces: Trace) -> dict[str, set[str]]:
    """Return each makefile, absolute, to the folders that the makes of all goals read it for."""
    found: dict[str, set[str]] = {}
    for said in traces.goals.values():
        for path, places in said.makefiles.items():
            found.setdefault(path, set()).update(places)
    return found


def _merge(edges: dict[str, list[str]], more: Mapping[str, list[str]]) -> None:
    for target, names in more.items():
        edges[target] = sorted({*edges.get(target, ()), *names})


@contextlib.contextmanager
def hearing(obj: Path, said: Said) -> Iterator[dict[str, str]]:
    """Put what a run of make in the body of a `with` prints into `said`.

    Args:
        obj: The object folder.
        said: The trace, which is filled.

    Yields:
        Environment variables for make.
    """
    folder = obj / _FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    (folder / BEGUN).mkdir(parents=True)
    (folder / _SINCE).touch()
    yield {
        "MAKEFILES": str(RULES),
        "PIGGYBACK_TRACE": str(folder.resolve()),
        "PIGGYBACK_TOP": str(obj.resolve()),
    }
    said.env = _environment(folder / "environment")
    edges = _edges(obj, folder, said)
    said.edges = {target: sorted(names) for target, names in edges.items()}
    shutil.rmtree(folder, ignore_errors=True)


def learn(obj: Path, trace: Trace, target: str, stamps: Stamps) -> None:
    """Update the recorded state of a target: that of its .cmd file, or its digest if it has none.

    Args:
        obj: The object folder.
        trace: The traces, which are changed.
        target: The target, relative to the object folder.
        stamps: Digests of files.
    """
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
    """Tell whether a target was made by another program since its trace.

    It then has another command, or other content. Arguments are as in `learn`.
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
    """Return the path of a target's .cmd file."""
    folder, slash, name = target.rpartition("/")
    top = "" if target[:1] == "/" else f"{obj}/"
    return f"{top}{folder}{slash}.{name}.cmd"


def _digest(record: str) -> str:
    try:
        return hashlib.sha256(saved.read(record).text.encode()).hexdigest()[:16]
    except saved.Unfamiliar:
        return "?"


def _edges(obj: Path, folder: Path, said: Said) -> dict[str, set[str]]:
    """Return the prerequisites that the makes of a run printed, for targets that are files now.

    Args:
        obj: The object folder.
        folder: The folder with what they printed.
        said: Filled with the calls of folders and their makefiles.
    """
    top = os.path.realpath(obj)
    edges: dict[str, set[str]] = {}
    found: dict[str, list[Call]] = {}
    aimed: set[str] = set()  # folders that a make was called for with a goal of its own
    readers: dict[str, set[str]] = {}
    for path in folder.iterdir():
        if path.name in ("environment", BEGUN, _SINCE):
            continue
        call, place = Call(""), _folder_of(path.name)
        for line in path.read_text(errors="surrogateescape").splitlines():
            if line.startswith(": "):
                goals, _, variables = line[2:].partition(": ")
                call = Call(variables)
                found.setdefault(place, []).append(call)
                if goals.strip():
                    aimed.add(place)
                continue
            if line.startswith(":: "):
                others, _, names = line[3:].partition(":: ")
                call.others = others.split()
                for name in names.split():
                    readers.setdefault(_normal(name, top), set()).add(place)
                continue
            target, _, names = line.partition(" : ")
            target = _normal(target.strip(), top)
            call.targets.append(target)
            edges.setdefault(target, set()).update(_normal(name, top) for name in names.split())
    every = {*edges}.union(*edges.values())
    existing = {name for name in every if os.path.isfile(os.path.join(top, name))}
    since = files.changed(folder / _SINCE)
    needed = set[str]().union(*edges.values()) - existing
    existing |= {name for name in needed if name.startswith("/") and gone_since(name, since)}
    for place, them in found.items():
        if len(them) == 1 and place not in aimed:
            them[0].targets = sorted(existing.intersection(them[0].targets))
            said.calls[place] = them[0]
    said.makefiles = {
        name: sorted(folders) for name, folders in readers.items() if name.startswith("/")
    }
    return {target: part & existing for target, part in edges.items() if target in existing}


def _folder_of(name: str) -> str:
    """Return the folder that a make was called for, by the name of the file that it printed to."""
    return os.path.normpath(name.partition("-")[2].replace("!", "/"))


def _normal(name: str, top: str) -> str:
    path = located(top, name)
    return path[len(top) + 1 :] if path.startswith(top + "/") else path


def _environment(path: Path) -> dict[str, str]:
    """Return the environment of a recipe, without variables that hold for that run only."""
    words = path.read_text(errors="surrogateescape").split("\0") if path.exists() else []
    env = {name: value for name, _, value in (word.partition("=") for word in words if word)}
    for name in [
        name for name in env if name.startswith("PIGGYBACK_") or name in ("MAKEFILES", "_")
    ]:
        del env[name]
    for name, value in clean_env().items():  # they may differ when the environment is used
        if env.get(name) == value:
            del env[name]
    for name in ("MAKEFLAGS", "MFLAGS"):
        if name in env:
            env[name] = " ".join(word for word in env[name].split(" ") if not _OURS.fullmatch(word))
    return env
