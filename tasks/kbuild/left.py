"""Objects of a make that did not end well: what it compiled goes to the store, too.

Make ended with an error, or was killed. Its objects are in the object folder, and the next make
goes on with them; other configurations and folders have them from the store. After kill -9 that
holds for objects that were not there before: the others differ from the manifest, and are removed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from tasks.kbuild import ledger, make, records, symbol_times
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.objects import Objects
from tasks.system import files

FILE = "piggyback.left"  # there while make runs, and as long as its objects were not kept


class _Make(msgspec.Struct):
    """A run of make.

    Attributes:
        started: When it began, ns since 1970.
        tools: The digest of compiler and binutils.
        tree: The inode of the tree.
        goal: The name of the goal's trace (see kbuild/trace.py).
        symbols: The configuration in force.
    """

    started: int = 0
    tools: str = ""
    tree: int = 0
    goal: str = ""
    symbols: dict[str, str] = {}


def begin(objects: Objects, goal: str, started: int) -> None:
    """Write down that make begins.

    Args:
        objects: The interface to the store.
        goal: The name of the goal's trace (see kbuild/trace.py).
        started: When it begins, ns since 1970.
    """
    tree = ledger.identity(Path(objects.roots.tree))
    values = symbol_times.values_of(objects.obj)
    now = _Make(started, objects.tools, tree, goal, values)
    files.write_whole(objects.obj / FILE, files.packed(now))


def end(obj: Path) -> None:
    """Write down that no objects are left to be kept in an object folder."""
    files.remove(obj / FILE)


def keep(objects: Objects) -> None:
    """Copy the objects into the store that a make compiled which did not end well.

    Those that make would compile anew are left out, and all if configuration, tools or tree are
    other ones, or the clock was set back: they may be made from something else.

    Args:
        objects: The interface to the store, for a make that is to begin, or that failed.
    """
    obj, tree = objects.obj, Path(objects.roots.tree)
    last = files.decoded(obj / FILE, _Make, _Make())
    if (
        last.tools == objects.tools
        and last.tree == ledger.identity(tree)
        and last.symbols == symbol_times.values_of(obj)
        and last.started <= time.time_ns()
    ):
        known = Depfiles(obj, tree)
        made = [
            os.path.relpath(records.target_of(record), obj)
            for record, entry in known.records.items()
            if last.started <= files.changed(record)
            and 0 <= files.changed(records.target_of(record)) <= files.changed(record)
            and not (last.goal == "vmlinux" and entry.module)
        ]
        if last.goal == "vmlinux":
            made = [name for name in made if not make.LOADER.search(f"/{name}")]
        objects.keep_made(set(made) - objects.stale(known, made), last.started, {})
        objects.goals.add(last.goal, objects.compiled)
        objects.compiled.clear()
    end(obj)
