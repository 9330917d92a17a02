"""What each byte of an ext2 image is, held against mke2fs, debugfs and the files themselves."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.filesystem import ext2, ext2_areas, tree
from tasks.filesystem.ext2_areas import BOOT, END, FILE, FOLDER, FREE, TABLES, Area
from tasks.system.errors import PiggyError

TOOLS = ("mke2fs", "debugfs", "e2fsck")
UUID, EPOCH, SIZE = "70696767-7962-4163-8b00-000000000009", 1767225600, 1_474_560

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs {', '.join(TOOLS)}"
)


def built(image: Path, size: int | None = SIZE, **contents: bytes) -> ext2.Stats:
    entries = [tree.Entry("/", "dir", tree.DIR_MODE), tree.Entry("/sub", "dir", tree.DIR_MODE)]
    entries += [tree.Entry(f"/{name}", "file", 0o644, source=it) for name, it in contents.items()]
    entries += [tree.Entry("/short", "link", 0o777, target="target")]
    ordered = tree.in_order(entries)
    return ext2.build(ordered, image, size=size, label="x", uuid=UUID, epoch=EPOCH)


def sums(found: list[Area]) -> dict[tuple[str, str], int]:
    """The bytes of each kind and path; the areas follow each other without a gap."""
    total: dict[tuple[str, str], int] = {}
    at = 0
    for area in found:
        assert area.offset == at
        assert area.size > 0
        at += area.size
        total[area.kind, area.path] = total.get((area.kind, area.path), 0) + area.size
    return total


def test_each_byte_is_in_one_area(tmp_path: Path) -> None:
    image = tmp_path / "image"
    content = random.Random(1).randbytes(900_001)  # with blocks of pointers of two levels
    stats = built(image, bzImage=content, cmdline=b"quiet\n", empty=b"")
    data = image.read_bytes()
    found = ext2_areas.areas(data, "image")
    total = sums(found)
    assert sum(total.values()) == SIZE
    assert total[BOOT, ""] == 1024
    assert total[FREE, ""] == stats.bytes_free
    assert total[FILE, "bzImage"] == 900_001
    assert total[FILE, "cmdline"] == 6
    assert total[END, ""] == -900_001 % 1024 + 1024 - 6
    assert total[FOLDER, "sub"] == 1024
    assert (FILE, "empty") not in total
    parts = [data[a.offset : a.offset + a.size] for a in found if a.path == "bzImage"]
    assert b"".join(parts) == content


def test_what_a_guest_wrote_is_seen(tmp_path: Path) -> None:
    image, own = tmp_path / "image", tmp_path / "own"
    built(image, bzImage=b"k" * 5000)
    own.write_bytes(b"mine" * 500)
    script = f"rm bzImage\nwrite {own} sub/own\nln sub/own other\nsymlink long {'x' * 100}\n"
    subprocess.run(["debugfs", "-w", "-f", "-", image], input=script, text=True, check=True)
    total = sums(ext2_areas.areas(image.read_bytes(), "image"))
    paths = {path for kind, path in total if kind == FILE}
    assert (FILE, "bzImage") not in total
    assert paths - {"long"} in ({"sub/own"}, {"other"})  # of two names, one has it
    assert total[FILE, "long"] == 100
    assert sum(size for (kind, path), size in total.items() if path in paths - {"long"}) == 2000


def test_an_image_of_several_groups(tmp_path: Path) -> None:
    image = tmp_path / "image"
    stats = built(image, 20 << 20, large=b"z" * (9 << 20))
    total = sums(ext2_areas.areas(image.read_bytes(), "image"))
    assert total[FREE, ""] == stats.bytes_free
    assert total[FILE, "large"] == 9 << 20
    behind = ext2_areas.areas(image.read_bytes() + bytes(7), "image")
    assert behind[-1].kind == FREE
    assert sum(area.size for area in behind) == (20 << 20) + 7


def test_holes_take_nothing(tmp_path: Path) -> None:
    image, own = tmp_path / "image", tmp_path / "own"
    built(image)
    with own.open("wb") as stream:
        stream.seek(300_000)
        stream.write(b"end")
    script = f"write {own} sparse\n"
    subprocess.run(["debugfs", "-w", "-f", "-", image], input=script, text=True, check=True)
    total = sums(ext2_areas.areas(image.read_bytes(), "image"))
    assert total[FILE, "sparse"] == 300_003 % 1024


def test_damage_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    image = tmp_path / "image"
    built(image, bzImage=b"k" * 300_000, cmdline=b"x")
    data = image.read_bytes()
    refused = 0
    # superblock, descriptors, first inodes, pointers, names
    places = ((1024, 100), (2048, 12), (5 * 1024, 2048), (24 * 1024, 16 * 1024))
    chance = random.Random(7)
    for _ in range(400):
        spoilt = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            start, long = chance.choice(places)
            spoilt[start + chance.randrange(long)] = chance.choice((0, 1, 0x7F, 0xFF))
        try:
            found = ext2_areas.areas(bytes(spoilt), "image")
        except PiggyError:
            refused += 1
        else:
            assert sum(area.size for area in found) == SIZE
    assert refused > 20
    for short in (0, 1000, 1100, 3000, 20_000):
        with pytest.raises(PiggyError):
            ext2_areas.areas(data[:short], "image")
    later = bytearray(data)
    later[1024 + 96] |= 0x40  # EXT4_FEATURE_INCOMPAT_EXTENTS
    with pytest.raises(PiggyError, match="has what ext2 has not"):
        ext2_areas.areas(bytes(later), "image")


def test_tables_are_what_is_left(tmp_path: Path) -> None:
    image = tmp_path / "image"
    stats = built(image)
    total = sums(ext2_areas.areas(image.read_bytes(), "image"))
    files = sum(size for (kind, _), size in total.items() if kind in (FILE, FOLDER, END))
    assert total[TABLES, ""] == SIZE - 1024 - stats.bytes_free - files
