"""What modules are made from, besides what `modules` declares: those of the tree, and one outside.

A module's .cmd files name its sources. The flags of its commands come from the makefiles, and so
does whether there is a module at all; a generated source comes from a host program or a script.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from tasks.kbuild import makefiles, records, trace, unrecorded
from tasks.kbuild.depfiles import Depfiles
from tasks.system.pattern import pattern

GOAL = "modules"  # the name of the trace
# What is part of vmlinux alone, or an input of `modules` by its content.
_ELSEWHERE = pattern(
    r"\.?vmlinux.*|.*\.a|(?:arch/\w+/)?include/(?:generated|config)/.*|Module\.symvers|modules\..*"
)
# What changes with each build, or is an input of `module` by another name.
_PASSED_OVER = (
    *(f"include/generated/{name}" for name in ("autoconf.h", "compile.h", "utsversion.h")),
    *("Module.symvers", "modules.order", "vmlinux", "vmlinux.o", "vmlinux.symvers"),
)
_NO_PROGRAM = (".o", ".a", ".ko", ".mod", ".mod.c")
_UNUSED = ("scripts/basic", "scripts/kconfig")  # no module is made with those in there


def of_tree(obj: Path, tree: Path, since: int) -> list[str]:
    """Return the inputs of the tree's modules, after make has made them.

    All makefiles count that were read on the way: each may add a module, or remove one.

    Args:
        obj: The object folder.
        tree: The tree.
        since: When the run began, ns since 1970.
    """
    goals = trace.read(obj).goals
    said, known = goals.get(GOAL, trace.Said({}, {})), Depfiles(obj, tree)
    begin = [*known.of_modules(), *known.of_tools()]
    edges = trace.edges_of(goals.values(), earlier=True)  # vmlinux's make may have made some first
    names = _made_from(
        known, [records.target_of(os.path.relpath(one, obj)) for one in begin], edges
    )
    own = {name for name in names if not (name.startswith("/") or _ELSEWHERE.fullmatch(name))}
    found = [record for name in own if (record := trace.record_of(obj, name)) in known.records]
    inputs = set(known.inputs(since, found, (name for name in names if name.startswith("/"))))
    read = trace.makefiles_of(said, tree)
    near = sorted(read.intersection(_near(found, obj, said)))
    inputs |= read | unrecorded.searched(os.path.realpath(tree), near)
    return sorted(inputs)


def of_outside(obj: Path, tree: Path, place: Path, work: Path, symbols: Iterable[str]) -> list[str]:
    """Return the inputs of an external module besides its own files.

    These are the kernel's headers, generated ones included, the makefiles that its make reads, the
    programs and linker scripts in the object folder, and the symbols that headers and makefiles
    use, as CONFIG_NAME (fixdep lists these in place of autoconf.h).

    Args:
        obj: The object folder.
        tree: The tree.
        place: The folder with the copy of all its sources.
        work: The module's folder in it.
        symbols: The symbols of the configuration.
    """
    obj, own, known = obj.absolute(), os.path.realpath(place), list(symbols)
    read = {*records.makefiles(obj, tree, []), *_of_top(obj, tree)}
    inputs = {*read, *_programs(obj)}
    asking = [os.fspath(path) for path in (*map(Path, read), *place.rglob("*")) if _asks(path)]
    inputs |= unrecorded.searched(os.path.realpath(tree), asking)
    for name in asking:
        inputs.update(f"CONFIG_{symbol}" for symbol in makefiles.symbols_in(name))
    for record in records.below(place):
        for name in {*records.dependencies(record), *records.words(record)}:
            path = next(
                (os.path.normpath(base / name) for base in (obj, work) if (base / name).is_file()),
                "",
            )
            if path and not os.path.realpath(path).startswith(own + "/"):
                inputs.add(path)
        inputs.update(f"CONFIG_{symbol}" for symbol in records.symbols(record, known))
    return sorted(inputs.difference(str(obj / name) for name in _PASSED_OVER))


def _made_from(
    known: Depfiles, begin: Iterable[str], edges: Mapping[str, Collection[str]]
) -> set[str]:
    """Return the names of all that targets are made from, by make and by the .cmd files.

    They are relative to the object folder, else absolute. A target's own name is among them. What
    neither knows of may be made by any program of its folder.
    """
    waiting, names = [*begin], set[str]()
    programs: dict[str, list[str]] = {}
    for record in known.records:
        target = records.target_of(os.path.relpath(record, known.obj))
        if not target.endswith(_NO_PROGRAM):
            programs.setdefault(os.path.dirname(target), []).append(target)
    while waiting:
        name = waiting.pop()
        if name in names:
            continue
        names.add(name)
        if name.startswith("/") or _ELSEWHERE.fullmatch(name):
            continue
        waiting += edges.get(name, ())
        record = trace.record_of(known.obj, name)
        entry = known.records.get(record)
        if not entry and name not in edges and os.path.isfile(known.obj / name):
            waiting += programs.get(os.path.dirname(name), ())
        if entry:
            waiting += known.made(record)
            if not (entry.given or entry.made):  # else a compiler has listed all
                words = map(os.path.normpath, records.words(record))
                waiting += [word for word in words if not word.startswith(("/", ".."))]
    return names


def _near(found: Iterable[str], obj: Path, said: trace.Said) -> Iterator[str]:
    """Yield the makefiles that were read in the folders of .cmd files, or above them."""
    folders = {"."}
    for folder in {os.path.relpath(os.path.dirname(record), obj) for record in found}:
        folders.update(map(str, (Path(folder), *Path(folder).parents)))
    for makefile, readers in said.makefiles.items():
        if not folders.isdisjoint(readers):
            yield makefile


def _of_top(obj: Path, tree: Path) -> set[str]:
    """Return the makefiles that a make without a folder reads, by all traces.

    The make of an external module reads the same.
    """
    return {
        name
        for said in trace.read(obj).goals.values()
        for name in trace.makefiles_of(said, tree)
        if "." in said.makefiles[name]
    }


def _programs(obj: Path) -> Iterator[str]:
    """Yield what modules are made with: modpost, objtool, plugins, scripts/module.lds."""
    for top in ("scripts", "tools"):
        for where, folders, names in os.walk(obj / top):
            if os.path.relpath(where, obj) in _UNUSED:
                folders.clear()
                continue
            for path in (os.path.join(where, name) for name in names):
                made_to_run = os.path.isfile(path) and os.access(path, os.X_OK)
                if made_to_run or path.endswith((".lds", ".so")):
                    yield path


def _asks(path: Path) -> bool:
    """Tell whether a file is a makefile, which may use symbols and name further files."""
    return path.name.startswith(("Makefile", "Kbuild")) and path.is_file()
