"""Device and permission tables (configs/rootfs/*.txt)."""

from __future__ import annotations

import random
from pathlib import Path

from fuzz import Target, mutated

from tasks.filesystem import devices, overlay
from tasks.filesystem.tree import NAME_MAX, PATH_MAX, Entry, Layer, compose, parents
from tasks.system.errors import PiggyError

SAMPLE = (
    b"# NAME TYPE MODE UID GID\n/dev d 755 0 0\n/dev/console c 600 0 0 5 1\n/dev/tty c 620 0 5 4 0"
    b" 0 1 5  # five\n'/a b' p 644 0 0 - - - - -\n/etc/shadow f 4600 1 2\n/dev/hda b 660 0 0 3 1 1"
    b" 1 4\n"
)
TOKENS = [
    b"\n",
    b"'",
    b'"',
    b"\\",
    b"/..",
    b"/../../etc/passwd",
    b"/dev/",
    b" c 600 0 0 1 1\n",
    b"-",
    b"/" + b"n" * 300,
    b"/",
    b" 4096",
    b"/dev/x c 600 0 0 1 0 0 1 4096\n" * 17,
    b"\x0c",
    b"\xe2\x80\xa8",
    b"\xe2\x80\xae",
    b"\r",
    b"#",
    b"\t",
    "\u0661".encode(),
    b"9" * 5000,
    b"f",
    b"d",
    b"p",
    b"b",
]
TREE = compose(
    [
        Layer(
            "x",
            (
                Entry("/etc/shadow", "file", 0o644, source=b"s"),
                Entry("/bin/su", "link", 0o777, target="x"),
            ),
        )
    ]
)


def make(rng: random.Random) -> bytes:
    """A table with some changes."""
    return mutated(rng, SAMPLE, TOKENS, rounds=4)


def check(data: bytes, folder: Path) -> None:
    """Read it, and lay it over a tree: what comes out has plain names within all limits, and keeps
    what was there."""
    (folder / "table.txt").write_bytes(data)
    rows = devices.read(folder / "table.txt")
    assert len(rows) <= devices.ROWS_MAX
    for entry in (row.entry for row in rows):
        assert entry.path == "/" or all(
            part not in ("", ".", "..") for part in entry.path[1:].split("/")
        ), entry
        assert entry.path.isprintable()
        assert len(entry.path.encode()) < PATH_MAX
        assert all(len(part.encode()) <= NAME_MAX for part in entry.path.split("/"))
        assert 0 <= entry.mode <= 0o7777
        assert max(entry.uid, entry.gid) < 0xFFFFFFFF
        assert entry.major <= 0xFFF
        assert entry.minor <= 0xFFFFF
    after = {entry.path: entry for entry in devices.apply(TREE, rows)}
    assert {
        path: entry.kind for path, entry in after.items() if path in {old.path for old in TREE}
    } == {old.path: old.kind for old in TREE}
    assert after["/etc/shadow"].source == b"s"
    assert all(after[parent].kind == "dir" for path in after for parent in parents(path))


def check_modes(data: bytes, folder: Path) -> None:
    """Read it as the table of the overlays' modes: none of what comes out is a device, or without a
    folder above it."""
    (folder / "table.txt").write_bytes(data)
    rows = [(row.entry, row.where) for row in devices.read(folder / "table.txt")]
    if not rows:
        raise PiggyError("an empty table says nothing")
    for table in overlay.tables(rows).values():
        assert {entry.kind for entry in table.values()} <= {"file", "dir"}
        assert all(
            path == entry.path and set(parents(path)) <= set(table) for path, entry in table.items()
        )


MODES = (
    b"# the overlays'\n/base/etc/fstab f 644 0 0\n/base/etc/init.d d 755 0 0\n/network/a/b f 755"
    b" 0 0\n"
)
TARGETS = [
    Target("devices", make, check),
    Target("overlay-modes", lambda rng: mutated(rng, MODES, TOKENS[:-1], rounds=3), check_modes),
]
