"""What the console's text of a dying guest is read as: real kernels' words."""

from __future__ import annotations

import pytest

from tasks.guest import faults

NO_DISK = """\
VFS: Cannot open root device "sda" or unknown-block(0,0): error -6
Please append a correct "root=" boot option; here are the available partitions:
Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
"""
OTHER_DISK = """\
[    0.52] VFS: Cannot open root device "vdb" or unknown-block(0,0): error -6
[    0.52] Please append a correct "root=" boot option; here are the available partitions:
[    0.52] 0800            8192 sda@
[    0.52]  driver: sd
[    0.52]   0801            8000 sda1 0000-01
[    0.52] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
""".replace("@", " ")  # the kernel ends these lines with a blank
NEWER = """\
/dev/root: Can't open blockdev
VFS: Cannot open root device "/dev/sda" or unknown-block(0,0): error -6
Please append a correct "root=" boot option; here are the available partitions:
List of all bdev filesystems:
 ext2

Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
"""
WRONG_TYPE = """\
List of all partitions:
0800            1024 sda@
 driver: sd
No filesystem could mount root, tried:@
 ext2
Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(8,0)
""".replace("@", " ")
NO_EXEC = """\
Starting init: /sbin/init exists but couldn't execute it (error -8)
Kernel panic - not syncing: No working init found.  Try passing init= option to kernel.
"""
OOPS = """\
[    1.0] BUG: kernel NULL pointer dereference, address: 00000000
[    1.0] #PF: supervisor write access in kernel mode
[    1.0] Oops: 0002 [#1] PREEMPT
[    1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009
"""


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (NO_DISK, "the kernel finds no root device 'sda'", "no disk at all"),
        (NO_DISK.replace('"sda"', '"(null)"'), "was not told its root device", "no disk"),
        (OTHER_DISK, "no root device 'vdb'", "it sees sda, sda1"),
        (NEWER, "no root device '/dev/sda'", "no disk at all"),
        (
            WRONG_TYPE,
            "no file system driver of the kernel can mount the root device (tried: ext2)",
            "EXT2_FS",
        ),
        (
            OOPS,
            "kernel oops: BUG: kernel NULL pointer dereference, address: 00000000",
            "call trace",
        ),
        ("kernel BUG at mm/slub.c:123!\n", "kernel oops: kernel BUG at mm/slub.c:123!", "trace"),
        (
            "Unable to handle kernel paging request at virtual address 00000004\n",
            "kernel oops: Unable to handle",
            "trace",
        ),
        ("Internal error: Oops: 805 [#1] ARM\n", "kernel oops: Internal error: Oops: 805", "trace"),
        ("divide error: 0000 [#1]\n", "kernel oops: divide error", "trace"),
        (
            "Kernel panic - not syncing: No working init found.  Try passing init= option\n",
            "no init that works",
            "/sbin/init",
        ),
        (
            "Kernel panic - not syncing: Requested init /x failed (error -2).\n",
            "/x is not there",
            "loader",
        ),
        (NO_EXEC, "can't execute /sbin/init: Exec format error", "BINFMT_ELF"),
        (NO_EXEC.replace("-8", "-13"), "can't execute /sbin/init: Permission denied", "mode"),
        (
            "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00\n",
            "init ended with status 127",
            "words",
        ),
        (
            "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000004\n",
            "init was killed by SIGILL",
            "processor",
        ),
        (
            "[    0.6] Initramfs unpacking failed: write error\n",
            "initramfs: write error (it is bigger than",
            "boot=disk",
        ),
        (
            "Initramfs unpacking failed: write error\nFreeing initrd memory: 4K\n" + NO_DISK,
            "could not unpack",
            "memory",
        ),
        (
            "rootfs image is not initramfs (write error); looks like an initrd\n",
            "could not unpack",
            "memory",
        ),
        (
            "Initramfs unpacking failed: XZ-compressed data is corrupt\n",
            "initramfs: XZ-compressed data is corrupt",
            "whole",
        ),
        (
            "Initramfs unpacking failed: Decoding failed\n" + NO_DISK,
            "initramfs: Decoding failed",
            "CONFIG_RD_",
        ),
        (
            "Kernel panic - not syncing: System is deadlocked on memory\n",
            "deadlocked on memory",
            "more memory",
        ),
        (
            "Kernel panic - not syncing: stack-protector: corrupted\n",
            "kernel panic: stack-protector: corrupted",
            "trace",
        ),
    ],
)
def test_diagnosis(text: str, message: str, hint: str) -> None:
    boot = "[    0.0] Linux version 6.1.192 (a@b) #1\n[    0.1] devtmpfs: mounted\n"
    found = faults.diagnose(boot + text)
    assert found is not None
    assert message in found[0]
    assert hint in found[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/ # ",
        "[    0.0] Linux version 6.1.192\n",
        "traps: sh[45] general protection fault ip:804 sp:bf error:0\n",
        "Kernel panic - not syn",
        "sh: can't execute 'x': Exec format error\n",
        "Initramfs unpacking failed: Decoding failed\n",
        "Initramfs unpacking failed: junk within compressed archive\n",
        "WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2\n",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [sh:1]\n",
        "Memory: 28M [1] x\n",
    ],
)
def test_what_is_no_fault(text: str) -> None:
    assert faults.diagnose(text) is None


def test_restarts_are_counted_by_the_banner() -> None:
    banner = "[    0.000000] Linux version 6.1.192 (a@b) #1\n"
    assert not faults.restarted(banner + "x Linux version 6.1 mentioned\n")
    assert faults.restarted(banner + "text\n" + banner)
    assert faults.restarted("Linux version 6\nLinux version 6\n")


def test_booting_is_between_the_banner_and_init() -> None:
    assert not faults.booting("SeaBIOS\n")
    assert faults.booting(
        "[    0.0][    T0] Linux version 6.1\nWaiting for root device /dev/sda...\n"
    )
    assert not faults.booting("Linux version 6.1\nRun /sbin/init as init process\n")
    assert not faults.booting("Linux version 4.4\nFreeing unused kernel memory: 204K\n")


def test_end_of_qemu() -> None:
    assert faults.ended("", "qemu-system-arm", 0, 11)[0] == "qemu-system-arm was killed by SIGSEGV"
    assert (
        faults.ended("", "qemu-system-arm", 0, 250)[0] == "qemu-system-arm was killed by signal 250"
    )
    said = faults.ended(
        "Could not access KVM kernel module: No such file\nqemu-system-i386: failed to initialize"
        " kvm: x\n",
        "qemu-system-i386",
        1,
        0,
    )
    assert said[0] == "qemu-system-i386 ended with status 1: failed to initialize kvm: x"
    assert faults.ended("", "q", 3, 0)[0] == "q ended with status 3: without a word"
    cut_short = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00"
    assert "init ended with status 127" in faults.ended(cut_short, "q", 0, 0)[0]


def test_what_the_host_did_is_told_from_what_the_guest_did() -> None:
    def by_host(line: str, status: int, number: int = 0) -> bool:
        return faults.by_host(faults.ended(line, "qemu-x", status, number)[0], status, number)

    assert by_host("", 0, 9)
    assert by_host('qemu-x: -drive ...: Failed to get "write" lock', 1)
    assert by_host("qemu-x: Could not set up host forwarding rule 'tcp::80-:80'", 1)
    assert by_host("qemu-x: Could not access KVM kernel module: Permission denied", 1)
    assert not by_host("qemu-x: initrd is too large, cannot support", 1)
    assert not by_host("VFS: Cannot open root device: unable to lock", 0)
