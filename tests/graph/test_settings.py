"""Settings, tools and code as inputs: what matters makes stale, what does not, does not."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from playground import Kept, Playground

from tasks.cache import digests


def test_settings_that_no_image_depends_on(built: Playground) -> None:
    assert (
        built.doit(
            "jobs=1",
            "memory=64",
            "append=debug",
            "timeout=9",
            "menu=nconfig",
            "accel=tcg",
            "offline=yes",
            "snapshot=no",
            "mirror=/nowhere",
        ).ran
        == []
    )


def test_settings_that_an_image_depends_on(built: Playground, kept: Kept) -> None:
    assert built.doit("initramfs=xz").ran == ["initramfs"]
    assert (built.images / "initramfs.cpio.xz").read_bytes().startswith(b"\xfd7zXZ")
    assert built.doit("rootfs_free=1024").ran == ["rootfs", "initramfs"]
    (built.top / "local.toml").write_text("rootfs_free = 1024\n[machines.fake]\ninitramfs = 'xz'\n")
    after = built.doit()
    assert after.ran == ["initramfs"]
    assert any("gzip -> xz" in reason for reason in after.why["initramfs"])
    assert built.doit().ran == []


def test_overlays_by_setting(built: Playground, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "hello").write_text("hello\n")
    assert built.doit(f"overlays={more}").ran == ["rootfs", "initramfs"]
    (more / "hello").chmod(0o700)
    assert built.doit(f"overlays={more}").ran == ["rootfs", "initramfs"]
    assert built.doit(f"overlays={more}").ran == []


def test_command_line_of_the_guest(built: Playground) -> None:
    assert built.doit("_run_qemu").ran == ["_run_qemu"]
    assert built.doit("_run_qemu").ran == []
    assert built.doit("append=debug", "_run_qemu").ran == ["_run_qemu"]
    assert "debug" in (built.images / "run-qemu.sh").read_text()


def test_a_tool_that_changed(built: Playground, tmp_path: Path) -> None:
    real = shutil.which("gzip")
    tool = tmp_path / "gzip"
    tool.write_text(f'#!/bin/sh\nexec {real} "$@" -1\n')
    tool.chmod(0o755)
    path = f"{tmp_path}:{built.environ()['PATH']}"
    before = built.digests()
    after = built.doit(PATH=path)
    assert "tool gzip changed" in after.why["piggy.gz"]
    assert "vmlinux" not in after.ran
    assert built.digests()["piggy.gz"] != before["piggy.gz"]
    assert built.doit(PATH=path).ran == []
    tool.write_text(f'#!/bin/sh\n# other bytes\nexec {real} "$@" -1\n')
    assert "piggy.gz" in built.doit(PATH=path).ran


def test_nothing_is_hashed_twice(built: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in built.linux.resolve().rglob("*"):
        path.touch()
    time.sleep(
        0.1
    )  # a file touched just now is hashed again, for it may change within the tick of the clock
    assert built.doit().ran == []
    monkeypatch.chdir(built.top)
    monkeypatch.setattr(digests, "_hash", lambda path: pytest.fail(f"{path} was hashed again"))
    known = digests.Stamps(Path("build/fake/stamps"))
    for path in (
        built.linux.resolve() / "kernel/panic.c",
        built.linux.resolve() / "include/linux/kernel.h",
        "build/fake/images/vmlinux",
        "build/fake/images/busybox",
        shutil.which("gzip"),
    ):
        assert known.digest(path or "")


def test_two_kernels_take_turns(built: Playground, kept: Kept) -> None:
    """The second writes its records as kernels since 6.2 do."""
    second = built.doit("kernel=6.2")
    assert {"vmlinux", "bzImage"} <= set(second.ran)
    assert (
        built.here / "kernel" / "6.2" / "include/config/kernel.release"
    ).read_text() == "6.2.0\n"
    assert built.doit("kernel=6.2").ran == []
    built.edit("build/src/linux-6.2/kernel/panic.c", "printk(why)", "printk(why + 1)")
    assert "bzImage" in built.doit("kernel=6.2").ran
    built.doit()
    assert built.digests() == kept.digests
    assert built.doit().ran == []


def test_a_symbol_turned_on_and_off_again(built: Playground, kept: Kept) -> None:
    base = "configs/kernel/fake-base.config"
    built.append(base, "CONFIG_EXTRA=y\n")
    built.doit()
    built.edit(base, "CONFIG_EXTRA=y\n", "")
    built.doit()
    assert built.digests() == kept.digests
    assert built.doit().ran == []


def test_always_execute_then_nothing(built: Playground, kept: Kept) -> None:
    built.doit("run", "-a")
    assert built.digests() == kept.digests
    assert built.doit().ran == []


def test_clean_all_then_build(built: Playground, kept: Kept) -> None:
    built.doit("clean", "-a")
    built.doit()
    assert built.digests() == kept.digests
    assert built.doit().ran == []


def test_forget_then_build(built: Playground, kept: Kept) -> None:
    built.doit("forget", "-a")
    built.doit()
    assert built.digests() == kept.digests
    assert built.doit().ran == []


def test_from_another_folder(built: Playground, tmp_path: Path) -> None:
    assert built.doit("-f", str(built.top / "dodo.py"), cwd=tmp_path).ran == []
    assert list(tmp_path.iterdir()) == []
