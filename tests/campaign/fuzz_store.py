"""A store that others wrote to: results, lists of names and contents. What comes back has the
digest that was asked for; nothing outside of the store and the task's folder is written or removed,
whatever a result names."""

from __future__ import annotations

import hashlib
import math
import os
import random
from pathlib import Path
from typing import Any

import msgspec
from fuzz import NUMBERS, Target, mutated

from tasks.cache import store_tag
from tasks.cache.store import Store
from tasks.cache.store_files import short_hash
from tasks.cache.store_tag import LIST
from tasks.system.errors import PiggyError

KEY = short_hash(b"key")
CONTENT = b"what the task made"
DIGEST = short_hash(CONTENT)
NAMES = b"src.c\0include/\0CONFIG_SMP"
PATHS = [
    "xx/etc/passwd",
    "../../../target",
    "../../etc/passwd",
    "/etc/passwd",
    "ab/../../../target",
    "",
    ".",
    "..",
    "a\0b",
    "out/passwd",
    "A" * 32,
    "0" * 31,
    "0" * 33,
    "0" * 32 + "\n",
    DIGEST,
    "\udce9",
]
ODD: list[Any] = [
    None,
    True,
    -1,
    2**40,
    2**63,
    1.5,
    math.nan,
    math.inf,
    "x",
    "",
    b"x",
    [],
    {},
    [[]],
    {"a": {}},
    msgspec.msgpack.Ext(5, b"x"),
]
TOKENS = [
    b"\xc0",
    b"\xc1",
    b"\x91" * 3000,
    b"\x81\xa1a" * 2000,
    b"\xdd" + b"\xff" * 4,
    b"\xdf" + b"\xff" * 4,
    b"\xdb" + b"\xff" * 4,
    b"\xff",
    b"\xa1\xff",
    b"\xc7\x01\x05x",
    b"\xd6\xff" + bytes(4),
    b"src.c",
    b"\0",
]


def _digest(rng: random.Random) -> str:
    path = rng.choice(PATHS)
    return path if rng.random() < 0.8 else path[:2] + "/" * rng.randrange(2) + rng.choice(PATHS)


def make(rng: random.Random) -> tuple[bytes, bytes, bytes]:
    """A result with right checksums, a list of names, and a content; one of them changed, as a
    rule."""
    output: list[Any] = [
        DIGEST,
        len(CONTENT),
        rng.choice([0o644, 0o755, 0o4777, 0o2777, 0, 0o7777]),
    ]
    record: dict[str, Any] = {
        "task": "vmlinux",
        "time": 1.0,
        "values": {"commands": 7},
        "outputs": [output],
        "made": {},
    }
    kind = rng.randrange(8)
    if kind == 0:
        output[rng.randrange(3)] = rng.choice(ODD)
    elif kind == 1:
        output[0] = _digest(rng)
    elif kind == 2:
        output[rng.randrange(1, 3)] = rng.choice(
            [number for number in NUMBERS if -(2**63) <= number < 2**64]
        )
    elif kind == 3:
        record[rng.choice(list(record))] = rng.choice(ODD)
    elif kind == 4:
        record["values"] = {rng.choice(["a", "record", "commands"]): rng.choice(ODD)}
    try:
        data = msgspec.msgpack.encode(record)
    except UnicodeEncodeError:
        data = b"\x81\xa4task\xa1\xff"
    if kind == 5:
        data = mutated(rng, data, TOKENS)
    names = (
        mutated(rng, NAMES, [b"\0", b"/", b"\xff"]) if kind == 6 and rng.random() < 0.5 else NAMES
    )
    content = mutated(rng, CONTENT) if kind == 6 else CONTENT
    whole = hashlib.sha256(data).digest() + data
    return mutated(rng, whole) if kind == 7 and rng.random() < 0.5 else whole, names, content


def check(data: tuple[bytes, bytes, bytes], folder: Path) -> None:
    """Look a task's result up and bring it back; then show, and make room."""
    result, listed, content = data
    top = folder / "store"
    store_tag.tag(top)
    states = [f"{name} now" for name in NAMES.decode().split("\0")]
    place = top / "results" / KEY / short_hash(NAMES) / short_hash("\0".join(states).encode())
    blob = top / "blobs" / DIGEST[:2] / DIGEST[2:]
    for path, text in ((place, result), (place.with_name(LIST), listed), (blob, content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    os.symlink("../../..", top / "blobs" / "xx")
    store = Store(top, 1 << 20)
    target = folder / "image"
    shown = store.results()
    assert place.exists(), "showing removed something"
    found = store.find(KEY, lambda names: {name: f"{name} now" for name in names})
    done = bool(found) and store.bring_back(found[0], [target])
    if done:
        assert found is not None
        assert target.read_bytes() == CONTENT
        assert not target.stat().st_mode & 0o7022
        assert found[1] == NAMES.decode().split("\0")
        msgspec.json.encode(found[0].values)
        assert shown
        assert math.isfinite(shown[0][2].time)
    else:
        assert not target.exists()
    for _, _, one in shown:
        for output in one.outputs:
            store.drop(output.digest)
    for path in PATHS:
        store.drop(path)
    store.trim(0)
    store.clear()
    assert store.size() == 0
    assert not place.exists()
    if not done:
        raise PiggyError("the store has no such result")


TARGETS = [Target("store", make, check)]
