"""Reader of untrusted tar archives, with limits for memory, size and time; it detects all damage.

Python's tarfile trusts headers: it reads a long name of a gigabyte into memory, recurses for each
header that precedes another one, and accepts numbers of any length. This reader accepts what
upstream archives hold (ustar, GNU's long names, pax headers); anything else is an error. Sources:
POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar
Format".
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from tasks.fetch.decompress import CHUNK, Ahead, decompressed
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern

# Limits of the content: bytes for any archive, and times the archive's size; a kernel has 10 times.
SIZE_FLOOR, SIZE_RATIO = 256 << 20, 64
MEMBERS = 1_000_000  # a kernel has 100,000
EXTRA = 1 << 20  # bytes of headers before one member: long names, pax records
_BLOCK = 512
# name, mode, size, mtime, checksum, type, target, magic, prefix
_HEADER = struct.Struct("100s8s16x12s12s8sc100s6s82x155s12x")
_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"5": "folder", b"2": "link", b"1": "hard"}
_WITHOUT_DATA = b"123456"  # links, devices, folders, pipes: their size means nothing
_SPARSE = "GNU.sparse"  # the key for all records of a sparse file
_PAX_TIME = pattern(r"[0-9]{1,12}(\.[0-9]{0,20})?")


class Member(msgspec.Struct, frozen=True):
    """One member of an archive.

    Attributes:
        name: Its path as the archive has it, unchecked.
        kind: Its type; "hard" is a hard link, "other" a device, a pipe, a sparse file, ...
        mode: Permission bits.
        size: Bytes.
        mtime: Seconds since 1970; 0 for an impossible time.
        target: Where a link leads.
    """

    name: str
    kind: Literal["file", "folder", "link", "hard", "other"]
    mode: int
    size: int
    mtime: float
    target: str


class Data:
    """A member's content as a file object; the iterator skips what is left unread."""

    def __init__(self, ahead: Ahead, size: int) -> None:
        self._ahead, self.left = ahead, size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, `size` at most (-1: all).

        Raises:
            Damaged: The archive ends before.
        """
        count = self.left if size < 0 else min(size, self.left)
        data = self._ahead.read(count)
        if len(data) < count:
            raise self._ahead.damaged("it ends in the middle of a member")
        self.left -= count
        return data


@contextlib.contextmanager
def members(archive: Path, bar: bool = False) -> Iterator[Iterator[tuple[Member, Data]]]:
    """Open a tar archive for the body of a `with`, and yield an iterator over its members.

    The compression (none, gzip, bzip2, xz, zstd) is recognised by content. A member's data can be
    read until the next member is taken.

    Args:
        archive: The file.
        bar: Whether to show a progress bar.

    Raises:
        PiggyError: The file can't be opened.
        Damaged: By the iterator: the archive is truncated, corrupt or malformed, has more than
            MEMBERS members, or its content exceeds SIZE_RATIO times its size and SIZE_FLOOR.
    """
    from tqdm import tqdm

    with contextlib.ExitStack() as stack:
        try:
            raw = stack.enter_context(archive.open("rb", buffering=0))
        except OSError as error:
            raise PiggyError(f"can't read {archive}: {error.strerror}") from error
        size = os.fstat(raw.fileno()).st_size
        shown = stack.enter_context(
            tqdm(
                total=size,
                desc=f"unpack {archive.name}",
                unit="B",
                unit_scale=True,
                disable=not bar,
                leave=False,
            )
        )
        # zstd reads from the same open file, so its offset shows the progress in all cases.
        yield stack.enter_context(
            of_stream(
                archive,
                decompressed(raw),
                size,
                lambda: shown.update(os.lseek(raw.fileno(), 0, os.SEEK_CUR) - shown.n),
            )
        )


@contextlib.contextmanager
def of_stream(
    archive: Path,
    chunks: Iterable[bytes],
    size: int,
    on_member: Callable[[], object] = lambda: None,
) -> Iterator[Iterator[tuple[Member, Data]]]:
    """Yield an iterator over the members of an uncompressed tar stream, as `members` does.

    Args:
        archive: The file that messages name.
        chunks: The uncompressed stream; an exception from it counts as damage.
        size: Bytes of the archive before decompression.
        on_member: Called after each member.
    """
    ahead = Ahead(archive, chunks, max(SIZE_FLOOR, SIZE_RATIO * size))
    try:
        yield _each(ahead, on_member)
    finally:
        ahead.stop()


def _each(ahead: Ahead, on_member: Callable[[], object]) -> Iterator[tuple[Member, Data]]:
    forever: dict[str, bytes] = {}  # global pax records, for all members that follow
    for _ in range(MEMBERS):
        header = _member(ahead, forever)
        if not header:
            break
        member, size = header
        data = Data(ahead, size)
        yield member, data
        while data.left:
            data.read(min(data.left, CHUNK))
        ahead.read(-size % _BLOCK)
        on_member()
    else:
        raise ahead.damaged(f"it has more than {MEMBERS:,} members, and no source has that many")
    while ahead.read(CHUNK):  # the padding, and the checksums that compressors put at the end
        pass


def _member(ahead: Ahead, forever: dict[str, bytes]) -> tuple[Member, int] | None:
    """Read a member's headers.

    Args:
        ahead: The archive's content.
        forever: Global pax records; those of this member's headers are added.

    Returns:
        The member and the bytes of its data, or None at the end of the archive.

    Raises:
        Damaged: The headers are malformed.
    """
    records = dict(forever)
    room, target, name = EXTRA, b"", b""
    while True:
        at = ahead.position
        block = ahead.read(_BLOCK)
        if block == bytes(_BLOCK):
            if room < EXTRA:
                raise ahead.damaged(f"a header without its member at byte {at} of its content")
            return None
        if len(block) < _BLOCK or not _sum_is_right(block):
            raise ahead.damaged(f"no tar header and no end of archive at byte {at} of its content")
        short, mode, length, mtime, _, kind, link, magic, prefix = _HEADER.unpack(block)
        size = _number(ahead, length, at)
        if kind not in b"LKxXg":
            break
        room -= size + _BLOCK
        if room < 0:
            raise ahead.damaged(f"headers of more than {EXTRA:,} bytes at byte {at} of its content")
        data = Data(ahead, size).read()
        ahead.read(-size % _BLOCK)
        if kind == b"L":
            name = _cut(data)
        elif kind == b"K":
            target = _cut(data)
        else:
            extra = _records(ahead, data, at)
            records.update(extra)
            if kind == b"g":
                forever.update(extra)
    if not name:
        name = b"/".join(filter(None, [_cut(prefix) if magic == b"ustar\0" else b"", _cut(short)]))
    if records.get("size"):
        size = _digits(ahead, records["size"], at)
    name, target = records.get("path") or name, records.get("linkpath") or target or _cut(link)
    sparse = kind == b"S" or _SPARSE in records
    what = (
        "other"
        if sparse
        else "folder"
        if kind == b"\0" and name.endswith(b"/")
        else _KINDS.get(kind, "other")
    )
    member = Member(
        os.fsdecode(name.rstrip(b"/") or name),
        what,  # type: ignore[arg-type]
        _number(ahead, mode, at) & 0o7777,
        size,
        _time(records.get("mtime", b""), mtime),
        os.fsdecode(target),
    )
    return member, 0 if kind in _WITHOUT_DATA or what == "folder" else size


def _sum_is_right(block: bytes) -> bool:
    """Tell whether a header's checksum is right, for unsigned bytes or signed ones.

    Some old programs summed signed bytes.
    """
    checksum = _octal(block[148:156])
    rest = block[:148] + block[156:]
    total = 256 + sum(rest)  # the checksum itself counts as eight spaces
    return checksum == total or checksum == total - 256 * sum(byte > 127 for byte in rest)


def _octal(field: bytes) -> int | None:
    digits = _cut(field).strip(b" ")
    return int(digits or b"0", 8) if re.fullmatch(rb"[0-7]*", digits) else None


def _number(ahead: Ahead, field: bytes, at: int) -> int:
    """Return a number of a header: octal digits, or GNU's binary form (positive numbers only).

    Raises:
        Damaged: It is no number, or too great.
    """
    number = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
    if number is None or number >= 1 << 62:
        raise ahead.damaged(f"a number that is none in the header at byte {at} of its content")
    return number


def _digits(ahead: Ahead, value: bytes, at: int) -> int:
    if not re.fullmatch(rb"[0-9]{1,18}", value):
        raise ahead.damaged(f"a number that is none in the pax header at byte {at} of its content")
    return int(value)


def _time(pax: bytes, field: bytes) -> float:
    """Return a member's time in seconds since 1970, 0 for one that file systems can't store.

    Args:
        pax: The time of a pax header; it has precedence. Empty for none.
        field: The time of the ustar header.
    """
    if pax:
        text = pax.decode("latin-1")
        seconds = float(text) if _PAX_TIME.fullmatch(text) else 0.0
    else:
        seconds = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field) or 0
    return seconds if seconds < 1 << 33 else 0


def _cut(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _records(ahead: Ahead, data: bytes, at: int) -> dict[str, bytes]:
    """Return the records of a pax header that are used: path, linkpath, size, mtime, sparse.

    An empty value cancels an earlier one.

    Raises:
        Damaged: The header is malformed.
    """
    known, start = {}, 0
    while start < len(data):
        length = re.compile(rb"([1-9][0-9]{0,6}) ").match(data, start)
        end = start + int(length[1]) if length else 0
        record = data[length.end() : end] if length else b""
        word, sign, value = record[:-1].partition(b"=")
        if end > len(data) or not sign or not word or record[-1:] != b"\n":
            raise ahead.damaged(f"a malformed pax header at byte {at} of its content")
        if word in (b"path", b"linkpath", b"size", b"mtime"):
            known[word.decode("latin-1")] = value
        elif word.startswith(b"GNU.sparse."):  # one entry for all of them
            known[_SPARSE] = value
        start = end
    return known
