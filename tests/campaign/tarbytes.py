"""Tar archives byte by byte, as no program would write them."""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)


def header(
    name: bytes = b"t/f",
    size: bytes = b"0",
    kind: bytes = b"0",
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    mtime: bytes = b"0",
    mode: bytes = b"644",
    prefix: bytes = b"",
    rest: bytes = b"",
) -> bytes:
    """Return one block, with the right check sum."""
    block = b"".join(
        field.ljust(width, b"\0")[:width]
        for field, width in (
            (name, 100),
            (mode, 8),
            (b"0", 8),
            (b"0", 8),
            (size, 12),
            (mtime, 12),
            (b" " * 8, 8),
            (kind, 1),
            (link, 100),
            (magic, 8),
            (rest, 80),
            (prefix, 155),
            (b"", 12),
        )
    )
    return summed(block)


def summed(block: bytes) -> bytes:
    """Return a header with the check sum that it should have."""
    total = sum(block[:148]) + 256 + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def padded(data: bytes) -> bytes:
    """Return data with the zeros up to the next block."""
    return data + bytes(-len(data) % BLOCK)


def extension(kind: bytes, data: bytes) -> bytes:
    """Return a header that goes before a member: a long name (L), a long target (K), pax records
    (x, g)."""
    return header(b"./@", b"%o" % len(data), kind) + padded(data)


def record(word: bytes, value: bytes) -> bytes:
    """Return a pax record, with its length."""
    rest = b" " + word + b"=" + value + b"\n"
    length = len(rest)
    while length != len(str(length)) + len(rest):
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest
