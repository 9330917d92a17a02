from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tasks.graph.history import Line
from tasks.reports import matrix
from tasks.reports.table import Row, Sizes


def ran(task: str, result: str = "ok", seconds: float | None = 1) -> Line:
    return Line(task=task, result=result, seconds=seconds, why=[])


BUILT = [ran("toolchain", seconds=2), ran("vmlinux", seconds=40)]


@pytest.mark.parametrize(
    ("lines", "error", "build", "sized"),
    [
        (BUILT, "", 42, True),
        (
            [*BUILT, ran("fetch:linux", seconds=9), ran("_unpack:linux"), ran("_run_qemu")],
            "",
            42,
            True,
        ),
        ([*BUILT, ran("qemu_test", seconds=5), ran("rootfs", "restored", 3)], "", 42, True),
        ([*BUILT, ran("Image", seconds=None)], "", 42, True),
        ([], "", None, True),
        ([*BUILT, ran("qemu_test", "failed")], "the guest failed", 42, True),
        ([*BUILT, ran("Image", "failed")], "Image failed", 42, False),
        ([], "no space left", None, False),
    ],
)
def test_what_a_run_left(
    lines: list[Line],
    error: str,
    build: float | None,
    sized: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only what had to run counts, and nothing that machines share."""
    sizes = Sizes(1, 2)
    monkeypatch.setattr(matrix.qemu, "release", lambda its: "6.1")
    monkeypatch.setattr(matrix, "sizes", lambda its, image: sizes)
    monkeypatch.setattr(matrix, "boot_figures", lambda its: {"accel": "tcg", "ready": 2.5})
    its: Any = SimpleNamespace(image="bzImage")
    row = matrix.measured(its, Row(machine="pc", result="failed", date=""), lines, True, error)
    assert (row.result, row.error) == ("failed" if error else "booted", error)
    assert row.build == build
    assert row.sizes == (sizes if sized else None)
    assert (row.accel, row.ready) == (("", None) if error else ("tcg", 2.5))
