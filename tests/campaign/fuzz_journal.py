"""What earlier runs left for this one: records and the whole file of the journal, the history,
stamps and codes.

Nothing of it may end a run. A record or line that is not of our shape counts as none, which is a
refusal here.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from doit.dependency import SqliteDB
from fuzz import NUMBERS, Target, mutated

from tasks.cache import code_index
from tasks.cache.code_index import Codes
from tasks.cache.digests import Stamps
from tasks.graph import explain, history, journal
from tasks.graph.inputs import Inputs
from tasks.system import files, terminal
from tasks.system.errors import PiggyError

DIGEST = "0123456789abcdef" * 2
RECORD: dict[str, Any] = {
    "_values_:": {
        "record": {
            "settings": {"level": "9"},
            "files": {"a.c": DIGEST},
            "outputs": {"image": DIGEST},
            "discovered": {"b.h": DIGEST, "i/": DIGEST},
        },
        "commands": 7,
        "notes": ["CONFIG_A n -> y"],
    },
    "result:": DIGEST,
    "checker:": "Present",
    "deps:": ["a.c", "b.h"],
    "a.c": True,
}
LINE: dict[str, Any] = {
    "time": 1e9,
    "task": "vmlinux",
    "result": "ok",
    "seconds": 1.5,
    "why": [
        {"part": "files", "name": "a.c", "before": "1", "after": "2"},
        "files: file a.c changed",
    ],
    "run": 1e9,
    "notes": [
        {"part": "note", "name": "CONFIG_A", "before": "n", "after": "y", "where": "f:1"},
        "CONFIG_A n -> y",
    ],
}
ODD: list[Any] = [
    None,
    True,
    -1,
    1 << 40,
    10**400,
    1.5,
    math.nan,
    math.inf,
    "x",
    "",
    "\0",
    "\udce9",
    "\x1b[2J",
    [],
    {},
    [1, 2],
    [None],
    [[]],
    {"a": 1},
    {"a": [1]},
    {"a": {"b": 1}},
    ["x"],
    "x" * 5000,
]
TOKENS = [
    b"[" * 3000,
    b'{"a":' * 3000,
    b"null",
    b"NaN",
    b"1e999",
    b"9" * 5000,
    b'"\\ud800"',
    b'"\\u0000"',
    b"{",
    b"}",
    b'"',
    b",",
    b"\n",
    b"\xff",
]


def _odd(rng: random.Random, value: Any) -> Any:
    """A value with some part of it, at any depth, made another thing."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        name = rng.choice(list(value))
        if rng.random() < 0.2:
            name = rng.choice(["\0", "a\0b", "\udce9", "CONFIG_\x1b", "", "x" * 5000])
            return {**value, name: rng.choice([DIGEST, *ODD])}
        return {**value, name: _odd(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.5:
        return [_odd(rng, value[0]), *value[1:]]
    return rng.choice(ODD)


def make_record(rng: random.Random) -> str:
    """A record: as it is, with some part another thing, or with other bytes in it."""
    value = _odd(rng, RECORD) if rng.random() < 0.6 else RECORD
    text = json.dumps(value)
    if rng.random() < 0.4:
        text = mutated(rng, text.encode(), TOKENS).decode(errors="replace")
    return text


def _used(record: dict[str, Any]) -> None:
    """Do with a record's values what doit, Inputs and actions do."""
    values = record.get("_values_:") or {}
    inputs = Inputs(
        Stamps(Path("none")),
        check_record,
        settings={"level": "1"},
        files=["a.c"],
        trees={},
        tools=[],
        outputs=["image"],
    )
    task = SimpleNamespace(value_savers=[], values={})
    assert inputs(task, values) is False
    terminal.printable(repr(inputs) + explain.plain(inputs.reasons, str)).encode()
    int(values.get("commands", 0))
    sorted(set(record.get("deps:") or ()) - {"a.c"})


def check_record(text: str, folder: Path) -> None:
    """Read one record, and use what it holds."""
    record = journal.Codec().decode(text)
    _used(record)
    if not record:
        raise PiggyError("the task was never done")
    written = journal.Codec().encode(record)
    assert journal.Codec().encode(journal.Codec().decode(written)) == written


def make_database(rng: random.Random) -> tuple[int, str]:
    """A seed for the damage to a whole journal, and one of its records."""
    return rng.randrange(1 << 30), make_record(rng)


def _database(path: Path, text: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("create table doit (task_id text not null primary key, task_data json)")
        database.execute("insert into doit values ('vmlinux', ?)", [text])
        database.executemany(
            "insert into doit values (?, '{}')", [[f"task {number}"] for number in range(30)]
        )
        database.commit()


def check_database(data: tuple[int, str], folder: Path) -> None:
    """Open a damaged journal as a run does: ask it, write to it, and find what was written."""
    rng, path = random.Random(data[0]), folder / "journal.sqlite"
    with contextlib.suppress(UnicodeEncodeError):
        _database(path, data[1])
    if rng.random() < 0.7:
        path.write_bytes(
            mutated(
                rng,
                path.read_bytes(),
                [b"\0" * 100, b"doit", b"\xff" * 4, b"CREATE TABLE", b"null"],
            )
        )
    journal.prepare(path)
    kept = path.exists()
    backend = SqliteDB(str(path), journal.Codec())
    try:
        _used(
            {
                "_values_:": backend.get("vmlinux", "_values_:"),
                "deps:": backend.get("vmlinux", "deps:"),
            }
        )
        backend.set("vmlinux", "_values_:", {"commands": 1})
        journal.commit(backend)
        backend._cache.clear()
        assert backend.get("vmlinux", "_values_:") == {"commands": 1}
    finally:
        backend._conn.close()
    if not kept:
        assert path.with_suffix(".damaged").exists()
        raise PiggyError("the journal was moved aside")


def make_history(rng: random.Random) -> bytes:
    """Lines of a history, most of them ours."""
    lines = [
        json.dumps(_odd(rng, LINE) if rng.random() < 0.6 else LINE | {"run": number}).encode()
        for number in range(3)
    ]
    whole = b"\n".join(lines) + b"\n"
    return mutated(rng, whole, TOKENS) if rng.random() < 0.4 else whole


def check_history(data: bytes, folder: Path) -> None:
    """Read it as `why` and `plan` do."""
    path = folder / "history.jsonl"
    path.write_bytes(data)
    graph = explain.Graph([])
    for seconds in history.durations(path, 5).values():
        terminal.took(sum(seconds) / len(seconds))
    ran = history.last_run(path)
    for name in ran:
        terminal.printable(name + explain.plain(explain.own(graph, name, ran)[1], str)).encode()
    assert all(isinstance(name, str) for name in history.brought_back(path))
    if not ran:
        raise PiggyError("nothing was ever run")


def make_caches(rng: random.Random) -> tuple[bool, bytes]:
    """The bytes of stamps or codes, changed."""
    numbers = [rng.choice([number for number in NUMBERS if 0 <= number < 2**64]) for _ in range(4)]
    stamps = msgspec.msgpack.encode(
        {"a.c": [*numbers, DIGEST], "b\0": [1, 2, 3, 4, "../../target"]}
    )
    known = msgspec.msgpack.encode({"state": "x", "ids": {"a.b": [DIGEST[:16], {"/f": DIGEST}]}})
    first = rng.random() < 0.5
    data = stamps if first else known
    changed = mutated(
        rng,
        data,
        [b"\x91" * 3000, b"\x81\xa1a" * 2000, b"\xc0", b"\xa1\xff", b"\xdf\xff\xff\xff\xff"],
    )
    return first, files.sealed(changed if rng.random() < 0.8 else data)


def check_caches(data: tuple[bool, bytes], folder: Path) -> None:
    """Read them, use and write them."""
    path, source = folder / "cache", folder / "a.c"
    path.write_bytes(data[1])
    source.write_text("x")
    if data[0]:
        stamps = Stamps(path)
        for name in (str(source), "a.c", "b\0", str(folder), "/" * 5000):
            stamps.digest(name)
            stamps.when(name)
        assert stamps.digest(source) == "2d711642b726b04401627ca9fbac32f5"
        stamps._dirty = True
        stamps.save()
        read = bool(Stamps(path)._load()) and "b\0" in Stamps(path)._load()
    else:
        ids = Codes(path, Stamps(folder / "stamps"), begun=1)
        assert ids._load().state != "x"  # another state is never looked at
        try:
            read = files.unpacked(data[1], code_index._Known).state == "x"
        except (msgspec.MsgspecError, ValueError, RecursionError):
            read = False
        assert ids.of(check_history) == code_index.code_id(check_history)
    if not read:
        raise PiggyError("nothing is known")


TARGETS = [
    Target("journal record", make_record, check_record),
    Target("journal file", make_database, check_database),
    Target("history", make_history, check_history),
    Target("stamps and codes", make_caches, check_caches),
]
