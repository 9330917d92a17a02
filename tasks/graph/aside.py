"""Images that a guest wrote to: kept aside before their task makes them anew.

An image that is not as its task made it, by the record of the last success, is renamed to
IMAGE.aside; where that task fails it comes back. Where another one is made it becomes IMAGE.1,
which is said; where the same is made again nothing is kept. What a run that was killed left aside
the next one takes up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

from tasks.cache.digests import MISSING, Stamps
from tasks.system import terminal


@contextlib.contextmanager
def kept(targets: Sequence[str], known: Mapping[str, str], stamps: Stamps) -> Iterator[None]:
    """Keep what others wrote to the targets of a task, which the body makes anew.

    Args:
        targets: The targets.
        known: The digest of each as it was made last; no word where that is not known.
        stamps: Digests of files.
    """
    moved = []
    for path in targets:
        _settle(path, stamps)
        if stamps.digest(path) not in (MISSING, known.get(path)) and os.path.isfile(path):
            os.rename(path, _aside(path))
            moved.append(path)
    try:
        yield
    finally:
        for path in moved:
            _settle(path, stamps)


def _settle(path: str, stamps: Stamps) -> None:
    """Put back what is kept of an image, or give it a name of its own; drop it if it is the same.

    Args:
        path: The image, which may be there or not.
        stamps: Digests of files.
    """
    other = _aside(path)
    if not os.path.lexists(other):
        return
    if not os.path.lexists(path):
        os.rename(other, path)
    elif stamps.digest(other) == stamps.digest(path):
        os.unlink(other)
    else:
        name = _free(path)
        os.rename(other, name)
        terminal.line("note", f"{path} is made anew, and what was written to it is kept as {name}")


def _aside(path: str) -> str:
    """Return the name that an image has while its task makes another one."""
    return f"{path}.aside"


def _free(path: str) -> str:
    """Return the first free name for an image that is kept: PATH.1, PATH.2 and so on."""
    number = 1
    while os.path.lexists(f"{path}.{number}"):
        number += 1
    return f"{path}.{number}"
