"""The folders in which a new header would count, as the compiler would find it there first."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping

from tasks.cache.digests import HEADERS


def added(tree: str, files: Iterable[str], look: Collection[str]) -> list[str]:
    """Add to files of a tree the folders where a new header would count, each with a "/".

    These are their own folders, those that are searched, and in both the folders with a name by
    which a header was found: #include "zz/z.h" finds zz/ beside the file that has it, or in a
    folder of -I. Parents that are include folders are added, too. The digest of a folder is that of
    the list of its headers, makefiles and folders (see Stamps), so each of these that is not there
    yet is noticed in the one above.

    Args:
        tree: The tree's real path.
        files: The files; folders among them, each with a "/", are known already.
        look: The folders that are searched, as of -I, whether they exist or not.
    """
    inputs = set(files)
    known = {path for path in inputs if path.endswith("/")}
    own = {os.path.dirname(path) for path in inputs if path.startswith(f"{tree}/")}
    own = existing(tree, own)  # a text may name what is not there
    # After saved commands, which are the same as before, mostly no folder is another one.
    waiting = own.union(existing(tree, look))
    others = any(f"{folder}/" not in known for folder in waiting)
    parts = _parts(look, inputs) if others else {}
    while waiting:
        folder = waiting.pop()
        above = os.path.dirname(folder)
        includes = above.startswith(tree) and "/include" in above[len(tree) :]
        if includes and f"{above}/" not in inputs:
            waiting.add(above)
        inputs.add(f"{folder}/")
        if f"{folder}/" not in known:
            inputs.update(_below(folder, parts))
    return sorted(inputs)


def existing(tree: str, look: Iterable[str]) -> set[str]:
    """Return those of these folders that exist; of the tree, also the nearest one above another.

    Args:
        tree: The tree's real path.
        look: The folders.
    """

    def nearest(folder: str) -> str:
        while folder.startswith(f"{tree}/") and not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        return folder

    return {folder for folder in map(nearest, look) if os.path.isdir(folder)}


def _parts(look: Iterable[str], files: Iterable[str]) -> dict[str, set[str]]:
    """Return the folders in the names by which headers may have been found through -I.

    Args:
        look: The folders of -I.
        files: The headers, among other files.

    Returns:
        The first folder of a name, to itself and those below it: "a" to "a" and "a/b".
    """
    parts: dict[str, set[str]] = {}
    for folder in {os.path.dirname(path) for path in files if path.endswith(HEADERS)}:
        for above in look:
            if folder.startswith(above + "/"):
                words = folder[len(above) + 1 :].split("/")
                found = {"/".join(words[: count + 1]) for count in range(len(words))}
                parts.setdefault(words[0], set()).update(found)
    return parts


def _below(folder: str, parts: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield the folders of `_parts` that exist in a folder, each with a "/"."""
    for first, all_of_them in parts.items():
        if os.path.isdir(f"{folder}/{first}"):
            yield from (
                f"{folder}/{part}/" for part in all_of_them if os.path.isdir(f"{folder}/{part}")
            )
