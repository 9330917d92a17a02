"""An initramfs from a tree of entries.

A "newc" archive, compressed so that the kernel's own decompressors take it.

Format: Documentation/driver-api/early-userspace/buffer-format.rst and init/initramfs.c of the
kernel. Each member is a header of 110 bytes in ASCII, the name and a NUL, padded to 4 bytes, then
the content, padded to 4 bytes. The bytes depend on nothing but the entries, the epoch and the
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
from tasks.system import disk
from tasks.system.errors import PiggyError, nearest
from tasks.system.files import replacing
from tasks.system.process import run

BLOCK = 512  # what cpio pads an archive to; the kernel skips NULs
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
        """Take a piece and return what is ready."""

    def flush(self) -> bytes:
        """Return the rest."""


def build(
    entries: Sequence[Entry],
    archive: Path,
    *,
    compression: str = "gzip",
    epoch: int,
    init_link: str = "sbin/init",
    log: Path | None = None,
) -> None:
    """Write the entries (as `tree.compose` gives them) to a cpio archive.

    It appears whole or not at all.

    compression: one of COMPRESSIONS; the kernel needs the RD_ symbol of the same name.
    epoch:       every time in the archive, in seconds since 1970.
    init_link:   what /init, which the kernel starts, leads to where the tree has no /init of its
        own; "" for none.
    log:         file that a compressor's command is appended to. Raises PiggyError for an unknown
    compression, a missing compressor, a tree without the program that /init leads to, what the
    format can't hold, and a disk that is too small for it.
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
    if (isinstance(packer, tuple) or compression == "none") and length > disk.free(archive.parent):
        raise disk.no_space(archive, length)
    with replacing(archive) as draft:
        # names of our own: a tool is given neither a name that starts with "-" nor one that it
        # would store
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
    """Return the bytes of memory that the content takes when it is unpacked.

    Whole pages of PAGE bytes, the least there are.
    """
    return sum(-(-size(entry) // PAGE) * PAGE for entry in entries if entry.kind == "file")


def _check(entries: Sequence[Entry]) -> int:
    """Return how long the archive is, more or less.

    Raises PiggyError for what the format, or Linux, can't hold.
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
    """Yield the uncompressed archive in pieces, none of them large."""
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
    """Return the name of a member.

    One that is called as the end of an archive is (do_name() in init/initramfs.c compares the whole
    name) goes by another name of the same file.
    """
    name = b"." if entry.path == "/" else os.fsencode(entry.path[1:])
    return b"./" + name if name == TRAILER else name


def _member(entry: Entry, name: bytes, inode: int, epoch: int) -> Iterator[bytes]:
    """Yield one member. Each has an inode number of its own: equal ones would make hard links."""
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
    """Yield the same bytes in pieces of PIECE.

    So no compressor's output depends on where they were cut.
    """
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= PIECE:
            yield bytes(held[:PIECE])
            del held[:PIECE]
    yield bytes(held)


class _Plain:
    """No compression."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _gzip() -> Packer:
    """Zlib's own gzip header has no time, no name and a fixed OS byte.

    That of Python's gzip module varies.
    """
    return zlib.compressobj(9, zlib.DEFLATED, 31)


def _bzip2() -> Packer:
    import bz2

    return bz2.BZ2Compressor(9)


def _xz() -> Packer:
    """lib/decompress_unxz.c knows no check but CRC32."""
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


# Python 3.11 has no zstd and no lz4; the kernel reads lz4's legacy format only
# (lib/decompress_unlz4.c), and one thread keeps zstd's output from depending on the number of
# processors
COMPRESSIONS: dict[str, Callable[[], Packer] | tuple[str, ...]] = {
    "none": _Plain,
    "gzip": _gzip,
    "bzip2": _bzip2,
    "xz": _xz,
    "lzma": _lzma,
    "zstd": ("zstd", "-q", "-19", "--single-thread"),
    "lz4": ("lz4", "-q", "-l", "-9"),
}
