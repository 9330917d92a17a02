"""What an image consists of, as the columns of a treemap.

The nodes are those of `size`; parts of one object that are smaller than SMALL have one together, so
that the page stays small. Sums are exact all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from tasks.config.project import Project
from tasks.reports import size, size_text
from tasks.reports.size_text import Node
from tasks.system.errors import PiggyError
from tasks.tuning.builds import Build
from tasks.tuning.image import Row
from tasks.tuning.sizes import ESTIMATED, Record

SMALL = 64  # bytes
MEMORY = "vmlinux in memory"


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes of an image; each comes behind the one that it is in, the first is the image.

    Attributes:
        name: The image.
        title: What it is, in a few words.
        labels: A folder, an object, a function.
        parents: The number of the node that it is in; -1 for the first.
        sizes: Bytes.
        abouts: Bytes in the compressed file, about; 0 for none.
        estimated: The numbers of those nodes below which all sizes are estimates, themselves not.
        symbols: The Kconfig symbol that brings an object in, by the node's number.
    """

    name: str
    title: str
    labels: list[str]
    parents: list[int]
    sizes: list[int]
    abouts: list[int]
    estimated: list[int]
    symbols: dict[int, str]


def all_of(
    project: Project, build: Build, record: Record, chain: Callable[[str], Sequence[str]]
) -> tuple[list[Tree], list[str]]:
    """Return the trees of all images that are there, and notes on those that can't be read.

    Args:
        project: The project.
        build: The build.
        record: Its measurement.
        chain: Returns the symbols that an object takes, its own first.
    """
    rows = size.rows_of(project, build, record)
    titles = {
        build.raw: "the uncompressed kernel",
        "busybox": "user space's programs",
        "rootfs": "the root filesystem",
        "floppy": "the floppy",
        build.image: "what is booted",
    }
    found, notes = [], []
    for name in dict.fromkeys([build.image, build.raw, *rows]):
        if name == "applets":
            continue
        try:
            own = chain if name in (build.image, build.raw) else _nothing
            found.append(tree(name, titles.get(name, ""), rows[name](), own))
        except (PiggyError, OSError) as error:
            said = error.message if isinstance(error, PiggyError) else str(error)
            notes.append(f"{name} is not taken apart: {said}")
    at = next((number for number, one in enumerate(found) if one.name == build.raw), 0)
    found.insert(at + 1, memory(record, chain))
    return found, notes


def _nothing(path: str) -> Sequence[str]:
    """Return the symbols of an object that is none of the kernel's."""
    return ()


def memory(record: Record, chain: Callable[[str], Sequence[str]]) -> Tree:
    """Return the tree of vmlinux as it lies in memory, what is zero at the start included."""
    rows = [
        Row(piece.address, piece.size, piece.object, piece.name, piece.section)
        for piece in record.pieces
    ]
    title = "the kernel in memory, with bss and what is freed after the boot"
    return tree(MEMORY, title, rows, chain)


def tree(name: str, title: str, rows: Iterable[Row], chain: Callable[[str], Sequence[str]]) -> Tree:
    """Return the tree of an image.

    Args:
        name: The image.
        title: What it is.
        rows: Its rows.
        chain: See `all_of`.
    """
    made = Tree(
        name=name,
        title=title,
        labels=[],
        parents=[],
        sizes=[],
        abouts=[],
        estimated=[],
        symbols={},
    )
    _add(made, size_text.tree(name, rows), -1, (), chain)
    return made


def _add(
    made: Tree,
    node: Node,
    parent: int,
    path: tuple[str, ...],
    chain: Callable[[str], Sequence[str]],
) -> None:
    number = len(made.labels)
    made.labels.append(node.name)
    made.parents.append(parent)
    made.sizes.append(node.size)
    made.abouts.append(node.about)
    if node.name in ESTIMATED:
        made.estimated.append(number)
        path = ()  # below it are the objects of the kernel proper
    if node.name.endswith(".o") and not any(part.startswith("(") for part in path):
        symbol = next(iter(chain("/".join(path))), "")
        if symbol:
            made.symbols[number] = symbol
    parts = [part for part in node.sorted() if part.size]
    small = [part for part in parts if part.size < SMALL and not part.below]
    if len(small) > 1:
        parts = [part for part in parts if part.size >= SMALL or part.below]
        total, about = sum(part.size for part in small), sum(part.about for part in small)
        parts.append(Node(f"({len(small)} smaller than {SMALL} B)", total, about))
    for part in parts:
        _add(made, part, number, (*path, part.name), chain)
