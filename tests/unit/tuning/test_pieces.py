"""Every byte of a linked file is on one line, and on the right one: by real gcc and ld."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tasks.system.errors import PiggyError
from tasks.tuning import elf, image, linkmap, pieces
from tasks.tuning.image import Part, Row
from tasks.tuning.pieces import ALIGNMENT, LINKER, UNKNOWN, Piece
from tests.support.linking import Linked, link


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Linked:
    return link(tmp_path_factory.mktemp("linked"))


@pytest.fixture(scope="module")
def program(linked: Linked) -> elf.Elf:
    return elf.read(linked.program)


@pytest.fixture(scope="module")
def found(linked: Linked, program: elf.Elf) -> list[Piece]:
    return pieces.by_map(program, linkmap.parse(linked.plan.read_text()))


def one(found: list[Piece], name: str, where: str = "") -> Piece:
    return next(piece for piece in found if piece.name == name and where in piece.object)


def test_the_pieces_of_each_section_follow_one_another_without_a_gap(
    program: elf.Elf, found: list[Piece]
) -> None:
    for section in program.sections:
        if section.alloc and section.size:
            at = section.address
            for piece in found:
                if piece.section == section.name:
                    assert (piece.address, piece.size > 0) == (at, True)
                    at += piece.size
            assert at == section.address + section.size


def test_functions_are_in_their_objects_static_ones_of_one_name_too(found: list[Piece]) -> None:
    assert one(found, "shared").object == "kernel/panic.o"
    assert one(found, "setup").section == ".init.text"
    assert {piece.object for piece in found if piece.name == "helper"} == {
        "init/main.o",
        "kernel/panic.o",
    }
    assert one(found, "log").letter == "b"
    assert one(found, "counter").letter == "d"
    assert one(found, "shared").letter == "t"


def test_tables_strings_and_the_linkers_own_bytes_have_lines(found: list[Piece]) -> None:
    assert {piece.object for piece in found if piece.name == "entry"} == {
        "kernel/panic.o",
        "kernel/other.o",
    }
    strings = [piece for piece in found if piece.name.startswith("[.rodata.str")]
    assert sum(piece.size for piece in strings) == len(
        b"a reason that both have\0panic\0another one\0"
    )
    made = Counter[str]()
    for piece in found:
        if piece.object == LINKER:
            made[piece.section] += piece.size
    assert made == {".text": 4, "__table": 8}
    assert any(piece.object == ALIGNMENT and piece.section == ".data" for piece in found)


def test_without_a_map_objects_are_told_by_the_names_that_are_known(
    program: elf.Elf, found: list[Piece]
) -> None:
    known = pieces.objects_of(found)
    assert "helper" not in known  # two objects have one
    other = pieces.by_symbols(program, known)
    assert sum(piece.size for piece in other) == sum(piece.size for piece in found)
    assert one(other, "shared").object == "kernel/panic.o"
    # A static function's source is in the table of symbols.
    assert {piece.object for piece in other if piece.name == "helper"} == {
        "init/main.o",
        "kernel/panic.o",
    }
    assert not any(piece.object == UNKNOWN for piece in other if piece.symbol)
    ambiguous = {**known, "elsewhere": "net/main.o"}
    assert {piece.object for piece in pieces.by_symbols(program, ambiguous)} >= {
        f"{UNKNOWN}/main.c",
        "kernel/panic.o",
    }
    assert one(pieces.by_symbols(program, {}), "shared").object == UNKNOWN


@pytest.mark.parametrize("kind", ["binary", "stripped"])
def test_the_rows_of_an_image_add_up_to_it_and_hold_what_they_say(
    linked: Linked, program: elf.Elf, found: list[Piece], kind: str
) -> None:
    data = getattr(linked, kind).read_bytes()
    rows = image.rows(data, [Part(program, found)])
    assert sum(row.size for row in rows) == len(data)
    assert [row.offset for row in rows[1:]] == [row.offset + row.size for row in rows[:-1]]
    text = next(section for section in program.sections if section.name == ".text")
    for name in ("shared", "start"):
        row, symbol = (
            next(row for row in rows if row.name == name),
            next(symbol for symbol in program.symbols if symbol.name == name),
        )
        start = symbol.address - text.address
        assert data[row.offset : row.offset + row.size] == program.content(text)[start:][: row.size]
    assert not any(row.name == "log" for row in rows)  # .bss is in no file
    assert not any(row.object == image.OTHER for row in rows)
    assert any(row.object == ALIGNMENT and not row.section for row in rows)
    headers = {row.name for row in rows if row.object == image.HEADERS}
    assert headers == (
        {"[ELF header]", "[program headers]", "[section headers]", "[.shstrtab]"}
        if kind == "stripped"
        else set()
    )


def test_an_image_of_another_build_has_no_rows_but_one_that_is_not_known(
    linked: Linked, program: elf.Elf, found: list[Piece]
) -> None:
    data = bytes(range(1, 200)) * 40
    rows = image.rows(data, [Part(program, found)])
    assert rows == [Row(0, len(data), image.OTHER, "[not known]")]


def test_shares_add_up_and_follow_what_is_in_them(
    linked: Linked, program: elf.Elf, found: list[Piece]
) -> None:
    data = linked.binary.read_bytes()
    rows = image.shares(data, image.rows(data, [Part(program, found)]), 777)
    assert sum(row.about for row in rows) == 777
    zeros = max((row for row in rows if row.object == ALIGNMENT), key=lambda row: row.size)
    code = next(row for row in rows if row.name == "shared")
    assert zeros.about / zeros.size < code.about / code.size / 4


def test_what_is_packed_inside_takes_the_place_of_a_stretch() -> None:
    rows = [Row(0, 10, "a", "x"), Row(10, 100, "piggy.o", "data"), Row(110, 5, "b", "y")]
    inside = [Row(14, 50, "in", "p"), Row(64, 40, "in", "q"), Row(104, 0, "in", "nothing")]
    found = image.replaced(b"", rows, 14, 90, inside)
    assert [(row.offset, row.size, row.name) for row in found] == [
        (0, 10, "x"),
        (10, 4, "data"),
        (14, 50, "p"),
        (64, 40, "q"),
        (104, 6, "data"),
        (110, 5, "y"),
    ]


def test_garbage_collected_sections_are_gone(tmp_path: Path) -> None:
    """--gc-sections: the map has what is left."""
    linked = link(tmp_path, "--gc-sections")
    program = elf.read(linked.program)
    found = pieces.by_map(program, linkmap.parse(linked.plan.read_text()))
    assert not any(piece.object == "kernel/other.o" for piece in found if piece.letter == "t")
    assert sum(piece.size for piece in found) == sum(
        section.size for section in program.sections if section.alloc
    )


@pytest.mark.parametrize("end", [0, 3, 40, 70, 2000])
def test_what_is_no_elf_file_is_said(linked: Linked, tmp_path: Path, end: int) -> None:
    path = tmp_path / "cut"
    path.write_bytes(linked.program.read_bytes()[:end])
    with pytest.raises(PiggyError, match="no ELF file, or is damaged"):
        elf.read(path)


def test_a_header_that_leads_nowhere_is_said(linked: Linked) -> None:
    data = bytearray(linked.program.read_bytes())
    data[39] = 0xFF  # the top byte of e_phoff; below, that of e_shoff (gABI, Elf64_Ehdr)
    with pytest.raises(PiggyError, match="no ELF file, or is damaged"):
        elf.parse(bytes(data))
    data = bytearray(linked.program.read_bytes())
    data[47] = 0xFF
    with pytest.raises(PiggyError, match="no ELF file, or is damaged"):
        elf.parse(bytes(data))


def test_sections_of_one_name_give_no_byte_twice(linked: Linked, program: elf.Elf) -> None:
    double = [
        msgspec.structs.replace(one, name=".text") if one.name == ".rodata" else one
        for one in program.sections
    ]
    odd = msgspec.structs.replace(program, sections=double)
    found = pieces.by_map(odd, linkmap.parse(linked.plan.read_text()))
    data = linked.binary.read_bytes()
    assert sum(row.size for row in image.rows(data, [Part(odd, found)])) == len(data)
