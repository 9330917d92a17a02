"""What earlier runs say of the next one."""

from __future__ import annotations

import msgspec
import pytest

from tasks.graph.history import Line, Work
from tasks.reports.estimate import AROUND, EACH, FIRST, MAKE, SAVED, Past


def lines(
    task: str, *took: float, way: str = "", compiled: int = 0, compiling: float = 0
) -> list[Line]:
    work = Work(way, compiled, compiling)
    return [Line(task=task, result="ok", seconds=one, why=[], work=work) for one in took]


@pytest.mark.parametrize(
    ("took", "seconds"),
    [([], None), ([136.0], 136.0), ([136.0, 4.0, 3.0], 3.5), ([9, 1, 1, 1, 5, 5, 5], 5)],
)
def test_a_task_takes_what_it_took_but_for_the_first_time(
    took: list[float], seconds: float | None
) -> None:
    assert Past(lines("busybox", *took), 1).ordinary("busybox") == seconds


def test_a_failure_says_nothing() -> None:
    line = Line(task="x", result="failed", seconds=9.0, why=[])
    assert Past([line], 1).ordinary("x") is None


def test_what_a_task_takes_besides_its_objects_goes_by_its_way() -> None:
    past = Past(
        [
            *lines("vmlinux", 215.0, way=MAKE, compiled=979, compiling=173.0),
            *lines("vmlinux", 4.4, 4.6, way=MAKE),
            *lines("vmlinux", 1.4, 1.5, 1.6, way=SAVED, compiled=1, compiling=0.5),
        ],
        1,
    )
    assert past.fixed("vmlinux", SAVED, 1) == pytest.approx(1.0)
    assert past.fixed("vmlinux", SAVED, 20) == pytest.approx(1.0)
    assert past.fixed("vmlinux", MAKE, 0) == pytest.approx(4.5)
    assert past.fixed("vmlinux", MAKE, 900) == pytest.approx(42 - 79 * EACH)


def test_a_way_that_was_never_taken() -> None:
    past = Past(lines("vmlinux", 215.0, way=MAKE, compiled=979, compiling=173.0), 1)
    assert past.fixed("vmlinux", SAVED, 1) == FIRST[SAVED]
    assert past.fixed("Image", SAVED, 1) is None
    past = Past(lines("vmlinux", 1.0, way=SAVED), 1)
    assert past.fixed("vmlinux", MAKE, 100) == pytest.approx(FIRST[MAKE] + 100 * EACH)


def test_objects_and_targets_from_the_store() -> None:
    work = Work(MAKE, copied=100, copying=2.0)
    found = [Line(task="vmlinux", result="ok", seconds=9.0, why=[], work=work)]
    found += [Line(task="Image", result="restored", seconds=0.2, why=[])]
    past = Past(found, 1)
    assert past.copying() == 0.02
    assert past.restored("Image") == 0.2
    assert past.restored("vmlinux") < 0.2
    assert past.ordinary("Image") is None


def test_what_a_run_takes_besides_its_tasks() -> None:
    assert Past([], 1).around() == AROUND
    found = [
        Line(task="a", result="ok", seconds=1.0, why=[], run=100.0, time=101.5),
        Line(task="b", result="ok", seconds=2.0, why=[], run=100.0, time=104.0),
    ]
    assert Past(found, 1).around() == AROUND + 1.0


def test_a_crowded_host_takes_longer_and_took_longer() -> None:
    quiet = lines("vmlinux", 2.0, way=SAVED)
    busy = [msgspec.structs.replace(line, seconds=6.0, crowd=3.0) for line in quiet]
    for found in (quiet, busy, quiet + busy):
        assert Past(found, 1).fixed("vmlinux", SAVED, 0) == 2.0
        assert Past(found, 4).fixed("vmlinux", SAVED, 0) == 8.0
        assert Past(found, 2).ordinary("vmlinux") == 4.0
