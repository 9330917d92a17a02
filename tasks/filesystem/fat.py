"""A FAT12 beside ext2 on one floppy: it shows the same files, in the same blocks, to DOS, mtools.

    sector 0               the boot sector, with FAT's parameters in bytes 3 to 61
    block `first` of ext2  two FATs, the root directory: the content of a file, so ext2 keeps it
    behind it              the data, where a cluster is a block

It is for reading: what is written to one of its files goes over ext2's. All clusters that belong to
none of them are marked as bad, so there is no room for another file. Source: ECMA-107, "Volume and
file structure of disk cartridges", and Microsoft's FAT specification (fatgen103), sections 3 and 6.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

import msgspec

from tasks.filesystem.ext2_limits import BLOCK

SECTOR = 512  # bytes
_PER_BLOCK = BLOCK // SECTOR
_TABLES, _TABLE = 2, 5  # FATs, and the sectors of each: 12 bits for each of up to 1,440 blocks
_ENTRIES, _ENTRY = 32, 32  # entries of the root directory, and the bytes of each
BYTES = _TABLES * _TABLE * SECTOR + _ENTRIES * _ENTRY  # of tables and root directory
PARAMETERS = slice(3, 62)  # where they lie in sector 0, behind a jump of three bytes
_TRACK, _HEADS, _MEDIA = 18, 2, 0xF0  # a 3.5" HD disk
_BAD, _LAST = 0xFF7, 0xFFF
_READ_ONLY, _LABEL = 0x01, 0x08
# The type of file system, by which nothing that reads FAT goes (fatgen103, section 3: "FAT type
# determination"). By this one libblkid, which tells mount and desktops what a disk is, knows that
# there is only FAT's head, and finds ext2 (fat_valid_superblock in util-linux's vfat.c).
_TYPE = b"HPFS    "


class File(msgspec.Struct, frozen=True):
    """A file that is shown.

    Attributes:
        name: Its name, of up to eight letters.
        size: Its bytes.
        blocks: The numbers of its blocks, in order.
    """

    name: str
    size: int
    blocks: Sequence[int]


def parameters(first: int, blocks: int, label: str) -> bytes:
    """Return what goes to PARAMETERS of sector 0.

    Args:
        first: The block with the tables.
        blocks: The blocks of the disk.
        label: The disk's name, of up to eleven letters.
    """
    disk = struct.pack(
        "<HBHBHHBHHHII",
        SECTOR,
        _PER_BLOCK,
        first * _PER_BLOCK,
        _TABLES,
        _ENTRIES,
        blocks * _PER_BLOCK,
        _MEDIA,
        _TABLE,
        _TRACK,
        _HEADS,
        0,  # sectors before it
        0,  # its sectors, where there are 65,536 or more
    )
    name = label.upper().encode("ascii").ljust(11)
    return b"MSDOS5.0" + disk + struct.pack("<BBBI", 0, 0, 0x29, 0) + name + _TYPE


def tables(files: Sequence[File], first: int, blocks: int, label: str, epoch: int) -> bytes:
    """Return both FATs and the root directory: BYTES of them.

    Args:
        files: The files; all their blocks lie behind the tables.
        first: The block with the tables.
        blocks: The blocks of the disk.
        label: The disk's name, of up to eleven letters.
        epoch: The time of each file, in seconds since 1970; FAT counts from 1980.
    """
    start = first + BYTES // BLOCK - 2  # clusters are counted from 2
    chain = [0xF00 | _MEDIA, _LAST, *[_BAD] * (blocks - start - 2)]
    for file in files:
        clusters = [block - start for block in file.blocks]
        for cluster, after in zip(clusters, [*clusters[1:], _LAST], strict=True):
            chain[cluster] = after
    bits = sum(number << 12 * place for place, number in enumerate(chain))
    table = bits.to_bytes(_TABLE * SECTOR, "little")
    then = time.gmtime(max(epoch, 315532800))
    when = (
        then.tm_hour << 11 | then.tm_min << 5 | then.tm_sec // 2,
        (then.tm_year - 1980) << 9 | then.tm_mon << 5 | then.tm_mday,
    )
    entries = [_entry(label.upper(), _LABEL, when, 0, 0)] + [
        _entry(
            file.name.upper().ljust(8),
            _READ_ONLY,
            when,
            file.blocks[0] - start if file.blocks else 0,
            file.size,
        )
        for file in files
    ]
    return table * _TABLES + b"".join(entries).ljust(_ENTRIES * _ENTRY, b"\0")


def _entry(name: str, kind: int, when: tuple[int, int], cluster: int, size: int) -> bytes:
    head = name.encode("ascii").ljust(11) + bytes([kind])
    return head + bytes(10) + struct.pack("<HHHI", *when, cluster, size)
