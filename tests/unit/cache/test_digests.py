from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.cache import digests
from tasks.cache.digests import MISSING, Stamps
from tasks.system import files
from tasks.system.files import RACY_NS

TOP = Path(__file__).parents[3]


def settle() -> None:
    """Wait until files written before are no longer racy."""
    time.sleep(RACY_NS / 1e9 * 1.4)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were really read."""
    seen: list[str] = []
    plain = digests._hash
    monkeypatch.setattr(digests, "_hash", lambda path: (seen.append(path), plain(path))[1])
    return seen


@pytest.fixture
def known(tmp_path: Path) -> Stamps:
    return Stamps(tmp_path / "store" / "stamps")


def test_the_digest_is_of_the_content(tmp_path: Path, known: Stamps) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").write_bytes(b"content")
    assert (
        known.digest(tmp_path / "a")
        == hashlib.sha256(b"content").hexdigest()[:32]
        == known.digest(str(tmp_path / "b"))
    )


def test_a_file_is_read_once_and_again_only_when_touched(
    tmp_path: Path, known: Stamps, reads: list[str]
) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    settle()
    first = known.digest(path)
    assert known.digest(path) == first
    assert len(reads) == 1
    path.touch()
    settle()
    assert known.digest(path) == first
    assert known.digest(path) == first
    assert len(reads) == 2
    known.save()
    assert Stamps(known.store).digest(path) == first
    assert len(reads) == 2


def test_a_change_with_time_and_size_put_back_is_seen(tmp_path: Path, known: Stamps) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    settle()
    info = path.stat()
    first = known.digest(path)
    path.write_text("two")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (info.st_mtime_ns, info.st_size)
    assert known.digest(path) != first


def test_a_file_renamed_over_it_is_seen(tmp_path: Path, known: Stamps) -> None:
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    settle()
    first = known.digest(tmp_path / "a")
    os.replace(tmp_path / "b", tmp_path / "a")
    assert known.digest(tmp_path / "a") != first


def test_fresh_files_are_read_each_time(tmp_path: Path, known: Stamps, reads: list[str]) -> None:
    path = tmp_path / "a"
    for number in range(200):  # all of one size, within a few clock ticks
        path.write_text(f"{number:04}")
        assert known.digest(path) == hashlib.sha256(f"{number:04}".encode()).hexdigest()[:32]
    assert len(reads) == 200


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, known: Stamps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change may fall into the clock tick of the time that was looked up before, however long
    the reading takes."""
    path = tmp_path / "a"
    path.write_text("one")
    plain = digests._hash

    def slow(name: str) -> str:
        value = plain(name)
        settle()
        return value

    monkeypatch.setattr(digests, "_hash", slow)
    known.digest(path)
    assert str(path) not in (known._known or {})


def test_a_file_from_the_future_is_not_kept(
    tmp_path: Path, known: Stamps, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    settle()
    now = time.time_ns()
    monkeypatch.setattr(
        digests.time, "time_ns", lambda: now - 3600 * 10**9
    )  # our clock is behind the server's
    known.digest(path)
    known.digest(path)
    assert len(reads) == 2


def test_what_is_no_file(tmp_path: Path, known: Stamps) -> None:
    assert known.digest(tmp_path / "missing") == MISSING
    assert known.digest(tmp_path) == "folder"
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    assert known.digest(tmp_path / "dangling") == MISSING
    assert known.digest(tmp_path / "loop") == MISSING
    assert known.digest(tmp_path / ("x" * 5000)) == MISSING
    (tmp_path / "file").touch()
    assert known.digest(tmp_path / "file" / "below") == MISSING
    os.mkfifo(tmp_path / "pipe")
    assert known.digest(tmp_path / "pipe") == "special"  # and does not wait for a writer
    assert known.digest("/dev/zero") == "special"


def test_a_file_that_comes_and_goes(tmp_path: Path, known: Stamps) -> None:
    path = tmp_path / "a"
    assert known.digest(path) == MISSING
    path.write_text("x")
    there = known.digest(path)
    assert there != MISSING
    path.unlink()
    assert known.digest(path) == MISSING
    path.mkdir()
    assert known.digest(path) == "folder"


def test_an_unreadable_file_counts_as_missing_until_it_can_be_read(
    tmp_path: Path, known: Stamps, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    settle()

    def refuse(*args: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setitem(digests.__dict__, "open", refuse)
        assert known.digest(path) == MISSING
    assert (
        known.digest(path) == hashlib.sha256(b"x").hexdigest()[:32]
    )  # though nothing of the file's times has changed


def test_a_link_counts_as_what_it_leads_to(tmp_path: Path, known: Stamps) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    (tmp_path / "middle").symlink_to("one")
    link = tmp_path / "link"
    link.symlink_to("middle")
    settle()
    assert known.digest(link) == known.digest(tmp_path / "one")
    (tmp_path / "middle").unlink()
    (tmp_path / "middle").symlink_to("two")
    assert known.digest(link) == known.digest(tmp_path / "two")


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x" * 5000, "/dev/null/x"], ids=repr)
def test_a_name_that_no_file_can_have_is_missing(path: str, known: Stamps) -> None:
    """The journal may hold it."""
    assert known.digest(path) == MISSING
    assert known.when(path) == -1


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_something_else_in_place_of_the_store(tmp_path: Path, known: Stamps, kind: str) -> None:
    (tmp_path / "a").write_text("x")
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    settle()
    known.store.parent.mkdir()
    make = {"pipe": os.mkfifo, "link": lambda path: path.symlink_to(theirs), "folder": os.mkdir}[
        kind
    ]
    make(known.store)
    digest = known.digest(tmp_path / "a")
    known.save()
    assert theirs.read_text() == "precious"
    assert Stamps(known.store).digest(tmp_path / "a") == digest


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"\xc1",
        files.packed([1, 2]),
        files.packed({"a": [1, 2]}),
        files.sealed(b"\x81\xa1\xff\x95\x01\x01\x01\x01\xa1x"),
    ],
)
def test_a_damaged_store_costs_time_and_nothing_else(
    tmp_path: Path, content: bytes, known: Stamps
) -> None:
    (tmp_path / "a").write_text("x")
    settle()
    known.store.parent.mkdir()
    known.store.write_bytes(content)
    digest = known.digest(tmp_path / "a")
    known.save()
    assert files.unpacked(known.store.read_bytes(), dict)[str(tmp_path / "a")][4] == digest


def test_a_store_that_can_not_be_written_fails_no_run(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "file").touch()
    settle()
    for store in (tmp_path / "file" / "below" / "stamps", Path("/proc/stamps")):
        known = Stamps(store)
        known.digest(tmp_path / "a")
        known.save()


def test_nothing_new_writes_nothing(tmp_path: Path, known: Stamps) -> None:
    known.save()
    known.digest(tmp_path / "missing")
    known.digest(tmp_path)
    known.save()
    assert not known.store.exists()


def test_a_name_that_is_no_utf8_is_digested_and_the_others_are_kept(
    tmp_path: Path, known: Stamps
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/latin1-\xe4")
    for path in (odd, f"{tmp_path}/utf8-ä"):
        Path(path).write_text(path, errors="surrogateescape")
    settle()
    assert known.digest(odd) != known.digest(f"{tmp_path}/utf8-ä") != MISSING
    known.save()
    assert list(files.unpacked(known.store.read_bytes(), dict)) == [f"{tmp_path}/utf8-ä"]


def test_many_processes_save_at_once(tmp_path: Path, known: Stamps) -> None:
    (tmp_path / "a").write_text("x" * 1000)
    settle()
    script = (
        f"import sys; sys.path.insert(0, {str(TOP)!r})\nfrom pathlib import Path\nfrom"
        " tasks.cache.digests import Stamps\nfor _ in range(100):\n    s ="
        f" Stamps(Path({str(known.store)!r}))\n    s.digest({str(tmp_path / 'a')!r})\n    s._dirty"
        " = True\n    s.save()\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    while any(child.poll() is None for child in children):
        if known.store.exists():
            files.unpacked(known.store.read_bytes(), type=dict[str, tuple[int, int, int, int, str]])
    assert [child.returncode for child in children] == [0, 0, 0]
    assert [path.name for path in known.store.parent.iterdir()] == ["stamps"]


def test_of_a_folder_count_its_headers_makefiles_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "linux"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.h").touch()
    stamps = Stamps(tmp_path / "stamps")
    before = stamps.digest(f"{folder}/")
    for name in ("a.c", ".a.h.swp", "a.h~", "sub/a.h", ".git/a.h", "__pycache__/a.h"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
        assert stamps.digest(f"{folder}/") == before
    seen = {before}
    for name in ("b.h", "Kbuild", "Makefile"):
        time.sleep(0.06)
        (folder / name).touch()
        seen.add(stamps.digest(f"{folder}/"))
    assert len(seen) == 4
    assert stamps.digest(folder) == "folder"
    assert stamps.digest(f"{tmp_path}/nowhere/") == ""


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_new_folder_counts(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "kernel" / "sub"
    folder.mkdir(parents=True)
    stamps = Stamps(tmp_path / "stamps")
    before = stamps.digest(f"{folder}/")
    new = folder / "mfd"
    if kind == "folder":
        new.mkdir()
    else:
        new.symlink_to(tmp_path)
    assert stamps.digest(f"{folder}/") != before


def test_looked_at_once_until_told_otherwise(tmp_path: Path) -> None:
    path, gone = tmp_path / "a", tmp_path / "gone"
    path.write_text("one")
    stamps = Stamps(tmp_path / "stamps")
    stamps.look_once(True)
    first = stamps.digest(path)
    path.write_text("two")
    assert stamps.digest(path) == stamps.digest(str(path)) == first
    assert stamps.digest(gone) == ""
    gone.touch()
    assert stamps.digest(gone) == ""  # that it is not there was seen, too
    stamps.look_once(False)
    assert stamps.digest(path) != first
    assert stamps.digest(gone) != ""


def test_where_a_program_is(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "tool").write_text(folder.name)
        (folder / "tool").chmod(0o755)
    stamps = Stamps(tmp_path / "stamps")
    found = stamps.program("tool", f"{first}:{second}")
    assert found == f"{first}/tool {stamps.digest(first / 'tool')[:12]}"
    stamps.look_once(True)
    assert stamps.program("tool", f"{second}:{first}").startswith(f"{second}/tool ")
    assert stamps.program("tool", f"{first}:{second}") == found
    (first / "tool").unlink()
    assert stamps.program("tool", f"{first}:{second}") == found
    stamps.look_once(False)
    assert stamps.program("tool", f"{first}:{second}").startswith(f"{second}/tool ")
    assert stamps.program("no-such-tool", f"{first}:{second}") == ""


def test_when_a_file_was_changed_as_of_the_last_look(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    os.utime(path, ns=(10**18, 10**18))
    stamps = Stamps(tmp_path / "stamps")
    assert stamps.when(str(path)) == 10**18
    time.sleep(0.06)
    stamps.digest(path)
    os.utime(path, ns=(2 * 10**18, 2 * 10**18))
    assert stamps.when(str(path)) == 10**18
    stamps.digest(path)  # too near to the change to be kept
    assert stamps.when(str(path)) == 2 * 10**18
    time.sleep(0.06)
    stamps.digest(path)
    path.unlink()
    stamps.digest(path)
    assert stamps.when(str(path)) == -1
    assert stamps.when(str(tmp_path / "never")) == -1


def test_a_look_of_an_earlier_run_says_nothing_of_when_a_file_changed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    os.utime(path, ns=(10**18, 10**18))
    time.sleep(0.06)
    earlier = Stamps(tmp_path / "stamps")
    earlier.digest(path)
    earlier.save()
    edited = time.time_ns()
    path.write_text("two")
    later = Stamps(tmp_path / "stamps")
    later.digest(tmp_path)  # the digests of the earlier run are read
    assert later.when(str(path)) == path.stat().st_mtime_ns > 10**18
    assert later.touched(str(path), edited)


def test_of_a_folder_that_is_searched_count_all_names(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "a.c").write_text("one")
    before = Stamps(tmp_path / "stamps").digest(f"{folder}/*")
    for name in (".a.c.swp", "a.c~", "#a.c#"):
        (folder / name).write_text("")
    (folder / "a.c").write_text("two")
    settle()
    known = Stamps(tmp_path / "stamps")
    assert known.digest(f"{folder}/*") == before != known.digest(f"{folder}/")
    assert known.digest(f"{tmp_path}/none/*") == MISSING
    (folder / "b.c").write_text("")
    assert known.digest(f"{folder}/*") != before


@pytest.mark.parametrize("way", ["plain", "deep", "link", "relative"])
def test_a_file_that_may_have_gone_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The folder that has a new time by that is its own, one above, or where a link leads."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far/deep").mkdir(parents=True)
    (tmp_path / "far/deep/x.h").touch()
    (tmp_path / "links").mkdir()
    (tmp_path / "links/x.h").symlink_to(tmp_path / "far/deep/x.h")
    path = {"link": "links/x.h", "relative": "far/deep/x.h"}.get(way, tmp_path / "far/deep/x.h")
    settle()
    before = time.time_ns()
    settle()
    assert not digests.gone_since("links/none.h", before)
    (tmp_path / "far/deep/x.h").unlink()
    if way == "deep":
        (tmp_path / "far/deep").rmdir()
    settle()
    assert digests.gone_since(path, before)
    assert not digests.gone_since(path, time.time_ns())
    assert not digests.gone_since("links/none.h", before)
