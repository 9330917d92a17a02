"""Update of thin archives without `ar`, if only sizes and symbols of members changed.

Kbuild packs all objects into thin archives (built-in.a, vmlinux.a), which have the name and the
size of each member. For one edited object, ar reads all members of all archives again. This module
replaces the size if the names are the same; and if there is a symbol table, the symbols of the
changed members in it. Whether ar writes such a table as this module does is tried on the old one.

Source: ar(5), "Archive File Format"; thin archives, bfd/archive.c of binutils
(_bfd_construct_extended_name_table, and coff_write_armap for the table: number, offsets, names).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.kbuild.saved import Saved
from tasks.system.files import write_whole
from tasks.system.process import run

MAGIC = b"!<thin>\n"
_HEAD = 60  # bytes: name 16, date 12, uid 6, gid 6, mode 8, size 10, end 2 (struct ar_hdr)
_SIZE = slice(48, 58)
_END = b"`\n"
MOST_MEMBERS = 30  # changed members up to which symbols are compared; for more, ar is as fast
Symbols = Callable[[Sequence[str]], Sequence[Sequence[bytes]] | None]


class _Archive(msgspec.Struct):
    """A parsed thin archive.

    Attributes:
        members: Path of a member, as the archive has it, to the offset of its header.
        symbols: Offset of a member's header to its symbols; None without a symbol table.
    """

    members: dict[str, int]
    symbols: dict[int, list[bytes]] | None


def renew(archive: str, top: str, symbols_of: Symbols) -> bool:
    """Update the sizes of members in a thin archive, and its time.

    Args:
        archive: The archive.
        top: The folder in which ar runs.
        symbols_of: Returns the global symbols that objects define, in the order of their symbol
            tables, or None; called with the members that are newer than the archive, if that has a
            symbol table.

    Returns:
        False if ar must make the archive; it is then unchanged.
    """
    try:
        with open(archive, "rb") as stream:
            before, data = os.fstat(stream.fileno()), bytearray(stream.read())
        parsed = _read(bytes(data))
        if parsed is None:
            return False
        folder, newer = os.path.dirname(archive), {}
        for name, offset in parsed.members.items():
            path = os.path.join(folder, name)
            info = os.stat(path)
            if info.st_mtime_ns > before.st_mtime_ns:
                newer[path] = offset
                data[offset + _SIZE.start : offset + _SIZE.stop] = b"%-10d" % info.st_size
            elif int(data[offset + _SIZE.start : offset + _SIZE.stop]) != info.st_size:
                return False  # another program changed the member
        if parsed.symbols is not None and newer:
            now = _now(newer, parsed.symbols, top, symbols_of)
            if not now:
                return False
            if now != parsed.symbols:
                data = _replaced(data, parsed, now)
        write_whole(Path(archive), bytes(data), before.st_mode & 0o777)
    except (OSError, ValueError, struct.error):
        return False
    return True


def _now(
    newer: Mapping[str, int], symbols: Mapping[int, list[bytes]], top: str, symbols_of: Symbols
) -> dict[int, list[bytes]] | None:
    """Return the symbols of all members by the offsets of their headers; None for ar to find out.

    Args:
        newer: Path of a member that is newer than the archive, to the offset of its header.
        symbols: The symbol table, by these offsets.
        top: The folder in which ar runs.
        symbols_of: As in `renew`.
    """
    if len(newer) > MOST_MEMBERS:
        return None
    found = symbols_of([os.path.relpath(path, top) for path in newer])
    if found is None:
        return None
    changed = dict(zip(newer.values(), map(list, found), strict=True))
    return {offset: names for offset, names in {**symbols, **changed}.items() if names}


def _replaced(data: bytearray, parsed: _Archive, now: Mapping[int, list[bytes]]) -> bytearray:
    """Return the archive with another symbol table, by which all members move.

    Raises:
        ValueError: The old table is not as this function would write it.
    """
    start = len(MAGIC) + _HEAD
    head = data[len(MAGIC) : start]
    end = start + int(head[_SIZE])
    assert parsed.symbols is not None
    if head[:16].rstrip() != b"/":
        raise ValueError("the table is not the first member")
    if data[start:end] != _table(parsed.symbols, 0):
        raise ValueError("the table has another form")
    size = len(_table(now, 0))
    head[_SIZE] = b"%-10d" % size
    return bytearray(MAGIC) + head + _table(now, size - (end - start)) + data[end:]


def _table(symbols: Mapping[int, list[bytes]], grown: int) -> bytes:
    """Return a symbol table for members whose headers moved by `grown` bytes.

    Args:
        symbols: Offset of a member's header, before the move, to its symbols.
        grown: Bytes.
    """
    pairs = [(offset + grown, name) for offset in sorted(symbols) for name in symbols[offset]]
    offsets = struct.pack(f">{len(pairs) + 1}I", len(pairs), *(offset for offset, _ in pairs))
    table = offsets + b"".join(name + b"\0" for _, name in pairs)
    return table + b"\0" * (len(table) % 2)


def _read(data: bytes) -> _Archive | None:
    """Parse a thin archive; return None for another or an unknown format."""
    if not data.startswith(MAGIC):
        return None
    offset, names, table = len(MAGIC), b"", None
    members: dict[str, int] = {}
    while offset < len(data):
        head = data[offset : offset + _HEAD]
        if len(head) < _HEAD or not head.endswith(_END):
            return None
        name, size, body = head[:16].rstrip(), int(head[_SIZE]), offset + _HEAD
        if name in (b"/", b"//"):
            if name == b"//":
                names = data[body : body + size]
            else:
                table = data[body : body + size]
            offset = body + size + size % 2
            continue
        # The second "/" is what GNU ar leaves of a name of 15 letters.
        number = re.fullmatch(rb"/(\d+)(?: +/)?", name)
        if not number:  # a short name, or one in a nested archive
            return None
        start = int(number[1])
        path = os.fsdecode(names[start : names.index(b"/\n", start)])
        if path in members:
            return None
        members[path] = offset
        offset = body
    return _Archive(members, None if table is None else _symbols(table))


def _symbols(table: bytes) -> dict[int, list[bytes]]:
    """Parse a symbol table: offset of a member's header to its symbols, in order.

    Raises:
        ValueError: The table is truncated.
    """
    (count,) = struct.unpack_from(">I", table)
    offsets = struct.unpack_from(f">{count}I", table, 4)
    names = table[4 + 4 * count :].split(b"\0")
    symbols: dict[int, list[bytes]] = {}
    for offset, name in zip(offsets, names[:count], strict=True):
        symbols.setdefault(offset, []).append(name)
    return symbols


def packs(command: Saved, env: Mapping[str, str]) -> bool:
    """Tell whether a command only packs members into a thin archive.

    Args:
        command: The saved command.
        env: The environment of the recipes.
    """
    ar = re.escape(env.get("AR", "ar"))
    return bool(
        command.target.endswith(".a")
        and re.search(rf"(?:^|[ ;|]){ar} c?DPr[Ss]?T ", command.command)
    )


def symbols(obj: Path, env: Mapping[str, str], objects: Sequence[str]) -> list[list[bytes]] | None:
    """Return the global symbols that each object defines, in its table's order.

    Args:
        obj: The object folder.
        env: The environment of the recipes.
        objects: The objects, relative to it.

    Returns:
        None if nm fails.
    """
    done = run(
        [env.get("NM", "nm"), "-A", "-g", "-p", "--defined-only", *objects], cwd=obj, check=False
    )
    found: dict[str, list[bytes]] = {name: [] for name in objects}
    for line in done.output.splitlines():
        name, _, rest = line.partition(":")
        if name not in found:
            return None
        found[name].append(os.fsencode(rest.rpartition(" ")[2]))
    return None if done.returncode else list(found.values())
