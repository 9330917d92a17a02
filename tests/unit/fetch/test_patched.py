"""The patched copy of a tree: what it shares, what is written, and an update that is cut short."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tasks.fetch import patched
from tasks.fetch.series import File
from tasks.system import files
from tasks.system.errors import PiggyError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "kernel").mkdir(parents=True)
    (tree / ".git").mkdir()
    for name in ("x.c", "y.c", "z.c"):
        (tree / "kernel" / name).write_text(name)
        os.utime(tree / "kernel" / name, (1, 1))
    (tree / "run.sh").write_text("#!/bin/sh")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("kernel")
    return tree


@pytest.fixture
def copy(tree: Path) -> Path:
    copy = tree.with_name("copy")
    patched.share(tree, copy)
    return copy


def content(folder: Path) -> dict[str, str]:
    """The files and links of a folder."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink()) and path.name != patched.RECORD
    }


def test_copy(tree: Path, copy: Path) -> None:
    assert content(copy) == content(tree)
    assert not (copy / ".git").exists()
    assert (copy / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (copy / "kernel/x.c").stat().st_mtime == 1
    assert not copy.with_name(".copy.part").exists()
    (copy / "kernel/x.c").unlink()
    patched.share(tree, copy)  # never made anew
    assert not (copy / "kernel/x.c").exists()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_copied_where_nothing_can_be_shared(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(patched, "_reflink", refused)
    patched.share(tree, tree.with_name("copy"))
    assert content(tree.with_name("copy")) == content(tree)
    assert not os.path.samefile(tree / "kernel/x.c", tree.with_name("copy") / "kernel/x.c")


def test_failed_copy_leaves_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(patched.Sharing, "of", full)
    with pytest.raises(PiggyError, match="no space left"):
        patched.share(tree, tree.with_name("copy"))
    assert sorted(path.name for path in tree.parent.iterdir()) == ["tree"]


def test_update_and_back(tree: Path, copy: Path) -> None:
    before = content(tree)
    wanted = {
        "kernel/x.c": File(b"X"),
        "kernel/y.c": None,
        "new/n.c": File(b"N", True),
        "kernel/z.c": File(b"z.c"),
    }
    assert patched.update(tree, copy, wanted) == ["kernel/x.c", "kernel/y.c", "new/n.c"]
    after = {**before, "kernel/x.c": "X", "new/n.c": "N"}
    del after["kernel/y.c"]
    assert content(copy) == after
    assert (copy / "new/n.c").stat().st_mode & 0o777 == 0o755
    times = {path: path.stat().st_mtime_ns for path in copy.rglob("*.c")}
    assert patched.update(tree, copy, wanted) == []
    assert patched.update(tree, copy, {**wanted, "kernel/z.c": File(b"Z")}) == ["kernel/z.c"]
    times.pop(copy / "kernel/z.c")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    patched.update(tree, copy, {})
    assert content(copy) == before
    assert not (copy / "new").exists()
    assert content(tree) == before


@pytest.mark.parametrize("last", [0, 1, 2, 3])
def test_cut_short(tree: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """The next update goes on from any state, whatever it is to make; nothing counts as edited."""
    first = {"kernel/x.c": File(b"1"), "kernel/y.c": File(b"1"), "kernel/z.c": File(b"1")}
    second = {"kernel/x.c": File(b"2"), "kernel/y.c": None, "n.c": File(b"2")}
    patched.update(tree, copy, first)
    replace, remove, left = os.replace, files.remove, [last]

    class Killed(BaseException):
        pass

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    def replacing(source: str, target: str) -> None:
        if Path(target).name != patched.RECORD:
            count()
        replace(source, target)

    def removing(*paths: Path) -> None:
        count()
        remove(*paths)

    for wanted in (first, second, {}, {"kernel/x.c": File(b"3")}):
        left[0] = last
        with monkeypatch.context() as context:
            context.setattr(os, "replace", replacing)
            context.setattr(files, "remove", removing)
            with pytest.raises(Killed):
                patched.update(tree, copy, second)
        patched.update(tree, copy, wanted)
        expected = {**content(tree)}
        for name, file in wanted.items():
            expected[name] = file.data.decode() if file else ""
        assert content(copy) == {name: text for name, text in expected.items() if text}
        left[0] = 99
        patched.update(tree, copy, first)


def test_users_edit(tree: Path, copy: Path) -> None:
    """It stays where nothing changes for us, and is an error where something does."""
    patched.update(tree, copy, {"kernel/x.c": File(b"1")})
    files.write_whole(copy / "kernel/x.c", "mine")
    assert patched.update(tree, copy, {"kernel/x.c": File(b"1"), "kernel/y.c": File(b"1")}) == [
        "kernel/y.c"
    ]
    for wanted in ({"kernel/x.c": File(b"2"), "kernel/y.c": None}, {}):
        with pytest.raises(PiggyError, match=r"copy/kernel/x.c was edited, and"):
            patched.update(tree, copy, wanted)
        assert (copy / "kernel/x.c").read_text() == "mine"
        assert (copy / "kernel/y.c").read_text() == "1"
    files.write_whole(copy / "kernel/z.c", "mine")
    with pytest.raises(PiggyError, match=r"copy/kernel/z.c was edited, and"):
        patched.update(tree, copy, {"kernel/x.c": File(b"1"), "kernel/z.c": File(b"1")})


def test_damaged_record(tree: Path, copy: Path) -> None:
    """Then our own files count as edited, and nothing is lost."""
    patched.update(tree, copy, {"kernel/x.c": File(b"1")})
    (copy / patched.RECORD).write_text("{")
    with pytest.raises(PiggyError, match="was edited"):
        patched.update(tree, copy, {"kernel/x.c": File(b"2")})
    assert patched.update(tree, copy, {"kernel/x.c": File(b"1")}) == []


def test_edited(tree: Path, copy: Path) -> None:
    wanted = {"kernel/x.c": File(b"1"), "kernel/y.c": None, "run.sh": File(b"#!/bin/sh", True)}
    patched.update(tree, copy, wanted)
    assert patched.edited(copy, wanted) == []
    files.write_whole(copy / "kernel/x.c", "mine")
    files.write_whole(copy / "kernel/y.c", "mine")
    (copy / "run.sh").chmod(0o644)
    assert patched.edited(copy, wanted) == [copy / name for name in wanted]


def test_reflinks(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has them; mode and times are the original's."""

    def clone(target: int, request: int, source: int) -> None:
        assert request == 0x40049409
        os.write(target, os.pread(source, 1 << 20, 0))

    monkeypatch.setattr(patched.fcntl, "ioctl", clone)
    copy = tree.with_name("copy")
    patched.share(tree, copy)
    assert content(copy) == content(tree)
    for name in ("kernel/x.c", "run.sh"):
        mine, its = (copy / name).stat(), (tree / name).stat()
        assert mine.st_ino != its.st_ino
        assert (mine.st_mode, mine.st_mtime_ns) == (its.st_mode, its.st_mtime_ns)
