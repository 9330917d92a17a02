"""Objects of a make that did not end well: what it compiled goes to the store, too.

Make ended with an error, or was killed. Its objects are in the object folder, and the next make
goes on with them; other configurations and folders have them from the store.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from tasks.kbuild import records, symbol_times
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.objects import Objects
from tasks.system import files

FILE = "piggyback.left"  # there while make runs, and as long as its objects were not kept


class _Make(msgspec.Struct):
    """A run of make.

    Attributes:
        started: When it began, ns since 1970.
        tools: The digest of compiler and binutils.
        symbols: The configuration in force.
    """

    started: int = 0
    tools: str = ""
    symbols: dict[str, str] = {}


def begin(objects: Objects, started: int) -> None:
    """Write down that make begins."""
    now = _Make(started, objects.tools, symbol_times.values_of(objects.obj))
    files.write_whole(objects.obj / FILE, files.packed(now))


def end(obj: Path) -> None:
    """Write down that no objects are left to be kept in an object folder."""
    files.remove(obj / FILE)


def keep(objects: Objects, goal: str) -> None:
    """Copy the objects into the store that a make compiled which did not end well.

    Those that make would compile anew are left out, and all if the configuration or the tools are
    other ones: they were compiled from something else.

    Args:
        objects: The interface to the store, for a make that is to begin, or that failed.
        goal: The name of the goal's trace (see kbuild/trace.py).
    """
    obj = objects.obj
    last = files.decoded(obj / FILE, _Make, _Make())
    if last.tools == objects.tools and last.symbols == symbol_times.values_of(obj):
        known = Depfiles(obj, Path(objects.roots.tree), save=False)
        made = [
            os.path.relpath(target, obj)
            for record in known.records
            if files.changed(target := records.target_of(record)) <= files.changed(record)
            and files.changed(record) >= last.started
        ]
        objects.keep_made(set(made) - objects.stale(known, made), last.started, {})
        objects.goals.add(goal, objects.compiled)
        objects.compiled.clear()
    end(obj)
