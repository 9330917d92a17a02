from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tasks.graph import history
from tasks.graph.history import Line
from tasks.graph.reason import NEVER, Reason

EDIT = Reason("files", "a", "1", "2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "history.jsonl"


def put(path: Path, *lines: Line) -> None:
    for line in lines:
        history.append(path, line)


@pytest.mark.parametrize(
    "reason",
    [
        NEVER,
        Reason("unfinished"),
        EDIT,
        Reason("discovered", "a\udce9\0.c", None, "1"),
        Reason("discovered", "CONFIG_A", "n", "y"),
        Reason("outputs", "x", "1", ""),
        Reason("settings", "level", "x" * 500, "x" * 500 + "y"),
        Reason("settings", "level", "", "x"),
        Reason("trees", "overlay etc", "1", None),
    ],
    ids=str,
)
def test_a_reason_is_what_it_was_and_is_printed_as_it_was(path: Path, reason: Reason) -> None:
    note = Reason("note", "CONFIG_CMDLINE", '"' + "x" * 200 + '"', "n", "f:1")
    put(path, Line(task="x", why=[reason], notes=[note]))
    (line,) = history.read(path)
    assert line.notes == [note]
    (found,) = line.why
    assert (str(found), found.part, found.name, found.changed) == (
        str(reason),
        reason.part,
        reason.name,
        reason.changed,
    )
    if len(reason.before or "") < 80:
        assert found == reason


def test_what_is_written(path: Path) -> None:
    many = [Reason("files", str(number), None, "1") for number in range(50)]
    put(path, Line(time=5.00049, task="one", result="ok", seconds=1.23456, why=many, run=4.00049))
    assert json.loads(path.read_text()) == {
        "time": 5.0,
        "task": "one",
        "result": "ok",
        "seconds": 1.235,
        "why": [{"part": "files", "name": str(number), "after": "1"} for number in range(20)],
        "run": 4.0,
    }


def test_all_symbols_that_changed_are_kept(path: Path) -> None:
    notes = [Reason("note", f"CONFIG_{number}", "y", "n", "lean.config:1") for number in range(700)]
    put(path, Line(task="kernel_config", why=[], notes=notes))
    assert history.read(path)[0].notes == notes


def test_what_a_task_compiled_is_read_again(path: Path) -> None:
    work = history.Work("make", compiled=3, compiling=1.5, copied=2, copying=0.25)
    put(path, Line(task="vmlinux", why=[], work=work))
    assert history.read(path)[0].work == work
    path.write_text('{"task": "x", "why": [], "work": {"compiled": -1}}\n')
    assert history.read(path) == []


def test_writing_never_fails(path: Path) -> None:
    put(path, Line(task="one", why=[]))
    put(path / "below", Line(task="x", why=[]))
    put(Path("/dev/full"), Line(task="x", why=[]))
    assert [line.task for line in history.read(path)] == ["one"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_a_file_is_written_and_read(tmp_path: Path, kind: str) -> None:
    path, theirs = tmp_path / "history.jsonl", tmp_path / "theirs"
    theirs.write_text('{"task": "x", "why": []}\n')
    {
        "link": lambda: path.symlink_to(theirs),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }[kind]()
    put(path, Line(task="one", why=[]))
    assert theirs.read_text() == '{"task": "x", "why": []}\n'
    assert (history.read(path), history.end(path)) == ([], 0)


def test_what_came_after_a_moment(path: Path) -> None:
    assert (history.end(path), history.read(path, 0)) == (0, [])
    put(path, Line(task="one", why=[]))
    seen = history.end(path)
    assert seen == path.stat().st_size
    assert history.read(path, seen) == []
    put(path, Line(task="two", why=[]))
    assert [line.task for line in history.read(path, seen)] == ["two"]


def test_only_the_last_lines_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path, *(Line(task=str(number), why=[]) for number in range(9)))
    monkeypatch.setattr(history, "_LAST_RUNS", 2 * path.stat().st_size // 9 + 5)
    assert [line.task for line in history.read(path)] == ["7", "8"]


def test_the_last_run_that_did_anything(path: Path) -> None:
    changed, config = Reason("files", "base.config", "1", "2"), Reason("files", "config", "1", "2")
    note = Reason("note", "CONFIG_A", "n", "y")
    put(
        path,
        Line(task="vmlinux", run=1, why=[NEVER]),
        Line(task="kernel_config", run=2, why=[changed], notes=[note]),
        Line(task="vmlinux", run=2, why=[config]),
    )
    with path.open("a") as stream:
        stream.write("cut off {\n")
    put(path, Line(task="qemu_test", run=3, why=[]))
    assert history.last_run(path) == {"kernel_config": [changed, note], "vmlinux": [config]}
    assert history.last_run(path.with_name("none")) == {}


def test_what_came_from_the_store(path: Path) -> None:
    """In the last run that made anything, and in no other."""
    put(
        path,
        Line(task="Image", run=1, why=[EDIT], result="restored"),
        Line(task="kernel_config", run=2, why=[EDIT], result="restored"),
        Line(task="vmlinux", run=2, why=[EDIT], result="ok"),
        Line(task="rootfs", run=2, why=[EDIT], result="restored"),
        Line(task="qemu_test", run=3, why=[], result="ok"),
    )
    assert history.brought_back(path) == ["kernel_config", "rootfs"]
    assert history.brought_back(path.with_name("none")) == []


def test_how_long_tasks_took(path: Path) -> None:
    put(
        path,
        *(Line(task="vmlinux", why=[], result="ok", seconds=number) for number in range(4)),
        Line(task="vmlinux", why=[], result="failed", seconds=9),
        Line(task="vmlinux", why=[], result="restored", seconds=9),
        Line(task="Image", why=[], result="ok"),
    )
    assert history.durations(path, 2) == {"vmlinux": [2, 3]}


def test_sentences_of_an_older_history(path: Path) -> None:
    """They are shown as they were; nobody takes them apart."""
    path.parent.mkdir()
    old = {
        "time": 1.5,
        "task": "kernel_config",
        "result": "ok",
        "seconds": 2,
        "why": ["files: file base.config changed", "odd"],
        "run": 1,
        "notes": ["CONFIG_A n -> y (f:1)"],
    }
    path.write_text(json.dumps(old) + "\n")
    found = history.last_run(path)["kernel_config"]
    assert [str(one) for one in found] == [
        "file base.config changed",
        "odd",
        "CONFIG_A n -> y (f:1)",
    ]
    assert [one.part for one in found] == ["text", "text", "note"]
    assert {(one.file, one.symbol) for one in found} == {("", "")}


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "1",
        '"x"',
        "[]",
        "\0",
        "\x1b[2J",
        "[" * 100_000,
        '{"task": ' * 100_000,
        '{"why": []}',
        *(
            json.dumps({"task": "x", "why": ["y"], "result": "ok", "seconds": 1, "run": 9} | wrong)
            for wrong in (
                {"why": "text"},
                {"why": [1, 2]},
                {"why": [None]},
                {"why": {"a": "b"}},
                {"why": [{"name": "a"}]},
                {"why": [{"part": 5}]},
                {"why": [{"part": "files", "before": {}}]},
                {"seconds": "x"},
                {"seconds": [1]},
                {"seconds": -1},
                {"seconds": float("nan")},
                {"seconds": float("inf")},
                {"seconds": 10**400},
                {"run": "x"},
                {"run": {}},
                {"time": []},
                {"notes": 5},
                {"notes": [5]},
                {"result": 5},
                {"task": ["x"]},
            )
        ),
    ],
    ids=lambda line: line[:60],
)
def test_a_line_of_another_shape_is_passed_over(path: Path, line: str) -> None:
    right = Line(task="vmlinux", run=1, why=[EDIT], result="ok", seconds=2)
    put(path, right)
    with path.open("ab") as stream:
        stream.write(f"{line}\n".encode() + b"\xff\n")
    assert history.read(path) == [right]
