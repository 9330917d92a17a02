"""Folders of the tree whose makefile uses a symbol that changed.

A makefile may list other objects then, or give other flags. Make looks at such a folder alone,
called as it was when the whole tree was built, but without the folders below it. Its archive, and
all that is made from it, go the short way. Where a symbol is used in a makefile or script that
steers more than its own folder, make decides about the whole tree.

Source: scripts/Makefile.build (subdir-ym, targets-for-builtin).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable

from tasks.kbuild import makefile_text, object_rules, trace
from tasks.kbuild.saved import Unfamiliar
from tasks.kbuild.trace import Said
from tasks.shortway.replay import Replay
from tasks.system import files
from tasks.system.pattern import pattern

_MAKEFILES = ("Makefile", "Kbuild")
_ARCHIVES = ("built-in.a", "lib.a")
_WORD = pattern(r"[\w./:=,+@%~-]+")  # a make variable that needs no quotes
_NO_MAKEFILES = (".c", ".h", ".S", ".dts", ".dtsi", "/")
_COMMENT = pattern(r"^\s*#.*$", re.MULTILINE)
_IS_MAKEFILE = pattern(r"/(?:Makefile|Kbuild)[\w.-]*$|\.(?:mk|include)$")
# What a folder's makefile has that steers those below it. Flags may get there by other variables.
_DEEPER = pattern(
    r"subdir-(?:cc|as)flags|^\s*export\b"
    r"|^\s*(?:override\s+)?(?:KBUILD_\w*FLAGS|LINUXINCLUDE)\s*(?:::?|[+?])?=",
    re.MULTILINE,
)


def concerned(tree: str, symbols: Collection[str], inputs: Iterable[str], said: Said) -> list[str]:
    """Return the folders whose makefile uses one of the symbols, the deepest first.

    Args:
        tree: The source tree's real path.
        symbols: The symbols that changed, without CONFIG_.
        inputs: The goal's inputs; all of its makefiles and scripts are among them.
        said: The goal's trace.

    Raises:
        Unfamiliar: A symbol is used in a makefile or script that steers more than one folder.
    """
    if not symbols:
        return []
    # A name that make computes, as CONFIG_X_$(y), CONFIG_$1, $(addprefix CONFIG_,x), CONFIG_%, may
    # be any; and CONFIG alone may be the value of a variable that becomes the beginning of one.
    # Of scripts those with comma or "$" alone: checkkconfigsymbols.py has a CONFIG_ of its own.
    known = "|".join(map(re.escape, sorted(symbols)))
    begin, end = r"CONFIG_(?:\w*\$[({\w]|(?:\w*_)?", rf"|(?:{known})\b)"
    in_script = re.compile(f"{begin},{end}")
    in_makefile = re.compile(rf"(?<!\w)CONFIG(?!\w)|{begin}(?!\w){end}")
    called = {*said.calls, *map(os.path.dirname, said.edges)}
    makefiles = {os.path.join(tree, folder, name) for folder in called for name in _MAKEFILES}
    folders, own = [], object_rules.Own(tree, said.makefiles)
    for path in sorted(makefiles.union(inputs, said.makefiles)):
        if path.endswith(_NO_MAKEFILES) or "/Kconfig" in path or "/scripts/kconfig/" in path:
            continue
        text = makefile_text.content(path)
        if path in said.makefiles and (line := makefile_text.whole_configuration(text)):
            raise Unfamiliar(f"{os.path.relpath(path, tree)} reads the configuration: {line}")
        if _IS_MAKEFILE.search(path):
            found = in_makefile.search(_COMMENT.sub("", text))
        else:  # where a line with "#" may be text that it writes
            found = in_script.search(text)
        if not found:
            continue
        folder, name = os.path.split(os.path.relpath(path, tree))
        if (
            name not in _MAKEFILES
            or folder not in said.calls
            or f"{folder}/built-in.a" not in said.calls[folder].targets
            or re.fullmatch(r"arch/\w+", folder)
            and name == "Makefile"
            or said.makefiles.get(path, [folder]) != [folder]
            or _DEEPER.search(text)
        ):
            raise Unfamiliar(f"{found[0]} is used in {os.path.relpath(path, tree)}")
        if makefile := own.of(f"{folder}/"):
            raise Unfamiliar(f"{os.path.relpath(makefile, tree)} has a rule of its own for objects")
        _nothing_from_above(tree, folder)
        folders.append(folder)
    return sorted(set(folders), key=lambda folder: -folder.count("/"))


def _nothing_from_above(tree: str, folder: str) -> None:
    """Check that a folder gets no flags or variables from those above it.

    It is made alone, in the environment that the top Makefile gives.

    Raises:
        Unfamiliar: It may get some.
    """
    above = folder
    while above := os.path.dirname(above):
        for name in _MAKEFILES:
            path = os.path.join(tree, above, name)
            if re.fullmatch(r"arch/\w+/Makefile", f"{above}/{name}"):
                continue  # a part of the top Makefile
            with contextlib.suppress(OSError), open(path, errors="replace") as stream:
                if _DEEPER.search(stream.read()):
                    raise Unfamiliar(f"{above}/{name} may steer {folder}")


def remake(replay: Replay, goal: str, folder: str, stale: Collection[str]) -> None:
    """Make one folder without those below it, and take what make says now into the trace.

    Args:
        replay: The run of saved commands that follows.
        goal: The name of the goal's trace.
        folder: The folder, relative to the object folder.
        stale: All stale targets.

    Raises:
        Unfamiliar: The make failed, or make has to look at more.
    """
    said, targets = replay.said, replay.targets
    call = said.calls[folder]
    _nothing_before(replay, call.targets, stale)
    words = call.variables.split()
    if not all(map(_WORD.fullmatch, words)):
        raise Unfamiliar(f"make builds {folder} with {call.variables}")
    objects = replay.objects
    if objects:
        objects.lay_folder(goal, folder, [name for name in call.targets if name in stale])
    before = {name: files.changed(replay.obj / name) for name in call.targets}
    edges = {name: set(said.edges.get(name, ())) for name in call.targets}
    heard = Said({}, {})
    with trace.hearing(replay.obj, heard) as variables:
        flags, _, overrides = replay.env.get("MAKEFLAGS", "").partition(" -- ")
        jobs = replay.jobs.environment()["MAKEFLAGS"].strip()
        rules = os.path.join(said.env["srctree"], "scripts/Makefile.build")
        argv = ["make", "-f", rules, *words, "subdir-ym="]
        env = {**replay.env, **variables, "MAKEFLAGS": f"{flags} {jobs} -- {overrides}"}
        status, _ = replay.run_logged(argv, env, " ".join(argv))
    now = heard.calls.get(folder)
    if status or now is None:
        raise Unfamiliar(f"the make of {folder} failed")
    if objects:
        objects.renew()  # the make may have changed generated files
    _same_folders(said, folder, edges, heard)
    if now.others != call.others:
        raise Unfamiliar(f"make builds other folders below {folder}")
    for name in call.targets:
        if name not in now.targets:
            said.edges.pop(name, None)
    call.targets = now.targets
    for name, readers in heard.makefiles.items():
        said.makefiles[name] = sorted({*said.makefiles.get(name, ()), *readers})
    said.edges.update({name: heard.edges[name] for name in now.targets})
    replay.known.refresh(
        record
        for name in now.targets
        if os.path.exists(record := trace.record_of(replay.obj, name))
    )
    for name in now.targets:
        if files.changed(replay.obj / name) != before.get(name, -1):
            replay.made[name] = before.get(name, -1)
            replay.changed.add(name)
            if name.endswith(".o") and not (objects and name in objects.laid):
                replay.compiled.append(name)
        members = set(said.edges[name])
        if members != edges.get(name) or not replay.relisted.isdisjoint(members):
            replay.relisted.add(name)
    targets.learn()


def _nothing_before(replay: Replay, names: Collection[str], stale: Collection[str]) -> None:
    """Check that nothing stale outside of a folder is needed to compile in it.

    Archives don't count: those of the folders below are made before this one's again.

    Args:
        replay: The run.
        names: The folder's targets.
        stale: All stale targets.

    Raises:
        Unfamiliar: Something is needed.
    """
    waiting, seen = [name for name in names if not name.endswith(".a")], set(names)
    while waiting:
        for name in replay.targets.inputs.get(waiting.pop(), ()):
            if name not in seen:
                seen.add(name)
                waiting.append(name)
                if name in stale and not name.endswith(".a"):
                    raise Unfamiliar(f"{name} has to be made before its folder")


def _same_folders(said: Said, folder: str, before: dict[str, set[str]], heard: Said) -> None:
    """Check that the folder has the archives of the same folders below it.

    Raises:
        Unfamiliar: There are others: make has to build these, or the trace has targets of too many.
    """
    for name in (f"{folder}/{archive}" for archive in _ARCHIVES):
        old, new = (
            {one for one in part if one.endswith(".a")}
            for part in (before.get(name, ()), heard.edges.get(name, ()))
        )
        if old != new:
            raise Unfamiliar(f"{min(old ^ new)} comes or goes")
