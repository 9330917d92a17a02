"""An initramfs from a tree of entries: a "newc" archive, compressed so that the kernel's own decompressors take it.

Format: Documentation/driver-api/early-userspace/buffer-format.rst and init/initramfs.c of the kernel. Each member is a
header of 110 bytes in ASCII, the name and a NUL, padded to 4 bytes, then the content, padded to 4 bytes. The bytes
depend on nothing but the entries, the epoch and the compressor's version.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.kit.errors import PiggyError, nearest
from tasks.kit.fs import replacing, write_whole
from tasks.kit.run import run
from tasks.kit.tree import LINK_MODE, Entry, content, in_order

BLOCK = 512  # what cpio pads an archive to; the kernel skips NULs
EPOCH_MAX, SIZE_MAX, PATH_MAX = 0xffffffff, 0xffffffff, 4096  # eight hex digits; init/initramfs.c refuses longer names
DICTIONARY = 1 << 20  # bytes that the decompressor needs in RAM: Documentation/staging/xz.rst
TYPES = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "link": stat.S_IFLNK, "char": stat.S_IFCHR, "block": stat.S_IFBLK,
         "fifo": stat.S_IFIFO}


def build(entries: Sequence[Entry], archive: Path, *, compression: str = "gzip", epoch: int,
          init_link: str = "sbin/init", log: Path | None = None) -> None:
    """Write the entries (as `tree.compose` gives them) to a cpio archive; it appears whole or not at all.

    compression: one of COMPRESSIONS; the kernel needs the RD_ symbol of the same name.
    epoch:       every time in the archive, in seconds since 1970.
    init_link:   what /init, which the kernel starts, leads to where the tree has no /init of its own; "" for none.
    log:         file that a compressor's command is appended to.
    Raises PiggyError for an unknown compression, a missing compressor, a tree without the program that /init leads to,
    and what the format can't hold.
    """
    if compression not in COMPRESSIONS:
        raise PiggyError(f"unknown compression '{compression}'.{nearest(compression, COMPRESSIONS)}",
                         "there are " + ", ".join(COMPRESSIONS))
    if not 0 <= epoch <= EPOCH_MAX:
        raise PiggyError(f"the time {epoch} of the archive is not within 0 and {EPOCH_MAX}", "set another epoch")
    data = pack(_with_init(entries, init_link), epoch)
    packer = COMPRESSIONS[compression]
    if isinstance(packer, tuple):
        with replacing(archive) as draft:
            # names of our own: a tool is given neither a name that starts with "-" nor one that it would store
            (draft.parent / "in").write_bytes(data)
            run([*packer, "in", *(["-o"] if packer[0] == "zstd" else []), "out"], cwd=draft.parent, log=log)
            (draft.parent / "out").chmod(0o644)
            (draft.parent / "out").rename(draft)
    else:
        write_whole(archive, packer(data))


def _with_init(entries: Sequence[Entry], target: str) -> Sequence[Entry]:
    paths = {entry.path for entry in entries}
    if not target or "/init" in paths:
        return entries
    leads_to = os.path.normpath("/" + target)
    if leads_to not in paths:
        raise PiggyError(f"no {leads_to} in the tree for /init to lead to",
                         "the kernel starts /init of an initramfs: enable INIT in busybox, or lay an /init over it")
    return in_order([*entries, Entry("/init", "link", LINK_MODE, target=target)])


def pack(entries: Sequence[Entry], epoch: int) -> bytes:
    """Return the uncompressed archive."""
    out = bytearray()
    for number, entry in enumerate(entries, 1):
        _member(out, entry, number, epoch)
    _member(out, Entry("/TRAILER!!!", "", 0), 0, 0)
    return bytes(out + bytes(-len(out) % BLOCK))


def _member(out: bytearray, entry: Entry, inode: int, epoch: int) -> None:
    """Append one member. Each has an inode number of its own: equal ones would make hard links."""
    name = b"." if entry.path == "/" else os.fsencode(entry.path[1:])
    data = content(entry) if entry.kind == "file" else os.fsencode(entry.target)
    if len(name) >= PATH_MAX or len(os.fsencode(entry.target)) >= PATH_MAX:
        raise PiggyError(f"{entry.path}: the kernel takes names and link targets of less than {PATH_MAX} bytes")
    if len(data) > SIZE_MAX:
        raise PiggyError(f"{entry.path}: a cpio archive holds files of up to 4 GiB")
    links = 2 if entry.kind == "dir" else 1
    fields = (inode, TYPES.get(entry.kind, 0) | entry.mode, entry.uid, entry.gid, links, epoch, len(data), 0, 0,
              entry.major, entry.minor, len(name) + 1, 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    out += bytes(-len(out) % 4) + data
    out += bytes(-len(out) % 4)


def _gzip(data: bytes) -> bytes:
    """zlib's own gzip header has no time, no name and a fixed OS byte; that of Python's gzip module varies."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def _bzip2(data: bytes) -> bytes:
    import bz2
    return bz2.compress(data, 9)


def _xz(data: bytes) -> bytes:
    """lib/decompress_unxz.c knows no check but CRC32."""
    import lzma
    return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=[
        {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": DICTIONARY}])


def _lzma(data: bytes) -> bytes:
    import lzma
    return lzma.compress(data, lzma.FORMAT_ALONE, filters=[
        {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": DICTIONARY}])


# Python 3.11 has no zstd and no lz4; the kernel reads lz4's legacy format only (lib/decompress_unlz4.c), and one thread
# keeps zstd's output from depending on the number of processors
COMPRESSIONS: dict[str, Callable[[bytes], bytes] | tuple[str, ...]] = {
    "none": bytes, "gzip": _gzip, "bzip2": _bzip2, "xz": _xz, "lzma": _lzma,
    "zstd": ("zstd", "-q", "-19", "--single-thread"), "lz4": ("lz4", "-q", "-l", "-9")}
