"""Busybox and the root filesystem's image, byte by byte."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tasks.filesystem import floppy
from tasks.filesystem.tree import Entry
from tasks.reports import size, size_against
from tasks.reports.size_options import Limits
from tasks.system.errors import PiggyError
from tasks.tuning import builds, userspace
from tasks.tuning.builds import Build
from tasks.tuning.image import Row
from tests.support.linking import SOURCES, link

UUID = "70696767-7962-4163-8b00-000000000009"


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
    assert userspace.applets(found, ["ls", "cat"]) == [Row(0, own, "coreutils/ls.o", "ls")]


def build_of(folder: Path, **files: str) -> Build:
    """A build of which these files alone are there."""
    paths = {"vmlinux": "vmlinux", **files}
    there = {name: folder / file for name, file in paths.items()}
    return builds._build("it", there, "bzImage", None, folder, folder / "obj")


def test_an_applet_is_told_by_its_object(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one object has several applets, one that goes does not take the others with it."""
    build = build_of(folder, busybox="busybox")
    (folder / "busybox.links").write_text("/bin/ls\n/bin/panic\n")
    same = size_against.rest(build, build, "applets")
    assert same.symbols == []
    old = [Row(0, 9, "archival/bbunzip.o", "bunzip2, unxz")]
    rows = {"new": [Row(0, 7, "archival/bbunzip.o", "bunzip2")], "old": old}
    monkeypatch.setattr(size_against, "apart", lambda one, name: rows[one.name])
    old_one, new_one = (msgspec.structs.replace(build, name=name) for name in ("old", "new"))
    found = size_against.rest(new_one, old_one, "applets")
    assert [(one.name, one.by, one.where) for one in found.symbols] == [
        ("bunzip2", -2, "archival/bbunzip.o")
    ]


def test_what_can_not_be_read_is_one_sentence(folder: Path) -> None:
    (folder / "rootfs.ext2").touch()
    build = build_of(folder, busybox="busybox", rootfs="rootfs.ext2")
    with pytest.raises(PiggyError, match=r"busybox.links can't be read: No such file"):
        size_against.apart(build, "applets")
    (folder / "busybox.links").write_text("")
    with pytest.raises(PiggyError, match=r"busybox.links is empty"):
        size_against.apart(build, "applets")
    (folder / "rootfs.ext2").unlink()
    (folder / "rootfs.ext2").symlink_to("rootfs.ext2")
    with pytest.raises(PiggyError, match=r"rootfs.ext2 can't be read"):
        size_against.apart(build, "rootfs")
    with pytest.raises(PiggyError, match="it has no floppy"):
        size_against.apart(build, "floppy")
    for content in ("", "garbage\n"):
        (folder / "obj" / "busybox_unstripped.map").write_text(content)
        with pytest.raises(PiggyError, match="is not the map of"):
            size_against.apart(build, "busybox")


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


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A floppy with a kernel that is none but for its head."""
    kernel, path = tmp_path / "bzImage", tmp_path / "floppy.img"
    head = bytearray(0x212)
    struct.pack_into("<4sH", head, 0x202, b"HdrS", 0x20F)
    head[0x211] = 1
    kernel.write_bytes(head + bytes(range(256)) * 1500)
    floppy.build(bytes(1024), kernel, "quiet", path, uuid=UUID, epoch=1)
    return path


def test_a_floppy_by_what_lies_on_it(image: Path, tmp_path: Path) -> None:
    found = userspace.files(image)
    total: dict[str, int] = {}
    for row in found:
        total[row.object] = total.get(row.object, 0) + row.size
    assert sum(total.values()) == image.stat().st_size == 1_474_560
    assert (total["(loader)"], total["cmdline"]) == (1024, len("quiet\n"))
    assert total["bzImage"] == (tmp_path / "bzImage").stat().st_size
    assert set(total) == {"(loader)", "(filesystem)", "(free)", "FAT", "bzImage", "cmdline"}
    assert userspace.taken(found) == 1_474_560 - total["(free)"]


def test_a_limit_of_a_floppy_is_on_what_is_taken(image: Path) -> None:
    build: Any = SimpleNamespace(files={"floppy": image})
    record: Any = SimpleNamespace(files={"floppy": 1_474_560})
    none, given = Limits({}, {}), Limits({}, {"floppy": 5})
    assert size._limited(build, record, none) == record.files
    taken = userspace.taken(userspace.files(image))
    assert size._limited(build, record, given) == {"floppy": taken}
    assert taken < 1_000_000
    image.write_bytes(b"spoilt")
    assert size._limited(build, record, none) == record.files
    with pytest.raises(PiggyError, match="is no ext2 image"):
        size._limited(build, record, given)


def test_a_file_that_is_named_like_free_room_is_not_free(image: Path, tmp_path: Path) -> None:
    before = userspace.taken(userspace.files(image))
    (tmp_path / "more").write_bytes(b"x" * 50_000)
    command = f"write {tmp_path / 'more'} (free)"
    subprocess.run(["debugfs", "-w", "-R", command, image], check=True, capture_output=True)
    found = userspace.files(image)
    assert userspace.taken(found) - before >= 50_000
    assert sum(row.size for row in found if row.object == "./(free)") == 50_000
