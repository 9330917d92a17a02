"""An ELF file as a list of sections and symbols: vmlinux, its loader, busybox.

pyelftools reads headers and sections. Its objects for symbols take 25 microseconds each, and a
kernel has tens of thousands, so that the table of symbols is unpacked here in one go (gABI,
"Symbol Table": Elf32_Sym, Elf64_Sym).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tasks.system.errors import PiggyError
from tasks.system.files import read_regular

_ALLOC, _WRITE, _EXEC = 2, 1, 4  # SHF_*
_NOTYPE, _SECTION, _FILE = 0, 3, 4  # STT_*
_RESERVED = 0xFF00  # SHN_LORESERVE: absolute and common symbols have no section


class Section(msgspec.Struct, frozen=True):
    """A section.

    Attributes:
        name: Its name.
        address: Where it runs (VMA).
        load: Where it is loaded (LMA).
        offset: Where its content lies in the file.
        size: Bytes.
        alloc: Whether it is in memory at run time.
        write: Whether it is writable.
        code: Whether it is executable.
        empty: Whether it has no content in the file (SHT_NOBITS), such as .bss.
    """

    name: str
    address: int
    load: int
    offset: int
    size: int
    alloc: bool
    write: bool
    code: bool
    empty: bool

    @property
    def letter(self) -> str:
        """The letter of nm(1) for a symbol in it: t code, d data, b zeroed data, r read-only.

        The kernel's .rodata is d where it is flagged writable, for what is written while it boots.
        """
        if self.code:
            return "t"
        return ("b" if self.empty else "d") if self.write else "r"


class Symbol(msgspec.Struct, frozen=True):
    """A symbol with a size, in a section.

    Attributes:
        name: Its name.
        address: Its address.
        size: Bytes.
        section: The index of its section in `Elf.sections`.
        local: Whether other objects can't see it.
        file: The source that the compiler named before it (STT_FILE), for a local one.
    """

    name: str
    address: int
    size: int
    section: int
    local: bool
    file: str = ""


class Elf(msgspec.Struct, frozen=True):
    """An ELF file.

    Attributes:
        data: Its content.
        sections: Its sections, the empty one of index 0 included.
        symbols: Its symbols.
        addresses: The address of each symbol by name, sizeless ones and absolute ones included.
        headers: Offset, size and name of each header: the file's, the programs', the sections'.
        layout: A hash of where sections and symbols are, to compare two links in one process. A
            tool may have stripped one of them of relocations.
        sources: How many sources the compiler named (STT_FILE): one for each of its objects.
    """

    data: bytes
    sections: list[Section]
    symbols: list[Symbol]
    addresses: dict[str, int]
    headers: list[tuple[int, int, str]]
    layout: int
    sources: int = 0

    def content(self, section: Section) -> bytes:
        """Return the content of a section in the file."""
        size = 0 if section.empty else section.size
        return self.data[section.offset : section.offset + size]


def read(path: Path) -> Elf:
    """Read an ELF file.

    Raises:
        PiggyError: It can't be read, or is none.
    """
    try:
        return parse(read_regular(path, follow=True), str(path))
    except OSError as error:
        raise PiggyError(f"{path} can't be read: {error.strerror}") from error


def parse(data: bytes, name: str = "the file") -> Elf:
    """Parse an ELF file's content.

    Args:
        data: The content.
        name: The file's name in messages.

    Raises:
        PiggyError: It is no ELF file, or is cut short.
    """
    from elftools.common.exceptions import ELFError  # only here: it takes 50 ms to load
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        return _parsed(ELFFile(io.BytesIO(data)), data)
    except (
        ELFError,
        ConstructError,
        struct.error,
        ValueError,
        LookupError,
        OverflowError,
    ) as error:
        raise PiggyError(
            f"{name} is no ELF file, or is damaged: {error}",
            "it is another program's, or cut off; one of ours is made anew once it is removed",
        ) from error


def _parsed(file: object, data: bytes) -> Elf:
    segments = [
        (part["p_vaddr"], part["p_memsz"], part["p_paddr"])
        for part in file.iter_segments()  # type: ignore[attr-defined]
        if part["p_type"] == "PT_LOAD"
    ]
    sections, table, names = [], b"", b""
    for part in file.iter_sections():  # type: ignore[attr-defined]
        head, flags = part.header, part["sh_flags"]
        size, offset = head["sh_size"], head["sh_offset"]
        empty = head["sh_type"] in ("SHT_NOBITS", "SHT_NULL")
        if not empty and offset + size > len(data):
            raise ValueError(f"the section {part.name} ends behind the file")
        sections.append(
            Section(
                part.name,
                head["sh_addr"],
                _load(head["sh_addr"], segments),
                offset,
                size,
                bool(flags & _ALLOC),
                bool(flags & _WRITE),
                bool(flags & _EXEC),
                empty,
            )
        )
        if head["sh_type"] == "SHT_SYMTAB":
            table = data[offset : offset + size]
            linked = file.get_section(head["sh_link"])  # type: ignore[attr-defined]
            names = data[linked["sh_offset"] : linked["sh_offset"] + linked["sh_size"]]
    wide, little = file.elfclass == 64, file.little_endian  # type: ignore[attr-defined]
    symbols, addresses, sources = _symbols(table, names, wide, little, len(sections))
    head = file.header  # type: ignore[attr-defined]
    headers = [
        (0, head["e_ehsize"], "ELF header"),
        (head["e_phoff"], head["e_phentsize"] * head["e_phnum"], "program headers"),
        (head["e_shoff"], head["e_shentsize"] * head["e_shnum"], "section headers"),
    ]
    places = tuple((one.name, one.address, one.load, one.size) for one in sections if one.alloc)
    named = tuple((one.name, one.address, one.size) for one in symbols)
    layout = hash((places, named, tuple(addresses.items())))
    return Elf(data, sections, symbols, addresses, headers, layout, sources)


def _load(address: int, segments: list[tuple[int, int, int]]) -> int:
    for start, size, load in segments:
        if start <= address < start + size:
            return int(address - start + load)
    return address


def _symbols(
    table: bytes, names: bytes, wide: bool, little: bool, count: int
) -> tuple[list[Symbol], dict[str, int], int]:
    found: list[Symbol] = []
    addresses: dict[str, int] = {}
    file, sources = "", 0
    for at, address, size, info, index in _rows(table, wide, "<" if little else ">"):
        kind = info & 15
        name = names[at : names.index(b"\0", at)].decode(errors="replace")
        if kind == _FILE:
            file = name
            sources += bool(name)
        elif kind != _SECTION and name and index:
            if info >> 4:
                file = ""  # the global ones come last
            addresses[name] = address
            if size and index < min(count, _RESERVED):
                found.append(Symbol(name, address, size, index, not info >> 4, file))
    return found, addresses, sources


def _rows(table: bytes, wide: bool, order: str) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield each symbol's name, address, size, info and section, as numbers."""
    if wide:
        for name, info, _, index, address, size in struct.iter_unpack(f"{order}IBBHQQ", table):
            yield name, address, size, info, index
    else:
        for name, address, size, info, _, index in struct.iter_unpack(f"{order}IIIBBH", table):
            yield name, address, size, info, index
