"""Files that a symbol names are inputs of the kernel: by content, and a folder with all that is in
it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playground import Playground

from tests.graph.test_shortway import LINKS, as_make_does, code, plain_make, way

BASE = "configs/kernel/fake-base.config"


@pytest.fixture
def named(built: Playground) -> Playground:
    """The project with a kernel in which symbols name files, built."""
    here = built.home / "named"
    shutil.rmtree(here, ignore_errors=True)
    for name, text in {
        "root/init": "one",
        "root/bin/x": "two",
        "fw/a.bin": "blob 1",
        "fw/sub/b.bin": "blob 2",
        "elsewhere": "listed",
        "banner": "hello",
        "modprobe": "of the running system",
    }.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(f"{text}\n")
    (here / "root" / "link").symlink_to("init")
    (here / "list").write_text(
        f"# a list\ndir /dev 755 0 0\nfile /listed {here}/elsewhere 644 0 0\n"
    )
    built.append(
        BASE,
        f'CONFIG_INITRAMFS_SOURCE="{here}/root {here}/list"\nCONFIG_EXTRA_FIRMWARE="a.bin'
        ' sub/b.bin"\n'
        f'CONFIG_EXTRA_FIRMWARE_DIR="{here}/fw"\nCONFIG_BANNER_FILE="{here}/banner"\n'
        f'CONFIG_MODPROBE_PATH="{here}/modprobe"\n',
    )
    built.doit("bzImage")
    assert built.doit("bzImage").ran == []
    return built


def old_time(path: Path, text: str) -> None:
    """Other content under the old time."""
    info = path.stat()
    path.write_text(text)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def retarget(path: Path) -> None:
    path.unlink()
    path.symlink_to("bin/x")


def quietly_added(path: Path) -> None:
    """A new file in a folder that has its old time."""
    info = path.parent.stat()
    path.write_text("new")
    os.utime(path.parent, ns=(info.st_atime_ns, info.st_mtime_ns))


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a file of a folder": ("root/init", lambda path: path.write_text("other\n")),
    "a new file": ("root/bin/y", lambda path: path.write_text("new\n")),
    "a new file, and no new time of its folder": ("root/bin/z", quietly_added),
    "a file that goes": ("root/bin/y", Path.unlink),
    "a mode": ("root/init", lambda path: path.chmod(0o755)),
    "an empty folder": ("root/dev", Path.mkdir),
    "a link": ("root/link", retarget),
    "content under the old time": ("root/bin/x", lambda path: old_time(path, "twv\n")),
    "a list": (
        "list",
        lambda path: path.write_text(
            path.read_text() + f"file /again {path.parent}/elsewhere 600 0 0\n"
        ),
    ),
    "a file that a list names": ("elsewhere", lambda path: path.write_text("other\n")),
    "firmware": ("fw/a.bin", lambda path: path.write_text("blob 3\n")),
    "firmware under the old time": ("fw/sub/b.bin", lambda path: old_time(path, "blob 4\n")),
    "what an unknown symbol names": ("banner", lambda path: path.write_text("other\n")),
}


def test_each_change_is_seen(named: Playground, tmp_path: Path) -> None:
    here = named.home / "named"
    for number, (what, (name, change)) in enumerate(CHANGES.items()):
        change(here / name)
        result = named.doit("bzImage")
        assert result.ran == LINKS, (what, result.text)
        assert any(f"{here / name} " in reason for reason in result.why["vmlinux"]), (
            what,
            result.why,
        )
        assert plain_make(named, named.obj) == [], what
        if number % 6 == 0:
            assert as_make_does(named, tmp_path), what
            assert named.doit("bzImage").ran == [], what
    (here / "modprobe").write_text("no makefile uses it")
    (here / "fw" / "unused.bin").write_text("nobody names it")
    assert named.doit("bzImage").ran == []


def test_the_short_way_serves_no_old_file(named: Playground, tmp_path: Path) -> None:
    """Make decides when such a file changed; else the way is as short as ever."""
    here = named.home / "named"
    code("kernel/panic.c")(named)
    named.doit("bzImage")
    assert way(named, "vmlinux") == "short"
    (here / "root" / "more.c").write_text("int x;\n")
    code("kernel/panic.c", 2)(named)
    named.doit("bzImage")
    assert "more.c is new" in way(named, "vmlinux")
    (here / "root" / "more.c").write_text("int y;\n")
    named.doit("bzImage")
    assert as_make_does(named, tmp_path)
    assert plain_make(named, named.obj) == []


def test_after_a_build_that_failed(named: Playground, tmp_path: Path) -> None:
    """Make has taken the new file already when the build fails; the old one comes back with its old
    time."""
    path = named.home / "named" / "fw" / "a.bin"
    info, panic = path.stat(), named.linux / "kernel/panic.c"
    before = panic.read_text()
    path.write_text("blob X\n")
    panic.write_text(before + "#error wrong\n")
    named.fails("bzImage", "jobs=1")
    path.write_text("blob 1\n")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    panic.write_text(before)
    named.doit("bzImage")
    assert as_make_does(named, tmp_path)


def test_a_folder_with_a_new_time_and_the_same_content(named: Playground, tmp_path: Path) -> None:
    """Alone it makes nothing stale; with an edit make looks at it, and has nothing left to do."""
    link = named.home / "named" / "root" / "link"
    link.unlink()
    link.symlink_to("init")
    assert named.doit("bzImage").ran == []
    code("kernel/panic.c")(named)
    named.doit("bzImage")
    assert plain_make(named, named.obj) == []
    assert as_make_does(named, tmp_path)
    code("kernel/panic.c", 2)(named)
    named.doit("bzImage")
    assert way(named, "vmlinux") == "short"
    assert plain_make(named, named.obj) == []


def test_the_store_tells_them_apart(named: Playground, tmp_path: Path) -> None:
    named.store_size = "100M"
    path = named.home / "named" / "banner"
    for text in ("other\n", "hello\n", "other\n"):
        path.write_text(text)
        named.doit("bzImage")
        assert text.encode() in (named.images / "Image").read_bytes()
    assert as_make_does(named, tmp_path)


MISSING = {
    "root": "CONFIG_INITRAMFS_SOURCE names {here}/root, and there is no {here}/root",
    "elsewhere": "CONFIG_INITRAMFS_SOURCE names {here}/list, and there is no {here}/elsewhere",
    "fw/a.bin": "CONFIG_EXTRA_FIRMWARE names a.bin, and there is no {here}/fw/a.bin",
}


def test_a_missing_one_is_said_before_the_build(named: Playground) -> None:
    here, log = named.home / "named", named.here / "logs" / "vmlinux.log"
    assert " vmlinux piggyback-env" in log.read_text()  # so make was asked
    for name, said in MISSING.items():
        (here / name).rename(here / "away")
        text = named.fails("bzImage")
        assert said.format(here=here) in text
        assert f"comes from {BASE}:" in text
        assert not log.exists() or " vmlinux piggyback-env" not in log.read_text()
        (here / "away").rename(here / name)
    assert named.doit("bzImage").ran == ["vmlinux"]


def test_a_key_that_is_made_at_random(built: Playground) -> None:
    """What was made with it is made again when it is gone, and not before."""
    built.append(BASE, "CONFIG_MODULE_SIG=y\n")
    built.store_size = "100M"
    built.doit("bzImage")
    assert built.doit("bzImage").ran == []
    key, image = built.obj / "certs" / "signing_key.pem", built.images / "vmlinux"
    assert key.read_bytes() in image.read_bytes()
    old = key.read_bytes()
    key.unlink()
    result = built.doit("bzImage")
    assert result.ran == LINKS
    assert any("signing_key.pem is gone" in reason for reason in result.why["vmlinux"])
    assert key.read_bytes() != old
    assert key.read_bytes() in image.read_bytes()
    shutil.rmtree(built.obj)
    assert built.doit("bzImage").ran == LINKS
    assert key.read_bytes() in image.read_bytes()
    assert built.doit("bzImage").ran == []
