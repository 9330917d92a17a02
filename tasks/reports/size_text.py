"""How sizes are shown: trees, tables by Kconfig symbol, comparisons in bloat-o-meter's format."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from tasks.tuning.compare import Comparison, Delta
from tasks.tuning.history import Point
from tasks.tuning.image import Row
from tasks.tuning.sizes import ESTIMATED, Ram

SHOWN = 20  # lines of a group
WIDTH = 34  # columns of a name


class Node(msgspec.Struct):
    """A group of rows, or one row.

    Attributes:
        name: A folder, a file, a function.
        size: Bytes.
        about: Bytes in the compressed file, about.
        below: What it consists of, by name.
    """

    name: str
    size: int = 0
    about: int = 0
    below: dict[str, Node] = msgspec.field(default_factory=dict)

    def add(self, path: Iterable[str], row: Row) -> None:
        """Count a row in here and in the groups on a path."""
        node = self
        node.size, node.about = node.size + row.size, node.about + row.about
        for name in path:
            node = node.below.setdefault(name, Node(name))
            node.size, node.about = node.size + row.size, node.about + row.about

    def at(self, path: Sequence[str]) -> Node | None:
        """Return the group on a path, None if there is none."""
        node: Node | None = self
        for name in path:
            node = node.below.get(name) if node else None
        return node

    def sorted(self) -> list[Node]:
        """Return what it consists of, the largest first."""
        return sorted(self.below.values(), key=lambda one: (-one.size, one.name))


def tree(name: str, rows: Iterable[Row]) -> Node:
    """Return the tree of a file's rows."""
    top = Node(name)
    for row in rows:
        top.add([*filter(None, [*row.object.split("/"), row.name])], row)
    return top


def show(node: Node, depth: int, most: int = SHOWN, exact: bool = True) -> Iterator[str]:
    """Yield the lines of a tree.

    Args:
        node: Its top.
        depth: How many levels below that are shown.
        most: Lines of a group; the rest is put together in one. 0: all.
        exact: Whether the sizes are counted, not estimated.
    """
    yield _line(node.name, node.size, node.about, "", exact)
    yield from _below(node, depth, most, "  ", exact)


def _below(node: Node, depth: int, most: int, indent: str, exact: bool) -> Iterator[str]:
    if depth < 1:
        return
    parts = node.sorted()
    shown = parts if not most or len(parts) <= most + 1 else parts[:most]
    for part in shown:
        yield _line(part.name, part.size, part.about, indent, exact)
        yield from _below(
            part, depth - 1, most, f"{indent}  ", exact and part.name not in ESTIMATED
        )
    if len(shown) < len(parts):
        rest = parts[len(shown) :]
        size, about = sum(one.size for one in rest), sum(one.about for one in rest)
        yield _line(f"and {len(rest)} more", size, about, indent, exact)


def _line(name: str, size: int, about: int, indent: str, exact: bool) -> str:
    text = f"{size:,}" if exact else f"about {size:,}"
    more = f"  about {about:>10,}" if about else ""
    return f"{indent + name:<{WIDTH}} {text:>16}{more}"


def ram(found: Ram) -> Iterator[str]:
    """Yield the lines of what a kernel takes in memory."""
    yield f"{'in memory after the boot':<{WIDTH}} {found.kept:>16,}"
    for name in ("text", "rodata", "data", "bss"):
        yield f"  {name:<{WIDTH - 2}} {getattr(found, name):>16,}"
    yield f"{'  (init, which is freed then)':<{WIDTH}} {found.init:>16,}"
    if found.brk:
        yield f"{'  (brk, freed but for what is used)':<{WIDTH}} {found.brk:>16,}"


class Share(msgspec.Struct, frozen=True):
    """What a Kconfig symbol brings in.

    Attributes:
        symbol: Without CONFIG_; "" for what is always there.
        own: Bytes of the objects that it brings in by itself.
        all: Bytes of these and of what lies in folders that it lets in, for whichever symbol.
        about: Its own bytes in the compressed file, about.
        objects: How many objects it brings in by itself.
    """

    symbol: str
    own: int
    all: int
    about: int
    objects: int


def by_config(rows: Iterable[Row], chain: Callable[[str], Sequence[str]]) -> list[Share]:
    """Return what each Kconfig symbol brings in, the largest first; the sum of `own` is exact.

    Args:
        rows: The rows of the image.
        chain: Returns the symbols that an object takes, its own first.
    """
    own: dict[str, list[int]] = {}
    whole: dict[str, int] = {}
    objects: dict[str, set[str]] = {}
    known: dict[str, Sequence[str]] = {}
    for row in rows:
        if row.object not in known:
            known[row.object] = chain(row.object) if not row.object.startswith("(") else ()
        names = known[row.object]
        first = names[0] if names else ""
        sums = own.setdefault(first, [0, 0])
        sums[0] += row.size
        sums[1] += row.about
        objects.setdefault(first, set()).add(row.object)
        for name in dict.fromkeys(names or [""]):
            whole[name] = whole.get(name, 0) + row.size
    nothing = [0, 0]
    shares = [
        Share(
            name, own.get(name, nothing)[0], size, own.get(name, nothing)[1], _count(objects, name)
        )
        for name, size in whole.items()
    ]
    return sorted(shares, key=lambda one: (-one.own, one.symbol))


def _count(objects: dict[str, set[str]], name: str) -> int:
    return sum(not path.startswith("(") for path in objects.get(name, ()))


def config_lines(shares: Sequence[Share], most: int = SHOWN) -> Iterator[str]:
    """Yield the table of `by_config`.

    Args:
        shares: Its rows.
        most: How many are shown; 0: all.
    """
    yield f"{'brought in by':<{WIDTH}} {'bytes':>16}  {'with all below':>16}  objects"
    shown = shares[:most] if most else shares
    for one in shown:
        name = _symbol(one.symbol)
        yield f"{name:<{WIDTH}} {one.own:>16,}  {one.all:>16,}  {one.objects:>7,}"
    if rest := shares[len(shown) :]:
        yield f"{f'and {len(rest)} more':<{WIDTH}} {sum(one.own for one in rest):>16,}"


def _symbol(name: str) -> str:
    return name if name.startswith("(") else f"CONFIG_{name}" if name else "(always there)"


def history(
    found: Sequence[Point],
    image: str,
    shorten: Callable[[str], str] = lambda text: text,
    most: int = SHOWN,
) -> Iterator[str]:
    """Yield the lines of a table of builds, the last one at the end.

    Args:
        found: The builds, the oldest first.
        image: The image that is booted.
        shorten: Gives a sentence with short names of files.
        most: How many are shown, the last ones; 0: all.
    """
    names = list(dict.fromkeys(["vmlinux", image]))
    yield f"{'built':<16} " + "".join(f"{name:>12} {'delta':>10} " for name in names) + " changed"
    before: dict[str, int] = {}
    rows = []
    for one in found:
        sizes = {name: one.sizes.get(name, 0) for name in names}
        if sizes != before or one.changes:
            rows.append(f"{_when(one)} {_cells(sizes, before)} {shorten(_changed(one))}".rstrip())
        before = sizes
    shown = rows[-most:] if most else rows
    if len(shown) < len(rows):
        yield f"({len(rows) - len(shown)} earlier)"
    yield from shown


def _when(one: Point) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(one.time))


def _cells(sizes: dict[str, int], before: dict[str, int]) -> str:
    cells = []
    for name, size in sizes.items():
        old = before.get(name)
        by = f"{size - old:+,}" if size and old and size != old else ""
        cells.append(f"{f'{size:,}' if size else '-':>12} {by:>10} ")
    return "".join(cells)


def _changed(one: Point) -> str:
    """Return what changed for a build in one line."""
    said = [*map(str, one.changes), *one.reasons]
    return ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")


def against(found: Comparison, most: int = SHOWN, what: str = "Function") -> Iterator[str]:
    """Yield the lines of a comparison.

    Args:
        found: The comparison.
        most: Lines of a list, half of them from each end; 0: all. bloat-o-meter's list is whole.
        what: What a line of that one is.
    """
    if found.files:
        yield from _table("Image", found.files)
    yield found.words
    yield f"{what:<40} {'old':>7} {'new':>7} {'delta':>7}"
    for one in found.symbols:
        yield f"{_delta(one)}  {one.where}".rstrip()
    yield found.total
    if found.rest:
        yield from _table("and beside these", found.rest)
    if found.configs:
        named = [msgspec.structs.replace(one, name=_symbol(one.name)) for one in found.configs]
        yield from _table("brought in by", named, most)
    if found.config:
        yield "configuration:"
        for name, (old, new) in found.config.items():
            yield f"  CONFIG_{name}: {old or 'not there'} -> {new or 'not there'}"


def _table(head: str, deltas: Sequence[Delta], most: int = 0) -> Iterator[str]:
    yield f"{head:<40} {'old':>7} {'new':>7} {'delta':>7}"
    half = most // 2
    hidden = len(deltas) - most if most and len(deltas) > most + 1 else 0
    for number, one in enumerate(deltas):
        if hidden and half <= number < len(deltas) - (most - half):
            if number == half:
                yield f"and {hidden} more"
            continue
        yield _delta(one)


def _delta(one: Delta) -> str:
    old, new = ("-" if size is None else size for size in (one.old, one.new))
    return f"{one.name:<40} {old:>7} {new:>7} {one.by:>+7}"
