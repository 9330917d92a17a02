"""What the text of a source says, and no .cmd file does.

Kbuild's fixdep and the compiler's depfile tell what was read. They lack

- a symbol of which a source has a part of the name only: fixdep reads sources as text, and learns
  no symbol of `IS_ENABLED(CONFIG_SERIAL_8250_##option)`, so make does not compile the object again
  when it changes; nor of PASTE(CONFIG_, X), where another macro has the `##`;
- what the assembler reads by `.incbin` and `.include`, and the compiler by `#embed`;
- a header that `__has_include` asks for;
- what is included by a header that calls itself the system's, and the symbols in that;
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
FORM = 1  # of that file: one of another form, or with texts of another meaning, is no such file
# A name that goes on behind ##, or ends with "_": no symbol does. CONFIG alone may begin any.
_PASTED = pattern(rb"(?<!\w)CONFIG(?:_(\w*)(?:(?:\s|\\\n)*##|(?<=_)(?!\w))|(?!\w))")
# Quick: it begins so.
_MAYBE_PASTED = pattern(rb"CONFIG(?:_\w*(?:(?:\s|\\\n)*##|(?<=_)(?!\w))|(?!\w)(?<!\wCONFIG))")
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
# -MMD leaves out what a header that calls itself the system's includes.
_SYSTEM = pattern(rb"\b(?:GCC|clang)\s+system_header")
_INCLUDED = pattern(rb"#\s*include(?:_next)?\s*[\"<]([^\">\n]+)[\">]")
_TEXT = (".c", ".S", ".s", *HEADERS)
_KCONFIG = "/scripts/kconfig/"  # has a macro CONFIG_, and is compiled without a configuration


class Text(msgspec.Struct, array_like=True, frozen=True):
    """What one source says.

    Attributes:
        pasted: How the names of symbols begin that it puts together, without CONFIG_; "" if that
            may be any.
        read: Names of files that are read or asked for otherwise than by #include.
        upward: Names with ".." that #include may have, each with its first sign, " or <.
        system: Whether the compiler does not list what it includes.
    """

    pasted: list[str] = []
    read: list[str] = []
    upward: list[str] = []
    system: bool = False


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
                files.write_whole(self._path, files.packed((FORM, {**there, **new})))


@files.remembering
def _read(path: Path) -> _Known:
    """Return the content of the file; several looks at an object folder ask for it."""
    form, known = files.decoded(path, tuple[int, _Known], (0, {}))
    return known if form == FORM else {}


def of_text(text: bytes) -> Text:
    """Return what a source says; of names that are no UTF-8, nothing.

    Args:
        text: Its content.
    """
    # In a string a name of a symbol is none.
    pasted = _PASTED.findall(_COMMENT.sub(b" ", text)) if _MAYBE_PASTED.search(text) else []
    upward = [b"".join(pair) for pair in _UPWARD.findall(text)] if b"../" in text else []
    read = [*_READ.findall(code(text)), *_NAME.findall(code(text))] if reads(text) else []
    system = b"system_header" in text and _SYSTEM.search(code(text)) is not None
    if not (pasted or read or upward or system):
        return NOTHING
    pasted += [b""] if system else []  # it may include what names any symbol
    return Text(_names(pasted), _names(read), _names(upward), system)


def reads(text: bytes) -> bool:
    """Tell whether a source, outside of comments, reads or asks for files otherwise than #include.

    Args:
        text: Its content.
    """
    low = text.lower()
    return any(word in low for word in _MAYBE_READS) and bool(_READS.search(code(text)))


def included(path: str) -> set[str]:
    """Return the names that a source includes.

    Args:
        path: The source.
    """
    try:
        with open(path, "rb") as stream:
            return {*_names(_INCLUDED.findall(stream.read()))}
    except OSError:
        return set()


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


def unsaid(
    known: Texts, sources: Iterable[str], systems: Iterable[str], top: str, look: Collection[str]
) -> set[str]:
    """Return the files, existing or not, that a target may be made from without a record.

    Args:
        known: What sources say.
        sources: Those of the target that say anything.
        systems: Folders of which the compiler lists no headers.
        top: The object folder, where make runs; files there don't count.
        look: The folders of -I.
    """
    here = (f"{top}/", f"{os.path.realpath(top)}/")
    found, waiting = set[str](), [*sources]
    hidden = {source for source in waiting if known.of(source).system}
    while waiting:
        source = waiting.pop()
        names = set(candidates(source, known.of(source), top, look))
        new = {one for one in names - found if not f"{one}/".startswith(here)}
        new = {one for one in new if not os.path.isdir(one)}
        found |= new
        waiting += new  # of .include
    for folder in systems:
        hidden.update(
            os.path.join(place, name) for place, _, names in os.walk(folder) for name in names
        )
    return found | (_with_included(hidden, look) - {*sources})


def _with_included(headers: Collection[str], look: Collection[str]) -> set[str]:
    """Return headers that the compiler does not list, and all that they include.

    What one that counts as the system's includes counts so, too.

    Args:
        headers: The headers, absolute.
        look: The folders of -I.
    """
    found, waiting = {*headers}, [*headers]
    while waiting:
        source = waiting.pop()
        for name in included(source):
            for folder in (os.path.dirname(source), *look):
                path = os.path.normpath(os.path.join(folder, name))
                if path not in found and os.path.isfile(path):
                    found.add(path)
                    waiting.append(path)
    return found
