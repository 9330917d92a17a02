"""Symbols of which a source has a part of the name only: the preprocessor puts it together.

Kbuild's fixdep reads sources as text. Of `IS_ENABLED(CONFIG_SERIAL_8250_##option)` it learns no
symbol, so no .cmd file has it, and make does not compile the object again when the symbol changes.
Nor does it of PASTE(CONFIG_, X), where another macro has the `##`.
Source: scripts/basic/fixdep.c; drivers/tty/serial/8250/8250_pci.c has two such macros.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from tasks.kbuild import symbol_times
from tasks.system import files
from tasks.system.pattern import pattern

FILE = "piggyback.pasting"
# A name that goes on behind ##, or ends with "_": no symbol does.
PASTED = pattern(rb"(?<!\w)CONFIG_(\w*)(?:(?:\s|\\\n)*##|(?<=_)(?!\w))")
# Comments of C; strings come first, as they may have the signs of a comment.
COMMENT = pattern(rb"(\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')|/\*.*?\*/|//[^\n]*", re.DOTALL)
_TEXT = (".c", ".h", ".S")
_KCONFIG = "/scripts/kconfig/"  # has a macro CONFIG_, and is compiled without a configuration
_Known = dict[str, tuple[int, int, int, int, list[str]]]


def beginnings(obj: Path, sources: Iterable[str]) -> dict[str, list[str]]:
    """Return the sources that put names of symbols together, each with how these names begin.

    The names are without CONFIG_. A source is read again only when it was touched.

    Args:
        obj: The object folder.
        sources: The sources, absolute.
    """
    known, now, found = _read(obj / FILE), _Known(), dict[str, list[str]]()
    for path in sources:
        if not path.endswith(_TEXT) or _KCONFIG in path:
            continue
        try:
            info = os.stat(path)
            entry = known.get(path)
            if entry is None or entry[:4] != files.state(info):
                with open(path, "rb", buffering=0) as stream:
                    entry = now[path] = (*files.state(info), _beginnings(stream.read()))
        except (OSError, ValueError):
            continue
        if entry[4]:
            found[path] = entry[4]
    if now:
        there = {path: entry for path, entry in known.items() if os.path.exists(path)}
        with contextlib.suppress(OSError):  # it saves time only
            files.write_whole(obj / FILE, files.packed({**there, **now}))
    return found


@files.remembering
def _read(path: Path) -> _Known:
    """Return the content of piggyback.pasting; several looks at an object folder ask for it."""
    return files.decoded(path, _Known, {})


def _beginnings(text: bytes) -> list[str]:
    if not PASTED.search(text):
        return []
    return sorted({name.decode() for name in PASTED.findall(COMMENT.sub(b" ", text))})


def matching(begins: Collection[str], paths: Iterable[str]) -> set[str]:
    """Return the symbols' files, below include/config/, of names that begin like that."""
    starts = tuple(path.removesuffix(".h") for name in begins for path in symbol_times.paths(name))
    return {path for path in paths if path.startswith(starts)}
