"""Comparisons: bloat-o-meter's words, and everything else that differs beside them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tasks.reports import size_against, size_text
from tasks.tuning import compare, sizes
from tasks.tuning.image import Row
from tasks.tuning.pieces import ALIGNMENT, UNKNOWN, Piece
from tasks.tuning.sizes import Ram, Record


def record(
    functions: Sequence[tuple[str, int, str]], config: dict[str, str], **files: int
) -> Record:
    pieces = [Piece(".text", 0, size, where, name, "t", True) for name, size, where in functions]
    pieces += [
        Piece(".rodata", 0, 100 + len(functions), "a/one.o", "[.rodata.str1.1]", "r", False),
        Piece(".text", 0, 7, ALIGNMENT, "[.text]", "t", False),
    ]
    return Record(
        format=sizes.FORMAT,
        state="",
        time=0,
        commits=[],
        why="",
        files=files,
        config=config,
        pieces=pieces,
        raw=[],
        booted=[],
        ram=Ram(0, 0, 0, 0, 0),
    )


OLD = record(
    [
        ("same", 10, "a/one.o"),
        ("shrinks", 50, "a/one.o"),
        ("helper.isra.0", 20, "a/one.o"),
        ("helper", 5, "b/two.o"),
        ("gone", 30, "b/two.o"),
        ("__se_sys_new", 99, "b/two.o"),
    ],
    {"B": "y", "SIZE": "14", "GONE": "y"},
    vmlinux=1000,
)
NEW = record(
    [
        ("same", 10, "a/one.o"),
        ("shrinks", 40, "a/one.o"),
        ("helper.constprop.1", 30, "a/one.o"),
        ("helper", 5, "b/two.o"),
        ("added", 7, "c/three.o"),
    ],
    {"B": "y", "SIZE": "15", "NEW": "m"},
    vmlinux=900,
)


class Names(dict[str, str]):
    def __call__(self, path: str) -> str:
        return self.get(path, "")


SYMBOL = Names({"a/one.o": "A", "b/two.o": "B", "c/three.o": "B"})


def test_the_words_are_bloat_o_meters() -> None:
    found = compare.compare(OLD, NEW, SYMBOL)
    assert found.words == "add/remove: 2/2 grow/shrink: 0/1 up/down: 37/-60 (-23)"
    assert found.total == "Total: Before=115, After=92, chg -20.00%"
    assert [(one.name, one.old, one.new, one.by, one.where) for one in found.symbols] == [
        ("helper.constprop", None, 30, 30, "a/one.o"),
        ("added", None, 7, 7, "c/three.o"),
        ("shrinks", 50, 40, -10, "a/one.o"),
        ("helper.isra", 20, None, -20, "a/one.o"),
        ("gone", 30, None, -30, "b/two.o"),
    ]


def test_all_bytes_that_differ_are_on_some_line() -> None:
    found = compare.compare(OLD, NEW, SYMBOL)
    difference = sum(piece.size for piece in NEW.pieces) - sum(piece.size for piece in OLD.pieces)
    assert sum(one.by for one in [*found.symbols, *found.rest]) == difference
    assert sum(one.by for one in found.configs) == difference
    assert {one.name: one.by for one in found.rest} == {
        compare.STRINGS: -1,
        compare.TABLES: -99,  # __se_sys_new, which bloat-o-meter does not count
    }
    assert {one.name: one.by for one in found.configs} == {"A": -1, "B": -122}


def test_the_configuration_stands_beside_it() -> None:
    found = compare.compare(OLD, NEW, SYMBOL)
    assert found.config == {"SIZE": ("14", "15"), "GONE": ("y", ""), "NEW": ("", "m")}
    lines = list(size_text.against(found))
    assert lines[:3] == [
        f"{'Image':<40} {'old':>7} {'new':>7} {'delta':>7}",
        f"{'vmlinux':<40} {'1000':>7} {'900':>7} {'-100':>7}",
        "add/remove: 2/2 grow/shrink: 0/1 up/down: 37/-60 (-23)",
    ]
    assert "  CONFIG_NEW: not there -> m" in lines
    assert f"{'CONFIG_B':<40} {'134':>7} {'12':>7} {'-122':>7}" in lines


def test_of_a_build_without_a_map_functions_alone_are_compared_by_symbol() -> None:
    old = msgspec.structs.replace(
        OLD,
        why="no map",
        pieces=[
            msgspec.structs.replace(piece, object=UNKNOWN) if piece.name == "gone" else piece
            for piece in OLD.pieces
        ],
    )
    found = compare.compare(old, NEW, SYMBOL)
    assert {one.name: one.by for one in found.rest} == {compare.REST: -100}
    assert {one.name: one.by for one in found.configs} == {"B": 7 - 99, UNKNOWN: -30}


def test_a_build_whose_configuration_is_not_known_differs_in_no_symbol() -> None:
    other = record([("same", 10, "a/one.o")], {})
    assert compare.compare(other, NEW, SYMBOL).config == {}


def test_programs_and_images_are_compared_by_what_a_row_is() -> None:
    old = [
        Row(0, 30, "editors/sed.o", "sed_main.12", ".text"),
        Row(30, 5, "editors/sed.o", "[.rodata.str1.1]", ".rodata"),
        Row(35, 9, "(alignment)", "", ".text"),
    ]
    new = [
        Row(0, 20, "editors/sed.o", "sed_main.0", ".text"),
        Row(20, 7, "editors/vi.o", "vi_main", ".text"),
        Row(27, 6, "editors/sed.o", "[.rodata.str1.1]", ".rodata"),
        Row(33, 8, "(alignment)", "", ".text"),
    ]
    found = compare.rows(old, new, size_against._function, {"VI": "n"}, {"VI": "y"})
    assert [(one.name, one.old, one.new, one.where) for one in found.symbols] == [
        ("vi_main", None, 7, "editors/vi.o"),
        ("sed_main", 30, 20, "editors/sed.o"),
    ]
    assert found.totals == (30, 27)
    assert {one.name: one.by for one in found.rest} == {"(strings)": 1, "(alignment)": -1}
    assert found.config == {"VI": ("n", "y")}
    files = [Row(0, 4, "etc/lib-6.1.so", ""), Row(4, 8, "(free)", "")]
    found = compare.rows(files, [Row(0, 12, "(free)", "")], size_against._file, {}, {})
    assert [(one.name, one.by, one.where) for one in found.symbols] == [("etc/lib-6.1.so", -4, "")]
    assert sum(one.by for one in (*found.symbols, *found.rest)) == 0
