"""Files of ours that somebody else wrote, or that are no files: each command answers, and nothing
of the user's goes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from playground import Kept, Playground

ANSWERS = (["why"], ["why", "vmlinux"], ["info", "vmlinux"], ["plan"], ["list", "-s"])
DEEP = "[" * 100_000


def answer(play: Playground) -> None:
    """Ask all that reads the journal and the history; then build."""
    for words in ANSWERS:
        result = play.doit(*words, status=None)
        # doit's info ends with 1 for a task that is stale
        assert result.status in ((0, 1) if words[0] == "info" else (0,)), result.text
    play.doit()


def nuls(record: dict) -> None:
    for part in record["_values_:"]["record"].values():
        part["a\0b"] = part["CONFIG_\0"] = "\x1b[2J"


SHAPES: tuple[Callable[[dict], object], ...] = (
    nuls,
    lambda record: '{"_values_:": {"record": ' + DEEP,
    lambda record: record.update({"_values_:": [1]}),
    lambda record: record.update({"deps:": 5}),
    lambda record: record["_values_:"].update(commands="x"),
    lambda record: record["_values_:"].update(record={"files": {"a": 5}}),
)


@pytest.mark.parametrize("text", ["null", DEEP, ""], ids=["each another", "deep", "empty"])
def test_a_journal_of_another_shape(built: Playground, kept: Kept, text: str) -> None:
    """Each record in another way, or all in one."""
    with contextlib.closing(sqlite3.connect(built.here / "journal.sqlite")) as database:
        for number, (name, data) in enumerate(
            database.execute("select task_id, task_data from doit").fetchall()
        ):
            record = json.loads(data)
            found = text if text != "null" else SHAPES[number % len(SHAPES)](record)
            database.execute(
                "update doit set task_data = ? where task_id = ?",
                (found if isinstance(found, str) else json.dumps(record), name),
            )
        database.commit()
    answer(built)
    assert built.digests() == kept.digests
    assert built.doit().ran == []


def test_a_history_of_another_shape(built: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = built.history.read_text().splitlines()
    for wrong in (
        {"seconds": "x"},
        {"why": [1, 2]},
        {"run": []},
        {"notes": {}},
        {"task": None},
        {"seconds": 10**400},
        {"why": ["files: file \0\x1b[2J\udce9 changed"], "task": "vmlinux"},
    ):
        lines.append(
            json.dumps(
                {"task": "vmlinux", "run": 9e9, "why": ["x"], "result": "ok", "seconds": 1} | wrong
            )
        )
    built.history.write_bytes(
        "\n".join([*lines, "null", "5", '"x"', DEEP, "\0"]).encode() + b"\n\xff\xfe\n"
    )
    monkeypatch.setattr(built, "history", built.home / "none")  # the test does not read it
    (built.images / "vmlinux").unlink()
    for words in ANSWERS:
        text = built.doit(*words, status=None).text
        assert not {"\0", "\x1b"} & {*text}


def test_something_else_in_place_of_our_files(
    built: Playground, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of stamps, codes and history, which cost nothing but time; of the journal and the lock."""
    theirs = built.home / "theirs"
    theirs.write_text("precious")
    for name in ("stamps", "codes", "logs/history.jsonl", "journal.sqlite", "lock"):
        (built.here / name).unlink()
    os.mkfifo(built.here / "stamps")
    (built.here / "codes").symlink_to(theirs)
    (built.here / "logs" / "history.jsonl").mkdir()
    (built.here / "journal.sqlite").symlink_to(theirs)
    os.mkfifo(built.here / "lock")
    monkeypatch.setattr(built, "history", built.home / "none")  # the test does not read it
    assert (
        f"{built.here.relative_to(built.top)}/lock can't be locked: it is no file" in built.fails()
    )
    (built.here / "lock").unlink()
    answer(built)
    (built.here / "journal.sqlite").unlink()
    (built.here / "journal.sqlite").mkdir()
    assert "journal.sqlite is a folder, and a file of the journal belongs there" in built.fails()
    assert built.digests() == kept.digests
    assert theirs.read_text() == "precious"


def test_a_folder_that_is_no_store(fresh: Playground) -> None:
    mine = fresh.home / "mine"
    for name in ("results/experiment.csv", "blobs/00/photo.raw", "lock"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("1")
        os.utime(mine / name, (1, 1))
    for words in (["store"], ["store", "clear"], ["list"]):
        text = fresh.fails(f"store={mine}", *words, PIGGYBACK_STORE_SIZE="1G")
        assert (
            f"the folder {mine} is not empty, and it is no store of Piggyback's; it is left alone"
            in text
        )
        assert "'store=' must name a folder that is empty or not there yet, or a store" in text
    assert sorted(path.name for path in mine.rglob("*") if path.is_file()) == [
        "experiment.csv",
        "lock",
        "photo.raw",
    ]


def test_a_store_that_all_can_write_to(fresh: Playground) -> None:
    place = fresh.home / "all"
    fresh.doit(f"store={place}", "kernel_config", PIGGYBACK_STORE_SIZE="1G")
    assert not stat.S_IMODE(place.stat().st_mode) & 0o022
    place.chmod(0o777)
    (fresh.images / "config").unlink()
    result = fresh.doit(f"store={place}", "kernel_config", PIGGYBACK_STORE_SIZE="1G")
    assert f"store              {place} is not used: others can write there" in result.text
    assert (result.ran, result.restored) == (["kernel_config"], [])
    assert f"the store {place} is not used: others can write there" in fresh.fails(
        f"store={place}", "store"
    )


def test_byte_code_that_a_full_disk_cut_off(fresh: Playground) -> None:
    def files() -> list[Path]:
        return sorted((fresh.top / "tasks").rglob("*.pyc"))

    fresh.doit("list", PYTHONDONTWRITEBYTECODE="1")
    assert files() == []  # as its user wants it
    fresh.doit("list")
    whole = {path: path.stat().st_size for path in files()}
    for path, size in whole.items():
        if size > 4096:  # of what fits into a page all is written, or nothing
            os.truncate(path, 4096)
    assert sum(size > 4096 for size in whole.values()) > 20
    fresh.doit("list")  # removes them
    fresh.doit("list")
    assert {path: path.stat().st_size for path in files()} == whole


def test_a_folder_of_the_users_where_the_kernel_would_be_built(built: Playground) -> None:
    """As with build=~ and a folder of that name in it; a folder of ours without its mark is made
    anew."""
    (built.obj / "piggyback.tree").unlink()
    built.append("configs/kernel/fake-base.config", "CONFIG_EXTRA=y\n")
    assert "kernel_config" in built.doit("kernel_config").ran
    shutil.rmtree(built.obj)
    built.obj.mkdir()
    (built.obj / "thesis.tex").write_text("precious")
    built.append("configs/kernel/fake-base.config", "# more\n")
    text = built.fails("kernel_config")
    assert (
        f"the folder {built.obj.relative_to(built.top)} is not empty, and it is no object folder of"
        " Piggyback's" in text
    )
    assert (built.obj / "thesis.tex").read_text() == "precious"
