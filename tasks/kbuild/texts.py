"""What the text of a source says, and no .cmd file does.

Kbuild's fixdep and the compiler's depfile tell what was read. They lack

- a symbol of which a source has a part of the name only: fixdep reads sources as text, and learns
  no symbol of `IS_ENABLED(CONFIG_SERIAL_8250_##option)`, so make does not compile the object again
  when it changes; nor of PASTE(CONFIG_, X), where another macro has the `##`;
- what the assembler reads by `.incbin` and `.include`, and the compiler by `#embed`;
- a header that `__has_include` asks for and that is not there yet;
- from where `#include "../x.h"` was found, if not beside the source.

Source: scripts/basic/fixdep.c; drivers/tty/serial/8250/8250_pci.c has two macros of the first kind,
security/landlock/setup.c has `__has_include`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from tasks.kbuild import symbol_times
from tasks.system import files
from tasks.system.pattern import pattern

FILE = "piggyback.texts"
# A name that goes on behind ##, or ends with "_": no symbol does.
PASTED = pattern(rb"(?<!\w)CONFIG_(\w*)(?:(?:\s|\\\n)*##|(?<=_)(?!\w))")
# Comments of C; strings come first, as they may have the signs of a comment.
COMMENT = pattern(rb"(\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')|/\*.*?\*/|//[^\n]*", re.DOTALL)
# In C the directive stands in a string of asm(), and the name between \".
_READ = pattern(rb"\.(?:incbin|include)\s*\\?\"([^\"\\\n]+)|#\s*embed\s*[\"<]([^\">\n]+)")
_ASKED = pattern(rb"__has_include(?:_next)?\s*\(\s*(?:[\"<]([^\">\n]+))?")
_UPWARD = pattern(rb"^[ \t]*#\s*include\s*[\"<]((?:[^\">\n]*/)?\.\./[^\">\n]+)", re.MULTILINE)
_TEXT = (".c", ".h", ".S")
_KCONFIG = "/scripts/kconfig/"  # has a macro CONFIG_, and is compiled without a configuration


class Text(msgspec.Struct, array_like=True, frozen=True):
    """What one source says.

    Attributes:
        pasted: How the names of symbols begin that it puts together, without CONFIG_.
        read: The files that the assembler reads by a directive, or the compiler by #embed.
        asked: The headers that __has_include asks for; "" for a name that is a macro.
        upward: The headers that it includes by a name with "..".
    """

    pasted: list[str] = []
    read: list[str] = []
    asked: list[str] = []
    upward: list[str] = []


NOTHING = Text()


class Texts:
    """What the sources of an object folder say; each is read again only when it was touched.

    Args:
        obj: The object folder.
    """

    def __init__(self, obj: Path) -> None:
        self._path = obj / FILE
        self._known = _read(self._path)
        self._now: _Known = {}

    def of(self, path: str) -> Text:
        """Return what a source says, as of when it was asked for the first time.

        Args:
            path: The source, absolute; one that is missing says nothing.
        """
        if not path.endswith(_TEXT) or _KCONFIG in path:
            return NOTHING
        if path in self._now:
            return self._now[path][4]
        try:
            info = os.stat(path)
            entry = self._known.get(path)
            if entry is None or entry[:4] != files.state(info):
                with open(path, "rb", buffering=0) as stream:
                    entry = (*files.state(info), of_text(stream.read()))
        except (OSError, ValueError):
            return NOTHING
        self._now[path] = entry
        return entry[4] if entry[4] != NOTHING else NOTHING

    def save(self) -> None:
        """Write down what was found; forget the sources that are gone."""
        if any(self._known.get(path) != entry for path, entry in self._now.items()):
            there = {path: entry for path, entry in self._known.items() if os.path.exists(path)}
            with contextlib.suppress(OSError):  # it saves time only
                files.write_whole(self._path, files.packed({**there, **self._now}))


_Known = dict[str, tuple[int, int, int, int, Text]]


@files.remembering
def _read(path: Path) -> _Known:
    """Return the content of the file; several looks at an object folder ask for it."""
    return files.decoded(path, _Known, {})


def of_text(text: bytes) -> Text:
    """Return what a source says.

    Args:
        text: Its content.
    """
    pasted = PASTED.findall(COMMENT.sub(b" ", text)) if PASTED.search(text) else []
    reads = b".incbin" in text or b".include" in text or b"embed" in text
    read = [one or other for one, other in _READ.findall(text)] if reads else []
    asked = _ASKED.findall(text) if b"__has_include" in text else []
    upward = _UPWARD.findall(text) if b"../" in text else []
    if not (pasted or read or asked or upward):
        return NOTHING
    return Text(*(sorted(set(map(os.fsdecode, found))) for found in (pasted, read, asked, upward)))


def matching(begins: Collection[str], paths: Iterable[str]) -> set[str]:
    """Return the symbols' files, below include/config/, of names that begin like that.

    Args:
        begins: As `Text.pasted`.
        paths: The files.
    """
    starts = tuple(path.removesuffix(".h") for name in begins for path in symbol_times.paths(name))
    return {path for path in paths if path.startswith(starts)}


def found_elsewhere(source: str, text: Text) -> Iterator[str]:
    """Yield the names with ".." by which a source includes headers that do not lie beside it.

    Such a header was found in a folder of -I.

    Args:
        source: The source, absolute.
        text: What it says.
    """
    folder = os.path.dirname(source)
    return (name for name in text.upward if not os.path.isfile(os.path.join(folder, name)))


def searched(source: str, text: Text, look: Collection[str]) -> Iterator[str]:
    """Yield the folders, whether they exist or not, where a header would count that is not there.

    Args:
        source: The source, absolute.
        text: What it says.
        look: The folders of -I.
    """
    for name in (*found_elsewhere(source, text), *filter(None, text.asked)):
        for folder in (os.path.dirname(source), *look):
            yield os.path.dirname(os.path.normpath(os.path.join(folder, name)))


def read_by(source: str, text: Text, top: str, look: Collection[str]) -> Iterator[str]:
    """Yield the files that the assembler or #embed reads for a source, those that exist.

    A name leads to a file in the folder where make runs, in one of -I, or beside the source; the
    first that exists counts. Source: the sections Incbin and Include of gas's manual.

    Args:
        source: The source, absolute.
        text: What it says.
        top: The object folder, where make runs.
        look: The folders of -I, in their order.
    """
    for name in text.read:
        for folder in (top, *look, os.path.dirname(source)):
            path = os.path.normpath(os.path.join(folder, name))
            if os.path.isfile(path):
                yield path
                break
