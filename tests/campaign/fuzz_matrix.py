"""matrix.json, which the next run adds its row to."""

from __future__ import annotations

import json
import random
from pathlib import Path

from fuzz import NUMBERS, Target, mutated

from tasks.reports import table
from tasks.reports.table import Row, Sizes
from tasks.system.errors import PiggyError

ROWS = {
    "pc": {
        "machine": "pc",
        "result": "booted",
        "date": "2026-01-01",
        "arch": "i386",
        "image": "bzImage",
        "kernel": "6.1",
        "sizes": {"vmlinux": 1, "image": 2, "busybox": 3, "rootfs": 4},
        "accel": "tcg",
        "ready": 1.5,
        "build": 2.5,
    },
    "mps2": {"machine": "mps2", "result": "failed", "date": "x", "error": "it | went \\ wrong"},
}
TOKENS = [
    b"null",
    b"{",
    b"[" * 5000,
    b'"\\u0000"',
    b'"\\u001b[2J"',
    b"1e999",
    b"-1",
    b"9" * 500,
    b'"result": "new"',
    b"\xff",
    b'"ready":',
    b"0.0",
    b'"a\\nb"',
    b'"|"',
    b"true",
]
VALUES = [None, True, "", "x", "a|b\n", "\x1b[2J", [], {}, 1.5, -0.0, *NUMBERS]
NEW = Row(machine="pc", result="built", date="now", sizes=Sizes(1, 2, 3, 4), kernel="6.1")


def rows(rng: random.Random) -> bytes:
    """The rows of earlier runs: of another shape, with other values, or damaged."""
    rows = json.loads(json.dumps(ROWS))
    for _ in range(rng.randint(0, 3)):
        row = rows[rng.choice(list(rows))]
        if isinstance(row, dict):
            row[rng.choice([*Row.__struct_fields__, "other"])] = rng.choice(VALUES)
    if rng.random() < 0.1:
        rows[rng.choice(list(rows))] = rng.choice(VALUES)
    data = json.dumps(rows).encode()
    return mutated(rng, data, TOKENS, 2) if rng.random() < 0.5 else data


def keep(data: bytes, folder: Path) -> None:
    """Add a row: it is there afterwards, and so is what could be read; both tables can be shown."""
    path = folder / "matrix.json"
    path.write_bytes(data)
    before = table.read(path)
    table.keep(folder, NEW, ["pc", "mps2"])
    after = table.read(path)
    assert after["pc"].date == "now"
    assert after["pc"].result == "built"
    assert {name: row for name, row in before.items() if name == "mps2"} == {
        name: row for name, row in after.items() if name != "pc"
    }
    lines = (folder / "matrix.md").read_text().splitlines()
    assert len(lines) == 2 + len(after), lines
    assert len(table.plain(before.values()).splitlines()) == 1 + len(before)
    if not before:
        raise PiggyError("no rows were read")


TARGETS = [Target("matrix", rows, keep)]
