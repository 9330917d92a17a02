from __future__ import annotations

import errno
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tasks.system import files
from tasks.system.errors import PiggyError
from tasks.system.files import copy_whole, read_regular, replacing, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c"
    with replacing(path) as draft:
        draft.write_text("half")
        assert not path.exists()
        assert draft.stat().st_dev == tmp_path.stat().st_dev
    assert path.read_text() == "half"
    assert names(path.parent) == ["c"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    write_whole(path, "old")

    def fail(self: Path, data: bytes) -> int:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError) as caught:
        write_whole(path, "new")
    assert caught.value.filename == str(path)
    assert (path.read_text(), names(tmp_path)) == ("old", ["x"])


def test_a_file_is_remembered_until_it_is_touched(tmp_path: Path) -> None:
    path, reads = tmp_path / "x", []

    def read(path: Path) -> str:
        reads.append(path)
        return path.read_text()

    reader = files.remembering(read)
    with pytest.raises(FileNotFoundError):
        reader(path)
    path.write_text("one")
    assert [reader(path), reader(path)] == ["one", "one"]
    assert len(reads) == 3  # what was just written may be written again unseen
    time.sleep(files.RACY_NS / 1e9 * 1.4)
    assert [reader(path), reader(path), reader(path)] == ["one"] * 3
    assert len(reads) == 4
    before = path.stat()
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reader(path) == "two"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def fail(draft: Path) -> None:
        draft.write_text("new")
        raise error

    with pytest.raises(error), replacing(path) as draft:
        fail(draft)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_a_folder_appears_whole_and_replaces_no_other(tmp_path: Path) -> None:
    path = tmp_path / "tree"
    with replacing(path) as draft:
        (draft / "sub").mkdir(parents=True)
    assert (path / "sub").is_dir()
    with pytest.raises(OSError) as caught, replacing(path) as draft:
        (draft / "other").mkdir(parents=True)
    assert caught.value.filename == str(path)
    assert names(tmp_path) == ["tree"]
    assert names(path) == ["sub"]


def test_a_body_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "x"):
        pass
    assert caught.value.filename == str(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "old"


def test_a_reader_with_the_file_open_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with path.open() as stream:
        write_whole(path, "new")
        assert stream.read() == "old"
    assert path.read_text() == "new"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("keep")
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", "new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "keep"


@pytest.mark.parametrize("mask", [0o077, 0o000])
def test_modes_do_not_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "plain", "x")
        write_whole(tmp_path / "run", b"\0x", mode=0o755)
    finally:
        os.umask(before)
    assert (tmp_path / "plain").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "run").read_bytes() == b"\0x"


def test_copying_keeps_content_and_mode(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)))
    (tmp_path / "a").chmod(0o751)
    copy_whole(tmp_path / "a", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").read_bytes() == bytes(range(256))
    assert (tmp_path / "deep" / "b").stat().st_mode & 0o777 == 0o751
    with pytest.raises(FileNotFoundError) as caught:
        copy_whole(tmp_path / "missing", tmp_path / "c")
    assert caught.value.filename == str(tmp_path / "missing")
    assert names(tmp_path) == ["a", "deep"]


def test_a_full_disk_is_reported_with_the_name_that_the_user_knows(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError) as caught,
        replacing(tmp_path / "x"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert caught.value.filename == str(tmp_path / "x")
    assert names(tmp_path) == []


def test_a_library_error_without_a_number_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, replacing(tmp_path / "x"):
        raise OSError("the server said no")
    assert str(caught.value) == "the server said no"


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (os.mkfifo, errno.EINVAL),
        (lambda path: path.mkdir(), errno.EISDIR),
        (lambda path: path.symlink_to("other"), errno.ELOOP),
        (lambda path: path.symlink_to("/dev/zero"), errno.ELOOP),
        (lambda path: path.write_bytes(bytes(11)), errno.EFBIG),
        (lambda path: None, errno.ENOENT),
    ],
)
def test_only_a_regular_file_is_read(
    tmp_path: Path, plant: Callable[[Path], object], said: int
) -> None:
    (tmp_path / "other").write_text("other")
    plant(tmp_path / "x")
    with pytest.raises(OSError) as error:
        read_regular(tmp_path / "x", 10)
    assert error.value.errno == said


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    assert read_regular(tmp_path / "x", 10) == b"0123456789"


def test_a_file_is_read_with_no_more_memory_than_it_has(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 100_000)
    tracemalloc.start()
    try:
        assert len(read_regular(tmp_path / "x")) == 100_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_what_is_longer_than_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 11)
    assert read_regular(tmp_path / "x", 11) == b"x" * 11
    with pytest.raises(OSError, match="longer than 10 bytes"):
        read_regular(tmp_path / "x", 10)


def test_a_link_is_followed_where_the_file_is_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    (tmp_path / "link").symlink_to("x")
    assert read_regular(tmp_path / "link", follow=True) == b"x"
    with pytest.raises(OSError, match="Too many levels"):
        read_regular(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "other").symlink_to("pipe")
    with pytest.raises(OSError, match="no regular file"):
        read_regular(tmp_path / "other", follow=True)


def test_free_looks_at_the_nearest_folder_there_is(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    assert files.free(tmp_path / "not" / "yet") == pytest.approx(
        room.f_bavail * room.f_frsize, rel=0.1
    )


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "no space left on the disk for .*file: 5.0 kB needed, .* free"),
        (errno.EDQUOT, "no space left"),
        (errno.EACCES, "can't write .*file: Permission denied"),
        (errno.EROFS, "can't write .*file: Read-only"),
        (errno.ENOTDIR, "a file stands where a folder is wanted"),
        (errno.EIO, "can't write .*file: Input/output error"),
    ],
)
def test_an_os_error_is_explained(tmp_path: Path, number: int, told: str) -> None:
    with pytest.raises(PiggyError, match=told), files.explained(tmp_path / "file", 5000):
        raise OSError(number, os.strerror(number))


def test_an_os_error_names_its_own_file(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="/missing/x"), files.explained(tmp_path / "file"):
        (tmp_path / "missing" / "x").write_text("")


def test_other_exceptions_pass(tmp_path: Path) -> None:
    with pytest.raises(KeyError), files.explained(tmp_path):
        raise KeyError


class Held(msgspec.Struct):
    number: int = 0
    name: str = ""


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\xc1",
        files.packed("another type"),
        files.packed(Held(5))[:-1],
        files.packed({"number": b"\xff"}),
        files.sealed(b"\x81\xa4name\xa1\xff"),
        files.sealed(b"\x91" * 100_000),
        files.packed(Held(5)) + b"x" * 100,
    ],
)
def test_what_is_not_ours_counts_as_missing(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    assert files.decoded(path, Held, Held(7), most=200_000) == Held(7)


def test_a_bit_that_is_another_one_is_noticed(tmp_path: Path) -> None:
    good = files.packed({"a": 1, "b": 200, "c": 70_000})
    for number in range(len(good) * 8):
        data = bytearray(good)
        data[number // 8] ^= 1 << number % 8
        (tmp_path / "x").write_bytes(data)
        assert files.decoded(tmp_path / "x", dict[str, int], {}) == {}


def test_what_is_ours_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(files.packed(Held(5)))
    (tmp_path / "y").write_bytes(msgspec.json.encode(Held(6)))
    assert files.decoded(tmp_path / "x", Held, Held()) == Held(5)
    assert files.decoded(tmp_path / "x", Held, None, most=3) is None
    assert files.decoded(tmp_path / "y", Held, None, decode=msgspec.json.decode) == Held(6)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"number": "x"}', b"[" * 60_000, b"\xff"])
def test_a_record_that_is_none_is_said(data: bytes) -> None:
    with pytest.raises(PiggyError, match="the thing can't be read: ") as caught:
        files.record(data, Held, "the thing", "do this")
    assert caught.value.hint == "do this"
    assert files.record(b'{"number": 3}', Held, "the thing") == Held(3)


def test_remove(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    files.remove(tmp_path / "x", tmp_path / "missing", tmp_path / "link")
    assert names(tmp_path) == []
    with pytest.raises(OSError):
        files.remove(tmp_path)


def test_when_a_file_was_changed(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    (tmp_path / "link").symlink_to("x")
    os.utime(tmp_path / "x", ns=(0, 12345))
    os.utime(tmp_path / "link", ns=(0, 99), follow_symlinks=False)
    assert files.changed(tmp_path / "link") == 12345
    assert files.changed(tmp_path / "link", follow=False) == 99
    assert [files.changed(name) for name in (tmp_path / "no", tmp_path / "x" / "y", "a\0b")] == [
        -1
    ] * 3


def test_what_was_touched(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("")
    when = path.stat().st_ctime_ns
    os.utime(path, ns=(0, 0))  # an old time is a change, too
    assert files.touched(path, when, missing=False)
    assert not files.touched(path, path.stat().st_ctime_ns + 1, missing=True)
    assert files.touched(tmp_path / "no", when, missing=True)
    assert not files.touched(tmp_path / "no", when, missing=False)


def test_the_digest_of_a_folder(tmp_path: Path) -> None:
    def digest(*names: str, follow: bool = False) -> str:
        return files.digest_of(tmp_path, [tmp_path / name for name in names], follow)

    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("one")
    (tmp_path / "link").symlink_to("a")
    found = digest("a", "b", "link")
    assert found == digest("a", "b", "link")
    others = [digest("a", "link"), digest("a", "b", "link", follow=True), digest("b", "a", "link")]
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("b")
    others.append(digest("a", "b", "link"))
    (tmp_path / "a").write_text("two")
    others.append(digest("a", "b", "link"))
    (tmp_path / "a").rename(tmp_path / "ab")
    others.append(digest("ab", "b", "link"))
    assert len({found, *others}) == 7
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "b").write_text("one")
    assert files.digest_of(tmp_path / "copy", [tmp_path / "copy" / "b"]) == digest("b")
