"""Busybox and the root filesystem's image, byte by byte."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from tasks.filesystem.tree import Entry
from tasks.system.errors import PiggyError
from tasks.tuning import userspace
from tasks.tuning.image import Row
from tests.support.linking import SOURCES, link


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as busybox's build leaves it, with a stripped program beside it."""
    sources = {**SOURCES, "coreutils/ls.c": "int ls_main(void) { return 3; }"}
    obj = tmp_path / "obj"
    linked = link(obj, sources=sources)
    linked.program.rename(obj / "busybox_unstripped")
    linked.plan.rename(obj / "busybox_unstripped.map")
    linked.stripped.rename(tmp_path / "busybox")
    return tmp_path


def test_busybox_by_object_and_applet(folder: Path) -> None:
    found = userspace.busybox(folder / "busybox", folder / "obj")
    assert sum(row.size for row in found) == (folder / "busybox").stat().st_size
    ls = next(row for row in found if row.name == "ls_main")
    assert ls.object == "coreutils/ls.o"
    own = sum(row.size for row in found if row.object == "coreutils/ls.o")
    assert userspace.applets(found, ["ls", "cat"]) == {"ls": own}


def test_members_of_libraries_are_named_by_the_library(tmp_path: Path) -> None:
    row = Row(0, 5, "/opt/musl/lib/printf.lo", "printf", ".text")
    assert userspace._library(row).object == "(libraries)/lib/printf.lo"


def test_a_busybox_of_another_folder_is_refused(folder: Path) -> None:
    other = {**SOURCES, "kernel/other.c": "int because(int a) { return a * 7 + 1; }"}
    link(folder / "elsewhere", sources=other).stripped.rename(folder / "other")
    with pytest.raises(PiggyError, match="is not what .* was stripped to"):
        userspace.busybox(folder / "other", folder / "obj")
    shutil.rmtree(folder / "obj")
    with pytest.raises(PiggyError, match="there is no"):
        userspace.busybox(folder / "busybox", folder / "obj")


def ext2(path: Path, size: int, free: int, magic: int = 0xEF53) -> Path:
    head = bytearray(size)
    struct.pack_into("<I", head, 1024 + 12, free)
    struct.pack_into("<H", head, 1024 + 56, magic)
    path.write_bytes(head)
    return path


def test_the_root_filesystem_by_layer(tmp_path: Path) -> None:
    layer = tmp_path / "base"
    layer.mkdir()
    (layer / "inittab").write_bytes(b"x" * 70)
    (tmp_path / "busybox").write_bytes(b"b" * 1000)
    entries = [
        Entry("/", "dir", 0o755),
        Entry("/bin/busybox", "file", 0o755, source=tmp_path / "busybox"),
        Entry("/etc/inittab", "file", 0o644, source=layer / "inittab"),
        Entry("/etc/made", "file", 0o644, source=b"text"),
        Entry("/bin/ls", "link", 0o777, target="busybox"),
    ]
    image = ext2(tmp_path / "image", 64 << 10, 40)
    found = userspace.rootfs(image, entries, [layer], tmp_path / "busybox")
    assert {row.object: row.size for row in found} == {
        "busybox/bin/busybox": 1000,
        "base/etc/inittab": 70,
        "(made)/etc/made": 4,
        "(filesystem)": (64 << 10) - (40 << 10) - 1074,
        "(free)": 40 << 10,
    }


def test_an_image_that_can_not_be_of_the_tree(tmp_path: Path) -> None:
    entries = [Entry("/big", "file", 0o644, source=b"x" * 9000)]
    with pytest.raises(PiggyError, match="is smaller than the files"):
        userspace.rootfs(ext2(tmp_path / "image", 8192, 0), entries, [], tmp_path / "busybox")
    with pytest.raises(PiggyError, match="is no ext2 image"):
        userspace.rootfs(ext2(tmp_path / "image", 8192, 0, 1), [], [], tmp_path / "busybox")
