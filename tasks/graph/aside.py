"""Images that a guest wrote to: kept aside before their task makes them anew.

An image that is not as its task made it, by the record of the last success, is renamed; where that
task fails it comes back, and where the same is made again nothing is kept.
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
    moved = {}
    for path in targets:
        if stamps.digest(path) not in (MISSING, known.get(path)) and os.path.isfile(path):
            moved[path] = _free(path)
            os.rename(path, moved[path])
    try:
        yield
    finally:
        for path, other in moved.items():
            if not os.path.lexists(path):
                os.rename(other, path)
            elif stamps.digest(other) == stamps.digest(path):
                os.unlink(other)
            else:
                terminal.line(
                    "note",
                    f"{path} is made anew, and what was written to it is kept as {other}",
                )


def _free(path: str) -> str:
    """Return the first free name for an image that is kept: PATH.1, PATH.2 and so on."""
    number = 1
    while os.path.lexists(f"{path}.{number}"):
        number += 1
    return f"{path}.{number}"
