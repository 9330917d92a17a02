"""Reading a tar archive from its first byte to its last, whoever made it.

Bounded in memory, size and time, with every damage noticed.

The headers are read here and not by tarfile, which trusts them: it reads a long name of a gigabyte
into memory, calls itself for each header that precedes another one, and takes numbers of any
length. Here is what upstream archives hold (ustar, GNU's long names, pax headers), and what is
anything else is an error. Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended
Header"; GNU tar manual, "Basic Tar Format".
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

SIZE_FLOOR, SIZE_RATIO = (
    256 << 20,
    64,
)  # content: bytes that any archive may have, and times its own size; a kernel has 10
MEMBERS = 1_000_000  # a kernel has 100,000
EXTRA = 1 << 20  # bytes of headers before one member: long names, pax records
_BLOCK = 512
_HEADER = struct.Struct(
    "100s8s16x12s12s8sc100s6s82x155s12x"
)  # name mode size mtime check-sum type target magic prefix
_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"5": "folder", b"2": "link", b"1": "hard"}
_WITHOUT_DATA = b"123456"  # links, devices, folders, pipes: whatever their size says
_SPARSE = "GNU.sparse"  # stands for all records of a sparse file
_PAX_TIME = re.compile(r"[0-9]{1,12}(\.[0-9]{0,20})?")


class Member(msgspec.Struct, frozen=True):
    """One member: name, permission bits, size in bytes, time, and a link's target.

    The name is as it stands there; the time is in seconds since 1970 (0 for an impossible one).
    kind "other": a device, a pipe, a sparse file, ...
    """

    name: str
    kind: Literal["file", "folder", "link", "hard", "other"]
    mode: int
    size: int
    mtime: float
    target: str


class Data:
    """A member's content, as a file object: what is left unread is passed over."""

    def __init__(self, ahead: Ahead, size: int) -> None:
        self._ahead, self.left = ahead, size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, `size` at most (-1: all).

        Raises Damaged where the archive ends before.
        """
        wanted = self.left if size < 0 else min(size, self.left)
        data = self._ahead.read(wanted)
        if len(data) < wanted:
            raise self._ahead.damaged("it ends in the middle of a member")
        self.left -= wanted
        return data


@contextlib.contextmanager
def members(archive: Path, bar: bool = False) -> Iterator[Iterator[tuple[Member, Data]]]:
    """Give an iterator over the members of a tar archive, compressed or not.

    .tar, .tar.gz, .tar.bz2, .tar.xz and .tar.zst are told apart by content.

    Each member's data can be read until the next member is taken. bar: show a progress bar. The
    iterator raises Damaged when the archive is truncated, corrupt or malformed anywhere, and when
    it has more content than SIZE_RATIO times its size (and SIZE_FLOOR), or more members than
    MEMBERS.
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
        # zstd reads from the same open file, so its offset is the progress with every decompressor
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
    """Give the members of an uncompressed tar that comes in chunks, as `members` does.

    An exception of `chunks` is damage.

    archive: the file that messages name; size: its bytes, before it was decompressed.
    """
    ahead = Ahead(archive, chunks, max(SIZE_FLOOR, SIZE_RATIO * size))
    try:
        yield _each(ahead, on_member)
    finally:
        ahead.stop()


def _each(ahead: Ahead, on_member: Callable[[], object]) -> Iterator[tuple[Member, Data]]:
    forever: dict[str, bytes] = {}  # pax records for all members to come
    for _ in range(MEMBERS):
        found = _member(ahead, forever)
        if not found:
            break
        member, size = found
        data = Data(ahead, size)
        yield member, data
        while data.left:
            data.read(min(data.left, CHUNK))
        ahead.read(-size % _BLOCK)
        on_member()
    else:
        raise ahead.damaged(f"it has more than {MEMBERS:,} members, and no source has that many")
    while ahead.read(CHUNK):  # the padding, and the check sums that compressors put at the end
        pass


def _member(ahead: Ahead, forever: dict[str, bytes]) -> tuple[Member, int] | None:
    """Read a member's headers.

    Return it and the bytes of its data, None at the end of the archive.
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
            found = _records(ahead, data, at)
            records.update(found)
            if kind == b"g":
                forever.update(found)
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
    """Tell whether a header's check sum is that of its bytes.

    Some old programs took them for signed ones.
    """
    said = _octal(block[148:156])
    rest = block[:148] + block[156:]
    total = 256 + sum(rest)  # the check sum itself counts as eight spaces
    return said == total or said == total - 256 * sum(byte > 127 for byte in rest)


def _octal(field: bytes) -> int | None:
    digits = _cut(field).strip(b" ")
    return int(digits or b"0", 8) if re.fullmatch(rb"[0-7]*", digits) else None


def _number(ahead: Ahead, field: bytes, at: int) -> int:
    """Return a number of a header: octal digits, or GNU's binary form, which could be negative."""
    found = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
    if found is None or found >= 1 << 62:
        raise ahead.damaged(f"a number that is none in the header at byte {at} of its content")
    return found


def _digits(ahead: Ahead, value: bytes, at: int) -> int:
    if not re.fullmatch(rb"[0-9]{1,18}", value):
        raise ahead.damaged(f"a number that is none in the pax header at byte {at} of its content")
    return int(value)


def _time(pax: bytes, field: bytes) -> float:
    """Return a member's time, 0 for one that no file system holds.

    pax: from there, goes first where it is not empty.
    """
    if pax:
        text = pax.decode("latin-1")
        found = float(text) if _PAX_TIME.fullmatch(text) else 0.0
    else:
        found = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field) or 0
    return found if found < 1 << 33 else 0


def _cut(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _records(ahead: Ahead, data: bytes, at: int) -> dict[str, bytes]:
    """Return those records of a pax header that mean something here.

    An empty value takes an earlier one back.
    """
    found, start = {}, 0
    while start < len(data):
        length = re.compile(rb"([1-9][0-9]{0,6}) ").match(data, start)
        end = start + int(length[1]) if length else 0
        record = data[length.end() : end] if length else b""
        word, sign, value = record[:-1].partition(b"=")
        if end > len(data) or not sign or not word or record[-1:] != b"\n":
            raise ahead.damaged(f"a malformed pax header at byte {at} of its content")
        if word in (b"path", b"linkpath", b"size", b"mtime"):
            found[word.decode("latin-1")] = value
        elif word.startswith(b"GNU.sparse."):  # one entry, however many words there are
            found[_SPARSE] = value
        start = end
    return found
