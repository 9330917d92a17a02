from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
from pathlib import Path

import pytest
from doit.dependency import JSONCodec, SqliteDB

from tasks.graph import journal
from tasks.system.errors import PiggyError


def rows(path: Path) -> dict[str, dict[str, object]]:
    connection = sqlite3.connect(path)
    try:
        return {
            name: json.loads(data)
            for name, data in connection.execute("select task_id, task_data from doit")
        }
    finally:
        connection.close()


def test_a_commit_is_seen_by_others_and_leaves_the_database_open(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    backend = SqliteDB(str(path), JSONCodec())
    backend.set("one", "result:", "x")
    assert rows(path) == {}
    journal.commit(backend)
    assert rows(path) == {"one": {"result:": "x"}}
    backend.set("two", "deps:", ["a"])
    backend.remove("one")
    assert set(rows(path)) == {"one"}
    journal.commit(backend)
    assert rows(path) == {"two": {"deps:": ["a"]}}
    journal.commit(backend)
    backend.dump()
    assert rows(path) == {"two": {"deps:": ["a"]}}


@pytest.mark.parametrize(
    "record",
    [
        {},
        {
            "_values_:": {
                "record": {"files": {"a": "0" * 32}},
                "n": 1,
                "f": 1.5,
                "no": None,
                "yes": True,
            },
            "deps:": ["é\u2028"],
        },
        {"name": "no UTF-8: \udce9"},
    ],
)
def test_what_is_written_is_read_and_is_what_doit_itself_would_read(
    record: dict[str, object],
) -> None:
    text = journal.Codec().encode(record)
    assert journal.Codec().decode(text) == JSONCodec().decode(text) == record
    assert journal.Codec().decode(JSONCodec().encode(record)) == record


RECORD = {
    "_values_:": {"record": {"files": {"a": "0" * 32}}, "commands": 3},
    "deps:": ["a"],
    "checker:": "Present",
}
SHAPES = [
    "null",
    "1",
    '"x"',
    "[]",
    "[[]]",
    '{"a":',
    "[" * 100_000,
    '{"a": ' * 100_000,
    "1" * 5000,
    "\0",
    "",
    '{"_values_:": {"record": ' + "[" * 100_000 + "}}",
]


@pytest.mark.parametrize("text", SHAPES, ids=lambda text: text[:20])
def test_what_is_no_record_is_a_task_that_was_never_done(text: str) -> None:
    assert journal.Codec().decode(text) == {}


@pytest.mark.parametrize(
    "other", ["", "\udce9"], ids=["", "no UTF-8"]
)  # the latter is read by Python's JSON
@pytest.mark.parametrize(
    "wrong",
    [None, 1, "x", [1], [None], {"a": 1}, {"a": {"b": 1}}, {"a": [1]}, -1, 1 << 40, 2.5],
    ids=repr,
)
@pytest.mark.parametrize("place", ["_values_:", "record", "commands", "deps:"])
def test_a_record_of_another_shape(place: str, wrong: object, other: str) -> None:
    """What comes back is right in each part that others count on, whatever was written down."""
    record = json.loads(json.dumps({**RECORD, "other": other}))
    (record if place.endswith(":") else record["_values_:"])[place] = wrong
    found = journal.Codec().decode(json.dumps(record))
    assert found in ({}, record)
    values = found.get("_values_:") or {}
    assert isinstance(values.get("commands", 0), int)
    assert set(found.get("deps:") or ()) <= {"a"}
    assert all(
        isinstance(digest, str)
        for part in values.get("record", {}).values()
        for digest in part.values()
    )
    right = wrong is None if place.endswith(":") else wrong == 1 and place == "commands"
    assert found == record or not right


def test_a_file_name_that_is_no_utf8_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    backend = SqliteDB(str(path), journal.Codec())
    backend.set("one", "k", "\udce9")
    journal.commit(backend)
    journal.prepare(path)
    assert rows(path) == {"one": {"k": "\udce9"}}


def test_two_runs_keep_both_results(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    first, second = (SqliteDB(str(path), JSONCodec()) for _ in range(2))
    first.set("one", "k", 1)
    journal.commit(first)
    second.set("two", "k", 2)
    journal.commit(second)
    assert first.get("two", "k") == 2
    first.dump()
    second.dump()
    assert rows(path) == {"one": {"k": 1}, "two": {"k": 2}}


def test_records_are_those_of_successes(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    assert journal.records(path) == {}
    backend = SqliteDB(str(path), journal.Codec())
    record = {"files": {"a": "1"}}
    backend.set("done", "_values_:", {"record": record})
    backend.set("half", "_values_:", {"record": record, journal.UNFINISHED: True})
    backend.set("group", "result:", "x")
    journal.commit(backend)
    assert journal.records(path) == {"done": record}
    path.write_bytes(b"no database at all")
    assert journal.records(path) == {}


def test_giving_up_drops_what_was_not_written(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    backend = SqliteDB(str(path), JSONCodec())
    backend.set("one", "k", 1)
    journal.commit(backend)
    backend.remove("one")
    backend.set("two", "k", 2)
    journal.give_up(backend)
    backend.dump()
    assert rows(path) == {"one": {"k": 1}}
    journal.give_up(backend)  # closed by now


@pytest.mark.parametrize("content", [b"x", b"SQLite format 2\0" + b"x" * 100, b"\0" * 5000])
def test_what_is_no_database_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "new" / "journal.sqlite"
    journal.prepare(path)
    assert path.parent.is_dir()
    path.write_bytes(content)
    journal.prepare(path)
    assert not path.exists()
    assert path.with_name("journal.damaged").read_bytes() == content
    path.write_bytes(content)
    journal.prepare(path)  # and once more


def test_a_database_and_an_empty_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.touch()
    journal.prepare(path)
    assert path.exists()
    backend = SqliteDB(str(path), JSONCodec())
    backend.set("one", "k", 1)
    backend.dump()
    journal.prepare(path)
    assert rows(path) == {"one": {"k": 1}}


@pytest.mark.parametrize(
    "name", ["journal.sqlite", "journal.sqlite-journal", "journal.sqlite-wal", "journal.damaged"]
)
def test_a_folder_in_its_place_is_an_error_with_a_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "journal.sqlite").exists() or (tmp_path / "journal.sqlite").write_bytes(b"damaged")
    with pytest.raises(PiggyError) as caught:
        journal.prepare(tmp_path / "journal.sqlite")
    assert (
        caught.value.message
        == f"{tmp_path / name} is a folder, and a file of the journal belongs there"
    )


@pytest.mark.parametrize("kind", ["link", "dead link", "pipe", "socket"])
@pytest.mark.parametrize("name", ["journal.sqlite", "journal.sqlite-journal"])
def test_what_is_no_file_in_its_place_goes_aside(tmp_path: Path, name: str, kind: str) -> None:
    theirs = tmp_path / "theirs"
    if kind != "dead link":
        theirs.write_text("precious")
    path = tmp_path / "build" / "journal.sqlite"
    path.parent.mkdir()
    place = path.with_name(name)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(place))
    else:
        place.symlink_to(theirs)
    journal.prepare(path)
    assert not os.path.lexists(place)
    assert theirs.exists() is (kind != "dead link")
    backend = SqliteDB(str(path), journal.Codec())
    backend.set("one", "k", 1)
    backend.dump()
    assert rows(path) == {"one": {"k": 1}}
    assert not theirs.exists() or theirs.read_text() == "precious"


TABLE = "create table doit (task_id text not null primary key, task_data json)"


@pytest.mark.parametrize(
    "script",
    [
        "create view doit as select 1 as task_id, '{}' as task_data",
        "create table other (x)",
        f"{TABLE}; create trigger t before insert on doit begin select raise(abort, 'no'); end",
        *(
            f"{TABLE}; insert into doit values ('a', {value})"
            for value in ("null", "5", "x'ff'", "'[]'")
        ),
    ],
)
def test_a_database_that_is_not_doits_is_moved_aside(tmp_path: Path, script: str) -> None:
    path = tmp_path / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(script)
    journal.prepare(path)
    assert not path.exists()
    assert path.with_name("journal.damaged").exists()


def test_a_journal_that_another_program_holds_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PATIENCE", 0.05)
    path = tmp_path / "j.sqlite"
    SqliteDB(str(path), JSONCodec()).dump()
    holder = sqlite3.connect(path)
    holder.execute("begin exclusive")
    with pytest.raises(PiggyError, match=r"j\.sqlite is held by another program"):
        journal.prepare(path)
    holder.rollback()
    holder.execute("begin immediate")  # a commit that has begun: others can read
    journal.prepare(path)
    holder.close()
    assert [one.name for one in tmp_path.iterdir()] == ["j.sqlite"]
