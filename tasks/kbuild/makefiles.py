"""What a changed symbol means by the makefiles: objects that come, and objects with other flags.

This is read roughly, for estimates: only make knows. Source: Documentation/kbuild/makefiles.rst.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from tasks.kbuild import makefile_text
from tasks.system.pattern import pattern

_LIST = pattern(r"\s*([\w.-]+?)-(?:(y|objs)|\$\(CONFIG_(\w+)\))\s*[:+]?=\s*([^#]*)")
_FLAGS = pattern(r"\s*(?:export\s+)?([\w./-]*FLAGS[\w./-]*|[\w-]*flags)(?:-\S+)?\s*[:+?]?=")
_OPENS = pattern(r"\s*if(?:n?eq|n?def)\b")
_CLOSES = pattern(r"\s*endif\b")
_SYMBOL = pattern(r"\bCONFIG_(\w+)")
_ONE = pattern(r"[AC]FLAGS_(\S+\.o)")
_LISTS = ("obj", "lib", "core", "drivers", "net", "libs", "virt", "init")  # of the kernel proper
_FOLDERS = 200  # that are read at most
# Makefiles whose flags go into every object.
_STEERING = ("Makefile", "scripts/Makefile.*", "scripts/Kbuild.include", "arch/*/Makefile*")


class Line(msgspec.Struct, frozen=True):
    """A line of a makefile, and the symbols in the conditions around it and in it."""

    text: str
    symbols: frozenset[str]


def lines(path: str) -> Iterator[Line]:
    """Yield the lines of a makefile, those that go on in the next one joined."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read().replace("\\\n", " ")
    except OSError:
        return
    around: list[frozenset[str]] = []
    for line in text.splitlines():
        own = frozenset(_SYMBOL.findall(line))
        if _OPENS.match(line):
            around.append(own)
        elif _CLOSES.match(line) and around:
            around.pop()
        yield Line(line, own.union(*around))


def makefile(tree: Path, folder: str) -> str:
    """Return the path of a folder's makefile; Kbuild goes before Makefile."""
    path = os.path.join(tree, folder, "Kbuild")
    return path if os.path.exists(path) else os.path.join(tree, folder, "Makefile")


def steers(tree: Path, symbols: Collection[str]) -> bool:
    """Tell whether a makefile with flags for all objects uses one of these symbols."""
    paths = [path for pattern in _STEERING for path in tree.glob(pattern)]
    return any(_names_one(path, symbols) for path in paths)


def switches(tree: Path, folder: str, symbols: Collection[str]) -> bool:
    """Tell whether the makefile of a folder uses one of these symbols."""
    return any(_names_one(tree / folder / name, symbols) for name in ("Makefile", "Kbuild"))


def _names_one(path: Path, symbols: Collection[str]) -> bool:
    return not symbols_in(str(path)).isdisjoint(symbols)


def symbols_in(path: str) -> set[str]:
    """Return the symbols, without CONFIG_, that a makefile has."""
    return {*_SYMBOL.findall(makefile_text.content(path))}


class Makefiles:
    """The makefiles of a tree, under a configuration.

    Attributes:
        tree: The tree.
        values: The configuration; what is not in it is off.
    """

    def __init__(self, tree: Path, values: Mapping[str, str]) -> None:
        self.tree, self.values = tree, values
        self._visited: set[str] = set()

    def coming(self, folders: Collection[str], symbols: Collection[str]) -> set[str]:
        """Return objects of the kernel proper that lines with one of these symbols list.

        Args:
            folders: The folders whose makefiles are searched, relative to the tree.
            symbols: The changed symbols.
        """
        self._visited = set(folders)
        return {name for folder in folders for name in self._listed(folder, {*symbols})}

    def _listed(self, folder: str, symbols: set[str] | None) -> Iterator[str]:
        """Yield the objects that a makefile lists.

        Args:
            folder: Its folder.
            symbols: Only lines with one of them count; None for all lines.
        """
        found = list(lines(makefile(self.tree, folder)))
        for line in found:
            match = _LIST.match(line.text)
            if (
                match
                and (symbols is None or not symbols.isdisjoint(line.symbols))
                and self._on(match)
                and (match[1] in _LISTS or self._wanted(f"{match[1]}.o", found))
            ):
                for word in match[4].split():
                    yield from self._word(folder, word, found)

    def _on(self, match: re.Match[str]) -> bool:
        """Tell whether a line's list counts under the configuration."""
        return bool(match[2]) or self.values.get(match[3]) == "y"

    def _wanted(self, name: str, found: list[Line]) -> bool:
        """Tell whether a list has an object that is put together from several parts."""
        matches = (_LIST.match(line.text) for line in found)
        return any(one and name in one[4].split() and self._on(one) for one in matches)

    def _word(self, folder: str, word: str, found: list[Line], depth: int = 3) -> Iterator[str]:
        """Yield the objects of one word of a list: an object, one of several parts, a folder."""
        path = os.path.normpath(os.path.join(folder, word))
        if word.endswith("/"):
            if path not in self._visited and len(self._visited) < _FOLDERS:
                self._visited.add(path)
                yield from self._listed(path, None)
        elif word.endswith(".o") and "$" not in word:
            stem = os.path.join(self.tree, path[:-2])
            if os.path.exists(f"{stem}.c") or os.path.exists(f"{stem}.S"):
                yield path
                return
            for line in found if depth else ():
                match = _LIST.match(line.text)
                if match and match[1] == word[:-2] and self._on(match):
                    for part in match[4].split():
                        if not part.endswith("/"):
                            yield from self._word(folder, part, found, depth - 1)

    def steered(self, folders: Collection[str], symbols: Collection[str]) -> set[str]:
        """Return what one of these symbols gives other flags: folders, objects; "" for all of it.

        Args:
            folders: As in `coming`.
            symbols: The changed symbols.
        """
        every = [
            *(os.path.join(self.tree, name) for name in ("Makefile", "scripts/Makefile.lib")),
            *map(str, self.tree.glob("scripts/Makefile.*")),
            *map(str, self.tree.glob("arch/*/Makefile*")),
        ]
        if any(True for path in every for _ in self._flags(path, {*symbols})):
            return {""}
        found = set()
        for folder in folders:
            for name in self._flags(makefile(self.tree, folder), {*symbols}):
                one = _ONE.match(name)
                found.add(os.path.join(folder, one[1]) if one else folder)
        return found

    @staticmethod
    def _flags(path: str, symbols: set[str]) -> Iterator[str]:
        """Yield the variables of flags that lines with one of these symbols set."""
        for line in lines(path):
            match = _FLAGS.match(line.text)
            if match and not symbols.isdisjoint(line.symbols):
                yield match[1]
