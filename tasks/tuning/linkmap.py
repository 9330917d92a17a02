"""Parser of a linker's map (-Map): which part of which object lies at which address.

Both GNU ld's format (ld(1); ldlang.c, lang_map) and lld's (lld/ELF/MapFile.cpp) are understood.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import msgspec

from tasks.system.pattern import pattern

FILL = "*fill*"
KALLSYMS = "(kallsyms)"
STRINGS = "(strings)"
# The table of symbols, which scripts/link-vmlinux.sh makes in several rounds.
_KALLSYMS = pattern(r"\.tmp_\w+(\.\w+)*\.o|\.tmp_kallsyms\d+\.o")
_STUBS = "linker stubs"  # a part that the linker makes itself
_GNU_NUMBER = pattern("0x[0-9a-f]{1,16}")
_LLD_NUMBERS = pattern("([0-9a-f]{1,16} ){3}[0-9]{1,18}")
_BEGIN = "Linker script and memory map"
_LLD = pattern(r"\s*VMA\s+LMA\s+Size\s+Align\s+Out\s+In\s+Symbol")
_MEMBER = pattern(r"(?P<archive>.*?)\((?P<member>[^()]+)\)")
_LLD_INPUT = pattern(r"(?P<object>.+):\((?P<name>[^()]+)\)")


class Input(msgspec.Struct, frozen=True):
    """A part of an output section.

    Attributes:
        section: The output section.
        name: The input section in the object; FILL for what the linker fills.
        address: Its address.
        size: Bytes, as they are after the linker merged strings and relaxed code.
        object: The object's path, as the linker was given it; "" for a fill.
    """

    section: str
    name: str
    address: int
    size: int
    object: str


def parse(text: str) -> list[Input]:
    """Return the parts of a map that have a size, in its order.

    Args:
        text: The map.
    """
    found = _lld(text) if _LLD.match(text) else _gnu(text)
    return [part for part in found if part.size]


def _gnu(text: str) -> Iterator[Input]:
    """Parse GNU ld's map.

    An output section begins at the line's start, an input section one column on. A name of 15
    letters or more has the line to itself.
    """
    section = name = ""
    for line in text[max(text.find(_BEGIN), 0) :].splitlines():
        if not line or line[0] not in " .*_" and not line[0].isalnum():
            continue
        words = line.split(None, 3)
        if not words:
            continue
        if line[0] != " ":
            section, name = words[0], ""
        elif line[1:2] not in (" ", "") and len(words) == 1:
            name = words[0]  # the rest is in the next line
        else:
            if line[1:2] != " ":
                name, words = words[0], words[1:]
            else:
                words = line.split(None, 2)
            if name and len(words) > 1 and all(map(_GNU_NUMBER.fullmatch, words[:2])):
                where = path_of(words[2]) if len(words) > 2 else ""
                if name == FILL or where not in ("", _STUBS):
                    where = "" if name == FILL else where
                    yield Input(section, name, int(words[0], 16), int(words[1], 16), where)
            name = ""


def _lld(text: str) -> Iterator[Input]:
    """Parse lld's map: columns, of which the last one is indented by what it names.

    The strings that it merged are in a part of its own. It has no lines for the alignment before a
    part, only for what the script asks for.
    """
    section, at = "", 0
    for line in text.splitlines()[1:]:
        words = line.split(None, 4)
        if len(words) < 5 or not _LLD_NUMBERS.fullmatch(" ".join(words[:4])):
            continue
        rest = line[len(line) - len(words[4]) :]
        address, size, align = int(words[0], 16), int(words[2], 16), int(words[3])
        if rest.startswith(". = "):
            yield Input(section, FILL, address, size, "")
        elif len(line) - len(rest) - _width(line) <= 1:
            section, at = (section, at) if "=" in rest else (rest.strip(), address)
        elif match := _LLD_INPUT.fullmatch(rest.strip()):
            if at < address < at + align:
                yield Input(section, FILL, at, address - at, "")
            at = address + size
            where = path_of(match["object"])
            if where == "<internal>":
                where = STRINGS if ".str" in match["name"] else ""
            if where:
                yield Input(section, match["name"], address, size, where)
        elif "(" in rest:
            at = address + size  # LONG(...) and the like


def _width(line: str) -> int:
    """Return where the fourth column ends."""
    match = re.match(r"\s*\S+\s+\S+\s+\S+\s+\S+", line)
    return match.end() if match else 0


def path_of(word: str) -> str:
    """Return an object's path as Kbuild has it, relative to the object folder.

    The member of an archive, `lib/lib.a(x.o)`, is named in its folder; of a thin archive both
    linkers may name the member's own path.
    """
    if match := _MEMBER.fullmatch(word.strip()):
        member = match["member"]
        word = member if "/" in member else os.path.join(os.path.dirname(match["archive"]), member)
    word = os.path.normpath(word.strip())
    return KALLSYMS if _KALLSYMS.fullmatch(word) else word
