"""A floppy that boots: one ext2 file system, and in its first 1024 bytes a boot loader of our own.

    floppy.S -> loader (1024 bytes)
    /bzImage, /cmdline -> ext2.build -> 1,474,560 bytes, the loader laid over the first 1024
    their blocks -> fat.tables -> /FAT, by which DOS and mtools see both files

ext2 leaves these bytes free (fs/ext2/ext2.h: the superblock begins at 1024). The loader finds both
files by the directory, as Linux does, so that each of them can be replaced in the guest, or on a
host, and no tool has to be run after that.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from tasks.filesystem import ext2, ext2_areas, fat, tree
from tasks.filesystem.ext2_limits import BLOCK
from tasks.system.errors import PiggyError
from tasks.system.files import replacing
from tasks.system.process import run

SOURCE = Path(__file__).with_name("floppy.S")
SIZE = 1_474_560  # bytes of a 3.5" HD disk: 80 tracks, 2 heads, 18 sectors
LOADER = 1024  # bytes
ROOM = 1410 * BLOCK  # bytes of a kernel; its blocks of pointers and all tables take the rest
WORDS_MAX = 1023  # bytes of the command line that the loader takes
ORIGIN = 0x7C00  # where a BIOS loads the first sector
KERNEL, WORDS = "/bzImage", "/cmdline"
TABLES = "/FAT"  # in order before them, so that its blocks are
LABEL = "piggyback"


def assemble(cc: str, folder: Path, log: Path | None = None) -> bytes:
    """Return the loader.

    Args:
        cc: A compiler driver for x86.
        folder: A folder for its output.
        log: The file that gets the command.

    Raises:
        PiggyError: The compiler is not one for x86.
    """
    made = folder / "loader"
    link = f"-Wl,-Ttext={ORIGIN:#x},--oformat=binary,-e,_start,--build-id=none"
    run([cc, "-m32", "-nostdlib", "-static", link, "-o", str(made), str(SOURCE)], log=log)
    loader = made.read_bytes()
    if len(loader) != LOADER or loader[510:512] != b"\x55\xaa":
        raise PiggyError(
            f"{SOURCE} became {len(loader)} bytes, which are no boot loader of {LOADER}",
            "another toolchain may help",
        )
    return loader


def build(
    loader: bytes,
    kernel: Path,
    words: str,
    image: Path,
    *,
    uuid: str,
    epoch: int,
    log: Path | None = None,
) -> ext2.Stats:
    """Write the floppy, which appears whole or not at all, and is the same whenever made.

    Args:
        loader: What `assemble` returned.
        kernel: The bzImage.
        words: The kernel's command line.
        image: The floppy.
        uuid: The UUID of its file system.
        epoch: Every time in it, in seconds since 1970.
        log: The file that gets the commands and their output.

    Raises:
        PiggyError: The kernel is no bzImage, or does not fit; the command line is too long.
    """
    check_kernel(kernel)
    if len(words.encode()) > WORDS_MAX:
        raise PiggyError(
            f"the kernel's command line has {len(words.encode())} bytes; the floppy's boot loader"
            f" takes {WORDS_MAX}",
            "shorten append",
        )
    size = kernel.stat().st_size
    entries = tree.in_order(
        [
            tree.Entry("/", "dir", tree.DIR_MODE),
            tree.Entry(TABLES, "file", 0o444, source=bytes(fat.BYTES)),
            tree.Entry(KERNEL, "file", 0o644, source=kernel),
            tree.Entry(WORDS, "file", 0o644, source=f"{words}\n".encode()),
        ]
    )
    with replacing(image) as draft:
        try:
            stats = ext2.build(
                entries, draft, size=SIZE, holes=False, label=LABEL, uuid=uuid, epoch=epoch, log=log
            )
        except ext2.DoesNotFit:
            raise PiggyError(
                f"{kernel} has {size:,} bytes, and on a floppy of {SIZE:,} there is room for"
                f" {ROOM:,}, beside the tables of its file system",
                "docs/size.md says what makes a kernel smaller",
            ) from None
        _show(draft, loader, {KERNEL: size, WORDS: len(words.encode()) + 1}, epoch)
    return stats


def _show(image: Path, loader: bytes, sizes: Mapping[str, int], epoch: int) -> None:
    """Write the loader, and the tables by which FAT shows files of the ext2.

    Args:
        image: The floppy.
        loader: The loader.
        sizes: Each file that is shown, to its bytes.
        epoch: The files' time, in seconds since 1970.

    Raises:
        PiggyError: The tables are not in one piece before the files.
    """
    known = ext2_areas.blocks(image.read_bytes(), image.name)
    blocks = {path: known[path.lstrip("/")] for path in (TABLES, *sizes)}
    first, *_ = place = blocks.pop(TABLES)
    if place != list(range(first, first + fat.BYTES // BLOCK)) or any(
        min(numbers) < first for numbers in blocks.values()
    ):
        raise PiggyError(
            f"debugfs laid {TABLES} where FAT can't have it: blocks {place}",
            "another version of e2fsprogs may help, and please report it",
        )
    shown = [fat.File(path.lstrip("/"), sizes[path], blocks[path]) for path in sizes]
    head = bytearray(loader)
    head[fat.PARAMETERS] = fat.parameters(first, SIZE // BLOCK, LABEL)
    with image.open("r+b") as stream:
        stream.write(head)
        stream.seek(first * BLOCK)
        stream.write(fat.tables(shown, first, SIZE // BLOCK, LABEL, epoch))


def check_kernel(kernel: Path) -> None:
    """Check that the loader can start a kernel image (Documentation/x86/boot.rst).

    Raises:
        PiggyError: It has no setup header, or one of a protocol before 2.02; or it is a zImage.
    """
    with kernel.open("rb") as stream:
        head = stream.read(0x212)
    magic, version = struct.unpack_from("<4sH", head.ljust(0x212, b"\0"), 0x202)
    if magic != b"HdrS" or version < 0x202 or not head[0x211] & 1:
        raise PiggyError(
            f"{kernel} is no bzImage, and the floppy's boot loader starts nothing else",
            "the machine file's [kernel] image names it",
        )
