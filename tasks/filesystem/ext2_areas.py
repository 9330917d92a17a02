"""What each byte of an ext2 image is: read from the image, which a guest may have written to.

    superblock -> group descriptors -> bitmaps, tables of inodes
    inode of the root folder -> folders -> files -> their blocks

Source: Documentation/filesystems/ext2.rst and fs/ext2/ext2.h. What ext4 adds is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator

import msgspec

from tasks.system.errors import PiggyError

BOOT, TABLES, FOLDER, FILE, END, FREE = "boot", "tables", "folder", "file", "end", "free"
_SUPERBLOCK, _MAGIC, _ROOT = 1024, 0xEF53, 2
_FILETYPE = 0x2  # EXT2_FEATURE_INCOMPAT_FILETYPE
_TYPE, _DIR, _REG, _LINK = 0o170000, 0o040000, 0o100000, 0o120000
_DIRECT = 12  # pointers of an inode to content; one to a block of pointers each for 1 to 3 levels


class Area(msgspec.Struct, frozen=True):
    """Bytes of an image.

    Attributes:
        offset: Where they lie.
        size: How many there are.
        kind: BOOT (what ext2 leaves to a boot loader), TABLES, FOLDER, FILE, END (of a block,
            behind the content of a file), or FREE.
        path: The file or folder, without a slash before it; "" for none.
    """

    offset: int
    size: int
    kind: str
    path: str = ""


def areas(data: bytes, name: str) -> list[Area]:
    """Return the areas of an image in order; their sizes add up to the image's.

    Args:
        data: The image's content.
        name: Its name, for messages.

    Raises:
        PiggyError: It is no ext2 image, has what ext2 has not, or is damaged.
    """
    found = list(_Image(data, name).areas())
    end = found[-1].offset + found[-1].size
    if end < len(data):  # behind the file system
        found.append(Area(end, len(data) - end, FREE))
    return found


def blocks(data: bytes, name: str) -> dict[str, list[int]]:
    """Return the numbers of the blocks of each file and folder in the order of its content.

    Holes are left out. Paths have no slash before them.

    Args:
        data: The image's content.
        name: Its name, for messages.

    Raises:
        PiggyError: It is no ext2 image, has what ext2 has not, or is damaged.
    """
    return _Image(data, name).content


class _Image:
    """An image, and what each of its blocks that is in use is for.

    Attributes:
        of: By block: the kind, the path, and how many bytes of it are used.
        content: By path: the blocks of a file or folder, in order.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._name = data, name
        head = data[_SUPERBLOCK : _SUPERBLOCK + 1024]
        if len(head) < 1024 or struct.unpack_from("<H", head, 56)[0] != _MAGIC:
            raise PiggyError(
                f"{name} is no ext2 image",
                "it is cut off, or written over; remove it, and run doit",
            )
        self._blocks, self._first, shift = (
            struct.unpack_from("<I", head, at)[0] for at in (4, 20, 24)
        )
        self._group, _, self._inodes = struct.unpack_from("<3I", head, 32)
        revision, features = (struct.unpack_from("<I", head, at)[0] for at in (76, 96))
        self._inode = struct.unpack_from("<H", head, 88)[0] if revision else 128
        self._size = 1024 << min(shift, 6)
        if revision and features & ~_FILETYPE:
            raise PiggyError(f"{name} has what ext2 has not: features {features:#x}")
        if (
            not self._first < self._blocks <= len(data) // self._size
            or not (self._group and self._inodes)
            or self._inode < 128
        ):
            raise self._damaged("its superblock")
        self.of: dict[int, tuple[str, str, int]] = {}
        self.content: dict[str, list[int]] = {}
        self._tables: list[int] = []  # the table of inodes of each group
        self._find_tables()
        self._find_files()

    def areas(self) -> Iterator[Area]:
        """Yield what is in use, and what is free."""
        if self._first:
            yield Area(0, self._first * self._size, BOOT)
        size, last = self._size, Area(0, 0, "")
        for block in range(self._first, self._blocks):
            kind, path, used = self.of.get(block) or (self._left(block), "", size)
            for area in (
                Area(block * size, used, kind, path),
                Area(block * size + used, size - used, END),
            ):
                if (area.kind, area.path) == (last.kind, last.path):
                    last = Area(last.offset, last.size + area.size, last.kind, last.path)
                elif area.size:
                    if last.size:
                        yield last
                    last = area
        yield last

    def _left(self, block: int) -> str:
        """Return what a block is that nothing was found to use."""
        group, bit = divmod(block - self._first, self._group)
        (bitmap,) = self._numbers(self._descriptors + group * 32, 1)
        return TABLES if self._data[bitmap * self._size + bit // 8] >> bit % 8 & 1 else FREE

    def _find_tables(self) -> None:
        """Claim superblock, descriptors, bitmaps and tables of inodes."""
        groups = -(-(self._blocks - self._first) // self._group)
        # The descriptors lie behind the superblock's block, which is block 0 of larger ones.
        self._descriptors = (self._first + 1) * self._size
        for block in range(self._first, self._first + 1 + -(-groups * 32 // self._size)):
            self._claim(block, TABLES, "", self._size)
        for group in range(groups):
            bitmap, inodes, table = self._numbers(self._descriptors + 32 * group, 3)
            self._tables.append(table)
            long = -(-self._inodes * self._inode // self._size)
            for block in (bitmap, inodes, *range(table, min(table + long, self._blocks + 1))):
                self._claim(block, TABLES, "", self._size)

    def _find_files(self) -> None:
        """Claim what all folders and files have, from the root folder on."""
        waiting, seen = [(_ROOT, "")], set[int]()
        while waiting:
            number, path = waiting.pop()
            if number not in seen:  # else another name of the same file
                seen.add(number)
                waiting += self._inside(number, path)

    def _inside(self, number: int, path: str) -> list[tuple[int, str]]:
        """Claim the blocks of a file or folder, and return inode and path of what is in it."""
        group, index = divmod(number - 1, self._inodes)
        if not 0 <= group < len(self._tables):
            raise self._damaged(f"inode {number} of /{path}")
        at = self._tables[group] * self._size + index * self._inode
        mode, size = self._numbers(at, 2)
        (attributes,), (sectors,) = self._numbers(at + 104, 1), self._numbers(at + 28, 1)
        kind = mode & _TYPE
        if attributes:  # files with the same ones may share the block
            self.of.setdefault(attributes, (TABLES, "", self._size))
            sectors -= self._size // 512
        if kind not in (_DIR, _REG, _LINK) or (kind == _LINK and sectors <= 0):
            return []  # a device, or a link whose target lies in the inode
        found: list[tuple[int, str]] = []
        for position, block in self._content(at + 40, size, path):
            self.content.setdefault(path, []).append(block)
            used = min(self._size, size - position * self._size)
            self._claim(block, FOLDER if kind == _DIR else FILE, path, used)
            if kind == _DIR:
                found += self._names(block, path)
        return found

    def _content(self, at: int, size: int, path: str) -> Iterator[tuple[int, int]]:
        """Yield position and number of each block of content; claim the blocks of pointers."""
        most, position = -(-size // self._size), 0
        for place, pointer in enumerate(self._numbers(at, _DIRECT + 3)):
            depth = max(0, place - _DIRECT + 1)
            position = yield from self._pointed(pointer, depth, position, most, path)

    def _pointed(
        self, pointer: int, depth: int, position: int, most: int, path: str
    ) -> Generator[tuple[int, int], None, int]:
        if not pointer or position >= most:  # a hole, or the end
            return position + (self._size // 4) ** depth
        if not depth:
            yield position, pointer
            return position + 1
        self._claim(pointer, TABLES, "", self._size)
        for one in self._numbers(pointer * self._size, self._size // 4):
            position = yield from self._pointed(one, depth - 1, position, most, path)
        return position

    def _names(self, block: int, path: str) -> Iterator[tuple[int, str]]:
        """Yield inode and path of the entries in a block of a folder."""
        at, end = block * self._size, (block + 1) * self._size
        while at < end:
            number, length, size = struct.unpack_from("<IHB", self._data[at:end].ljust(8, b"\0"))
            if length < 8 or at + length > end or size > length - 8:
                raise self._damaged(f"folder /{path}")
            name = self._data[at + 8 : at + 8 + size].decode(errors="replace")
            if number and name not in (".", ".."):
                yield number, f"{path}/{name}".lstrip("/")
            at += length

    def _claim(self, block: int, kind: str, path: str, used: int) -> None:
        if not self._first <= block < self._blocks or block in self.of:
            raise self._damaged(f"block {block} of {f'/{path}' if path else 'its tables'}")
        self.of[block] = (kind, path, used)

    def _numbers(self, at: int, count: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(f"<{count}I", self._data, at)
        except struct.error:
            raise self._damaged(f"it ends before byte {at + 4 * count}") from None

    def _damaged(self, what: str) -> PiggyError:
        return PiggyError(
            f"{self._name} is damaged: {what}", f"'e2fsck -fn {self._name}' says more"
        )
