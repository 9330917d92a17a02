"""What one .cmd file says: the names for an entry of depfiles.py."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from tasks.kbuild import compiler, symbol_times
from tasks.kbuild.object_key import folders
from tasks.kbuild.records import command, dependencies, located, mentioned, symbol_files


class Names(NamedTuple):
    """Names in a .cmd file; files are absolute and normalised. See depfiles.Entry.

    Attributes:
        given: The dependencies outside of the object folder.
        made: The dependencies in the object folder.
        mentioned: Files that only the command names.
        symbols: The files of the symbols that the sources use, below include/config/.
        look: The folders of -I outside of the object folder.
        systems: The folders of the tree of which the compiler lists no headers.
        asked: Both names of the files of the symbols that the compiler's command names.
        begins: How the names of symbols begin of which the command has a part.
        placed: Whether a compiler's command tells where a folder lies, and not only to name a file.
    """

    given: list[str]
    made: list[str]
    mentioned: list[str]
    symbols: list[str]
    look: list[str]
    systems: list[str]
    asked: list[str]
    begins: list[str]
    placed: bool


def of(record: str, top: str, tree: str) -> Names:
    """Parse a .cmd file.

    Args:
        record: The .cmd file.
        top: The object folder, absolute.
        tree: The tree's real path.
    """

    def paths(names: Iterable[str]) -> set[str]:
        return {located(top, name) for name in names}

    read, here = paths(dependencies(record)), f"{top}/"
    text = command(record) if read else ""
    look = [located(top, name) for name in folders(text)]
    words = compiler.words(text)
    told = compiler.handed(words, tree)
    if record.endswith(".o.cmd"):  # sources and folders are known
        more = {path for word in told for path in re.findall(rf"{re.escape(tree)}/[^\s,:]+", word)}
        others = {path for path in paths(more) - read if os.path.isfile(path)}
    else:
        others = paths(mentioned(record, tree)) - read
    others |= paths(compiler.options(words)) - read
    systems = paths(compiler.systems(words))
    unlisted = sorted(path for path in systems if f"{path}/".startswith(f"{tree}/"))
    asked = {path for name in compiler.symbols(words) for path in symbol_times.paths(name)}
    return Names(
        sorted(path for path in read if not path.startswith(here)),
        sorted(path for path in read if path.startswith(here)),
        sorted(path for path in others if not path.startswith(here)),
        sorted(symbol_files(record)),
        [path for path in look if not f"{path}/".startswith(here)],
        unlisted,
        sorted(asked),
        sorted(compiler.begins(words) | ({compiler.ANY} if unlisted else set())),
        "-D__KERNEL__" in words and bool(told or compiler.handed(words, top)),
    )
