"""Impossible pairs of configuration, command line and machine are named; possible and unknown ones
are let pass."""

from __future__ import annotations

import struct

import msgspec
import pytest

from tasks.config.emulator import Disk, Qemu
from tasks.guest import facts, preflight
from tasks.guest.preflight import Problem, check

PC = Qemu(
    binary="qemu-system-i386",
    machine="pc",
    disk=Disk(args=("{image}",), root="/dev/sda"),
    nic=("{net}",),
    needs={
        "console": ("SERIAL_8250_CONSOLE",),
        "disk": ("BLK_DEV_SD", "ATA_PIIX|PATA_MPIIX"),
        "nic": ("NE2K_PCI",),
    },
)
# what a small kernel that boots has in its .config
GOOD = dict.fromkeys(
    [
        "TTY",
        "SERIAL_8250",
        "SERIAL_8250_CONSOLE",
        "PRINTK",
        "BINFMT_ELF",
        "BINFMT_SCRIPT",
        "PROC_FS",
        "SYSFS",
        "DEVTMPFS",
        "DEVTMPFS_MOUNT",
        "BLOCK",
        "SCSI",
        "BLK_DEV_SD",
        "ATA",
        "ATA_SFF",
        "ATA_BMDMA",
        "ATA_PIIX",
        "SATA_HOST",
        "EXT2_FS",
        "BLK_DEV_INITRD",
        "RD_GZIP",
        "COMPAT_32BIT_TIME",
        "X86_32",
    ],
    "y",
)
GOOD |= {"PHYSICAL_START": "0x100000", "SERIAL_8250_RUNTIME_UARTS": "4", "VT": "n", "64BIT": "n"}
BARE = msgspec.structs.replace(PC, needs={})
LINE = "console=ttyS0 root=/dev/sda ro panic=-1 reboot=t"


def found(
    drop: str = "",
    line: str = LINE,
    machine: Qemu = PC,
    disk: bool = True,
    initrd: bool = False,
    fstype: str = "ext2",
    arch: str = "i386",
    also: dict[str, str] | None = None,
    **more,
) -> list[Problem]:
    config = {**GOOD, **dict.fromkeys(drop.split(), "n"), **(also or {})}
    return check(config, line, machine, disk, initrd, fstype, arch, **more)


def only(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


def test_what_boots_has_no_problem() -> None:
    assert found() == []
    assert found(disk=False, initrd=True, line="console=ttyS0", initrd_head=b"\x1f\x8b\x08") == []


@pytest.mark.parametrize(
    ("drop", "who", "symbol"),
    [
        ("SERIAL_8250_CONSOLE", "console=ttyS0", "SERIAL_8250_CONSOLE"),
        ("BLK_DEV_SD", "root=/dev/sda", "BLK_DEV_SD"),
        ("SCSI", "root=/dev/sda", "SCSI"),
        ("EXT2_FS", "a root filesystem of type ext2", "EXT2_FS"),
        ("BINFMT_ELF", "any program", "BINFMT_ELF"),
        ("BLOCK", "root=/dev/sda", "BLOCK"),
        ("DEVTMPFS DEVTMPFS_MOUNT", "a root filesystem without a /dev/console", "DEVTMPFS"),
        ("DEVTMPFS_MOUNT", "a root filesystem without a /dev/console", "DEVTMPFS_MOUNT"),
    ],
)
def test_a_missing_symbol_is_named_on_both_sides(drop: str, who: str, symbol: str) -> None:
    problem = found(drop, machine=BARE)[0]
    assert problem.fatal
    assert problem.message.startswith(who)
    assert f"CONFIG_{symbol} in the kernel" in problem.message
    assert f"CONFIG_{symbol}=y" in problem.hint


def test_symbol_that_the_configuration_does_not_even_mention() -> None:
    config = {symbol: value for symbol, value in GOOD.items() if symbol != "BLK_DEV_SD"}
    problem = only(check(config, LINE, BARE, True, False))
    assert (
        problem.message
        == "root=/dev/sda needs CONFIG_BLK_DEV_SD in the kernel, where it is not in its"
        " configuration"
    )


def test_module_counts_only_with_an_initramfs() -> None:
    machine = BARE
    assert "is only a module" in only(found(also={"EXT2_FS": "m"}, machine=machine)).message
    assert found(also={"EXT2_FS": "m"}, machine=machine, initrd=True) == []


def test_static_nodes_replace_devtmpfs() -> None:
    assert found("DEVTMPFS DEVTMPFS_MOUNT", static_dev=True) == []


def test_ext4_driver_mounts_ext2() -> None:
    assert found("EXT2_FS", also={"EXT4_FS": "y", "EXT4_USE_FOR_EXT2": "y"}) == []
    assert "CONFIG_SQUASHFS" in only(found(fstype="squashfs")).message
    assert found("EXT2_FS", fstype="a-new-fs") == []


@pytest.mark.parametrize(
    ("device", "symbols"),
    [
        ("vda", "VIRTIO_BLK VIRTIO_PCI"),
        ("vdb2", "VIRTIO_BLK VIRTIO_MMIO"),
        ("mmcblk0", "MMC MMC_BLOCK MMC_ARMMMCI"),
        ("mmcblk0p1", "MMC MMC_BLOCK MMC_SDHCI_PCI"),
        ("mtdblock3", "MTD MTD_BLOCK"),
        ("mtdblock3", "MTD MTD_BLOCK_RO"),
        ("ram0", "BLK_DEV_RAM"),
        ("nvme0n1", "BLK_DEV_NVME"),
        ("sdaa3", "SCSI BLK_DEV_SD ATA_PIIX"),
        ("hda", "IDE IDE_GD"),
        ("hda1", "IDE BLK_DEV_IDEDISK"),
        ("sr0", "BLK_DEV_SR"),
    ],
)
def test_each_disk_wants_all_its_drivers(device: str, symbols: str) -> None:
    def problems(have: list[str]) -> list[Problem]:
        drop = "SCSI BLK_DEV_SD ATA_PIIX" if device != "sr0" else ""
        return found(drop, f"console=ttyS0 root=/dev/{device}", BARE, also=dict.fromkeys(have, "y"))

    assert problems(symbols.split()) == []
    wanted = symbols.split() if not symbols.startswith("IDE") else symbols.split()[1:]
    for symbol in wanted:
        problem = only(problems([other for other in symbols.split() if other != symbol]))
        assert f"root=/dev/{device}" in problem.message
        assert problem.fatal


def test_disk_without_any_adapter() -> None:
    problem = only(found("ATA_PIIX", machine=BARE))
    assert (
        problem.message
        == "root=/dev/sda needs the driver of the disk's adapter, and the kernel has none at all"
    )
    assert "CONFIG_ATA_PIIX=y" in problem.hint


@pytest.mark.parametrize(
    "symbol",
    [
        "SATA_AHCI",
        "PATA_MPIIX",
        "ATA_GENERIC",
        "SCSI_VIRTIO",
        "SCSI_SYM53C8XX_2",
        "MEGARAID_SAS",
        "USB_STORAGE",
        "USB_UAS",
        "FUSION_SPI",
        "SCSI_AM53C974",
        "HYPERV_STORAGE",
        "ATARI_SCSI",
        "SCSI_UFSHCD",
        "MAC_ESP",
        "SUN3_SCSI",
        "VMWARE_PVSCSI",
    ],
)
def test_any_adapter_will_do(symbol: str) -> None:
    assert facts.is_adapter(symbol, "scsi")
    assert found("ATA_PIIX", machine=BARE, also={symbol: "y"}) == []


def test_old_ide_name() -> None:
    problem = only(found(line="console=ttyS0 root=/dev/hda1", machine=BARE))
    assert "root=/dev/hda1" in problem.message
    assert "/dev/sda1" in problem.hint


@pytest.mark.parametrize(
    "root",
    [
        "/dev/whatever0",
        "PARTUUID=1234-01",
        "LABEL=x",
        "0800",
        "/dev/mapper/vg-root",
        "ubi0:root",
        "/dev/dasda1",
        "/dev/disk/by-id/x",
    ],
)
def test_unknown_root_is_let_pass(root: str) -> None:
    assert found("SCSI BLK_DEV_SD ATA_PIIX EXT2_FS", f"console=ttyS0 root={root}", BARE) == []


def test_no_root_and_last_root() -> None:
    assert "no root=" in only(found(line="console=ttyS0")).message
    assert found(line="console=ttyS0", initrd=True, machine=BARE) == []
    assert found(line="console=ttyS0 root=/dev/vda root=/dev/sda") == []
    assert "root=/dev/vda needs CONFIG_VIRTIO_BLK" in found(line=LINE + " root=/dev/vda")[0].message


@pytest.mark.parametrize(
    "console", ["ttyXYZ0", "uart8250,io,0x3f8", "uart,mmio,0x1", "null", "netcon0", ""]
)
def test_unknown_console_is_let_pass(console: str) -> None:
    assert found(line=f"console={console} console=ttyS0,115200n8 root=/dev/sda") == []
    assert found(line=f"root=/dev/sda console={console}") == []


def test_console_of_another_board() -> None:
    arm = msgspec.structs.replace(PC, console="ttyAMA0", needs={})
    assert (
        "console=ttyAMA0 needs CONFIG_SERIAL_AMBA_PL011_CONSOLE"
        in only(found(line="console=ttyAMA0 root=/dev/sda", machine=arm)).message
    )
    assert (
        found(
            line="console=ttyAMA0 root=/dev/sda",
            machine=arm,
            also={"SERIAL_AMBA_PL011_CONSOLE": "y"},
        )
        == []
    )


def test_the_shell_goes_to_the_last_console() -> None:
    vt = {"VT_CONSOLE": "y"}
    problem = only(found(line=LINE + " console=tty0", also=vt))
    assert (
        problem.message == "the last console= is tty0: the shell goes there, and QEMU shows ttyS0"
    )
    assert found(line="console=tty0 " + LINE, also=vt) == []
    assert (
        found(
            line=LINE + " console=tty0", also=vt, machine=msgspec.structs.replace(PC, display="gtk")
        )
        == []
    )


def test_a_second_console_without_driver_does_no_harm() -> None:
    assert not only(found(line=LINE + " console=tty0")).fatal


def test_serial_port_beyond_those_set_up() -> None:
    problem = only(
        found(
            line="console=ttyS5 root=/dev/sda", machine=msgspec.structs.replace(PC, console="ttyS5")
        )
    )
    assert problem.fatal
    assert "CONFIG_SERIAL_8250_RUNTIME_UARTS=6" in problem.hint
    assert (
        found(
            line="console=ttyS5 8250.nr_uarts=8 root=/dev/sda",
            machine=msgspec.structs.replace(PC, console="ttyS5"),
        )
        == []
    )


def test_no_tty_is_said_once() -> None:
    machine = BARE
    assert (
        only(found("TTY SERIAL_8250_CONSOLE", machine=machine)).hint
        == "add to a fragment: CONFIG_TTY=y"
    )


def test_machine_needs() -> None:
    problems = found("ATA_PIIX", also={"SATA_AHCI": "y"})
    assert (
        only(problems).message
        == "the machine 'pc' (disk) needs CONFIG_ATA_PIIX in the kernel, where it is not set"
    )
    assert only(problems).hint == "add to a fragment: CONFIG_ATA_PIIX=y, or CONFIG_PATA_MPIIX=y"
    assert found("ATA_PIIX", also={"PATA_MPIIX": "y"}) == []
    assert "CONFIG_NE2K_PCI" in only(found(has_nic=True)).message
    assert found("ATA_PIIX BLK_DEV_SD", disk=False, initrd=True, line="console=ttyS0") == []


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x1f\x8b\x08", "GZIP"),
        (b"\xfd7zXZ\0", "XZ"),
        (b"BZh9", "BZIP2"),
        (b"\x5d\0\0\x80", "LZMA"),
        (b"\x02\x21\x4c\x18", "LZ4"),
        (b"\x89LZO", "LZO"),
        (b"\x28\xb5\x2f\xfd", "ZSTD"),
        (b"070701", ""),
        (b"", ""),
    ],
)
def test_initramfs_decompressor(head: bytes, name: str) -> None:
    assert preflight.compression(head) == name
    problems = found("RD_GZIP", disk=False, initrd=True, line="console=ttyS0", initrd_head=head)
    if name:
        assert f"CONFIG_RD_{name}=y" in only(problems).hint
    else:
        assert problems == []
    assert (
        "CONFIG_BLK_DEV_INITRD"
        in only(
            found("BLK_DEV_INITRD", disk=False, initrd=True, line="console=ttyS0", initrd_head=head)
        ).message
    )


def header(start: int, size: int, version: int = 0x20F) -> bytes:
    head = bytearray(0x400)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<QI", head, 0x258, start, size)
    return bytes(head)


def test_memory_against_the_kernels_place() -> None:
    problem = only(found(memory=16, also={"PHYSICAL_START": "0x1000000"}, payload=1 << 20))
    assert problem.fatal
    assert "needs at least 18 MB" in problem.message
    assert "the machine has 16 MB" in problem.message
    assert "CONFIG_PHYSICAL_START=0x100000 (now 0x1000000)" in problem.hint
    assert found(memory=32, also={"PHYSICAL_START": "0x1000000"}, payload=1 << 20) == []
    assert found(memory=16, also={"PHYSICAL_START": "0x1000000"}, payload=1 << 20, arch="arm") == []
    assert (
        "at least 5 MB to start"
        in only(found(memory=4, kernel_head=header(0x100000, 0x3B9000))).message
    )
    assert found(memory=8, kernel_head=header(0x100000, 0x3B9000)) == []
    assert (
        found(memory=8, kernel_head=header(0x1000000, 0x3B9000, 0x209), payload=100) == []
    )  # too old for these fields
    assert (
        found(memory=8, kernel_head=header(0x1000000, 0x3B9000)[:0x240], payload=100) == []
    )  # cut short


def test_images_larger_than_the_memory() -> None:
    assert "needs at least" in only(found(arch="arm", payload=40 << 20)).message
    assert found(arch="arm", payload=10 << 20) == []


def test_64_bit_kernel_on_a_32_bit_machine() -> None:
    also = {"X86_64": "y", "64BIT": "y", "X86_32": "n"}
    assert "qemu-system-i386 is a 32-bit machine" in only(found(also=also)).message
    assert found(also=also, machine=msgspec.structs.replace(PC, binary="qemu-system-x86_64")) == []


@pytest.mark.parametrize("symbol", ["PRINTK", "PROC_FS", "SYSFS", "COMPAT_32BIT_TIME"])
def test_what_boots_but_will_be_missed_is_not_fatal(symbol: str) -> None:
    problem = only(found(symbol))
    assert not problem.fatal
    assert f"CONFIG_{symbol}=y" in problem.hint
    assert found("EXT2_FS " + symbol)[0].fatal  # the fatal first


def test_time_calls_matter_to_32_bit_kernels_that_know_the_symbol() -> None:
    assert found("COMPAT_32BIT_TIME", also={"64BIT": "y"}) == []
    config = {symbol: value for symbol, value in GOOD.items() if symbol != "COMPAT_32BIT_TIME"}
    assert check(config, LINE, PC, True, False) == []


def test_command_line_of_the_configuration_counts() -> None:
    built_in = {"CMDLINE_BOOL": "y", "CMDLINE": '"root=/dev/vda"'}
    assert preflight.effective(built_in, "a") == "root=/dev/vda a"
    assert preflight.effective({**built_in, "CMDLINE_OVERRIDE": "y"}, "a") == "root=/dev/vda"
    assert preflight.effective({"CMDLINE": '"b"'}, "a") == "a"
    assert preflight.effective({"CMDLINE": '"b"', "CMDLINE_FORCE": "y"}, "a") == "b"
    assert preflight.effective({}, "a") == "a"
    assert found(also=built_in) == []
    assert "root=/dev/vda needs" in found(also={**built_in, "CMDLINE_OVERRIDE": "y"})[0].message


def test_a_mainframe_and_a_partition_have_consoles_of_their_own() -> None:
    for console, symbol in (("ttysclp0", "SCLP_VT220_CONSOLE"), ("hvc0", "HVC_DRIVER")):
        machine = msgspec.structs.replace(PC, console=console, needs={})
        line = f"console={console} root=/dev/sda"
        assert (
            f"console={console} needs CONFIG_{symbol}"
            in only(found(line=line, machine=machine)).message
        )
        assert found(line=line, machine=machine, also={symbol: "y"}) == []


def test_too_long_a_command_line() -> None:
    assert found(line=LINE + " " + "x" * (2047 - len(LINE) - 1)) == []
    problem = only(found(line=LINE + " " + "x" * (2048 - len(LINE) - 1)))
    assert (
        problem.message
        == "the kernel's command line has 2048 characters; i386 cuts it off after 2047"
    )
    assert found(line=LINE + "x " * 9000, arch="newarch") == []
    s390 = only(found(line=LINE + " " + "x" * 900, arch="s390", also={"COMMAND_LINE_SIZE": "896"}))
    assert "s390 cuts it off after 895" in s390.message


def ramfs(**more) -> list[Problem]:
    return found(**{"disk": False, "initrd": True, "line": "console=ttyS0", "memory": 32, **more})


def test_an_initramfs_that_memory_cannot_hold() -> None:
    assert ramfs(unpacked=20 << 20, payload=8 << 20) == []
    problem = only(ramfs(unpacked=25 << 20, payload=8 << 20))
    assert problem.fatal
    assert (
        problem.message
        == "the initramfs takes 25.0 MB of memory when it is unpacked, and the machine has 32 MB"
    )
    assert "memory=34 at the least" in problem.hint


def test_a_tmpfs_takes_half_of_the_memory() -> None:
    tmpfs = {"TMPFS": "y"}
    assert ramfs(unpacked=16 << 20, payload=8 << 20, also=tmpfs) == []
    problem = only(ramfs(unpacked=17 << 20, payload=8 << 20, also=tmpfs))
    assert problem.message.endswith("the machine has 32 MB, of which a tmpfs takes half")
    assert "memory=35 at the least" in problem.hint
    for line in ("rootfstype=ramfs", "initramfs_options=size=90%"):
        assert (
            ramfs(unpacked=17 << 20, payload=8 << 20, also=tmpfs, line=f"console=ttyS0 {line}")
            == []
        )
    assert ramfs(unpacked=17 << 20, also=tmpfs, line="console=ttyS0 rootfstype=tmpfs") != []


def test_attributes_that_the_kernel_does_not_read() -> None:
    assert "CONFIG_EXT2_FS_XATTR" in only(found(attributes=True)).message
    problem = only(found(attributes=True, also={"EXT2_FS_XATTR": "y"}))
    assert (
        "file capabilities of the root filesystem needs CONFIG_EXT2_FS_SECURITY" in problem.message
    )
    assert not problem.fatal
    assert found(attributes=True, also={"EXT2_FS_XATTR": "y", "EXT2_FS_SECURITY": "y"}) == []
