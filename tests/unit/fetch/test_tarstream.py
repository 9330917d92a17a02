from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from tarbytes import END, extension, header, padded, record

from tasks.fetch import decompress, tarstream
from tasks.fetch.tarstream import Member
from tasks.system.errors import PiggyError


def read(path: Path) -> list[tuple[Member, bytes]]:
    with tarstream.members(path) as members:
        return [(member, data.read()) for member, data in members]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_it_reads_what_tarfile_writes_as_tarfile_does(tmp_path: Path, form: int) -> None:
    path = tmp_path / "t.tar"
    longer = 80 if form == tarfile.USTAR_FORMAT else 300
    with tarfile.open(path, "w", format=form) as tar:
        for number, (kind, name, target) in enumerate(
            [
                (tarfile.DIRTYPE, "t", ""),
                (tarfile.REGTYPE, "t/a", ""),
                (tarfile.REGTYPE, "t/" + "d" * 90 + "/" + "n" * 90, ""),
                (tarfile.SYMTYPE, "t/l", "x" * longer),
                (tarfile.LNKTYPE, "t/h", "t/a"),
                (tarfile.FIFOTYPE, "t/p", ""),
                (tarfile.REGTYPE, "t/\u00e4\udce4", ""),
                (tarfile.AREGTYPE, "t/old", ""),
                (tarfile.CONTTYPE, "t/c", ""),
            ]
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode, info.mtime = (
                kind,
                target,
                0o4000 + number,
                1000 + number,
            )
            info.size = (
                700 * number if kind in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) else 0
            )
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    kinds = {
        "file": tarfile.TarInfo.isreg,
        "folder": tarfile.TarInfo.isdir,
        "link": tarfile.TarInfo.issym,
        "hard": tarfile.TarInfo.islnk,
        "other": tarfile.TarInfo.isdev,
    }
    with tarfile.open(path) as tar:
        known = tar.getmembers()
        contents = [tar.extractfile(info).read() if info.isreg() else b"" for info in known]  # type: ignore[union-attr]
    found = read(path)
    assert [(one.name, one.target, one.mode, one.size, one.mtime) for one, _ in found] == [
        (info.name, info.linkname, info.mode, info.size, info.mtime) for info in known
    ]
    assert all(kinds[one.kind](info) for (one, _), info in zip(found, known, strict=True))
    assert [data for _, data in found] == contents


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        (extension(b"L", b"x" * (1 << 20)), "headers of more than 1,048,576 bytes"),
        (header(b"./@", b"7" * 11, b"x"), "headers of more than"),
        (header(b"./@", b"7" * 11, b"K"), "headers of more than"),
        (header(b"./@", b"7" * 11, b"g"), "headers of more than"),
        (extension(b"L", b"a") * 3000, "headers of more than"),
        (header(size=b"\x80" + b"\xff" * 11), "a number that is none"),
        (header(size=b"\xff" * 12), "a number that is none"),
        (header(size=b"-1"), "a number that is none"),
        (header(size=b"0o17"), "a number that is none"),
        (header(size=b"1_0"), "a number that is none"),
        (header(mode=b"9"), "a number that is none"),
        (
            extension(b"x", record(b"size", b"9" * 200_000)) + header(),
            "a number that is none in the pax header",
        ),
        (
            extension(b"x", record(b"size", b"-1")) + header(),
            "a number that is none in the pax header",
        ),
        (
            extension(b"g", record(b"size", b"1e3")) + header(),
            "a number that is none in the pax header",
        ),
        (
            extension(b"x", b"9" * 200_000 + b" path=x\n") + header(),
            "a malformed pax header at byte 0",
        ),
        (extension(b"x", b"0 path=x\n") + header(), "a malformed pax header"),
        (extension(b"x", b"99 path=x\n") + header(), "a malformed pax header"),
        (extension(b"x", b"9 path=x") + header(), "a malformed pax header"),
        (extension(b"x", b"8 path x\n") + header(), "a malformed pax header"),
        (extension(b"x", b"-9 path=x\n") + header(), "a malformed pax header"),
        (extension(b"x", b"5 =x\n") + header(), "a malformed pax header"),
        (extension(b"L", b"name"), "a header without its member at byte 1024"),
        (header(size=b"1000") + b"x" * 100, "it ends in the middle of a member"),
        (header(b"./@", b"1000", b"x"), "it ends in the middle of a member"),
    ],
)
def test_headers_that_run_away_are_damage(tmp_path: Path, blocks: bytes, said: str) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(blocks + (END if "middle" not in said else b""))
    tracemalloc.start()
    try:
        with pytest.raises(PiggyError, match=f"t.tar is damaged: {said}"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "blocks",
    [
        header(kind=b"S", rest=b"7" * 80),
        extension(b"x", record(b"GNU.sparse.map", b"1," * 1000)) + header(),
        extension(b"x", record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0"))
        + header(),
        extension(b"x", record(b"GNU.sparse.size", b"9" * 5000)) + header(),
    ],
)
def test_a_sparse_file_is_something_else(tmp_path: Path, blocks: bytes) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(blocks + END)
    assert [member.kind for member, _ in read(path)] == ["other"]


def test_many_records_for_all_members_take_no_memory(tmp_path: Path) -> None:
    """Each global header is small, but what it says holds on to the end of the archive."""
    path, count = tmp_path / "t.tar", 3000
    with path.open("wb") as file:
        for number in range(60):
            words = (b"GNU.sparse.%x" % (number * count + one) for one in range(count))
            file.write(extension(b"g", b"".join(record(word, b"1") for word in words)) + header())
        file.write(END)
    tracemalloc.start()
    try:
        assert {member.kind for member, _ in read(path)} == {"other"}
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_pax_records_and_long_names(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    odd = (
        record(b"path", b"t/a=b\nc \xff")
        + record(b"mtime", b"12.5")
        + record(b"size", b"3")
        + record(b"comment", b"\0")
    )
    path.write_bytes(
        extension(b"g", record(b"comment", b"a commit") + record(b"mtime", b"7"))
        + extension(b"x", odd)
        + header(size=b"777")
        + padded(b"abc")
        + extension(b"L", b"t/long\0rest")
        + extension(b"K", b"to\0")
        + header(kind=b"2", link=b"short")
        + extension(b"x", record(b"mtime", b""))
        + header(b"name", mtime=b"11", prefix=b"t")
        + header(b"name", prefix=b"12345", magic=b"ustar  \0")
        + header(b"t/old/", kind=b"\0", magic=b"")
        + END
    )
    members = read(path)
    assert [
        (one.name, one.kind, one.size, one.mtime, one.target, data) for one, data in members
    ] == [
        ("t/a=b\nc \udcff", "file", 3, 12.5, "", b"abc"),
        ("t/long", "link", 0, 7, "to", b""),
        ("t/name", "file", 0, 9, "", b""),
        ("name", "file", 0, 7, "", b""),
        ("t/old", "folder", 0, 7, "", b""),
    ]


def zeros(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(1 << 20)


def bomb(kind: str, path: Path, count: int) -> None:
    """Write `count` MiB of zeros, compressed, behind one member's header."""
    opened = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}[kind](path, "wb")
    with opened as stream:
        stream.write(header(size=b"7" * 11))
        for chunk in zeros(count):
            stream.write(chunk)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(tarstream, "SIZE_FLOOR", 2 << 20)
    path = tmp_path / f"t.tar.{kind}"
    bomb(kind, path, 16)
    with pytest.raises(
        PiggyError,
        match=f"it unpacks to more than {max(2 << 20, path.stat().st_size * 64):,} bytes",
    ):
        read(path)


def test_a_bomb_behind_the_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarstream, "SIZE_FLOOR", 2 << 20)
    path = tmp_path / "t.tar.xz"
    path.write_bytes(lzma.compress(header() + END) + lzma.compress(bytes(16 << 20)))
    with pytest.raises(PiggyError, match="it unpacks to more than"):
        read(path)


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarstream, "MEMBERS", 3)
    path = tmp_path / "t.tar"
    path.write_bytes(header() * 2 + END)
    assert len(read(path)) == 2
    path.write_bytes(header() * 4 + END)
    with pytest.raises(PiggyError, match="more than 3 members"):
        read(path)


def test_an_xz_file_that_asks_for_much_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.tar.xz"
    path.write_bytes(
        lzma.compress(
            header() + END, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30, "preset": 0}]
        )
    )
    with pytest.raises(PiggyError, match="is damaged: Memory usage limit exceeded"):
        read(path)


def test_several_xz_streams_with_padding_are_one(tmp_path: Path) -> None:
    path = tmp_path / "t.tar.xz"
    path.write_bytes(
        lzma.compress(header())
        + bytes(400_000)
        + lzma.compress(b"")
        + lzma.compress(header() + END)
        + bytes(8)
    )
    assert len(read(path)) == 2
    path.write_bytes(path.read_bytes() + b"junk")
    with pytest.raises(PiggyError, match="is damaged"):
        read(path)


def test_too_little_memory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(raw: object) -> Iterator[bytes]:
        raise MemoryError
        yield b""

    monkeypatch.setattr(tarstream, "decompressed", full)
    (tmp_path / "t.tar").write_bytes(END)
    with pytest.raises(
        PiggyError, match="t.tar is damaged: there is not enough memory to decompress it"
    ):
        read(tmp_path / "t.tar")


def test_an_error_without_a_word_has_its_name_and_no_escapes(tmp_path: Path) -> None:
    assert "is damaged: ZeroDivisionError" in str(decompress.damaged(tmp_path, ZeroDivisionError()))
    assert "\x1b" not in str(decompress.damaged(tmp_path, "a\x1b[2J"))


def test_a_member_can_be_read_in_pieces_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes((header(size=b"%o" % 700_000) + padded(os.urandom(700_000))) * 3 + END)
    with tarstream.members(path) as members:
        sizes = []
        for number, (member, data) in enumerate(members):
            if number != 1:
                sizes.append((len(data.read(1000)), len(data.read(500_000)), member.size))
            if number == 2:
                sizes.append((len(data.read(500_000)), len(data.read(1)), len(data.read())))
    assert sizes == [(1000, 500_000, 700_000)] * 2 + [(199_000, 0, 0)]
