from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from tasks.reports import table
from tasks.reports.table import Row, Sizes

PC = Row(
    machine="pc",
    result="booted",
    date="2026-01-02T03:04:05+00:00",
    arch="i386",
    kernel="6.1.192",
    image="bzImage",
    sizes=Sizes(3521628, 1311232, 1127604, 1777664),
    accel="tcg",
    ready=1.06,
    build=151.2,
)
BOARD = Row(
    machine="board", result="failed", date="2026-01-02T03:04:06+00:00", arch="arm", error="a | b"
)


def test_the_cells_of_each_kind_of_row() -> None:
    assert table.cells(PC) == (
        "pc",
        "i386",
        "6.1.192",
        "3,521,628",
        "bzImage 1,311,232",
        "1,127,604",
        "1,777,664",
        "1.1 s",
        "2 min 31 s",
        "booted (tcg)",
    )
    assert table.cells(BOARD) == ("board", "arm", "-", "-", "-", "-", "-", "-", "-", "a | b")
    built = msgspec.structs.replace(PC, result="built", accel="", ready=None, build=None)
    assert table.cells(built)[-3:] == ("-", "-", "built, not booted")
    only = msgspec.structs.replace(built, sizes=Sizes(3000, 2000), image="xipImage")
    assert table.cells(only)[3:7] == ("3,000", "xipImage 2,000", "-", "-")


def test_markdown() -> None:
    lines = table.markdown([BOARD, PC]).splitlines()
    assert lines[0].startswith("| machine | arch | kernel | vmlinux |")
    assert lines[1] == "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    assert lines[2].endswith(r"| - | a \| b |")
    assert lines[3] == "| " + " | ".join(table.cells(PC)) + " |"


def test_the_columns_of_the_plain_table_are_aligned() -> None:
    header, board, pc = table.plain([BOARD, PC]).splitlines()
    assert header.index("vmlinux") + len("vmlinux") == pc.index("3,521,628") + len("3,521,628")
    assert header.index("arch") == board.index("arm") == pc.index("i386")
    assert header.index("result") == board.index("a | b") == pc.index("booted (tcg)")


def test_rows_are_kept_by_machine(tmp_path: Path) -> None:
    known = ["pc", "board"]
    table.keep(tmp_path, PC, known)
    table.keep(tmp_path, BOARD, known)
    assert table.read(tmp_path / "matrix.json") == {"board": BOARD, "pc": PC}
    assert list(json.loads((tmp_path / "matrix.json").read_text())) == ["board", "pc"]
    assert (tmp_path / "matrix.md").read_text() == table.markdown([BOARD, PC])
    newer = msgspec.structs.replace(PC, date="2026-02-01T00:00:00+00:00", ready=0.9)
    table.keep(tmp_path, newer, known)
    assert table.read(tmp_path / "matrix.json") == {"board": BOARD, "pc": newer}
    table.keep(tmp_path, newer, ["pc"])
    assert table.read(tmp_path / "matrix.json") == {"pc": newer}


def test_the_time_of_build_is_that_of_what_is_there(tmp_path: Path) -> None:
    table.keep(tmp_path, PC, ["pc"])
    fresh = msgspec.structs.replace(PC, build=None)
    table.keep(tmp_path, fresh, ["pc"])
    assert table.read(tmp_path / "matrix.json")["pc"].build == PC.build
    for other in (
        msgspec.structs.replace(fresh, kernel="6.12.1"),
        msgspec.structs.replace(fresh, sizes=None),
    ):
        table.keep(tmp_path, other, ["pc"])  # these are other images
        assert table.read(tmp_path / "matrix.json")["pc"].build is None
        table.keep(tmp_path, PC, ["pc"])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pc": {"machine": 3}}', b"\xff"])
def test_what_is_no_matrix_counts_as_none(tmp_path: Path, content: bytes) -> None:
    assert table.read(tmp_path / "matrix.json") == {}
    (tmp_path / "matrix.json").write_bytes(content)
    assert table.read(tmp_path / "matrix.json") == {}
    table.keep(tmp_path, PC, ["pc"])
    assert table.read(tmp_path / "matrix.json") == {"pc": PC}


@pytest.mark.parametrize(
    "text", [b'{"pc": {"machine": "\xff"}}', b"[" * 100_000, b"null", b'{"pc": 3}', b'{"a": 1']
)
def test_a_table_of_another_shape_counts_as_no_rows(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "matrix.json").write_bytes(text)
    assert table.read(tmp_path / "matrix.json") == {}


def test_a_cell_is_one_line_and_steers_no_terminal() -> None:
    row = msgspec.structs.replace(PC, result="failed", error="a\n\x1b[2J b", kernel="6.1\r\n")
    assert (table.cells(row)[2], table.cells(row)[-1]) == ("6.1\\r", "a \\x1b[2J b")
