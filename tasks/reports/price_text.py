"""How prices are shown: a table, a line while they come in, and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tasks.config.project import Project
from tasks.kconfig.fragments import PREFIX
from tasks.kconfig.reasons import some
from tasks.system import terminal
from tasks.tuning.builds import PACKED
from tasks.tuning.row import Row

SORTS = ("bytes", "vmlinux", "memory", "instructions", "objects", "name")
_LONGEST = 60  # characters of a verdict in the table
_PARTS = ("text", "rodata", "data", "bss")


class Priced(msgspec.Struct, frozen=True):
    """A symbol, the row with it switched, and the row as it is.

    Attributes:
        name: The symbol, without CONFIG_.
        row: The row with it switched.
        base: The row of the configuration in force.
        known: Whether the row was known before.
    """

    name: str
    row: Row
    base: Row
    known: bool = False

    @property
    def off(self) -> bool:
        """Whether it was on, and was switched off."""
        return self.row.change[self.name] == "n"

    def _cost(self, base: int, row: int) -> int:
        return base - row if self.off else row - base

    def files(self) -> dict[str, int]:
        """Return what it costs in bytes of each image; {} if it was not built."""
        return {
            name: self._cost(size, self.row.files[name])
            for name, size in self.base.files.items()
            if name in self.row.files
        }

    def memory(self) -> dict[str, int]:
        """Return what it costs in bytes of memory, by kind; {} if it was not built."""
        if not self.row.ram or not self.base.ram:
            return {}
        old, new = (msgspec.to_builtins(one.ram) for one in (self.base, self.row))
        found = {kind: self._cost(old[kind], new[kind]) for kind in old}
        return {"kept": sum(found[kind] for kind in _PARTS), **found}

    def objects(self) -> int | None:
        """Return how many compiled objects it brings in; None if it was not built."""
        return self._cost(self.base.objects, self.row.objects) if self.row.built else None

    def instructions(self) -> int | None:
        """Return how many instructions it costs up to the shell; None if they were not counted."""
        base, row = self.base.instructions, self.row.instructions
        return None if base is None or row is None else self._cost(base, row)


def ordered(priced: Sequence[Priced], sort: str) -> list[Priced]:
    """Return prices in the order of one of SORTS: the greatest first, what was not built last."""

    def key(one: Priced) -> tuple[bool, list[int], str]:
        sizes = [*one.files().values()]
        cost = {
            # An image may be padded: what is equal in it differs in what it carries.
            "bytes": sizes[::-1],
            "vmlinux": sizes[:1],
            "memory": [*one.memory().values()][:1],
            "instructions": [one.instructions() or 0],
            "objects": [one.objects() or 0],
            "name": [],
        }[sort]
        return not one.row.built, [-each for each in cost], one.name

    return sorted(priced, key=key)


def verdict(row: Row) -> str:
    """Return in a sentence what became of a kernel."""
    if not row.built:
        return f"not built: {row.error}"
    if row.passed is None:
        return "built"
    if row.passed:
        return "passes"
    if row.booted and row.failed:
        return f"fails: {', '.join(row.failed)}"
    return f"fails: {row.said}" if row.booted else f"does not boot: {row.said}"


def short(one: Priced) -> str:
    """Return one price as a line."""
    files = one.files()
    name = next(reversed(files), "")
    cost = f"{files[name]:+,} B of {name}, " if files else ""
    return terminal.printable(f"{cost}{'off' if one.off else 'on'}: {verdict(one.row)}")


def fell(one: Priced) -> str:
    """Return which other symbols changed: -NAME fell, +NAME rose, else the new value."""
    words = []
    for name, (_, new) in one.row.differences(one.base).items():
        off = new == "n"
        words.append(f"-{name}" if off else f"+{name}" if new in "ym" else f"{name}={new}")
    return some(sorted(words))


def table(
    base: Row,
    priced: Sequence[Priced],
    fixed: Mapping[str, str],
    others: int,
    uncounted: str = "",
) -> Iterator[str]:
    """Yield the lines of the table.

    Args:
        base: The row of the configuration in force.
        priced: The prices, in order.
        fixed: Why symbols can't be switched.
        others: How many more there are which nobody can set.
        uncounted: Why the machine's instructions can't be counted.
    """
    chain = [*base.files]
    between = [name for name in (*PACKED, "Image") if name in chain]
    shown = list(dict.fromkeys([chain[-1], *between, chain[0]]))
    if priced:
        counted = base.instructions is not None or bool(base.uncounted or uncounted)
        more = ["instructions"] * counted
        head = ["what it costs", *shown, "memory", *more, "objects", "if", "it", "and with it"]
        lines = [head, *(_cells(one, shown, counted) for one in priced)]
        numbers = range(1, len(shown) + 3 + counted)
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        for line in lines:
            cells = [
                word.rjust(width) if column in numbers else word.ljust(width)
                for column, (word, width) in enumerate(zip(line, widths, strict=True))
            ]
            yield "  ".join(cells).rstrip()
        sizes = ", ".join(f"{name} {base.files[name]:,}" for name in shown)
        kept = base.ram.kept if base.ram else 0
        boot = "" if base.instructions is None else f", instructions {base.instructions:,}"
        yield (
            f"bytes; the kernel as it is: {sizes}, memory {kept:,}{boot}, objects {base.objects:,}"
        )
        yield from _uncounted(base, priced, uncounted)
    if fixed:
        yield "can't be switched:"
        width = max(map(len, fixed))
        for name in sorted(fixed):
            yield terminal.printable(f"  {name:<{width}}  {fixed[name]}")
    if others:
        yield f"and {others} that are on have no prompt: they come with others, or by default"


def _uncounted(base: Row, priced: Sequence[Priced], why: str) -> Iterator[str]:
    """Yield why instructions were not counted: of all kernels, or of single ones."""
    if base.uncounted or why:
        yield terminal.printable(f"instructions are not counted: {why or base.uncounted}")
        return
    for one in priced:
        if one.row.uncounted:
            why = f"instructions of {one.name} are not counted: {one.row.uncounted}"
            yield terminal.printable(f"{why} ('doit price --again {one.name}' tries again)")


def _cells(one: Priced, shown: Sequence[str], counted: bool) -> list[str]:
    files, memory = one.files(), one.memory()
    cells = [
        one.name,
        *(f"{files[name]:,}" if name in files else "-" for name in shown),
        f"{memory['kept']:,}" if memory else "-",
        *(
            "-" if number is None else f"{number:,}"
            for number in (*[one.instructions()] * counted, one.objects())
        ),
        one.row.change[one.name].replace("n", "off").replace("y", "on"),
        _cut(verdict(one.row)),
        fell(one) if one.row.built else "",
    ]
    return [terminal.printable(" ".join(cell.split())) for cell in cells]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3].rstrip()}..."


def as_json(
    project: Project, base: Row, priced: Sequence[Priced], fixed: Mapping[str, str]
) -> dict[str, Any]:
    """Return everything as an object of JSON."""
    return {
        "machine": project.settings.machine,
        "image": project.image,
        "base": _row(base),
        "symbols": [
            {
                "symbol": PREFIX + one.name,
                "from": one.base.config.get(one.name, "n"),
                "to": one.row.change[one.name],
                "known": one.known,
                "costs": {
                    "files": one.files(),
                    "memory": one.memory(),
                    "instructions": one.instructions(),
                    "objects": one.objects(),
                },
                "with": {
                    PREFIX + name: {"from": old, "to": new}
                    for name, (old, new) in one.row.differences(one.base).items()
                }
                if one.row.built
                else {},
                **_row(one.row),
            }
            for one in priced
        ],
        "fixed": {PREFIX + name: why for name, why in fixed.items()},
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "built": row.built,
        "error": row.error,
        "files": row.files,
        "memory": msgspec.to_builtins(row.ram),
        "objects": row.objects,
        "booted": row.booted,
        "passed": row.passed,
        "failed": row.failed,
        "said": row.said,
        "ready": row.ready,
        "instructions": row.instructions,
        "uncounted": row.uncounted,
        "seconds": round(row.seconds, 1),
    }
