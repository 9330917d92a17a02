"""Write an initramfs: a "newc" cpio archive with a compression that the kernel can unpack.

Format: Documentation/driver-api/early-userspace/buffer-format.rst and init/initramfs.c of the
kernel. Each member is a header of 110 ASCII bytes, the name and a NUL, padded to 4 bytes, then the
content, padded to 4 bytes. The archive's bytes depend only on the entries, the epoch and the
compressor's version.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tasks.filesystem.tree import (
    ARCHIVE_FILE_MAX,
    LINK_MODE,
    PIECE,
    Entry,
    check_init,
    check_names,
    chunks,
    few,
    in_order,
    size,
)
from tasks.system import files
from tasks.system.errors import PiggyError, nearest
from tasks.system.files import replacing
from tasks.system.process import run

BLOCK = 512  # bytes: cpio pads an archive to a multiple of it; the kernel skips NULs
EPOCH_MAX, SIZE_MAX = 0xFFFFFFFF, ARCHIVE_FILE_MAX  # eight hex digits
PAGE = 4096  # bytes; some architectures have larger pages, none smaller ones
TRAILER = b"TRAILER!!!"  # the name of an archive's last member
DICTIONARY = 1 << 20  # bytes that the decompressor needs in RAM: Documentation/staging/xz.rst
TYPES = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "link": stat.S_IFLNK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}


class Packer(Protocol):
    """A compressor that takes its input in pieces."""

    def compress(self, data: bytes, /) -> bytes:
        """Take a piece of input, and return the output that is ready."""

    def flush(self) -> bytes:
        """Return the rest of the output."""


def build(
    entries: Sequence[Entry],
    archive: Path,
    *,
    compression: str = "gzip",
    epoch: int,
    init_link: str = "sbin/init",
    log: Path | None = None,
) -> None:
    """Write entries to a cpio archive, which appears whole or not at all.

    Args:
        entries: The entries, as `tree.compose` returns them.
        archive: The archive.
        compression: One of COMPRESSIONS; the kernel needs the RD_ symbol of the same name.
        epoch: Every time in the archive, in seconds since 1970.
        init_link: Target of a link /init, which the kernel starts, for a tree without an /init; ""
            for no link.
        log: The file that gets the compressor's command.

    Raises:
        PiggyError: The compression is unknown or its program missing, the target of /init is not in
            the tree, the format can't hold an entry, or the disk is too small.
    """
    if compression not in COMPRESSIONS:
        raise PiggyError(
            f"unknown compression '{compression}'.{nearest(compression, COMPRESSIONS)}",
            "there are " + ", ".join(COMPRESSIONS),
        )
    if not 0 <= epoch <= EPOCH_MAX:
        raise PiggyError(
            f"the time {epoch} of the archive is not within 0 and {EPOCH_MAX}", "set another epoch"
        )
    length = _check(entries)
    entries = _with_init(entries, init_link)
    packer = COMPRESSIONS[compression]
    if (isinstance(packer, tuple) or compression == "none") and length > files.free(archive.parent):
        raise files.no_space(archive, length)
    with replacing(archive) as draft:
        # Fixed names: a compressor could take the user's for an option, or store it in its output.
        plain = draft.parent / "in"
        with (plain if isinstance(packer, tuple) else draft).open("wb") as stream:
            compressor = _Plain() if isinstance(packer, tuple) else packer()
            for piece in _evenly(pack(entries, epoch)):
                stream.write(compressor.compress(piece))
            stream.write(compressor.flush())
        if isinstance(packer, tuple):
            run(
                [*packer, "in", *(["-o"] if packer[0] == "zstd" else []), "out"],
                cwd=draft.parent,
                log=log,
            )
            (draft.parent / "out").rename(draft)
        draft.chmod(0o644)


def in_memory(entries: Sequence[Entry]) -> int:
    """Return the bytes of RAM that the files take when the kernel has unpacked them.

    Each file takes whole pages of PAGE bytes.
    """
    return sum(-(-size(entry) // PAGE) * PAGE for entry in entries if entry.kind == "file")


def _check(entries: Sequence[Entry]) -> int:
    """Return the approximate length of the archive in bytes.

    Raises:
        PiggyError: The format, or Linux, can't hold an entry.
    """
    check_names(entries)
    length = 0
    for entry in entries:
        body = size(entry) if entry.kind == "file" else 0
        if body > SIZE_MAX:
            raise PiggyError(
                f"{few([entry.path])} has {body} bytes; a cpio archive holds files of up to"
                f" {SIZE_MAX} (4 GiB: 8 hex digits, buffer-format.rst of the kernel)",
                "keep it on a disk of its own",
            )
        length += 110 + len(entry.path) + len(entry.target) + body
    return length


def _with_init(entries: Sequence[Entry], target: str) -> Sequence[Entry]:
    if not target:
        return entries
    check_init(entries, ramfs=True)
    if any(entry.path == "/init" for entry in entries):
        return entries
    return in_order([*entries, Entry("/init", "link", LINK_MODE, target=target)])


def pack(entries: Iterable[Entry], epoch: int) -> Iterator[bytes]:
    """Yield the uncompressed archive in small pieces.

    Args:
        entries: The entries.
        epoch: Every time in the archive, in seconds since 1970.
    """
    total = 0
    for number, entry in enumerate(entries, 1):
        for piece in _member(entry, _name(entry), number, epoch):
            total += len(piece)
            yield piece
    for piece in _member(Entry("", "", 0), TRAILER, 0, 0):
        total += len(piece)
        yield piece
    yield bytes(-total % BLOCK)


def _name(entry: Entry) -> bytes:
    """Return the name of a member: its path without the first slash.

    A file called TRAILER!!! becomes ./TRAILER!!!, since do_name() in init/initramfs.c takes the
    bare name for the end of the archive.
    """
    name = b"." if entry.path == "/" else os.fsencode(entry.path[1:])
    return b"./" + name if name == TRAILER else name


def _member(entry: Entry, name: bytes, inode: int, epoch: int) -> Iterator[bytes]:
    """Yield one member, whose inode number is its own: equal numbers would mean hard links."""
    target = os.fsencode(entry.target)
    length = size(entry) if entry.kind == "file" else len(target)
    links = 2 if entry.kind == "dir" else 1
    fields = (
        inode,
        TYPES.get(entry.kind, 0) | entry.mode,
        entry.uid,
        entry.gid,
        links,
        epoch,
        length,
        0,
        0,
        entry.major,
        entry.minor,
        len(name) + 1,
        0,
    )
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    yield head + bytes(-len(head) % 4)
    if entry.kind == "file":
        yield from chunks(entry, length)
    else:
        yield target
    yield bytes(-length % 4)


def _evenly(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces of PIECE, so that a compressor's output is always the same."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= PIECE:
            yield bytes(held[:PIECE])
            del held[:PIECE]
    yield bytes(held)


class _Plain:
    """The "compressor" that compresses nothing."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _gzip() -> Packer:
    """Return a gzip compressor of zlib, whose header has no time, no name and a fixed OS byte.

    The header of Python's gzip module varies.
    """
    return zlib.compressobj(9, zlib.DEFLATED, 31)


def _bzip2() -> Packer:
    import bz2

    return bz2.BZ2Compressor(9)


def _xz() -> Packer:
    """Return an xz compressor with CRC32, the only check that lib/decompress_unxz.c supports."""
    import lzma

    return lzma.LZMACompressor(
        lzma.FORMAT_XZ,
        lzma.CHECK_CRC32,
        filters=[
            {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": DICTIONARY}
        ],
    )


def _lzma() -> Packer:
    import lzma

    return lzma.LZMACompressor(
        lzma.FORMAT_ALONE,
        filters=[
            {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": DICTIONARY}
        ],
    )


# Python 3.11 has no zstd and no lz4, so their programs are run. The kernel reads only lz4's legacy
# format, -l (lib/decompress_unlz4.c). With more threads zstd's output could depend on their number.
COMPRESSIONS: dict[str, Callable[[], Packer] | tuple[str, ...]] = {
    "none": _Plain,
    "gzip": _gzip,
    "bzip2": _bzip2,
    "xz": _xz,
    "lzma": _lzma,
    "zstd": ("zstd", "-q", "-19", "--single-thread"),
    "lz4": ("lz4", "-q", "-l", "-9"),
}
