"""New headers that hide one which an object was compiled with.

The compiler takes the first header that it finds, and make does not look for new ones. A header
below include/ is included by its path from there on, as in <linux/types.h>, any other one by its
file name. <asm/...> leads to asm-generic/ if the architecture has no such header
(scripts/Makefile.asm-generic).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from tasks.cache.digests import HEADERS
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.records import target_of
from tasks.system import files

DEEPEST = 12  # folders below a watched one that are searched


def folders(depfiles: Depfiles, known: Collection[str], read: Iterable[str]) -> set[str]:
    """Return the folders, beside the known ones, where a new header would count.

    Args:
        depfiles: The .cmd files.
        known: Folders, each with a "/".
        read: The files that were read since these were listed.
    """
    lie = {f"{os.path.dirname(path)}/" for path in read if path.startswith(f"{depfiles.tree}/")}
    if lie.union(f"{path}/" for path in depfiles.searched()) <= set(known):
        return set()
    found = depfiles.with_folders(depfiles.files())
    return {path for path in found if path.endswith("/")}.difference(known)


def new_headers(
    folders: Iterable[str],
    since: int,
    known: Collection[str],
    there: Collection[str] = (),
) -> dict[str, int]:
    """Return the headers in these folders that came since a time, each with the time of that.

    All headers of a new folder count: one that was moved here keeps the times of what is in it.

    Args:
        folders: The folders.
        since: The time, ns since 1970.
        known: Headers that were there before.
        there: Folders below that were there before.
    """
    found: dict[str, int] = {}
    for folder in folders:
        for path, came in _headers(folder.rstrip("/"), since, known, there, 0, 0):
            found[path] = max(came, found.get(path, 0))
    return found


def _headers(
    folder: str,
    since: int,
    known: Collection[str],
    there: Collection[str],
    came: int,
    depth: int,
) -> Iterator[tuple[str, int]]:
    """Yield the headers of one folder, as `new_headers` does.

    Args:
        folder: The folder.
        since: As in `new_headers`.
        known: As in `new_headers`.
        there: As in `new_headers`.
        came: When the folder came, ns since 1970; 0 if it was there before.
        depth: How many folders it is below the first one; links may lead in circles.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            info = entry.stat(follow_symlinks=False)
            when = max(came, info.st_ctime_ns)
            if when < since:
                continue
            if entry.name.endswith(HEADERS):
                if entry.path not in known:
                    yield entry.path, when
            elif entry.path in there and not files.moved(info):
                continue
            elif depth < DEEPEST and entry.is_dir():
                yield from _headers(entry.path, since, known, there, when, depth + 1)


def hidden(known: Iterable[str], new: Mapping[str, int], look: Collection[str]) -> dict[str, int]:
    """Return the headers that new ones may hide, each with the last time that one of these came.

    Args:
        known: The headers that were read.
        new: As `new_headers` returns it.
        look: The folders of -I.
    """
    by_name: dict[str, list[str]] = {}
    for path in new:
        by_name.setdefault(os.path.basename(path), []).append(path)
    old: dict[str, int] = {}
    for path in known:
        for other in by_name.get(os.path.basename(path), ()):
            if other != path and other.endswith(_include_names(path, look)):
                old[path] = max(new[other], old.get(path, 0))
    return old


def remove(depfiles: Depfiles, known: Iterable[str], new: Mapping[str, int]) -> None:
    """Remove the targets that were compiled with a header before another one came to hide it.

    Args:
        depfiles: The .cmd files.
        known: The headers that were read.
        new: As `new_headers` returns it.
    """
    old = hidden(known, new, depfiles.look())
    for record, names in depfiles.naming(old).items():
        target = target_of(record)
        if 0 <= files.changed(target) < max(old[name] for name in names):
            os.remove(target)


def _include_names(header: str, look: Iterable[str]) -> tuple[str, ...]:
    """Return the names, each after a "/", by which #include may name a header.

    Args:
        header: The header.
        look: The folders of -I: a name begins below one of them.
    """
    below = [header[len(folder) + 1 :] for folder in look if header.startswith(f"{folder}/")]
    name = (
        re.split(r"/include/(?:uapi/)?", header)[-1]
        if "/include/" in header
        else os.path.basename(header)
    )
    generic = [name.replace("asm-generic/", "asm/", 1)] if name.startswith("asm-generic/") else []
    return tuple(f"/{each}" for each in [name, *generic, *below])
