"""Thin archives brought up to date in place of `ar`, where only sizes of members changed.

Kbuild packs all objects into thin archives (built-in.a, vmlinux.a), which name their members and
hold, of each, its size. For one edited object ar looks at every member of every archive anew. Here
the size is replaced, where nothing else can be different: the names are the same, and where there
is a table of symbols, so are the symbols of the members that changed.

Source: ar(5), "Archive File Format"; thin archives, bfd/archive.c of binutils
(_bfd_construct_extended_name_table, and bsd_write_armap and coff_write_armap's format of the table:
number, offsets, names).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.system.files import write_whole

MAGIC = b"!<thin>\n"
_HEAD = 60  # bytes: name 16, date 12, uid 6, gid 6, mode 8, size 10, end 2 (struct ar_hdr)
_SIZE = slice(48, 58)
_END = b"`\n"
MOST_MEMBERS = 30  # of which the symbols are looked at; for more, ar is as fast
Symbols = Callable[[Sequence[str]], Sequence[Sequence[bytes]] | None]


class _Archive(msgspec.Struct):
    """What a thin archive names.

    members: where the header of each is, by its path (as the archive names it); symbols: of each,
    by that place; None without a table of them.
    """

    members: dict[str, int]
    symbols: dict[int, list[bytes]] | None


def renew(archive: str, top: str, symbols_of: Symbols) -> bool:
    """Write into a thin archive the sizes that its members have now, and give it the time of now.

    archive: its path; top: the folder in which ar runs; symbols_of: the global symbols that objects
    define, in the order of their symbol tables (None: not known), asked of the members that are
    newer than an archive with a table of symbols. Returns False, and the archive as it was, where
    it must be made by ar.
    """
    try:
        with open(archive, "rb") as stream:
            before, data = os.fstat(stream.fileno()), bytearray(stream.read())
        found = _read(bytes(data))
        if found is None:
            return False
        folder, newer = os.path.dirname(archive), {}
        for name, place in found.members.items():
            path = os.path.join(folder, name)
            info = os.stat(path)
            if info.st_mtime_ns > before.st_mtime_ns:
                newer[path] = place
                data[place + _SIZE.start : place + _SIZE.stop] = b"%-10d" % info.st_size
            elif int(data[place + _SIZE.start : place + _SIZE.stop]) != info.st_size:
                return False  # somebody made it by other means
        if found.symbols is not None and not _same(newer, found.symbols, top, symbols_of):
            return False
        write_whole(Path(archive), bytes(data), before.st_mode & 0o777)
    except (OSError, ValueError, struct.error):
        return False
    return True


def _same(
    newer: Mapping[str, int], symbols: Mapping[int, list[bytes]], top: str, symbols_of: Symbols
) -> bool:
    """Tell whether the table has the symbols of those members that are newer than the archive."""
    if len(newer) > MOST_MEMBERS:
        return False
    now = symbols_of([os.path.relpath(path, top) for path in newer]) if newer else []
    return now is not None and [symbols.get(place, []) for place in newer.values()] == [
        list(each) for each in now
    ]


def _read(data: bytes) -> _Archive | None:
    """Read what an archive names.

    None for one that is not thin, or that has in it what is not understood.
    """
    if not data.startswith(MAGIC):
        return None
    place, names, table = len(MAGIC), b"", None
    members: dict[str, int] = {}
    while place < len(data):
        head = data[place : place + _HEAD]
        if len(head) < _HEAD or not head.endswith(_END):
            return None
        name, size, body = head[:16].rstrip(), int(head[_SIZE]), place + _HEAD
        if name in (b"/", b"//"):
            if name == b"//":
                names = data[body : body + size]
            else:
                table = data[body : body + size]
            place = body + size + size % 2
            continue
        number = re.fullmatch(
            rb"/(\d+)(?: +/)?", name
        )  # the second "/" is what GNU ar leaves of a name of 15 letters
        if not number:  # a short name, or one in a nested archive
            return None
        start = int(number[1])
        path = os.fsdecode(names[start : names.index(b"/\n", start)])
        if path in members:
            return None
        members[path] = place
        place = body
    return _Archive(members, None if table is None else _symbols(table))


def _symbols(table: bytes) -> dict[int, list[bytes]]:
    """Return the symbols of each member, by its place, in order.

    Raises:
        ValueError: The table is cut off.
    """
    (count,) = struct.unpack_from(">I", table)
    places = struct.unpack_from(f">{count}I", table, 4)
    names = table[4 + 4 * count :].split(b"\0")
    found: dict[int, list[bytes]] = {}
    for place, name in zip(places, names[:count], strict=True):
        found.setdefault(place, []).append(name)
    return found
