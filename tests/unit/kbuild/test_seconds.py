"""Seconds of objects: measured, kept apart from the host's pace, and put together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.graph.history import Work
from tasks.kbuild import seconds, trace
from tasks.system import crowd, files

SECOND = 1_000_000_000


@pytest.fixture
def obj(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(crowd, "at_start", lambda: 1.0)
    (tmp_path / "kernel").mkdir()
    return tmp_path


def ended(obj: Path, target: str, when: int) -> None:
    record = Path(trace.record_of(obj, target))
    record.touch()
    os.utime(record, ns=(when, when))


def test_an_object_took_from_its_file_in_begun_to_its_record(obj: Path) -> None:
    begun = obj / "begun"
    begun.mkdir()
    for name in ("kernel!panic.o", "kernel!old.o", "kernel!none.o"):
        (begun / name).touch()
        os.utime(begun / name, ns=(5 * SECOND, 5 * SECOND))
    ended(obj, "kernel/panic.o", 7 * SECOND)
    ended(obj, "kernel/old.o", 4 * SECOND)  # make looked at it, and did nothing
    assert seconds.measured(obj, begun) == {"kernel/panic.o": 2.0}
    assert seconds.measured(obj, obj / "elsewhere") == {}


def test_a_slow_run_changes_the_pace_and_a_slow_object_its_own_seconds(obj: Path) -> None:
    seconds.learn(obj, {f"{number}.o": 1.0 for number in range(100)}, Work())
    assert seconds.read(obj).pace == 1.0
    for _ in range(3):
        seconds.learn(obj, {f"{number}.o": 2.0 for number in range(40)}, Work())
    known = seconds.read(obj)
    assert known.pace == pytest.approx(2.0, rel=0.1)
    assert known.of["0.o"] == pytest.approx(1.0, rel=0.1)
    assert known.of["99.o"] == 1.0
    for _ in range(4):
        seconds.learn(obj, {**{f"{number}.o": 2.0 for number in range(40)}, "0.o": 20.0}, Work())
    known = seconds.read(obj)
    assert known.of["0.o"] > 5 * known.of["1.o"]


def test_a_run_that_compiles_most_sets_the_pace_anew(obj: Path) -> None:
    seconds.learn(obj, {f"{number}.o": 1.0 for number in range(10)}, Work())
    seconds.learn(obj, {f"{number}.o": 3.0 for number in range(9)}, Work())
    known = seconds.read(obj)
    assert (known.pace, known.of["0.o"], known.of["9.o"]) == (1.0, 3.0, 1.0)


def test_seconds_from_the_store_count_where_nothing_was_measured(obj: Path) -> None:
    seconds.learn(obj, {"a.o": 1.0}, Work(), {"a.o": 5.0, "b.o": 6.0, "c.o": 0.0})
    assert seconds.read(obj).of["b.o"] == 6.0
    assert "c.o" not in seconds.read(obj).of
    assert seconds.read(obj).of["a.o"] == 1.0


def test_what_a_task_did_is_that_of_its_own_run(obj: Path) -> None:
    seconds.learn(obj, {"a.o": 1.0}, Work(compiled=1, compiling=1.0))
    when = seconds.read(obj).when
    assert seconds.work_since(obj, when, "make") == Work("make", 1, 1.0)
    assert seconds.work_since(obj, when + 1, "make") == Work("make")


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", files.packed({"of": {"a": -1.0, "b": 1e9}, "pace": 1e9})]
)
def test_a_file_that_can_not_be_right_counts_as_missing(obj: Path, content: bytes) -> None:
    (obj / seconds.FILE).write_bytes(content)
    assert (seconds.read(obj).of, seconds.read(obj).pace) == ({}, 1.0)
    seconds.learn(obj, {"a.o": 1.0, "slept.o": 1e6}, Work())
    assert seconds.read(obj).of == {"a.o": 1.0}


def test_a_crowded_host_is_left_out(obj: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds.learn(obj, {"a.o": 1.0, "b.o": 1.0, "c.o": 1.0}, Work())
    monkeypatch.setattr(crowd, "at_start", lambda: 4.0)
    seconds.learn(obj, {"a.o": 4.0}, Work())
    assert (seconds.read(obj).of["a.o"], seconds.read(obj).pace) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("took", "jobs", "all_of_it"),
    [([], 2, 0.0), ([1, 1, 1], 1, 3.0), ([1, 1, 1], 2, 2.0), ([3, 1, 1], 2, 3.0), ([1], 8, 1.0)],
)
def test_a_schedule(took: list[float], jobs: int, all_of_it: float) -> None:
    assert seconds.schedule(took, jobs) == all_of_it
