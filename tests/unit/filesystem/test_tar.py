from __future__ import annotations

import os
import tarfile
import time
from pathlib import Path

import pytest

from tasks.filesystem import tar, tree
from tasks.system.errors import PiggyError

EPOCH = 1767225600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "stage"
    (top / "lib" / "modules" / "6.1").mkdir(parents=True)
    (top / "lib" / "modules" / "6.1" / "a.ko").write_bytes(b"A" * 2000)
    (top / "lib" / "modules" / "6.1" / "run").write_text("#!/bin/sh\n")
    (top / "lib" / "modules" / "6.1" / "run").chmod(0o700)
    (top / "lib" / "modules" / "6.1" / "build").symlink_to("/somewhere")
    (top / "lib" / "modules" / "latest").symlink_to("6.1")
    os.link(top / "lib" / "modules" / "6.1" / "a.ko", top / "lib" / "modules" / "6.1" / "b.ko")
    return top


def test_it_is_the_same_whoever_packs(folder: Path, tmp_path: Path) -> None:
    tar.pack(folder, tmp_path / "one.tar", EPOCH)
    (folder / "lib" / "modules" / "6.1" / "a.ko").chmod(0o600)
    os.utime(folder / "lib", (time.time() + 100, time.time() + 100))
    old = os.umask(0o077)
    try:
        tar.pack(folder, tmp_path / "two.tar", EPOCH)
    finally:
        os.umask(old)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_what_goes_in_comes_out_as_a_layer(folder: Path, tmp_path: Path) -> None:
    tar.pack(folder, tmp_path / "one.tar", EPOCH, wanted=lambda path: not path.endswith("/build"))
    entries = {entry.path: entry for entry in tar.layer(tmp_path / "one.tar").entries}
    assert sorted(entries) == [
        "/lib",
        "/lib/modules",
        "/lib/modules/6.1",
        "/lib/modules/6.1/a.ko",
        "/lib/modules/6.1/b.ko",
        "/lib/modules/6.1/run",
        "/lib/modules/latest",
    ]
    assert (
        tree.content(entries["/lib/modules/6.1/a.ko"])
        == tree.content(entries["/lib/modules/6.1/b.ko"])
        == b"A" * 2000
    )
    assert entries["/lib/modules/6.1/run"].mode == 0o755
    assert (entries["/lib/modules/latest"].kind, entries["/lib/modules/latest"].target) == (
        "link",
        "6.1",
    )
    assert tree.compose([tar.layer(tmp_path / "one.tar")])


def test_it_can_be_laid_out_again(folder: Path, tmp_path: Path) -> None:
    tar.pack(folder, tmp_path / "one.tar", EPOCH, wanted=lambda path: not path.endswith("/build"))
    tar.unpack(tmp_path / "one.tar", tmp_path / "again")
    tar.pack(tmp_path / "again", tmp_path / "two.tar", EPOCH)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_nothing_packs_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    tar.pack(tmp_path / "empty", tmp_path / "one.tar", EPOCH)
    assert tarfile.is_tarfile(tmp_path / "one.tar")
    assert tar.layer(tmp_path / "one.tar").entries == ()


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    (tmp_path / "one.tar").write_bytes(b"no tar" * 200)
    for read in (tar.layer, lambda archive: tar.unpack(archive, tmp_path / "out")):
        with pytest.raises(PiggyError, match=r"one\.tar is damaged: no tar header"):
            read(tmp_path / "one.tar")
        with pytest.raises(PiggyError, match=r"can't read .*two\.tar: No such file"):
            read(tmp_path / "two.tar")


HOSTILE = {
    "dotdot": [("../target", tarfile.REGTYPE, "")],
    "dotdot inside": [("a/../../target", tarfile.REGTYPE, "")],
    "absolute": [("ABSOLUTE/target", tarfile.REGTYPE, "")],
    "through a link": [("l", tarfile.SYMTYPE, ".."), ("l/target", tarfile.REGTYPE, "")],
    "over a link": [("l", tarfile.SYMTYPE, "../target"), ("l", tarfile.REGTYPE, "")],
    "a link out": [("lib/l", tarfile.SYMTYPE, "../../target")],
    "an absolute link": [("l", tarfile.SYMTYPE, "/etc")],
    "a hard link": [("h", tarfile.LNKTYPE, "../target")],
    "a device": [("null", tarfile.CHRTYPE, "")],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_is_laid_out_elsewhere(tmp_path: Path, case: str) -> None:
    (tmp_path / "target").write_text("precious")
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        for name, kind, target in HOSTILE[case]:
            info = tarfile.TarInfo(name.replace("ABSOLUTE", str(tmp_path)))
            info.type, info.linkname = kind, target
            archive.addfile(info)
    with pytest.raises(PiggyError, match=r"one\.tar: member"):
        tar.unpack(tmp_path / "one.tar", tmp_path / "out")
    assert (tmp_path / "target").read_text() == "precious"
    if "link" not in case or "hard" in case:  # in a root filesystem a link may lead anywhere
        with pytest.raises(PiggyError, match=r"one\.tar: member") as caught:
            tar.layer(tmp_path / "one.tar")
        assert "remove it and run doit again" in caught.value.hint


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1755, 0o777, 0o666])
def test_a_mode_that_we_do_not_pack(tmp_path: Path, mode: int) -> None:
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        info = tarfile.TarInfo("su")
        info.mode = mode
        archive.addfile(info)
    with pytest.raises(PiggyError, match="member 'su' is none that we packed"):
        tar.layer(tmp_path / "one.tar")
    tar.unpack(tmp_path / "one.tar", tmp_path / "out")
    assert (tmp_path / "out" / "su").stat().st_mode & 0o7022 == 0
