"""What the text of a source says, and no .cmd file does.

Kbuild's fixdep and the compiler's depfile tell what was read. They lack

- a symbol of which a source has a part of the name only: fixdep reads sources as text, and learns
  no symbol of `IS_ENABLED(CONFIG_SERIAL_8250_##option)`, so make does not compile the object again
  when it changes; nor of PASTE(CONFIG_, X), where another macro has the `##`;
- what the assembler reads by `.incbin` and `.include`, and the compiler by `#embed`;
- a header that `__has_include` asks for;
- a place where `#include "../x.h"` finds another one: by -I, above the folders that are known.

Source: scripts/basic/fixdep.c; drivers/tty/serial/8250/8250_pci.c has two macros of the first kind,
security/landlock/setup.c has `__has_include`.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from tasks.cache.digests import HEADERS
from tasks.kbuild import symbol_times
from tasks.system import files
from tasks.system.pattern import pattern

FILE = "piggyback.texts"
# A name that goes on behind ##, or ends with "_": no symbol does.
_PASTED = pattern(rb"(?<!\w)CONFIG_(\w*)(?:(?:\s|\\\n)*##|(?<=_)(?!\w))")
_MAYBE_PASTED = pattern(rb"CONFIG_\w*(?:(?:\s|\\\n)*##|(?<=_)(?!\w))")  # quick: it begins so
# Comments of C; strings come first, as they may have the signs of a comment.
_COMMENT = pattern(rb"(\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')|/\*.*?\*/|//[^\n]*", re.DOTALL)
# What reads or looks for a file by its name. (The assembler takes .INCBIN, too.)
_READS = pattern(rb"incbin|\.include\b|#\s*embed\b|__has_(?:include|embed)\w*\s*\(", re.IGNORECASE)
_MAYBE_READS = (b"incbin", b".include", b"embed", b"__has_")  # quick: each of these has one of them
# Names in such a source: of a directive, which in C stands in a string and the name between \", and
# all others, as a macro may have it.
_READ = pattern(rb"\.(?:incbin|include)(?:\s|\\[tn])*\\?\"([^\"\\\n]+)", re.IGNORECASE)
_NAME = pattern(rb"[\"<]([\w./+@~,-]+)\\?[\">]")
_UPWARD = pattern(rb"([\"<])((?:[^\"<>\\\n]*/)?\.\./[^\"<>\\\n]+)[\">]")
_TEXT = (".c", ".S", ".s", *HEADERS)
_KCONFIG = "/scripts/kconfig/"  # has a macro CONFIG_, and is compiled without a configuration


class Text(msgspec.Struct, array_like=True, frozen=True):
    """What one source says.

    Attributes:
        pasted: How the names of symbols begin that it puts together, without CONFIG_.
        read: Names of files that are read or asked for otherwise than by #include.
        upward: Names with ".." that #include may have, each with its first sign, " or <.
    """

    pasted: list[str] = []
    read: list[str] = []
    upward: list[str] = []


NOTHING = Text()


_Known = dict[str, tuple[int, int, int, int, Text]]


class Texts:
    """What the sources of an object folder say; each is read again only when it was touched.

    Args:
        obj: The object folder.
    """

    def __init__(self, obj: Path) -> None:
        self._path = obj / FILE
        self._known = _read(self._path)
        self._now: _Known = {}
        self._racy: set[str] = set()

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
                if time.time_ns() - info.st_ctime_ns < files.RACY_NS:
                    self._racy.add(path)
                with open(path, "rb", buffering=0) as stream:
                    entry = (*files.state(info), of_text(stream.read()))
        except (OSError, ValueError):
            return NOTHING
        self._now[path] = entry
        return entry[4]

    def save(self) -> None:
        """Write down what was found; forget the sources that are gone."""
        new = {path: self._now[path] for path in self._now.keys() - self._racy}
        if any(self._known.get(path) != entry for path, entry in new.items()):
            there = {path: entry for path, entry in self._known.items() if os.path.exists(path)}
            with contextlib.suppress(OSError, ValueError):  # it saves time only
                files.write_whole(self._path, files.packed({**there, **new}))


@files.remembering
def _read(path: Path) -> _Known:
    """Return the content of the file; several looks at an object folder ask for it."""
    return files.decoded(path, _Known, {})


def of_text(text: bytes) -> Text:
    """Return what a source says; of names that are no UTF-8, nothing.

    Args:
        text: Its content.
    """
    # In a string a name of a symbol is none.
    pasted = _PASTED.findall(_COMMENT.sub(b" ", text)) if _MAYBE_PASTED.search(text) else []
    upward = [b"".join(pair) for pair in _UPWARD.findall(text)] if b"../" in text else []
    read = [*_READ.findall(code(text)), *_NAME.findall(code(text))] if reads(text) else []
    if not (pasted or read or upward):
        return NOTHING
    return Text(*(_names(found) for found in (pasted, read, upward)))


def reads(text: bytes) -> bool:
    """Tell whether a source, outside of comments, reads or asks for files otherwise than #include.

    Args:
        text: Its content.
    """
    low = text.lower()
    return any(word in low for word in _MAYBE_READS) and bool(_READS.search(code(text)))


def code(text: bytes) -> bytes:
    """Return a source without its comments."""
    return _COMMENT.sub(lambda match: match[1] or b" ", text)


def _names(found: Iterable[bytes]) -> list[str]:
    names = set[str]()
    for name in found:
        with contextlib.suppress(UnicodeDecodeError):
            names.add(name.decode())
    return sorted(names)


def matching(begins: Collection[str], paths: Iterable[str]) -> set[str]:
    """Return the symbols' files, below include/config/, of names that begin like that.

    Args:
        begins: As `Text.pasted`.
        paths: The files.
    """
    starts = tuple(path.removesuffix(".h") for name in begins for path in symbol_times.paths(name))
    return {path for path in paths if path.startswith(starts)}


def found_elsewhere(source: str, text: Text) -> Iterator[str]:
    """Yield the names with ".." by which a source may include what does not lie beside it.

    Args:
        source: The source, absolute.
        text: What it says.
    """
    folder = os.path.dirname(source)
    for name in text.upward:
        if name[0] == "<" or not os.path.isfile(os.path.join(folder, name[1:])):
            yield name[1:]


def candidates(source: str, text: Text, top: str, look: Collection[str]) -> Iterator[str]:
    """Yield the files, existing or not, that a source may read without a record.

    Which folder is searched first differs between compiler and assembler; each counts.

    Args:
        source: The source, absolute.
        text: What it says.
        top: The object folder, where make runs.
        look: The folders of -I.
    """
    beside = os.path.dirname(source)
    upward = [*found_elsewhere(source, text)]
    real = {}  # by "..", a name leads away from where a link to a folder leads
    if upward or any(".." in name for name in text.read):
        real = {folder: os.path.realpath(folder) for folder in (top, beside, *look)}
    for names, folders in ((text.read, (top, beside, *look)), (upward, look)):
        for name in names:
            for folder in folders:
                place = real[folder] if ".." in name else folder
                yield os.path.normpath(os.path.join(place, name))
