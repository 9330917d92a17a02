"""What in an object folder is not as it was left, and goes before make runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.kbuild import manifest

FILES = (
    "a/x.o",
    "a/.x.o.cmd",
    "a/y.o",
    "a/.y.o.cmd",
    "vmlinux",
    "include/generated/utsrelease.h",
    "include/config/auto.conf",
    "include/config/auto.conf.cmd",
    "include/generated/autoconf.h",
    "include/config/TTY",
    ".config",
    "scripts/kconfig/conf",
    "piggyback.ledger",
)


@pytest.fixture
def obj(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}\n")
    manifest.keep(tmp_path)
    return tmp_path


def gone(obj: Path) -> set[str]:
    manifest.purge(obj)
    return {name for name in FILES if not (obj / name).exists()}


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def rewrite(path: Path) -> None:
    path.write_text("T" + path.read_text()[1:])
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


def test_what_was_left_alone_stays(obj: Path) -> None:
    assert gone(obj) == set()


@pytest.mark.parametrize("spoil", [halve, rewrite])
@pytest.mark.parametrize(
    ("name", "goes"),
    [
        ("a/x.o", {"a/x.o", "a/.x.o.cmd"}),
        ("a/.x.o.cmd", {"a/x.o", "a/.x.o.cmd"}),
        ("vmlinux", {"vmlinux"}),
        ("include/generated/utsrelease.h", {"include/generated/utsrelease.h"}),
        (".config", set()),
        ("scripts/kconfig/conf", {"scripts/kconfig/conf"}),
        ("include/config/TTY", set()),
        ("piggyback.ledger", set()),
    ],
)
def test_what_was_spoilt_goes(
    obj: Path, spoil: Callable[[Path], None], name: str, goes: set[str]
) -> None:
    spoil(obj / name)
    assert gone(obj) == goes


@pytest.mark.parametrize("spoil", [halve, Path.unlink])
@pytest.mark.parametrize("name", ["include/config/auto.conf", "include/generated/autoconf.h"])
def test_kconfigs_files_go_together(obj: Path, spoil: Callable[[Path], None], name: str) -> None:
    spoil(obj / name)
    assert gone(obj) == {
        "include/config/auto.conf",
        "include/config/auto.conf.cmd",
        "include/generated/autoconf.h",
    }


def test_what_kconfig_made_since_is_not_spoilt(obj: Path) -> None:
    rewrite(obj / "include/config/auto.conf")
    halve(obj / "a/x.o")
    manifest.renew(obj)
    assert gone(obj) == {"a/x.o", "a/.x.o.cmd"}


def test_what_was_put_there_with_the_oldest_time_stays(obj: Path) -> None:
    (obj / "vmlinux").write_text("handed over")
    os.utime(obj / "vmlinux", (0, 0))
    os.utime(obj / "include/config/auto.conf", (0, 0))
    assert gone(obj) == set()


def test_what_was_made_anew_is_known_and_what_was_spoilt_before_stays_so(obj: Path) -> None:
    halve(obj / "a/y.o")
    os.utime(obj / "a/y.o", (1, 1))
    since = (obj / "vmlinux").stat().st_mtime_ns + 10**9
    for name in ("a/x.o", "a/.x.o.cmd", "vmlinux"):
        (obj / name).write_text("made anew")
        os.utime(obj / name, ns=(since, since))
    manifest.update(obj, ["a/../a/x.o"], since)
    assert gone(obj) == {"a/y.o", "a/.y.o.cmd"}


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"not msgpack"])
def test_a_damaged_list_removes_nothing(obj: Path, text: bytes) -> None:
    (obj / manifest.FILE).write_bytes(text)
    halve(obj / "a/x.o")
    manifest.update(obj, ["a/x.o"], 0)
    manifest.renew(obj)
    assert gone(obj) == set()


def test_what_is_not_as_it_was_left(tmp_path: Path) -> None:
    for name in ("a.o", "b.o", "new.o"):
        (tmp_path / name).write_text("one")
    manifest.keep(tmp_path)
    names = ["a.o", "b.o", "/elsewhere", "unknown.o"]
    assert manifest.spoilt(tmp_path, names) == ""
    (tmp_path / "new.o").write_text("longer")
    assert manifest.spoilt(tmp_path, names) == ""
    (tmp_path / "b.o").write_bytes(b"")
    assert manifest.spoilt(tmp_path, names) == "b.o"
    os.utime(tmp_path / "b.o", (0, 0))
    assert manifest.spoilt(tmp_path, names) == ""
    (tmp_path / "a.o").unlink()
    assert manifest.spoilt(tmp_path, names) == ""


def test_of_kconfigs_programs_alone(obj: Path) -> None:
    halve(obj / "a/x.o")
    halve(obj / "scripts/kconfig/conf")
    manifest.purge_tools(obj)
    assert {name for name in FILES if not (obj / name).exists()} == {"scripts/kconfig/conf"}
    (obj / "scripts/kconfig/conf").write_text("made again\n")
    manifest.renew(obj)
    assert gone(obj) == {"a/x.o", "a/.x.o.cmd"}


def test_an_output_of_kconfig_that_was_cut_goes_with_the_others(obj: Path) -> None:
    auto = obj / "include/config/auto.conf"
    os.utime(auto, (0, 0))
    manifest.purge_tools(obj)
    assert auto.exists()
    halve(auto)
    os.utime(auto, (0, 0))
    manifest.purge_tools(obj)
    assert not [name for name in manifest.KCONFIG if (obj / name).exists()]
    assert (obj / "include/config/TTY").exists()
