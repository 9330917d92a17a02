"""The limits of ext2, and the number of blocks that entries take in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from tasks.filesystem import tree
from tasks.filesystem.tree import Entry
from tasks.system.errors import PiggyError

BLOCK = 1024  # bytes: ext2's smallest block wastes least with small files
POINTERS = BLOCK // 4  # block numbers in an indirect block
FILE_MAX = tree.DISK_FILE_MAX
# Subfolders of a folder: EXT2_LINK_MAX in fs/ext2/ext2.h, less the links of "." and its own name.
FOLDERS_MAX = 32000 - 2
# Bytes of a file's extended attributes: a block less header and end mark (fs/ext2/xattr.h).
ATTRIBUTES_MAX = BLOCK - 32 - 4


def check(entries: Iterable[Entry]) -> None:
    """Check that ext2 can hold the entries in an image of any size.

    Raises:
        PiggyError: A file, a folder or a file's attributes are too large.
    """
    folders: dict[str, int] = {}
    for entry in entries:
        if entry.kind == "dir" and entry.path != "/":
            above = os.path.dirname(entry.path)
            folders[above] = folders.get(above, 0) + 1
        elif entry.kind == "file" and (length := tree.size(entry)) > FILE_MAX:
            raise PiggyError(
                f"{tree.few([entry.path])} has {length} bytes; ext2 holds files of up to {FILE_MAX}"
                f" (16 GiB: ext2_max_size() in fs/ext2/super.c, for blocks of {BLOCK} bytes)",
                "keep it on a disk of its own",
            )
        taken = sum(
            16 + _padded(len(os.fsencode(key.partition(".")[2]))) + _padded(len(value))
            for key, value in entry.attributes
        )
        if taken > ATTRIBUTES_MAX:
            raise PiggyError(
                f"{tree.few([entry.path])}: its extended attributes take {taken} bytes; ext2 holds "
                f"{ATTRIBUTES_MAX} of one file",
                "'setfattr -x NAME FILE' removes one",
            )
    for path, count in folders.items():
        if count > FOLDERS_MAX:
            raise PiggyError(
                f"{tree.few([path])} has {count} folders; Linux's ext2 holds {FOLDERS_MAX} in one "
                "(EXT2_LINK_MAX, fs/ext2/ext2.h)",
                "spread them over several",
            )


def _padded(length: int) -> int:
    return -(-length // 4) * 4


def blocks_needed(entries: Sequence[Entry]) -> int:
    """Return how many blocks the entries take at most, beyond those of an empty file system.

    debugfs puts a name into the first folder block with room. This counts as if it went into the
    last block or a new one, which never takes fewer blocks.
    """
    ends = {entry.path: 24 for entry in entries if entry.kind == "dir"}  # "." and ".." come first
    for entry in entries[1:]:
        folder, name = os.path.split(entry.path)
        record = 8 + _padded(len(os.fsencode(name)))
        left = -ends[folder] % BLOCK  # a record never crosses a block's end
        ends[folder] += record + (left if left < record else 0)
    return (
        sum(_with_indirect(-(-end // BLOCK)) for end in ends.values())
        - 1
        + sum(_content_blocks(entry) + bool(entry.attributes) for entry in entries)
    )


def _content_blocks(entry: Entry) -> int:
    """Return the blocks of the content of a file or link."""
    if entry.kind == "link":
        return int(len(os.fsencode(entry.target)) >= 60)  # a shorter one lies in the inode
    return _with_indirect(-(-tree.size(entry) // BLOCK)) if entry.kind == "file" else 0


def _with_indirect(blocks: int) -> int:
    """Return how many blocks some blocks of content take with the indirect blocks.

    The inode holds 12 direct block numbers, then trees of 1 to 3 levels.
    """
    total, left = blocks, blocks - 12
    for level in (1, 2, 3):
        here = max(0, min(left, POINTERS**level))
        total += sum(-(-here // POINTERS**step) for step in range(1, level + 1))
        left -= POINTERS**level
    return total
