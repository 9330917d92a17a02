"""What grew and shrank between two builds, in the words of the kernel's scripts/bloat-o-meter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from tasks.kconfig import dotconfig
from tasks.system.pattern import pattern
from tasks.tuning.image import Row
from tasks.tuning.pieces import UNKNOWN, Piece
from tasks.tuning.sizes import Record

# As scripts/bloat-o-meter has them: what is generated, and what differs by its text alone.
_GENERATED = ("__mod_", "__se_sys", "__se_compat_sys", "__addressable_")
_TEXTS = ("linux_banner", "vermagic")
_NUMBER = pattern(r"\.[0-9]+")
STRINGS = "(strings)"
REST = "(strings, tables, alignment)"
TABLES = "(tables and other data without a symbol)"


class Delta(msgspec.Struct, frozen=True):
    """The sizes of one thing in two builds, None where it is not.

    Attributes:
        name: Its name.
        old: Bytes before.
        new: Bytes after.
        where: The object that it is in; "" for one that is not known.
    """

    name: str
    old: int | None
    new: int | None
    where: str = ""

    @property
    def by(self) -> int:
        """How many bytes it grew."""
        return (self.new or 0) - (self.old or 0)


class Comparison(msgspec.Struct, frozen=True):
    """Two builds side by side.

    Attributes:
        symbols: Functions and variables that differ, the most grown first.
        totals: Bytes of all functions and variables, before and after.
        rest: What else differs: strings, tables, alignment, what the linker makes.
        configs: What differs by the Kconfig symbol that brings it in; "" for what is always there.
            Functions and variables alone, if either build's objects are told by names.
        files: The images that both have, by name.
        config: Symbols that differ: old and new value, "" for none.
    """

    symbols: list[Delta]
    totals: tuple[int, int]
    rest: list[Delta]
    configs: list[Delta]
    files: list[Delta]
    config: dict[str, tuple[str, str]]

    @property
    def words(self) -> str:
        """The first line of bloat-o-meter."""
        added = sum(one.old is None for one in self.symbols)
        removed = sum(one.new is None for one in self.symbols)
        both = [one for one in self.symbols if one.old is not None and one.new is not None]
        grown, shrunk = (sum(one.by * way > 0 for one in both) for way in (1, -1))
        up = sum(one.by for one in self.symbols if one.by > 0)
        down = sum(one.by for one in self.symbols if one.by < 0)
        return (
            f"add/remove: {added}/{removed} grow/shrink: {grown}/{shrunk}"
            f" up/down: {up}/{down} ({up + down})"
        )

    @property
    def total(self) -> str:
        """The last line of bloat-o-meter."""
        old, new = self.totals
        percent = (new - old) * 100.0 / old if old else 0.0
        return f"Total: Before={old}, After={new}, chg {percent:+.2f}%"


def compare(old: Record, new: Record, symbol: Callable[[str], str]) -> Comparison:
    """Compare two builds.

    Args:
        old: The one before.
        new: The one after.
        symbol: Returns the Kconfig symbol that brings in an object, "" for none.
    """
    before, after = named(old.pieces), named(new.pieces)
    where = {plain(piece.name): piece.object for piece in old.pieces if piece.symbol}
    where |= {plain(piece.name): piece.object for piece in new.pieces if piece.symbol}
    differ = _deltas(before, after, where)
    # Where the objects of one build are told by names, those of the other one are, too.
    fixed = where if old.why or new.why else {}
    return Comparison(
        differ,
        (sum(before.values()), sum(after.values())),
        _deltas(_others(old.pieces, bool(fixed)), _others(new.pieces, bool(fixed))),
        _deltas(_by_config(old.pieces, symbol, fixed), _by_config(new.pieces, symbol, fixed)),
        [one for one in _deltas(old.files, new.files) if None not in (one.old, one.new)],
        _config(old.config, new.config),
    )


def rows(
    old: Sequence[Row],
    new: Sequence[Row],
    named: Callable[[Row], str],
    before: Mapping[str, str],
    after: Mapping[str, str],
) -> Comparison:
    """Compare two programs, or two images with files, by their rows.

    Args:
        old: The one before.
        new: The one after.
        named: Returns the function, file or object that a row is; "" for what is none of these.
        before: The configuration of the one before; {} for none.
        after: That of the one after.
    """
    sums: list[tuple[Counter[str], Counter[str]]] = []
    where: dict[str, str] = {}
    for found in (old, new):
        sums.append((Counter(), Counter()))
        for row in found:
            name = named(row)
            if name:
                sums[-1][0][name] += row.size
                where[name] = row.object if row.object != name else ""
            else:
                sums[-1][1][_rest(row.object, row.name)] += row.size
    (one, others), (two, more) = sums
    return Comparison(
        _deltas(one, two, where),
        (sum(one.values()), sum(two.values())),
        _deltas(others, more),
        [],
        [],
        _config(before, after),
    )


def named(found: Iterable[Piece]) -> Counter[str]:
    """Return the bytes of functions and variables by name, as bloat-o-meter counts them."""
    sizes: Counter[str] = Counter()
    for piece in found:
        if _counted(piece):
            sizes[plain(piece.name)] += piece.size
    return sizes


def _counted(piece: Piece) -> bool:
    return piece.symbol and not piece.name.startswith(_GENERATED) and piece.name not in _TEXTS


def _config(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the symbols that differ, with both values; {} where either configuration is {}."""
    if not (old and new):
        return {}
    return {
        name: (old.get(name, ""), new.get(name, "")) for name in dotconfig.differences(old, new)
    }


def plain(name: str) -> str:
    """Return a name without the numbers that the compiler gives to copies (`.isra.0`)."""
    return _NUMBER.sub("", name) if "." in name else name


def _others(found: Iterable[Piece], together: bool) -> Counter[str]:
    """Return the bytes of everything that bloat-o-meter does not count, by what it is.

    Args:
        found: All pieces.
        together: Whether it can't be told apart, as there is no map.
    """
    sizes: Counter[str] = Counter()
    for piece in found:
        if not _counted(piece):
            sizes[REST if together else _rest(piece.object, piece.name)] += piece.size
    return sizes


def _rest(where: str, name: str) -> str:
    """Return what something without a name of its own is."""
    if ".rodata.str" in name:
        return STRINGS
    return where if where.startswith("(") and "/" not in where else TABLES


def _by_config(
    found: Iterable[Piece], symbol: Callable[[str], str], fixed: Mapping[str, str]
) -> Counter[str]:
    """Return the bytes by the Kconfig symbol that brings their object in.

    Args:
        found: All pieces.
        symbol: As in `compare`.
        fixed: The objects of functions and variables, which alone count then; {}: as the map says.
    """
    sizes: Counter[str] = Counter()
    known: dict[str, str] = {}
    for piece in found:
        if piece.symbol or not fixed:
            where = fixed.get(plain(piece.name), piece.object) if fixed else piece.object
            if where not in known:
                known[where] = UNKNOWN if where.startswith(UNKNOWN) else symbol(where)
            sizes[known[where]] += piece.size
    return sizes


def _deltas(
    old: Mapping[str, int], new: Mapping[str, int], where: Mapping[str, str] | None = None
) -> list[Delta]:
    """Return what differs, the most grown first; names in reverse order, as bloat-o-meter's."""
    found = [
        Delta(name, old.get(name), new.get(name), (where or {}).get(name, ""))
        for name in {**old, **new}
        if old.get(name, 0) != new.get(name, 0)
    ]
    return sorted(found, key=lambda one: (one.by, one.name), reverse=True)
