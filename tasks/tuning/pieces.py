"""What each byte of a linked file belongs to: object and function, table, or alignment.

An output section is covered by the parts of the linker's map, a part by the symbols that lie in it.
What no part covers was made by the linker itself; what no symbol of a part covers goes under the
name of its section in brackets: `[.rodata.str1.1]` for strings, `[__ex_table]` for a table,
`[.text]` for the alignment between functions that the compiler asked for.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from tasks.tuning.elf import Elf, Section, Symbol
from tasks.tuning.linkmap import FILL, Input

ALIGNMENT = "(alignment)"
LINKER = "(linker)"
UNKNOWN = "(not known)"


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Bytes that belong together.

    Attributes:
        section: The output section.
        address: Where they run.
        size: How many there are.
        object: The object's path; ALIGNMENT, LINKER or UNKNOWN where it is none.
        name: The function or variable, or a section in brackets.
        letter: As nm(1) has it: t, d, b, r.
        symbol: Whether the name is that of a symbol.
    """

    section: str
    address: int
    size: int
    object: str
    name: str
    letter: str
    symbol: bool


def by_map(elf: Elf, inputs: Iterable[Input]) -> list[Piece]:
    """Return the pieces of all sections that are in memory, in order, without a gap.

    Args:
        elf: The linked file.
        inputs: The parts by the linker's map of the same link.
    """
    parts: dict[str, list[Input]] = defaultdict(list)
    for part in inputs:
        parts[part.section].append(part)
    symbols = _by_section(elf)
    found: list[Piece] = []
    for number, section in enumerate(elf.sections):
        if section.alloc and section.size:
            own = _Symbols(symbols.get(number, []), section)
            for part in _covering(section, parts[section.name]):
                found += own.split(part)
    return found


def by_symbols(elf: Elf, known: Mapping[str, str]) -> list[Piece]:
    """Return the pieces where there is no map: objects are told by names alone.

    A static function's source is named in the table of symbols, without its folder. If one object
    alone can be made from it, it is in that one.

    Args:
        elf: The linked file.
        known: The object of each name that is in one object alone, from elsewhere.
    """
    sources: dict[str, set[str]] = defaultdict(set)
    for path in known.values():
        sources[os.path.splitext(os.path.basename(path))[0]].add(path)

    def where(symbol: Symbol) -> str:
        objects = sources.get(os.path.splitext(symbol.file)[0], set()) if symbol.file else set()
        if len(objects) == 1:
            return next(iter(objects))
        if symbol.name in known:
            return known[symbol.name]
        return f"{UNKNOWN}/{symbol.file}" if symbol.file else UNKNOWN

    symbols = _by_section(elf)
    found: list[Piece] = []
    for number, section in enumerate(elf.sections):
        if section.alloc and section.size:
            own = _Symbols(symbols.get(number, []), section, where)
            whole = Input(section.name, section.name, section.address, section.size, UNKNOWN)
            found += own.split(whole)
    return found


def objects_of(pieces: Iterable[Piece]) -> dict[str, str]:
    """Return the object of each symbol, of those names that only one object has."""
    found: dict[str, str] = {}
    for piece in pieces:
        if piece.symbol and found.setdefault(piece.name, piece.object) != piece.object:
            found[piece.name] = UNKNOWN
    return {name: where for name, where in found.items() if not where.startswith(UNKNOWN)}


def _by_section(elf: Elf) -> dict[int, list[Symbol]]:
    """Return the symbols of each section by address.

    Of several at one address the longest comes first, then one that other objects see.
    """
    found: dict[int, list[Symbol]] = defaultdict(list)
    for symbol in elf.symbols:
        found[symbol.section].append(symbol)
    for symbols in found.values():
        symbols.sort(key=lambda one: (one.address, -one.size, one.local, one.name))
    return found


def _covering(section: Section, parts: Sequence[Input]) -> Iterator[Input]:
    """Yield the parts of a section in order, with a part of the linker's for each gap.

    Where strings with a common end were merged, GNU ld's sizes reach into the next part; the
    latter's address holds.
    """
    end = section.address + section.size
    inside = sorted(
        (part for part in parts if section.address <= part.address < end),
        key=lambda part: part.address,
    )
    at = section.address
    for number, part in enumerate(inside):
        if part.address > at:
            yield Input(section.name, section.name, at, part.address - at, LINKER)
        following = inside[number + 1].address if number + 1 < len(inside) else end
        stop = min(part.address + part.size, following)
        if stop > part.address:
            where = ALIGNMENT if part.name == FILL else part.object
            yield Input(section.name, part.name, part.address, stop - part.address, where)
        at = max(at, stop)
    if at < end:
        yield Input(section.name, section.name, at, end - at, LINKER)


class _Symbols:
    """The symbols of one output section."""

    def __init__(
        self,
        symbols: Sequence[Symbol],
        section: Section,
        where: Callable[[Symbol], str] | None = None,
    ) -> None:
        self.section = section
        self.where = where  # the object of a symbol; None: that of the part that it is in
        self.symbols = symbols
        self.starts = [symbol.address for symbol in symbols]
        self.longest = max((symbol.size for symbol in symbols), default=0)

    def split(self, part: Input) -> Iterator[Piece]:
        """Yield the pieces of a part: one for each symbol in it, and what lies between them."""
        at, end = part.address, part.address + part.size
        if part.object in (ALIGNMENT, LINKER):
            yield self._piece(part, at, end, f"[{part.section}]", False)
            return
        first = bisect_left(self.starts, at - self.longest)
        last = bisect_left(self.starts, end)
        for symbol in self.symbols[first:last]:
            stop = min(symbol.address + symbol.size, end)
            if stop <= at:
                continue  # it ends before the part, or is another name of what was counted
            if symbol.address > at:
                yield self._piece(part, at, symbol.address, f"[{part.name}]", False)
                at = symbol.address
            place = self.where(symbol) if self.where else part.object
            yield self._piece(part, at, stop, symbol.name, True, place)
            at = stop
        if at < end:
            yield self._piece(part, at, end, f"[{part.name}]", False)

    def _piece(
        self, part: Input, start: int, stop: int, name: str, symbol: bool, where: str = ""
    ) -> Piece:
        return Piece(
            part.section,
            start,
            stop - start,
            where or part.object,
            name,
            self.section.letter,
            symbol,
        )
