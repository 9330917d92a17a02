"""Which Kconfig symbol brings an object into the kernel, by the Makefiles of the tree.

Kbuild records what it built and not for which symbol. That stands in the Makefiles, as
`obj-$(CONFIG_ACPI) += tables.o` or `acpi-$(CONFIG_PCI) += pci_root.o`, and a folder that is entered
for a symbol, `obj-$(CONFIG_NET) += net/`, has all objects below it. They are read as text
(Documentation/kbuild/makefiles.rst); what make would have to compute, such as `$(patsubst ...)`, is
passed over, and its objects then count for the symbol of their folder, or for none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from tasks.system.pattern import pattern

_SYMBOL = pattern(r"\$\(?[^$]*?\(CONFIG_(\w+)\)|\$\(CONFIG_(\w+)\)")
_ASSIGNMENT = pattern(r"([\w./-]+?)-((?:\$\(.*?\)\)?)|y|m|objs|)\s*[:+?]?=\s*(.*)")
_CONDITION = pattern(r"(ifdef|ifndef|ifeq|ifneq|else|endif)\b[ \t]*(.*)")
_TRUE = pattern(r"\(\s*\$\(CONFIG_(\w+)\)\s*,\s*[ym]\s*\)|CONFIG_(\w+)\s*$")
_LISTS = ("obj", "lib", "core", "drivers", "libs", "net", "virt", "head")
_FROM_TOP = ("core", "drivers", "libs", "net", "virt", "head")  # their names are below the top


class BroughtIn:
    """The answers for one source tree and configuration.

    Args:
        tree: The source tree.
        config: The configuration: symbol to value. Of several symbols that bring in an object one
            that is on is named.
        arch: The architecture's folder below arch/ (SRCARCH).
    """

    def __init__(self, tree: Path, config: Mapping[str, str], arch: str) -> None:
        self.tree, self.config, self.arch = os.fspath(tree), config, arch
        self._folders: dict[str, dict[str, str]] = {}

    def chain(self, path: str) -> list[str]:
        """Return the symbols that an object takes, from its own to the outermost folder's.

        They are without CONFIG_. One that is off, of another list of the same object, is left out.

        Args:
            path: The object, relative to the object folder.
        """
        names = path.split("/")
        found = []
        for depth in reversed(range(len(names))):
            folder, below = "/".join(names[:depth]), names[depth:]
            # The Makefile may name an object, or a folder, that is further below: x86/apple.o.
            ways = [
                "/".join(below),
                *("/".join(below[:end]) + "/" for end in range(len(below) - 1, 0, -1)),
            ]
            for way in ways:
                found.append(self._in_folder(folder).get(way, ""))
                if not depth:
                    found.append(self._top.get(way, ""))
        return [name for name in dict.fromkeys(found) if self.config.get(name) in ("y", "m")]

    @cached_property
    def _top(self) -> dict[str, str]:
        """The symbols of what the top Makefile and the architecture's name by its whole path."""
        found: dict[str, str] = {}
        for path in ("Makefile", f"arch/{self.arch}/Makefile"):
            for variable, symbol, words in _statements(os.path.join(self.tree, path)):
                if variable in _FROM_TOP:
                    for word in words:
                        self._note(found, word, symbol)
        return found

    def _in_folder(self, folder: str) -> dict[str, str]:
        """Return the symbol of each object and folder that a folder's Makefile names."""
        if folder not in self._folders:
            self._folders[folder] = self._read(folder)
        return self._folders[folder]

    def _read(self, folder: str) -> dict[str, str]:
        place = os.path.join(self.tree, folder)
        path = next(
            (
                name
                for name in (os.path.join(place, "Kbuild"), os.path.join(place, "Makefile"))
                if os.path.isfile(name)
            ),
            "",
        )
        found: dict[str, str] = {}
        parts: list[tuple[str, str, list[str]]] = []
        for variable, symbol, words in _statements(path) if path else ():
            if variable in ("obj", "lib"):
                for word in words:
                    self._note(found, word.replace("$(SRCARCH)", self.arch), symbol)
            elif variable not in _LISTS:
                parts.append((variable, symbol, words))
        # Parts of composite objects, which may be parts of others (a-y := b.o, b-y := c.o).
        for _ in range(3):
            for variable, symbol, words in parts:
                whole = f"{variable}.o"
                if whole in found:
                    for word in words:
                        self._note(found, word, symbol or found[whole])
        return found

    def _note(self, found: dict[str, str], word: str, symbol: str) -> None:
        """Note what brings in an object; what is always there wins, then a symbol that is on."""
        if word.endswith((".o", "/")) and "$" not in word:
            name = os.path.normpath(word) + "/" * word.endswith("/")
            known = found.get(name)
            if known is None or known and self.config.get(known) not in ("y", "m"):
                found[name] = symbol


def _statements(path: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the lists of a Makefile: variable without its suffix, symbol or "", and words."""
    conditions: list[str] = []
    for line in _lines(path):
        if match := _CONDITION.match(line):
            _condition(conditions, match[1], match[2])
        elif (match := _ASSIGNMENT.match(line)) and not match[1].endswith("flags"):
            symbol = _SYMBOL.search(match[2])
            own = (symbol[1] or symbol[2]) if symbol else ""
            around = next((name for name in reversed(conditions) if name), "")
            yield match[1], own or around, match[3].split()


def _condition(conditions: list[str], word: str, rest: str) -> None:
    """Keep account of the conditions around a line: the symbol that each asks for, or ""."""
    if word == "endif":
        del conditions[-1:]
    elif word == "else":
        del conditions[-1:]
        inner = _CONDITION.match(rest)
        conditions.append(_asked(inner[1], inner[2]) if inner else "")
    else:
        conditions.append(_asked(word, rest))


def _asked(word: str, rest: str) -> str:
    match = _TRUE.match(rest) if word in ("ifdef", "ifeq") else None
    return (match[1] or match[2]) if match else ""


def _lines(path: str) -> Iterable[str]:
    """Return the lines of a Makefile without comments, continued ones joined."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    except OSError:
        return []
    text = re.sub(r"\\\n", " ", text)
    return [re.sub(r"(?<!\\)#.*", "", line).strip() for line in text.splitlines()]
