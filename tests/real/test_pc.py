"""The PC for real: Linux 6.1, busybox and QEMU; every link held against plain make's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from terminals import powered_off, terminal

from tasks.system.process import clean_env
from tests.real.conftest import Checkout, edited

pytestmark = pytest.mark.real
BOOT = "arch/x86/boot"
LINKS = {
    "vmlinux": "vmlinux",
    "System.map": "System.map",
    "Image": f"{BOOT}/compressed/vmlinux.bin",
    "piggy.gz": f"{BOOT}/compressed/vmlinux.bin.xz",
    "piggy.o": f"{BOOT}/compressed/piggy.o",
    "compressed_vmlinux": f"{BOOT}/compressed/vmlinux",
    "bzImage": f"{BOOT}/bzImage",
}


def test_it_boots_and_passes_its_checks(pc: Checkout) -> None:
    said = pc.doit("qemu_test")
    for check in ("shell", "uname", "mount", "free", "disk", "clock", "poweroff"):
        assert f"=== {check} ok" in said


def test_a_second_and_a_third_run_do_nothing(pc: Checkout) -> None:
    assert "nothing to do" in pc.doit()
    assert "nothing to do" in pc.doit()


def test_the_initramfs_boots_too(pc: Checkout) -> None:
    assert "/ is rootfs, read-write" in pc.doit("boot=initramfs", "qemu_test").replace(
        "tmpfs", "rootfs"
    )


def test_somebody_types_into_the_shell(pc: Checkout) -> None:
    argv = [pc.argv("qemu_boot")[0], "qemu_boot"]
    with terminal(argv, pc.top, pc.variables(), pc.top / "boot.log", 90) as guest:
        guest.expect("piggyback: up")
        guest.expect("# ")
        guest.sendline("echo $((6 * 7)); uname -r")
        guest.expect(r"42\r+\n6\.1\.")
        powered_off(guest)


def test_every_link_is_what_plain_make_makes(pc: Checkout, plain: Path) -> None:
    assert pc.made_otherwise(plain, "bzImage") == []


@pytest.mark.long
def test_every_link_is_what_plain_make_makes_from_nothing(pc: Checkout, tmp_path: Path) -> None:
    assert pc.made_otherwise(tmp_path / "obj", "bzImage") == []


def test_make_finds_nothing_to_do_after_us(pc: Checkout) -> None:
    said = pc.make(pc.obj, "bzImage")
    pc.make(pc.obj, "bzImage")
    assert not [
        line
        for line in said.splitlines()
        if line.startswith(("  CC ", "  LD      vmlinux", "  AR "))
    ]
    assert "nothing to do" in pc.doit()


def test_edits_rebuild_what_they_concern_and_nothing_else(pc: Checkout) -> None:
    before = {name: (pc.images / name).read_bytes() for name in LINKS}
    panic = pc.kernel / "kernel" / "panic.c"
    with edited(panic, "Kernel panic - not syncing: %s", "Kernel panic - not  syncing: %s"):
        assert pc.ran() == [
            "vmlinux",
            "Image",
            "piggy.gz",
            "piggy.o",
            "compressed_vmlinux",
            "bzImage",
        ]
        assert b"panic - not  syncing" in (pc.images / "Image").read_bytes()
    assert pc.ran()[0] == "vmlinux"  # put back, with its old time: make alone would not see it
    assert {name: (pc.images / name).read_bytes() for name in LINKS} == before
    with edited(panic, "/*", "/* a comment;"):
        assert pc.ran() == ["vmlinux"]
    assert pc.ran() == ["vmlinux"]
    with edited(pc.kernel / "sound" / "core" / "init.c", "/*", "/* nobody compiles this"):
        assert pc.ran() == []
    with edited(
        pc.kernel / BOOT / "compressed" / "misc.c", "inappropriately aligned", "badly aligned"
    ):
        assert pc.ran() == ["compressed_vmlinux", "bzImage"]
    assert pc.ran() == ["compressed_vmlinux", "bzImage"]
    assert {name: (pc.images / name).read_bytes() for name in LINKS} == before


def test_lost_and_damaged_outputs_come_back(pc: Checkout) -> None:
    before = (pc.images / "bzImage").read_bytes()
    (pc.images / "piggy.o").unlink()
    assert pc.ran() == ["piggy.o"]
    os.truncate(pc.images / "vmlinux", 1000)
    os.truncate(pc.obj / "vmlinux", 1000)
    assert pc.ran() == ["vmlinux"]
    os.truncate(pc.images / "bzImage", 1000)
    assert pc.ran() == ["bzImage"]
    assert (pc.images / "bzImage").read_bytes() == before


def test_an_overlay_edit_rebuilds_the_images_alone(pc: Checkout) -> None:
    before = (pc.images / "rootfs.ext2").read_bytes()
    script = pc.top / "overlays" / "base" / "etc" / "init.d" / "rcS"
    script.chmod(0o700)
    assert pc.ran() == ["rootfs", "initramfs"]
    script.chmod(0o755)
    assert pc.ran() == ["rootfs", "initramfs"]
    assert (pc.images / "rootfs.ext2").read_bytes() == before


def test_e2fsck_finds_nothing(pc: Checkout) -> None:
    subprocess.run(["e2fsck", "-fn", str(pc.images / "rootfs.ext2")], env=clean_env(), check=True)
    head = subprocess.run(
        ["dumpe2fs", "-h", str(pc.images / "rootfs.ext2")],
        env=clean_env(),
        check=True,
        text=True,
        capture_output=True,
    ).stdout
    assert "Filesystem state:         clean" in head


def test_a_symbol_that_does_not_take_is_explained(pc: Checkout) -> None:
    own = pc.top / "configs" / "kernel" / "local" / "pc.config"
    own.parent.mkdir(exist_ok=True)
    own.write_text("CONFIG_E1000=y\n")
    said = pc.doit("kernel_config", status=1)
    assert "configs/kernel/local/pc.config:1: CONFIG_E1000=y did not take: got n" in said
    assert "CONFIG_NET_VENDOR_INTEL=y" in said
    own.unlink()
    pc.doit()


@pytest.mark.long
def test_damaged_programs_of_kconfig_are_made_again(pc: Checkout) -> None:
    own = pc.top / "configs" / "kernel" / "local" / "pc.config"
    own.parent.mkdir(exist_ok=True)
    before = (pc.images / "config").read_bytes()
    for number, name in enumerate(
        ["kconfig/conf.o", "kconfig/conf", "kconfig/menu.o", "kconfig/.conf.o.cmd", "basic/fixdep"]
    ):
        os.truncate(pc.obj / "scripts" / name, 0)
        own.write_text(f"CONFIG_PANIC_TIMEOUT={number + 1}\n")
        pc.doit("kernel_config")
        assert f"CONFIG_PANIC_TIMEOUT={number + 1}\n" in (pc.images / "config").read_text()
    own.unlink()
    pc.doit("kernel_config")
    assert (pc.images / "config").read_bytes() == before
    pc.doit()


def test_what_can_not_boot_is_said_beforehand(pc: Checkout) -> None:
    assert "would not boot" in pc.doit("append=root=/dev/vda", "qemu_test", status=1)
    assert "would not boot" in pc.doit("memory=2", "qemu_test", status=1)


def test_a_panic_is_a_panic(pc: Checkout) -> None:
    said = pc.doit("append=init=/bin/false", "qemu_test", status=1)
    assert "panic" in said.lower()


def test_a_root_filesystem_that_is_built_in_is_an_input(pc: Checkout, tmp_path: Path) -> None:
    """Its folder is in no record of Kbuild's that would tell of a new file, or of a mode."""
    own = pc.top / "configs" / "kernel" / "local" / "pc.config"
    own.parent.mkdir(exist_ok=True)
    root = tmp_path / "root"
    root.mkdir()
    (root / "first").write_text("what is in the first file\n")
    own.write_text(f'CONFIG_INITRAMFS_SOURCE="{root}"\nCONFIG_INITRAMFS_COMPRESSION_NONE=y\n')
    pc.doit("Image")
    (root / "first").chmod(0o600)
    (root / "second").write_text("what is in the second file\n")
    assert pc.ran("Image") == ["vmlinux", "Image"]
    assert b"what is in the second file" in (pc.images / "Image").read_bytes()
    assert "  GEN     usr/" not in pc.make(pc.obj, "vmlinux")
    own.unlink()
    pc.doit()
