from __future__ import annotations

import errno
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

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
