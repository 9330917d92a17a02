"""What each byte of busybox and of the root filesystem's image is.

busybox's own build writes the linker's map beside busybox_unstripped (scripts/trylink), from which
images/busybox is stripped. Of the ext2 image the files are those of the tree that it is made from.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path

from tasks.filesystem import ext2_areas
from tasks.filesystem.tree import Entry, size
from tasks.system.errors import PiggyError
from tasks.system.files import read_regular
from tasks.tuning import elf, image, linkmap, pieces
from tasks.tuning.image import Part, Row

LIBRARIES = "(libraries)"
GROUPS = FILESYSTEM, FREE, LOADER = "(filesystem)", "(free)", "(loader)"
_LONGEST = 1 << 28  # bytes of a file
_SUPERBLOCK = 1024  # offset in the image; Documentation/filesystems/ext2.rst
_MAGIC = 0xEF53


def busybox(binary: Path, obj: Path) -> list[Row]:
    """Return the rows of busybox; their sizes add up to the file's.

    Args:
        binary: The stripped program.
        obj: The folder that it was linked in.

    Raises:
        PiggyError: It can't be read, or the folder has another state.
    """
    linked, plan = obj / "busybox_unstripped", obj / "busybox_unstripped.map"
    if not (linked.is_file() and plan.is_file()):
        raise PiggyError(f"there is no {plan}", "'doit -a busybox' links busybox once more")
    data = _content(binary)
    whole = elf.read(linked)
    inputs = linkmap.parse(_content(plan).decode(errors="replace"))
    found = image.rows(data, [Part(whole, pieces.by_map(whole, inputs))])
    code = [row for row in found if row.section == ".text"]
    known = sum(row.size for row in code if row.object != pieces.LINKER)
    if known * 2 < sum(row.size for row in code):
        raise PiggyError(
            f"{plan} is not the map of {linked}", "'doit -a busybox' links busybox once more"
        )
    there = {row.section for row in found}
    if not all(
        one.name in there for one in whole.sections if one.alloc and one.size and not one.empty
    ):
        raise PiggyError(
            f"{binary} is not what {linked} was stripped to",
            "it came from the store, or the folder was built in by hand; 'doit -a busybox' makes"
            " it once more",
        )
    return [_library(row) for row in found]


def _library(row: Row) -> Row:
    """Name a member of a library, which is outside of the folder, by the library and its name."""
    if not row.object.startswith(("/", "..")):
        return row
    folder, name = os.path.split(row.object)
    return Row(
        row.offset,
        row.size,
        f"{LIBRARIES}/{os.path.basename(folder)}/{name}",
        row.name,
        row.section,
    )


def _content(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        PiggyError: It can't be read.
    """
    try:
        return read_regular(path, _LONGEST, follow=True)
    except OSError as error:
        raise PiggyError(f"{path} can't be read: {error.strerror}") from error


def applets(found: Iterable[Row], names: Iterable[str]) -> list[Row]:
    """Return a row for each object of busybox's that has applets, named by these.

    An applet NAME is the function NAME_main (include/applets.h); what applets share lies elsewhere.

    Args:
        found: The rows of busybox.
        names: The applets.
    """
    known = {f"{re.sub(r'[^0-9A-Za-z_]', '_', name)}_main": name for name in names}
    sizes: dict[str, int] = {}
    mains: dict[str, list[str]] = {}
    for row in found:
        sizes[row.object] = sizes.get(row.object, 0) + row.size
        if row.name in known:
            mains.setdefault(row.object, []).append(known[row.name])
    return [Row(0, sizes[at], at, ", ".join(sorted(names))) for at, names in mains.items()]


def applet_names(links: Path) -> list[str]:
    """Return the names of busybox's applets from its list of links.

    Raises:
        PiggyError: There is no such list, or it is empty.
    """
    names = [name.rpartition("/")[2] for name in _content(links).decode(errors="replace").split()]
    if not names:
        raise PiggyError(f"{links} is empty", "'doit -a busybox' writes it")
    return names


def rootfs(
    path: Path, entries: Iterable[Entry], layers: Iterable[Path], program: Path
) -> list[Row]:
    """Return the rows of an ext2 image: its files, by the layer that they come from.

    Args:
        path: The image.
        entries: The tree that it is made from.
        layers: The overlays' folders.
        program: busybox.

    Raises:
        PiggyError: A file can't be read, or the image is no ext2 image.
    """
    total, at = path.stat().st_size, 0
    folders = [(os.path.abspath(folder), folder.name) for folder in layers]
    found = []
    for entry in entries:
        length = size(entry) if entry.kind == "file" else 0
        if length:
            found.append(Row(at, length, f"{_layer(entry, folders, program)}{entry.path}", ""))
            at += length
    free = _free(path)
    rest = total - at - free
    if rest < 0:
        raise PiggyError(
            f"{path} is smaller than the files that it is made from",
            "'doit rootfs' makes it anew",
        )
    return [*found, Row(at, rest, FILESYSTEM, ""), Row(at + rest, free, FREE, "")]


def files(path: Path) -> list[Row]:
    """Return the rows of an ext2 image: its files, and what the loader and the file system take.

    They are read from the image, so it may be another build's, or a floppy that a guest has written
    to. A file that is named like one of our groups goes under ".".

    Args:
        path: The image.

    Raises:
        PiggyError: It can't be read, or is damaged.
    """
    groups = {
        ext2_areas.BOOT: (LOADER, ""),
        ext2_areas.TABLES: (FILESYSTEM, "[tables]"),
        ext2_areas.FOLDER: (FILESYSTEM, "[folders]"),
        ext2_areas.END: (FILESYSTEM, "[ends of blocks]"),
        ext2_areas.FREE: (FREE, ""),
    }
    data = _content(path)
    ours = {group for group, _ in groups.values()}

    def named(name: str) -> str:
        return f"./{name}" if name.split("/")[0] in ours else name

    return [
        Row(area.offset, area.size, *groups.get(area.kind, (named(area.path), "")))
        for area in ext2_areas.areas(data, os.fspath(path))
    ]


def taken(found: Iterable[Row]) -> int:
    """Return how many bytes of an image's rows are not free."""
    return sum(row.size for row in found if row.object != FREE)


def _layer(entry: Entry, folders: Iterable[tuple[str, str]], program: Path) -> str:
    if isinstance(entry.source, bytes):
        return "(made)"
    source = os.path.abspath(entry.source)
    if source == os.path.abspath(program):
        return "busybox"
    return next((name for folder, name in folders if source.startswith(f"{folder}/")), "(other)")


def _free(path: Path) -> int:
    """Return the bytes of free blocks: s_free_blocks_count of struct ext2_super_block."""
    with path.open("rb") as stream:
        stream.seek(_SUPERBLOCK)
        head = stream.read(64)
    if len(head) < 64 or struct.unpack_from("<H", head, 56)[0] != _MAGIC:
        raise PiggyError(f"{path} is no ext2 image")
    blocks, shift = struct.unpack_from("<I", head, 12)[0], struct.unpack_from("<I", head, 24)[0]
    return int(blocks) << (10 + min(int(shift), 6))
