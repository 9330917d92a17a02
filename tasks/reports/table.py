"""The table of machines.

What was built and booted, a row a machine, kept as JSON and shown as Markdown and text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from tasks.system import terminal
from tasks.system.files import read_regular, write_whole
from tasks.system.lock import Lock

HEADER = (
    "machine",
    "arch",
    "kernel",
    "vmlinux",
    "image",
    "busybox",
    "rootfs",
    "shell after",
    "build",
    "result",
)
_NUMBERS = range(3, 9)  # the columns that stand to the right
LONGEST = 16 << 20  # bytes of matrix.json


class Sizes(msgspec.Struct, frozen=True):
    """Bytes of what was built.

    `image` is the link that is booted, `rootfs` what holds the root filesystem at boot. A machine
    that has only a kernel lacks the latter two.
    """

    vmlinux: int
    image: int
    busybox: int | None = None
    rootfs: int | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One machine.

    Attributes:
        machine: Its name.
        result: "booted" (and passed every check), "built" (there is no QEMU for it), or "failed".
        date: When, UTC, ISO 8601.
        arch: Its architecture, as the kernel calls it.
        kernel: The release, as in uname -r.
        image: The name of the link that is booted.
        sizes: None where the build did not come to its end.
        accel: "tcg" or "kvm".
        ready: Seconds from QEMU's start to the shell's first answer.
        build: Seconds that the tasks took which had to run, without fetching and unpacking sources,
            which machines share. A run in which nothing had to be built keeps the figure of the run
            before.
        error: Why it failed.
    """

    machine: str
    result: Literal["booted", "built", "failed"]
    date: str
    arch: str = ""
    kernel: str = ""
    image: str = ""
    sizes: Sizes | None = None
    accel: str = ""
    ready: float | None = None
    build: float | None = None
    error: str = ""


def read(path: Path) -> dict[str, Row]:
    """Read matrix.json; what is not there, or not ours, counts as no rows."""
    try:
        return msgspec.json.decode(read_regular(path, LONGEST), type=dict[str, Row])
    except (
        OSError,
        ValueError,
        RecursionError,
    ):  # msgspec's own errors, and text that is not UTF-8
        return {}


def keep(folder: Path, row: Row, known: Collection[str]) -> None:
    """Put a row into `folder`/matrix.json and .md.

    The rows of other machines stay, as long as they are `known`.
    """
    with Lock(folder / ".matrix.lock", f"{folder / 'matrix.json'}").held():
        rows = read(folder / "matrix.json")
        old = rows.get(row.machine)
        if row.build is None and old and (old.kernel, old.sizes) == (row.kernel, row.sizes):
            row = msgspec.structs.replace(row, build=old.build)
        rows = {
            name: one for name, one in sorted({**rows, row.machine: row}.items()) if name in known
        }
        write_whole(
            folder / "matrix.json", msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n"
        )
        write_whole(folder / "matrix.md", markdown(rows.values()))


def cells(row: Row) -> tuple[str, ...]:
    """Return what stands in a row, by the columns of HEADER."""
    sizes = row.sizes
    numbers = (
        ["-" if size is None else f"{size:,}" for size in msgspec.structs.astuple(sizes)]
        if sizes
        else ["-"] * 4
    )
    if sizes:
        numbers[1] = f"{row.image} {numbers[1]}"
    result = {"booted": f"booted ({row.accel})", "built": "built, not booted", "failed": row.error}[
        row.result
    ]
    words = (
        row.machine,
        row.arch or "-",
        row.kernel or "-",
        *numbers,
        f"{row.ready:.1f} s" if row.ready else "-",
        terminal.took(row.build) if row.build is not None else "-",
        result,
    )
    return tuple(
        " ".join(terminal.printable(word).split()) for word in words
    )  # the file may hold anything


def markdown(rows: Iterable[Row]) -> str:
    """Return the rows as a table in Markdown; sizes are in bytes."""

    def line(words: Sequence[str]) -> str:
        return "| " + " | ".join(re.sub(r"([|\\])", r"\\\1", word) for word in words) + " |"

    ruler = ["---:" if column in _NUMBERS else "---" for column in range(len(HEADER))]
    return "\n".join([line(HEADER), line(ruler), *(line(cells(row)) for row in rows)]) + "\n"


def plain(rows: Iterable[Row]) -> str:
    """Return the rows as a table for the terminal; sizes are in bytes."""
    table = [HEADER, *(cells(row) for row in rows)]
    widths = [max(len(words[column]) for words in table) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            word.rjust(width) if column in _NUMBERS else word.ljust(width)
            for column, (word, width) in enumerate(zip(words, widths, strict=True))
        ).rstrip()
        for words in table
    )
