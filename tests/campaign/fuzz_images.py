"""Root file systems: random trees are written as ext2 and as cpio, and read back by readers that
share no code with them.

The reader of ext2 goes by fs/ext2/ext2.h and xattr.h of the kernel, that of cpio by its
buffer-format.rst.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

from fuzz import Target

from tasks.filesystem import cpio, ext2
from tasks.filesystem.tree import Entry, Layer, compose

UUID = "5049c67b-5ad5-4d1e-8f0e-4d2f6c7a1b00"
EPOCH = 1700000000
KINDS = {
    0o10: "file",
    0o4: "dir",
    0o12: "link",
    0o2: "char",
    0o6: "block",
    0o1: "fifo",
}  # S_IFMT >> 12
FILE_TYPES = {
    1: "file",
    2: "dir",
    3: "char",
    4: "block",
    5: "fifo",
    7: "link",
}  # EXT2_FT_*, fs/ext2/ext2.h
PREFIXES = {1: "user.", 6: "security."}  # EXT2_XATTR_INDEX_*
ODD = [
    "TRAILER!!!",
    "-rf",
    " a b ",
    'q"q',
    "'",
    "<12>",
    "caf\udce9",
    "\u00e9",
    "$(x)",
    "a\\b",
    "*",
    "#x",
    ".x",
    "n" * 255,
]
ATTRIBUTES = ["user.a", "user.bb", "user.with space", "user.caf\udce9", "security.capability"]
BAD = ["a\nb", "n" * 256, "\r", "\u00e9" * 128]
SIZES = [0, 1, 59, 60, 1023, 1024, 1025, 12288, 12289, 12288 + 262144, 12289 + 262144]
NUMBERS = [0, 0, 1, 255, 256, 65535, 65536, 70000, 0xFFFFFFFE]


def make(rng: random.Random) -> tuple[Entry, ...]:
    """A tree of up to some hundred names, now and then one that can't be held."""
    folders = [""]
    found: dict[str, Entry] = {}
    for _ in range(rng.choice([0, 1, 5, 20, 60])):
        name = (
            rng.choice(ODD)
            if rng.random() < 0.3
            else "".join(rng.choices("abcxyz", k=rng.choice([1, 2, 8, 30])))
        )
        if rng.random() < 0.005:
            name = rng.choice(BAD)
        path = f"{rng.choice(folders)}/{name}"
        if path in found or len(os.fsencode(path)) > 1500:
            continue
        found[path] = entry = one(rng, path)
        if entry.kind == "dir":
            folders.append(entry.path)
    for number in range(rng.choice([0, 0, 0, 40, 300])):
        path = f"{rng.choice(folders)}/many{'long' * rng.randrange(50)}{number}"
        found[path] = Entry(path, "char", 0o600, major=1, minor=3)
    return compose([Layer("random", tuple(found.values()))])


def one(rng: random.Random, path: str) -> Entry:
    """A random entry of this path."""
    kind = rng.choice(["file", "file", "dir", "dir", "link", "char", "block", "fifo"])
    ids = {"uid": rng.choice(NUMBERS), "gid": rng.choice(NUMBERS)}
    mode = 0o777 if kind == "link" else rng.choice([0o644, 0o755, 0o600, 0o4755, 0o1777, 0, 0o7777])
    if kind == "link":
        return Entry(
            path,
            kind,
            mode,
            **ids,
            target=rng.choice(ODD) * rng.choice([1, 3])
            if rng.random() < 0.5
            else "t"
            * rng.choice(
                [1, 59, 60, 61, 1022, 1023, *([1024, 4096] if rng.random() < 0.05 else [])]
            ),
        )
    if kind in ("char", "block"):
        return Entry(
            path,
            kind,
            mode,
            **ids,
            major=rng.choice([0, 1, 255, 256, 4095]),
            minor=rng.choice([0, 1, 255, 256, 65535, *([65536] if rng.random() < 0.05 else [])]),
        )
    names = (
        rng.sample(ATTRIBUTES, rng.randrange(4))
        if kind in ("file", "dir") and rng.random() < 0.2
        else []
    )
    attributes = tuple(
        (name, rng.randbytes(rng.choice([0, 1, 20, 200, *([600] if rng.random() < 0.1 else [])])))
        for name in sorted(names)
    )
    size = rng.choice(SIZES) if rng.random() < 0.5 else rng.randrange(5000)
    data = rng.randbytes(size) if rng.random() < 0.7 else bytes(size)
    return Entry(
        path, kind, mode, **ids, attributes=attributes, source=data if kind == "file" else b""
    )


class Image:
    """An ext2 image, as the kernel's driver reads it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.inodes, self.blocks = struct.unpack_from("<2I", data, 1024)
        self.first, self.log = struct.unpack_from("<2I", data, 1024 + 20)
        (self.per_group,) = struct.unpack_from("<I", data, 1024 + 40)
        assert struct.unpack_from("<H", data, 1024 + 56) == (0xEF53,)
        self.size = 1024 << self.log
        assert len(data) == self.blocks * self.size
        assert self.per_group <= 8 * self.size  # ext2_fill_super()

    def block(self, number: int) -> bytes:
        """The content of a block; zeros for a hole."""
        assert number < self.blocks
        return (
            self.data[number * self.size : (number + 1) * self.size] if number else bytes(self.size)
        )

    def inode(self, number: int) -> tuple[int, ...]:
        """mode, uid, size, atime, ctime, mtime, dtime, gid, links, blocks, flags, osd1, 15 * block,
        generation, acl, ..."""
        assert 1 <= number <= self.inodes
        group, index = divmod(number - 1, self.per_group)
        (table,) = struct.unpack_from(
            "<I", self.data, (self.first + 1) * self.size + 32 * group + 8
        )
        return struct.unpack_from(
            "<2H5I2H3I15I4I2BH2HI", self.data, table * self.size + 128 * index
        )

    def content(self, inode: tuple[int, ...]) -> bytes:
        """What its blocks hold."""

        def pointed(number: int, level: int) -> Iterator[bytes]:
            if not level:
                yield self.block(number)
            else:
                for following in struct.unpack(f"<{self.size // 4}I", self.block(number)):
                    yield from pointed(following, level - 1)

        pieces: list[bytes] = []
        wanted = -(-inode[2] // self.size)
        for nth, number in enumerate(inode[12:27]):
            for piece in pointed(number, max(0, nth - 11)):
                if len(pieces) == wanted:
                    break
                pieces.append(piece)
        return b"".join(pieces)[: inode[2]]

    def attributes(self, inode: tuple[int, ...]) -> tuple[tuple[str, bytes], ...]:
        """Its extended attributes; they are in the order in which ext2_xattr_get() looks for
        them."""
        if not inode[28]:
            return ()
        block = self.block(inode[28])
        assert struct.unpack_from("<3I", block) == (0xEA020000, 1, 1)
        at, found, order = 32, [], []
        while struct.unpack_from("<I", block, at) != (0,):
            length, index, offset, elsewhere, size = struct.unpack_from("<2BH2I", block, at)
            assert not elsewhere
            name = block[at + 16 : at + 16 + length]
            order.append((index, length, name))
            found.append((PREFIXES[index] + os.fsdecode(name), block[offset : offset + size]))
            at += 16 + -(-length // 4) * 4
        assert order == sorted(order)
        return tuple(sorted(found))

    def entries(self, number: int = 2, path: str = "/") -> Iterator[Entry]:
        """An inode and all below it."""
        inode = self.inode(number)
        kind = KINDS[inode[0] >> 12]
        assert inode[3:6] == (EPOCH,) * 3
        assert inode[6] == 0
        uid, gid = inode[1] | inode[34] << 16, inode[7] | inode[35] << 16
        entry = Entry(path, kind, inode[0] & 0o7777, uid, gid, attributes=self.attributes(inode))
        if kind == "link":
            fast = inode[2] < 60
            target = struct.pack("<15I", *inode[12:27])[: inode[2]] if fast else self.content(inode)
            yield Entry(path, kind, 0o777, uid, gid, target=os.fsdecode(target))
        elif kind in ("char", "block"):
            old, new = inode[12:14]  # ext2_iget(): old_decode_dev(), new_decode_dev()
            major, minor = (
                (old >> 8 & 0xFF, old & 0xFF)
                if old
                else (new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)
            )
            yield Entry(path, kind, entry.mode, uid, gid, major=major, minor=minor)
        elif kind == "file":
            yield Entry(
                path,
                kind,
                entry.mode,
                uid,
                gid,
                source=self.content(inode),
                attributes=entry.attributes,
            )
        else:
            yield entry
        if kind == "dir":
            names = list(self.names(inode))
            folders = [item for item in names if item[2] == 2]
            assert inode[8] == len(folders)  # with "." and ".."
            for name, child, kind_of in names:
                if name not in (".", ".."):
                    below = f"{path.rstrip('/')}/{name}"
                    assert FILE_TYPES[kind_of] == KINDS[self.inode(child)[0] >> 12]
                    yield from self.entries(child, below)

    def names(self, inode: tuple[int, ...]) -> Iterator[tuple[str, int, int]]:
        """The names in a folder, with inode and type."""
        data = self.content(inode)
        at = 0
        while at < len(data):
            number, length, size, kind = struct.unpack_from("<IH2B", data, at)
            assert length >= 12
            assert at // self.size == (at + length - 1) // self.size
            if number:
                yield os.fsdecode(data[at + 8 : at + 8 + size]), number, kind
            at += length


def check_ext2(entries: tuple[Entry, ...], folder: Path) -> None:
    """Write it as ext2 (which has e2fsck look at it), fitted with nothing to spare, and read it
    back."""
    ext2.build(entries, folder / "image", uuid=UUID, epoch=EPOCH)
    image = Image((folder / "image").read_bytes())
    assert {entry.path: entry for entry in image.entries()} == {
        entry.path: entry for entry in entries
    }


def members(data: bytes) -> Iterator[Entry]:
    """The members of a cpio archive, up to the one that the kernel takes for its end."""
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        _, mode, uid, gid, _, time, size, _, _, major, minor, length, _ = (
            int(data[at + 6 + 8 * nth : at + 14 + 8 * nth], 16) for nth in range(13)
        )
        name = data[at + 110 : at + 110 + length]
        assert name.endswith(b"\0")
        assert length <= 4096
        start = (at + 110 + length + 3) & ~3
        body = data[start : start + size]
        if name == b"TRAILER!!!\0":
            assert not data[start:].strip(b"\0")
            return
        at = (start + size + 3) & ~3
        kind = KINDS[mode >> 12]
        assert time == EPOCH
        yield Entry(
            os.path.normpath("/" + os.fsdecode(name[:-1])),
            kind,
            mode & 0o7777,
            uid,
            gid,
            major=major,
            minor=minor,
            source=body if kind == "file" else b"",
            target=os.fsdecode(body) if kind == "link" else "",
        )


def check_cpio(entries: tuple[Entry, ...], folder: Path) -> None:
    """Write it as cpio and read it back."""
    cpio.build(entries, folder / "archive", compression="none", epoch=EPOCH, init_link="")
    found = list(members((folder / "archive").read_bytes()))
    wanted = [
        Entry(
            *(() if key == "attributes" else getattr(entry, key) for key in entry.__struct_fields__)
        )
        for entry in entries
    ]
    assert found == wanted


TARGETS = [Target("ext2", make, check_ext2, cases=60), Target("cpio", make, check_cpio)]
