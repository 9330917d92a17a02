from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import typing
from pathlib import Path

import pytest
from msgspec.structs import replace

from tasks.config.settings import Settings
from tasks.filesystem import ext2, ext2_limits, tree
from tasks.filesystem.tree import Entry, Layer, compose, content
from tasks.system import process
from tasks.system.errors import PiggyError

pytestmark = pytest.mark.skipif(
    any(
        shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None
        for tool in ("mke2fs", "debugfs", "e2fsck", "dumpe2fs")
    ),
    reason="e2fsprogs is not installed",
)

UUID = "5049c67b-5ad5-4d1e-8f0e-4d2f6c7a1b00"
EPOCH = 1700000000
ODD = [
    "-rf",
    " a b ",
    'q"q',
    '"',
    "<12>",
    "caf\udce9",
    "caf\u00e9",
    "$(x)",
    "a\\b",
    "*",
    "#x",
    "!ls",
    "tab\tname",
    "n" * 255,
]


def tool(*argv: object, ok: tuple[int, ...] = (0,)) -> str:
    env = {
        "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        "LC_ALL": "C",
        "TZ": "UTC",
        "DEBUGFS_PAGER": "cat",
    }
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, env=env, check=False)
    output = os.fsdecode(done.stdout + done.stderr)
    assert done.returncode in ok, output
    return output


def build(entries: tuple[Entry, ...], image: Path, **options: object) -> ext2.Stats:
    return ext2.build(entries, image, **{"uuid": UUID, "epoch": EPOCH, **options})  # type: ignore[arg-type]


def sample(folder: Path) -> tuple[Entry, ...]:
    """A tree with each kind of entry, at the limits between ext2's ways to store it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prog\nram").write_bytes(
        bytes(range(256)) * 5000
    )  # a source path that is too long for a line of the script
    found = [
        Entry("/bin/prog", "file", 0o4755, source=folder / "prog\nram"),
        Entry("/bin/link", "link", 0o777, target="prog"),
        Entry("/bin/owned", "link", 0o777, 7, 8, target='/a b/"c"'),
        *(Entry(f"/link/{count}", "link", 0o777, target="t" * count) for count in (59, 60, 1023)),
        *(
            Entry(f"/size/{count}", "file", 0o644, source=b"x" * count)
            for count in (0, 1, 1023, 1024, 12288, 12289, 12288 + 262144, 12289 + 262144)
        ),
        Entry("/size/zeros", "file", 0o600, source=bytes(300000)),
        Entry("/size/sparse", "file", 0o600, source=bytes(100000) + b"x" + bytes(5000)),
        Entry("/tmp", "dir", 0o1777),
        Entry("/root", "dir", 0o700, 70000, 80000),
        Entry("/dev/pipe", "fifo", 0o640),
        Entry("/dev/console", "char", 0o600, 0, 5, major=5, minor=1),
        Entry("/dev/sda", "block", 0o660, major=8),
        Entry("/dev/big", "char", 0o660, major=300, minor=65535),
        *(Entry(f"/odd/{name}", "file", 0o644, source=os.fsencode(name)) for name in ODD),
        *(Entry(f"/odd/dirs/{name}/{name}", "link", 0o777, target=name) for name in ODD),
        Entry(
            "/bin/cap",
            "file",
            0o755,
            attributes=(
                ("security.capability", bytes([1, 0, 0, 2, 0, 32, 10, 34])),
                ("user.empty", b""),
                ("user.odd name", b'\0\n"\xff'),
            ),
        ),
        Entry("/cap", "dir", 0o755, attributes=(("user.bb", b"1"), ("user.z", b"x" * 700))),
        *(Entry(f"/many/{'long' * 20}{count}", "file", 0o644, 1, 2) for count in range(300)),
    ]
    return compose([Layer("sample", tuple(found))])


def words(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def read_back(image: Path, entries: tuple[Entry, ...], tmp_path: Path) -> list[Entry]:
    """Read all entries back with debugfs, one `stat` each, and the content with `dump`."""
    found = []
    for number, entry in enumerate(entries):
        text = tool("debugfs", "-R", f"stat {words(entry.path)}", image)
        assert "Inode:" in text, (entry.path, text)
        kinds = {
            "regular": "file",
            "directory": "dir",
            "symlink": "link",
            "character special": "char",
            "block special": "block",
            "FIFO": "fifo",
        }
        kind = kinds[re.search(r"Type: (.+?)\s+Mode", text)[1]]  # type: ignore[index]
        mode, uid, gid = (
            int(re.search(rf"{key}:\s+(\d+)", text)[1], base)  # type: ignore[index]
            for key, base in (("Mode", 8), ("User", 10), ("Group", 10))
        )
        for key in ("atime", "ctime", "mtime"):
            assert f"{key}: 0x{EPOCH:08x}" in text
        assert "Generation: 0 " in text
        attributes = []
        for key in re.findall(
            r"(?m)^  (.+?) \(\d+\)",
            text.partition("Extended attributes:")[2].partition("BLOCKS:")[0],
        ):
            tool(
                "debugfs", "-R", f"ea_get -f {tmp_path}/ea {words(entry.path)} {words(key)}", image
            )
            attributes.append((key, (tmp_path / "ea").read_bytes()))
        node = re.search(r"Device major/minor number: (\d+):(\d+)", text)
        major, minor = (int(node[1]), int(node[2])) if node else (0, 0)
        item = Entry(
            entry.path,
            kind,
            mode,
            uid,
            gid,
            major=major,
            minor=minor,
            attributes=tuple(sorted(attributes)),
        )
        if kind in ("file", "link"):
            out = tmp_path / f"out{number}"
            fast = re.search(r'Fast link dest: "(.*)"', text)
            if not fast:
                tool("debugfs", "-R", f"dump {words(entry.path)} {out}", image)
            data = os.fsencode(fast[1]) if fast else out.read_bytes()
            item = (
                replace(item, source=data)
                if kind == "file"
                else replace(item, target=os.fsdecode(data))
            )
        found.append(item)
    return found


def names_in(image: Path) -> int:
    """Return the number of inodes in use, the root's included, without nine reserved ones."""
    return int(re.search(r": (\d+)/\d+ files", tool("e2fsck", "-fn", image))[1]) - 9  # type: ignore[index]


def test_what_was_asked_for_is_what_debugfs_reads_back(tmp_path: Path) -> None:
    entries = sample(tmp_path / "in")
    build(entries, tmp_path / "root.ext2")
    chosen = tuple(entry for entry in entries if not entry.path.startswith("/many/")) + entries[-1:]
    wanted = [
        replace(entry, source=content(entry)) if entry.kind == "file" else entry for entry in chosen
    ]
    assert read_back(tmp_path / "root.ext2", chosen, tmp_path) == wanted
    assert names_in(tmp_path / "root.ext2") == len(entries)
    assert tool("debugfs", "-R", "ls -p /many", tmp_path / "root.ext2").count("/100644/1/2/") == 300


def test_same_bytes_elsewhere_and_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(sample(tmp_path / "one"), tmp_path / "one.ext2", free=100000)
    time.sleep(1.1)
    other = tmp_path / "else where" / "it's?offset=1"
    entries = sample(other)
    os.utime(other / "prog\nram", (1, 1))
    os.chmod(other / "prog\nram", 0o700)
    for name, value in (
        ("TZ", "Asia/Tokyo"),
        ("LC_ALL", "de_DE.UTF-8"),
        ("MKE2FS_CONFIG", "/nowhere"),
        ("HOME", "/x"),
        ("E2FSPROGS_FAKE_TIME", "1"),
        ("SOURCE_DATE_EPOCH", "2"),
        ("MKE2FS_DEVICE_SECTSIZE", "4096"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(other)
    before = os.umask(0o077)
    try:
        build(entries, Path("-two.ext2"), free=100000, log=other / "log")
    finally:
        os.umask(before)
    assert (other / "-two.ext2").read_bytes() == (tmp_path / "one.ext2").read_bytes()
    assert (other / "-two.ext2").stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in other.iterdir()) == ["-two.ext2", "log", "prog\nram"]


def test_a_change_changes_the_bytes(tmp_path: Path) -> None:
    entries = compose([Layer("x", (Entry("/a", "file", 0o644, source=b"a"),))])
    build(entries, tmp_path / "0")
    for number, change in enumerate(
        ({"mode": 0o600}, {"uid": 1}, {"path": "/b"}, {"source": b"b"}), 1
    ):
        other = replace(entries[1], **change)  # type: ignore[arg-type]
        build((entries[0], other), tmp_path / str(number))
    assert len({(tmp_path / str(number)).read_bytes() for number in range(5)}) == 5


def test_clean_small_and_only_what_the_ext2_driver_knows(tmp_path: Path) -> None:
    stats = build(sample(tmp_path / "in"), tmp_path / "root.ext2", label="piggyroot")
    tool("e2fsck", "-fn", tmp_path / "root.ext2")
    head = dict(re.findall(r"(.+?):\s+(.+)", tool("dumpe2fs", "-h", tmp_path / "root.ext2")))
    features = {"ext_attr", "filetype", "sparse_super", "large_file"}  # fs/ext2/ext2.h
    assert set(head["Filesystem features"].split()) <= features
    assert (head["Filesystem UUID"], head["Filesystem volume name"]) == (UUID, "piggyroot")
    assert (head["Directory Hash Seed"], head["Filesystem state"]) == (UUID, "clean")
    assert (head["Block size"], head["Inode size"], head["Reserved block count"]) == (
        "1024",
        "128",
        "0",
    )
    assert head["Filesystem created"] == head["Last write time"] == "Tue Nov 14 22:13:20 2023"
    assert (int(head["Block count"]), int(head["Free blocks"]) * 1024) == (
        stats.blocks,
        stats.bytes_free,
    )
    assert (int(head["Inode count"]), int(head["Free inodes"])) == (stats.inodes, stats.inodes_free)
    assert (
        stats.blocks * 1024
        == (tmp_path / "root.ext2").stat().st_size
        == stats.bytes_used + stats.bytes_free
    )
    assert stats.inodes_free >= 64
    assert "lost+found" not in tool("debugfs", "-R", "ls /", tmp_path / "root.ext2")


@pytest.mark.parametrize("free", [0, 1, 5000, 1 << 20, 9 << 20])
def test_a_fitted_image_has_the_free_room_and_little_more(tmp_path: Path, free: int) -> None:
    entries = compose(
        [
            Layer(
                "x",
                tuple(
                    Entry(f"/{count}", "file", 0o644, source=b"x" * 20000) for count in range(20)
                ),
            )
        ]
    )
    stats = build(entries, tmp_path / "root.ext2", free=free)
    assert free <= stats.bytes_free <= free + 64 * 1024
    tool("e2fsck", "-fn", tmp_path / "root.ext2")


@pytest.mark.parametrize("kilobytes", [7600, 7950, 8050, 8100, 8150, 8192, 8250, 16330])
def test_sizes_around_the_end_of_a_block_group(tmp_path: Path, kilobytes: int) -> None:
    """mke2fs drops a group that is too small for its own tables."""
    entries = compose([Layer("x", (Entry("/a", "file", 0o644, source=b"x" * 1024 * kilobytes),))])
    stats = build(entries, tmp_path / "root.ext2")
    assert stats.bytes_free < 80 * 1024
    tool("e2fsck", "-fn", tmp_path / "root.ext2")


def test_a_file_with_a_triple_indirect_block_fits(tmp_path: Path) -> None:
    size = (12 + 256 + 65536 + 257) * 1024
    entries = compose([Layer("x", (Entry("/a", "file", 0o644, source=b"x" * size),))])
    assert build(entries, tmp_path / "root.ext2").bytes_free < 100 * 1024


@pytest.mark.parametrize(
    ("count", "length"),
    [
        *((count, 20) for count in (340, 350, 1000, 1200, 3000)),
        *((count, 255) for count in (35, 36, 40, 800, 1100)),
        (900, 3),
        (1200, 250),
    ],
)
def test_a_folder_with_indirect_blocks_fits(tmp_path: Path, count: int, length: int) -> None:
    """Like a file, a folder of more than 12 blocks, or 12 + 256, has indirect blocks."""
    entries = compose(
        [
            Layer(
                "x",
                tuple(
                    Entry(f"/a/{number:0{length}}", "char", 0o600, major=1)
                    for number in range(count)
                ),
            )
        ]
    )
    stats = build(entries, tmp_path / "root.ext2")
    assert stats.bytes_free < 80 * 1024
    assert names_in(tmp_path / "root.ext2") == len(entries)


@pytest.mark.parametrize("kind", ["size", "free"])
def test_sizes_with_more_inodes_than_a_group_holds(tmp_path: Path, kind: str) -> None:
    stats = build(compose([]), tmp_path / "root.ext2", **{kind: 1 << 30})
    assert stats.bytes_free >= 0.98 * (1 << 30)
    assert stats.blocks * 1024 <= 1.02 * (1 << 30)


def test_what_is_too_large_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(ext2_limits.FILE_MAX + 1)
    large = Entry("/a", "file", 0o644, source=tmp_path / "large")
    folders = tuple(Entry(f"/f/{number}", "dir", 0o755) for number in range(31999))
    crowded = Entry(
        "/a",
        "file",
        0o644,
        attributes=tuple((f"user.{number}", bytes(100)) for number in range(10)),
    )
    monkeypatch.setattr(ext2, "run", None)
    for found, options, message in (
        ((large,), {}, r"/a has 17247252481 bytes; ext2 holds files of up to 17247252480 \(16 GiB"),
        (folders, {}, r"/f has 31999 folders; Linux's ext2 holds 31998 in one \(EXT2_LINK_MAX"),
        (
            (),
            {"free": 10**15},
            r"root.ext2 would have 1000000000000000 bytes or more; an image may have 34359738368",
        ),
        ((), {"size": 10**18 << 10}, r"root.ext2 would have 1024000000000000000000 bytes"),
        (
            (crowded,),
            {},
            r"/a: its extended attributes take 1200 bytes; ext2 holds 988 of one file",
        ),
    ):
        with pytest.raises(PiggyError, match=message):
            build(compose([Layer("x", found)]), tmp_path / "root.ext2", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_a_disk_that_is_too_small_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ext2.files, "free", lambda path: 400000)
    entries = compose([Layer("x", (Entry("/a", "file", 0o644, source=b"x" * 500000),))])
    with pytest.raises(
        PiggyError,
        match=r"no space left on the disk for .*root.ext2: 5\d\d.\d kB needed, 400.0 kB free",
    ):
        build(entries, tmp_path / "root.ext2")
    assert list(tmp_path.iterdir()) == []
    build(compose([]), tmp_path / "root.ext2", size=16 << 20)  # the image is sparse


def test_the_settings_go_up_to_what_an_image_may_have() -> None:
    kinds = typing.get_type_hints(Settings, include_extras=True)
    assert {kinds[name].__metadata__[0].le * 1024 for name in ("rootfs_size", "rootfs_free")} == {
        tree.IMAGE_MAX
    }


def test_attributes_are_a_feature_only_where_there_are_some(tmp_path: Path) -> None:
    for number, attributes in enumerate(((), (("user.x", b"1"),))):
        build(
            compose([Layer("x", (Entry("/a", "file", 0o644, attributes=attributes),))]),
            tmp_path / str(number),
        )
        assert ext2.has_attributes(tmp_path / str(number)) == bool(number)
        assert ("ext_attr" in tool("dumpe2fs", "-h", tmp_path / str(number))) == bool(number)


def test_an_empty_tree_is_an_image(tmp_path: Path) -> None:
    build(compose([]), tmp_path / "root.ext2")
    assert names_in(tmp_path / "root.ext2") == 1


def test_a_fixed_size_is_kept(tmp_path: Path) -> None:
    entries = compose([Layer("x", (Entry("/a", "file", 0o644, source=b"x" * 20000),))])
    stats = build(entries, tmp_path / "root.ext2", size=16 << 20)
    assert (tmp_path / "root.ext2").stat().st_size == 16 << 20
    assert stats.inodes_free > 1000
    tool("e2fsck", "-fn", tmp_path / "root.ext2")


@pytest.mark.parametrize("size", [1024, 64 << 10, 300 << 10])
def test_too_small_a_size_names_both_and_that_which_is_needed_is_enough(
    tmp_path: Path, size: int
) -> None:
    entries = compose([Layer("x", (Entry("/a", "file", 0o644, source=b"x" * 300000),))])
    (tmp_path / "root.ext2").write_text("old")
    with pytest.raises(PiggyError) as caught:
        build(entries, tmp_path / "root.ext2", size=size)
    told = re.fullmatch(
        rf"root\.ext2 needs (\d+) bytes, and its size is set to {size}", caught.value.message
    )
    assert told
    needed = int(told[1])
    assert (tmp_path / "root.ext2").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["root.ext2"]
    build(entries, tmp_path / "root.ext2", size=needed)
    assert (tmp_path / "root.ext2").stat().st_size == needed


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry("/a\nb", "file", 0o644), "line break"),
        (Entry("/a\rb", "dir", 0o755), "line break"),
        (Entry("/a", "link", 0o777, target="x\ny"), "line break"),
        (Entry("/" + "a" * 256, "file", 0o644), "255 bytes"),
        (Entry("/" + "\u00e9" * 128, "file", 0o644), "255 bytes"),
        (Entry("/a", "link", 0o777, target="x" * 1024), "1023 bytes"),
        (Entry("/dir" * 1000 + "/a", "file", 0o644), "too long"),
        (Entry("/a", "char", 0o600, major=1, minor=65536), "/a: .*65535"),
        (
            Entry("/a", "file", 0o644, source=Path("/nowhere/at/all")),
            "/a: can't read /nowhere/at/all: No such file",
        ),
    ],
)
def test_what_ext2_cannot_hold_is_refused_and_nothing_is_left(
    tmp_path: Path, entry: Entry, message: str
) -> None:
    with pytest.raises(PiggyError, match=message):
        build(compose([Layer("x", (entry,))]), tmp_path / "root.ext2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epoch", 0),
        ("epoch", 1 << 31),
        ("uuid", "x"),
        ("label", "x" * 17),
        ("size", 0),
        ("size", 1025),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, option: str, value: object) -> None:
    with pytest.raises(PiggyError, match=re.escape(str(value))):
        build(compose([]), tmp_path / "root.ext2", **{option: value})


def test_what_debugfs_complains_of_is_an_error_although_it_ends_with_0(tmp_path: Path) -> None:
    double = (*compose([]), Entry("/a", "dir", 0o755), Entry("/a", "file", 0o644))
    with pytest.raises(PiggyError, match="debugfs failed: .*exist"):
        build(double, tmp_path / "root.ext2", log=tmp_path / "log")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_missing_tool_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(process, "clean_env", lambda extra: {"PATH": str(tmp_path), **extra})
    with pytest.raises(PiggyError, match="'mke2fs' is not installed"):
        build(compose([]), tmp_path / "root.ext2")


def test_450_entries_take_less_than_two_seconds(tmp_path: Path) -> None:
    entries = compose(
        [
            Layer(
                "x",
                (
                    Entry("/bin/busybox", "file", 0o755, source=b"x" * 1200000),
                    *(
                        Entry(f"/bin/{count}", "link", 0o777, target="busybox")
                        for count in range(450)
                    ),
                ),
            )
        ]
    )
    started = time.process_time() + sum(os.times()[2:4])
    build(entries, tmp_path / "root.ext2")
    assert time.process_time() + sum(os.times()[2:4]) - started < 2
