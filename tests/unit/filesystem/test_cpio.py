from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import shutil
import stat
import subprocess
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.filesystem import cpio
from tasks.filesystem.tree import Entry, Layer, compose
from tasks.system.errors import PiggyError

EPOCH = 1700000000
FIELDS = (
    "ino",
    "mode",
    "uid",
    "gid",
    "nlink",
    "mtime",
    "filesize",
    "devmajor",
    "devminor",
    "rdevmajor",
    "rdevminor",
    "namesize",
    "check",
)
NEEDS = {
    tool: pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")
    for tool in ("cpio", "zstd", "lz4")
}


def sample(folder: Path) -> tuple[Entry, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "init").write_bytes(bytes(range(256)) * 40)
    return compose(
        [
            Layer(
                "x",
                (
                    Entry("/sbin/init", "file", 0o4755, source=folder / "init"),
                    Entry("/etc/empty", "file", 0o600, 3, 4),
                    *(
                        Entry(f"/pad/{'n' * count}", "file", 0o644, source=b"x" * count)
                        for count in range(1, 9)
                    ),
                    Entry('/caf\udce9 -"\n', "file", 0o644, source=b"odd"),
                    Entry("/bin/sh", "link", 0o777, target="../x y"),
                    Entry("/dev/console", "char", 0o600, 0, 5, major=5, minor=1),
                    Entry("/dev/sda", "block", 0o660, major=8),
                    Entry("/dev/pipe", "fifo", 0o640),
                    Entry("/tmp", "dir", 0o1777),
                ),
            )
        ]
    )


def parse(data: bytes) -> list[tuple[bytes, dict[str, int], bytes]]:
    """Read a newc archive as the kernel's buffer-format.rst describes it."""
    found: list[tuple[bytes, dict[str, int], bytes]] = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        head = {
            name: int(data[at + 6 + 8 * nth : at + 14 + 8 * nth], 16)
            for nth, name in enumerate(FIELDS)
        }
        name = data[at + 110 : at + 110 + head["namesize"]]
        assert name.endswith(b"\0")
        start = -(-(at + 110 + head["namesize"]) // 4) * 4
        at = -(-(start + head["filesize"]) // 4) * 4
        if name == b"TRAILER!!!\0":
            assert data[at:].strip(b"\0") == b""
            return found
        found.append((name[:-1], head, data[start : start + head["filesize"]]))


def test_each_member_is_what_was_asked_for(tmp_path: Path) -> None:
    entries = sample(tmp_path)
    data = b"".join(cpio.pack(entries, EPOCH))
    assert len(data) % 512 == 0
    types = {
        "file": stat.S_IFREG,
        "dir": stat.S_IFDIR,
        "link": stat.S_IFLNK,
        "char": stat.S_IFCHR,
        "block": stat.S_IFBLK,
        "fifo": stat.S_IFIFO,
    }
    found = parse(data)
    assert len(found) == len(entries)
    for entry, (name, head, body) in zip(entries, found, strict=True):
        assert os.fsdecode(name) == (entry.path[1:] or ".")
        assert head["mode"] == types[entry.kind] | entry.mode
        assert (head["uid"], head["gid"], head["mtime"]) == (entry.uid, entry.gid, EPOCH)
        assert (head["rdevmajor"], head["rdevminor"]) == (entry.major, entry.minor)
        assert (head["devmajor"], head["devminor"], head["check"]) == (0, 0, 0)
        assert head["nlink"] == (2 if entry.kind == "dir" else 1)
        if entry.kind == "link":
            assert os.fsdecode(body) == entry.target
        elif entry.kind == "file":
            assert body == (
                entry.source if isinstance(entry.source, bytes) else entry.source.read_bytes()
            )
        else:
            assert body == b""
    assert len({head["ino"] for _, head, _ in found}) == len(found)


@NEEDS["cpio"]
def test_cpio_itself_reads_it(tmp_path: Path) -> None:
    cpio.build(sample(tmp_path), tmp_path / "ramfs", compression="none", epoch=EPOCH)
    listing = subprocess.run(
        ["cpio", "-itvn", "--quiet"],
        stdin=(tmp_path / "ramfs").open("rb"),
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
    )
    assert listing.stderr == b""
    lines = [
        line.split()
        for line in listing.stdout.decode(errors="replace").splitlines()
        if line.strip()
    ]
    shown = {line[-1]: line for line in lines}
    assert shown["sbin/init"][0] == "-rwsr-xr-x"
    assert shown["tmp"][0] == "drwxrwxrwt"
    assert shown["dev/console"][:6] == ["crw-------", "1", "0", "5", "5,", "1"]
    assert shown["dev/pipe"][0] == "prw-r-----"
    assert shown["etc/empty"][2:4] == ["3", "4"]
    assert shown["sbin/init"][5:8] == ["Nov", "14", "2023"]
    out = subprocess.run(
        ["cpio", "-i", "--quiet", "--to-stdout", "sbin/init"],
        stdin=(tmp_path / "ramfs").open("rb"),
        capture_output=True,
        check=True,
    )
    assert out.stdout == (tmp_path / "init").read_bytes()


def unpack(*argv: str) -> Callable[[bytes], bytes]:
    return lambda data: subprocess.run(argv, input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("name", "magic", "unpacker"),
    [
        ("none", b"070701", bytes),
        ("gzip", b"\x1f\x8b\x08\x00\0\0\0\0", gzip.decompress),
        ("bzip2", b"BZh", bz2.decompress),
        ("xz", b"\xfd7zXZ\0", lzma.decompress),
        ("lzma", b"\x5d\0\0", lzma.decompress),
        pytest.param("zstd", b"\x28\xb5\x2f\xfd", unpack("zstd", "-dqc"), marks=NEEDS["zstd"]),
        pytest.param("lz4", b"\x02\x21\x4c\x18", unpack("lz4", "-dqc"), marks=NEEDS["lz4"]),
    ],
)
def test_each_compression_has_the_kernels_magic_and_the_same_bytes_twice(
    tmp_path: Path,
    name: str,
    magic: bytes,
    unpacker: Callable[[bytes], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = sample(tmp_path / "one")
    cpio.build(entries, tmp_path / "one.img", compression=name, epoch=EPOCH)
    time.sleep(
        1.1 if name in ("gzip", "zstd", "lz4") else 0
    )  # those whose formats could hold a time
    again = sample(tmp_path / "two -x")
    os.utime(tmp_path / "two -x/init", (1, 1))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.chdir(tmp_path / "two -x")
    cpio.build(again, Path("-other name"), compression=name, epoch=EPOCH)
    data = (tmp_path / "one.img").read_bytes()
    assert data == (tmp_path / "two -x/-other name").read_bytes()
    assert data.startswith(magic)  # lib/decompress.c
    members = [member for member, _, _ in parse(unpacker(data))]
    assert b"init" in members
    assert sorted(path.name for path in (tmp_path / "two -x").iterdir()) == ["-other name", "init"]
    assert (tmp_path / "one.img").stat().st_mode & 0o777 == 0o644


def test_xz_carries_the_only_check_that_the_kernel_knows(tmp_path: Path) -> None:
    cpio.build(sample(tmp_path), tmp_path / "x", compression="xz", epoch=EPOCH)
    assert (tmp_path / "x").read_bytes()[6:8] == bytes([0, lzma.CHECK_CRC32])


def links(archive: Path) -> dict[bytes, bytes]:
    return {
        name: body for name, head, body in parse(archive.read_bytes()) if stat.S_ISLNK(head["mode"])
    }


def test_init_is_added_only_where_there_is_none(tmp_path: Path) -> None:
    entries = sample(tmp_path)
    cpio.build(entries, tmp_path / "a", compression="none", epoch=EPOCH)
    assert links(tmp_path / "a")[b"init"] == b"sbin/init"
    cpio.build(entries, tmp_path / "b", compression="none", epoch=EPOCH, init_link="")
    assert b"init" not in links(tmp_path / "b")
    own = (*entries, Entry("/init", "file", 0o755, source=b"own"))
    cpio.build(own, tmp_path / "c", compression="none", epoch=EPOCH)
    assert [body for name, _, body in parse((tmp_path / "c").read_bytes()) if name == b"init"] == [
        b"own"
    ]


def test_an_init_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PiggyError, match="no init in the root file system: the kernel looks for /init, /sbin/init"
    ):
        cpio.build(compose([]), tmp_path / "a", epoch=EPOCH)
    assert list(tmp_path.iterdir()) == []


def test_wrong_options_and_sources_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="unknown compression 'gz'. Did you mean 'gzip'"):
        cpio.build(compose([]), tmp_path / "a", compression="gz", epoch=EPOCH)
    with pytest.raises(PiggyError, match="-1"):
        cpio.build(compose([]), tmp_path / "a", epoch=-1)
    gone = compose([Layer("x", (Entry("/a", "file", 0o644, source=tmp_path / "gone"),))])
    with pytest.raises(PiggyError, match="/a: can't read .*gone"):
        cpio.build(gone, tmp_path / "a", epoch=EPOCH, init_link="")
    long = compose([Layer("x", (Entry("/" + "a" * 4096, "file", 0o644),))])
    with pytest.raises(PiggyError, match="less than 4096"):
        cpio.build(long, tmp_path / "a", epoch=EPOCH, init_link="")
    assert list(tmp_path.iterdir()) == []


@NEEDS["cpio"]
def test_a_file_that_is_called_as_the_end_of_the_archive_does_not_end_it(tmp_path: Path) -> None:
    entries = compose(
        [
            Layer(
                "x",
                tuple(
                    Entry(path, "file", 0o644, source=path.encode())
                    for path in ("/TRAILER!!!", "/a/TRAILER!!!", "/z")
                ),
            )
        ]
    )
    cpio.build(entries, tmp_path / "ramfs", compression="none", epoch=EPOCH, init_link="")
    found = {name: body for name, _, body in parse((tmp_path / "ramfs").read_bytes())}
    assert found == {
        b".": b"",
        b"./TRAILER!!!": b"/TRAILER!!!",
        b"a": b"",
        b"a/TRAILER!!!": b"/a/TRAILER!!!",
        b"z": b"/z",
    }
    (tmp_path / "out").mkdir()
    subprocess.run(
        ["cpio", "-i", "--quiet"],
        stdin=(tmp_path / "ramfs").open("rb"),
        cwd=tmp_path / "out",
        check=True,
    )
    assert (tmp_path / "out/TRAILER!!!").read_text() == "/TRAILER!!!"
    assert (tmp_path / "out/z").read_text() == "/z"


def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(256 << 20)
    entries = compose([Layer("x", (Entry("/a", "file", 0o644, source=tmp_path / "large"),))])
    tracemalloc.start()
    try:
        cpio.build(entries, tmp_path / "ramfs", compression="none", epoch=EPOCH, init_link="")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert (tmp_path / "ramfs").stat().st_size > 256 << 20


def test_what_is_too_large_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(1 << 32)
    entries = compose([Layer("x", (Entry("/a", "file", 0o644, source=tmp_path / "large"),))])
    with pytest.raises(
        PiggyError, match="/a has 4294967296 bytes; a cpio archive holds files of up to 4294967295 "
    ):
        cpio.build(entries, tmp_path / "ramfs", epoch=EPOCH, init_link="")
    os.truncate(tmp_path / "large", 1 << 20)
    monkeypatch.setattr(cpio.files, "free", lambda path: 1 << 20)
    with pytest.raises(PiggyError, match="no space left on the disk for .*ramfs: 1.0 MB needed"):
        cpio.build(entries, tmp_path / "ramfs", compression="none", epoch=EPOCH, init_link="")
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_the_bytes_do_not_depend_on_where_the_pieces_end(tmp_path: Path) -> None:
    """The output is that of a compressor which gets the archive at once."""
    (tmp_path / "data").write_bytes(random.Random(1).randbytes(1 << 20) * 3)
    entries = compose(
        [
            Layer(
                "x",
                (Entry("/a", "file", 0o644, source=tmp_path / "data"), Entry("/b", "file", 0o644)),
            )
        ]
    )
    cpio.build(entries, tmp_path / "ramfs", epoch=EPOCH, init_link="")
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    assert (tmp_path / "ramfs").read_bytes() == packer.compress(
        b"".join(cpio.pack(entries, EPOCH))
    ) + packer.flush()


def test_memory_is_taken_by_pages() -> None:
    assert (
        cpio.in_memory(
            compose(
                [
                    Layer(
                        "x",
                        tuple(
                            Entry(f"/{size}", "file", 0o644, source=bytes(size))
                            for size in (0, 1, 4096, 4097)
                        ),
                    )
                ]
            )
        )
        == 4 * 4096
    )
