"""The ARM board for real: its whole chain, device tree, modules of the tree and from outside."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from terminals import terminal

from tasks.system.process import clean_env
from tests.real.conftest import Checkout, edited, lay_out
from tests.real.test_size import whole

pytestmark = pytest.mark.real
MODULE = Path(__file__).with_name("module")
BOARD = ["Image", "piggy.gz", "piggy.o", "compressed_vmlinux", "zImage", "uImage", "bootpImage"]


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of somebody's own, with the example module."""
    return Path(shutil.copytree(MODULE, tmp_path_factory.mktemp("module") / "hello"))


def test_it_boots_and_passes_its_checks(versatile: Checkout) -> None:
    said = versatile.doit("qemu_test")
    for check in ("shell", "uname", "mount", "free", "disk", "clock", "poweroff"):
        assert f"=== {check} ok" in said
    assert "nothing to do" in versatile.doit()


@pytest.mark.long  # a second kernel from scratch; test_pc.py has the same for the PC
def test_every_link_is_what_plain_make_makes_elsewhere(versatile: Checkout, tmp_path: Path) -> None:
    """Plain make, from a tree in another place, with another umask, time zone and so on."""
    other = lay_out(tmp_path / "other")
    other.doit("_unpack:linux-6.1")
    initrd = f"INITRD={versatile.images.absolute()}/initramfs.cpio.gz"
    obj = tmp_path / "obj"
    goals = [initrd, "zImage", "uImage", "bootpImage", "versatile-pb.dtb"]
    assert versatile.made_otherwise(obj, *goals, tree=other.kernel) == []
    assert (obj / "arch/arm/boot/dts/versatile-pb.dtb").read_bytes() == (
        versatile.images / "versatile-pb.dtb"
    ).read_bytes()
    shutil.rmtree(other.top)


def test_mkimage_knows_the_uimage(versatile: Checkout) -> None:
    said = subprocess.run(
        ["mkimage", "-l", str(versatile.images / "uImage")],
        env=clean_env(),
        text=True,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    assert "ARM Linux Kernel Image (uncompressed)" in said
    assert "Load Address: 00008000" in said
    assert "2026" in said  # mkimage heeds SOURCE_DATE_EPOCH


def test_each_byte_of_an_arm_boards_images_is_on_a_line(versatile: Checkout) -> None:
    found = whole(versatile, "zImage")
    assert found["ram"]["init"] > 0


def test_bootpimage_carries_the_initramfs_and_follows_it(versatile: Checkout) -> None:
    def carries() -> bool:
        return (versatile.images / "initramfs.cpio.gz").read_bytes() in (
            versatile.images / "bootpImage"
        ).read_bytes()

    assert carries()
    motd = versatile.top / "overlays" / "base" / "etc" / "motd.new"
    motd.write_text("new\n")
    assert sorted(versatile.ran()) == ["bootpImage", "initramfs", "rootfs"]
    assert carries()
    motd.unlink()
    versatile.doit()
    assert carries()


def test_a_device_tree_edit_makes_the_device_tree_alone(versatile: Checkout) -> None:
    before = (versatile.images / "versatile-pb.dtb").read_bytes()
    with edited(
        versatile.kernel / "arch/arm/boot/dts/versatile-ab.dts",
        'model = "ARM Versatile AB"',
        'model = "ARM AB"',
    ):
        assert versatile.ran() == ["dtbs"]  # versatile-pb.dts includes it, and overrides the model
    with edited(
        versatile.kernel / "arch/arm/boot/dts/versatile-pb.dts",
        'model = "ARM Versatile PB"',
        'model = "ARM PB"',
    ):
        assert versatile.ran() == ["dtbs"]
        assert (versatile.images / "versatile-pb.dtb").read_bytes() != before
    assert versatile.ran() == ["dtbs"]
    assert (versatile.images / "versatile-pb.dtb").read_bytes() == before


def test_modules_load_in_the_guest(versatile: Checkout, module: Path) -> None:
    before = sorted(path.name for path in module.iterdir())
    said = versatile.doit(f"src={module}", "module")
    assert "images/piggyback_hello.ko" in said
    assert sorted(path.name for path in module.iterdir()) == before  # nothing was written into it
    versatile.doit(f"src={module}", "rootfs")
    argv = [versatile.argv()[0], "qemu_boot", f"src={module}"]
    with terminal(argv, versatile.top, versatile.variables(), versatile.top / "boot.log") as guest:
        guest.expect("# ")
        guest.sendline("modprobe brd && grep -c ramdisk /proc/devices")
        guest.expect("1\r")
        guest.sendline("insmod /lib/modules/*/extra/piggyback_hello.ko rider=$((6 * 7))")
        guest.expect("piggyback: 42 rides on Linux 6.1")
        guest.sendline("lsmod; rmmod piggyback_hello; poweroff")
        guest.expect("piggyback_hello +[0-9]")
        guest.expect("42 gets off")
        guest.expect("System halted|Power down")


def test_a_module_is_rebuilt_when_the_kernel_concerns_it_and_only_then(
    versatile: Checkout, module: Path
) -> None:
    words = [f"src={module}", "zImage", "modules", "module"]
    versatile.doit(*words)
    assert versatile.ran(*words) == []
    panic = versatile.kernel / "kernel" / "panic.c"
    with edited(panic, "Kernel panic - not syncing: %s", "Kernel panic - not  syncing: %s"):
        assert versatile.ran(*words) == ["vmlinux", *BOARD[:5]]
    versatile.doit(*words)
    with edited(
        panic,
        "EXPORT_SYMBOL(panic);",
        "EXPORT_SYMBOL(panic);\nint piggy_new;\nEXPORT_SYMBOL(piggy_new);",
    ):
        ran = versatile.ran(*words)
        assert "modules" in ran
        assert "module" in ran
        assert "piggy_new" in (versatile.images / "Module.symvers").read_text()
    versatile.doit(*words)
    with edited(versatile.kernel / "include/linux/bcd.h", "(((x) & 0x0f)", "((1 * (x) & 0x0f)"):
        ran = versatile.ran(*words)
        assert "vmlinux" in ran
        assert "module" in ran
        assert "modules" not in ran  # brd.ko does not include it
    versatile.doit(*words)
    with edited(module / "piggyback_hello.c", "rides on", "sits on"):
        assert versatile.ran(*words) == ["module"]
        assert b"sits on" in (versatile.images / "piggyback_hello.ko").read_bytes()
    assert versatile.ran(*words) == ["module"]
    (versatile.images / "piggyback_hello.ko").unlink()
    assert versatile.ran(*words) == ["module"]


def test_a_module_that_is_none_is_said(versatile: Checkout, tmp_path: Path) -> None:
    assert "doit module src=DIR" in versatile.doit("module", status=1)
    assert "neither Kbuild nor Makefile" in versatile.doit(f"src={tmp_path}", "module", status=1)
    (tmp_path / "Kbuild").write_text("obj-m := broken.o\n")
    (tmp_path / "broken.c").write_text("int x = y;\n")
    assert "broken.c:1:9: error: 'y' undeclared" in versatile.doit(
        f"src={tmp_path}", "module", status=1
    )
