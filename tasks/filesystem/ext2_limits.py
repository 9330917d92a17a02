"""What ext2 holds at most, and the blocks that entries take in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from tasks.filesystem import tree
from tasks.filesystem.tree import Entry
from tasks.system.errors import PiggyError

BLOCK = 1024  # the least waste for small files
POINTERS = BLOCK // 4  # block numbers in an indirect block
FILE_MAX = tree.DISK_FILE_MAX
FOLDERS_MAX = (
    32000 - 2
)  # folders in one: EXT2_LINK_MAX in fs/ext2/ext2.h, less the links of "." and of its own name
ATTRIBUTES_MAX = (
    BLOCK - 32 - 4
)  # of one file: a block less its header and the end mark (fs/ext2/xattr.h)


def check(entries: Iterable[Entry]) -> None:
    """Raise PiggyError for what ext2 can't hold, whatever the size of the image."""
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
    """Return how many blocks the entries take at most, beyond an empty file system.

    Its root has one block.

    debugfs puts a name where there is room for it first; here it goes to a folder's last block or
    the next one, which never takes fewer blocks.
    """
    ends = {entry.path: 24 for entry in entries if entry.kind == "dir"}  # "." and ".." come first
    for entry in entries[1:]:
        folder, name = os.path.split(entry.path)
        record = 8 + _padded(len(os.fsencode(name)))
        left = -ends[folder] % BLOCK  # a record doesn't cross a block
        ends[folder] += record + (left if left < record else 0)
    return (
        sum(_with_indirect(-(-end // BLOCK)) for end in ends.values())
        - 1
        + sum(_content_blocks(entry) + bool(entry.attributes) for entry in entries)
    )


def _content_blocks(entry: Entry) -> int:
    """Return the blocks of a file, or of a link."""
    if entry.kind == "link":
        return int(len(os.fsencode(entry.target)) >= 60)  # a shorter one lies in the inode
    return _with_indirect(-(-tree.size(entry) // BLOCK)) if entry.kind == "file" else 0


def _with_indirect(blocks: int) -> int:
    """Return blocks of content with their indirect ones, of a file or a folder.

    There are 12 direct ones, then trees of 1 to 3 levels.
    """
    total, left = blocks, blocks - 12
    for level in (1, 2, 3):
        here = max(0, min(left, POINTERS**level))
        total += sum(-(-here // POINTERS**step) for step in range(1, level + 1))
        left -= POINTERS**level
    return total
