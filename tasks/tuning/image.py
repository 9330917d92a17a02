"""What each byte of an image is: of the raw kernel, and of what a boot loader is given.

The raw kernel (Image) has the content of vmlinux's sections, either as a binary (objcopy -O binary)
or, on x86, as an ELF file without symbols. Where a section lies in it is not computed by a rule of
objcopy's: its content is looked up there, so that each byte that is said to be a function's is that
function's. What the linker, objcopy and the boot Makefile's tools add has lines of its own.

Of the compressed kernel only estimates can be given: see `shares`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from tasks.system.errors import PiggyError
from tasks.tuning import elf
from tasks.tuning.elf import Elf, Section
from tasks.tuning.pieces import ALIGNMENT, Piece

HEADERS = "(headers)"
OTHER = "(other)"
_CHUNK = 1024  # bytes that are compressed together for an estimate
_PATCHED = 1 << 16  # bytes of a section that a tool may have written to after the link
_LEAST = 8  # bytes of a section that can be looked for, and then must be there once
_FILLED = 8  # equal bytes that may be alignment before other bytes
_PADDING = (b"\0", b"\xff", b"\x90", b"\xcc")


class Row(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of a file.

    Attributes:
        offset: Where they lie.
        size: How many there are.
        object: As of a Piece; HEADERS, or OTHER for what is none of these.
        name: As of a Piece.
        section: The section of the ELF file that they come from; "" for none.
        about: How many bytes of the compressed file they take, about; 0 if there is none.
    """

    offset: int
    size: int
    object: str
    name: str
    section: str = ""
    about: int = 0


class Part(msgspec.Struct, frozen=True):
    """A linked file whose sections may lie in an image.

    Attributes:
        elf: The file.
        pieces: What its sections consist of.
        within: The group under which its rows go; "" for the kernel proper.
    """

    elf: Elf
    pieces: Sequence[Piece]
    within: str = ""


def rows(data: bytes, parts: Iterable[Part]) -> list[Row]:
    """Return the rows of a file in order; their sizes add up to the file's.

    Args:
        data: The file's content.
        parts: What it consists of.
    """
    own = _own(data)
    found: list[Row] = []
    for part in parts:
        by_section: dict[str, list[Piece]] = {}
        for piece in part.pieces:
            by_section.setdefault(piece.section, []).append(piece)
        for section, offset in _placed(data, own, part.elf):
            found += [
                Row(
                    offset + piece.address - section.address,
                    piece.size,
                    "/".join(filter(None, (part.within, piece.object))),
                    piece.name,
                    piece.section,
                )
                for piece in by_section.get(section.name, ())
            ]
    if own is not None:
        found += [Row(at, size, HEADERS, f"[{name}]") for at, size, name in own.headers if size]
        found += [
            Row(one.offset, one.size, HEADERS, f"[{one.name}]")
            for one in own.sections
            if not (one.alloc or one.empty) and one.size
        ]
    return list(_filled(data, found))


def shares(data: bytes, found: Sequence[Row], total: int) -> list[Row]:
    """Return rows with the bytes that each takes in the compressed file, about.

    The file is compressed by zlib with a flush after each kilobyte or so, so that each part is
    compressed after what precedes it; what a part takes is scaled, so that all add up to the
    compressed file's size. Within a kilobyte the rows share by their sizes.

    Args:
        data: What is compressed.
        found: Its rows, in order and without gaps.
        total: The size of the compressed file.
    """
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    costs: list[float] = []
    for group in _groups(found):
        length = sum(row.size for row in group)
        out = packer.compress(data[group[0].offset : group[0].offset + length])
        # A flush ends with an empty block of five bytes (zlib.h, Z_SYNC_FLUSH).
        cost = max(1, len(out) + len(packer.flush(zlib.Z_SYNC_FLUSH)) - 5)
        costs += [cost * row.size / length for row in group]
    return [
        msgspec.structs.replace(row, about=about)
        for row, about in zip(found, _scaled(costs, total), strict=True)
    ]


def _groups(found: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows that are compressed together; a large one, which may be empty, is alone."""
    waiting: list[Row] = []
    for row in found:
        if waiting and (row.size >= _CHUNK or sum(one.size for one in waiting) >= _CHUNK):
            yield waiting
            waiting = []
        waiting.append(row)
    if waiting:
        yield waiting


def replaced(
    data: bytes, found: Iterable[Row], at: int, length: int, inside: Iterable[Row]
) -> list[Row]:
    """Return rows with others in the place of a stretch of the file.

    Args:
        data: The file's content.
        found: The rows of the file.
        at: Where the stretch begins.
        length: Its length in bytes.
        inside: The rows of it.
    """
    result = [row for row in inside if row.size]
    for row in found:
        end = row.offset + row.size
        for start, stop in ((row.offset, min(end, at)), (max(row.offset, at + length), end)):
            if start < stop and row.object == OTHER:
                result += _gap(data, start, stop)
            elif start < stop:
                result.append(msgspec.structs.replace(row, offset=start, size=stop - start))
    return sorted(result, key=lambda one: one.offset)


def _scaled(costs: Sequence[float], total: int) -> list[int]:
    """Return whole numbers in proportion that add up to a total."""
    factor = total / (sum(costs) or 1)
    scaled, exact, before = [], 0.0, 0
    for cost in costs:
        exact += cost * factor
        scaled.append(round(exact) - before)
        before = round(exact)
    if scaled:
        scaled[-1] += total - before
    return scaled


def _own(data: bytes) -> Elf | None:
    """Return the file as an ELF file, None if it is another."""
    if not data.startswith(b"\x7fELF"):
        return None
    try:
        return elf.parse(data)
    except PiggyError:
        return None


def _placed(data: bytes, own: Elf | None, part: Elf) -> list[tuple[Section, int]]:
    """Return the sections of a linked file that lie in an image, each with its offset there."""
    inside = [
        section for section in part.sections if section.alloc and section.size and not section.empty
    ]
    if own is not None:
        return _in_elf(own, part, inside)
    for section in sorted(inside, key=lambda one: -one.size)[:4]:
        content = part.content(section)
        at = data.find(content) if section.size >= _LEAST else -1
        if at >= 0 and data.rfind(content) == at:
            base = section.load - at
            return [
                (one, one.load - base)
                for one in inside
                if 0 <= one.load - base <= len(data) - one.size
                and _same(part.content(one), data, one.load - base)
            ]
    return []


def _in_elf(own: Elf, part: Elf, inside: Sequence[Section]) -> list[tuple[Section, int]]:
    """Return the sections that an ELF file has from another one, unchanged."""
    there = {(one.name, one.address, one.size): one for one in own.sections if not one.empty}
    return [
        (section, found.offset)
        for section in inside
        if (found := there.get((section.name, section.address, section.size)))
        and _same(part.content(section), own.data, found.offset)
    ]


def _same(content: bytes, data: bytes, at: int) -> bool:
    """Tell whether a section lies at an offset, but for a few fields that a tool filled in.

    On x86 the boot Makefile's tools/build writes sizes and a checksum to the setup code's header.
    """
    there = data[at : at + len(content)]
    if content == there:
        return True
    if len(content) > _PATCHED:
        return False
    equal = sum(one == other for one, other in zip(content, there, strict=True))
    return equal * 4 >= len(content) * 3


def _filled(data: bytes, found: Iterable[Row]) -> Iterator[Row]:
    """Yield rows in order, each byte once, with a row for each gap."""
    at = 0
    for row in sorted(found, key=lambda one: (one.offset, one.size)):
        if row.offset + row.size <= at or row.offset >= len(data):
            continue
        if row.offset > at:
            yield from _gap(data, at, row.offset)
            at = row.offset
        stop = min(row.offset + row.size, len(data))
        if stop > at:
            yield msgspec.structs.replace(row, offset=at, size=stop - at)
            at = stop
    if at < len(data):
        yield from _gap(data, at, len(data))


def _gap(data: bytes, start: int, stop: int) -> Iterator[Row]:
    """Yield the rows of bytes that nothing claims: first alignment, as far as it is a filler."""
    filler, at = data[start : start + 1], start
    if filler in _PADDING:
        at = stop - len(data[start:stop].lstrip(filler))
    if at - start >= min(_FILLED, stop - start):
        yield Row(start, at - start, ALIGNMENT, "[between sections]")
    else:
        at = start
    if at < stop:
        yield Row(at, stop - at, OTHER, "[not known]")
