"""The [qemu] table of a machine file: the machine as QEMU emulates it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tasks.system.pattern import pattern

# The hardware address that QEMU gives its first card (qemu_macaddr_default_if_unset, net/net.c).
MAC = "52:54:00:12:34:56"
_PLACEHOLDER = pattern(r"\{([a-z]+)\}")


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The root disk.

    Attributes:
        args: QEMU's options for it, with {image} for the path of the image.
        root: Linux's name of it, for root=.
    """

    args: tuple[str, ...]
    root: str

    def __post_init__(self) -> None:
        _placeholders("disk.args", self.args, "image")


class Qemu(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The [qemu] table of a machine file; fields like `args` are lists of QEMU's own options.

    Attributes:
        binary: The emulator, found in PATH.
        machine: For -machine.
        cpu: For -cpu; "" for QEMU's default.
        memory: RAM in MB.
        console: The kernel's name of the first serial port, for console=.
        disk: The root disk; None for a machine that boots only from an initramfs.
        kernel: The options that pass the kernel, with {kernel} for its path.
        floppy: The options that insert a floppy, with {image} for its path. Such a machine boots
            from the floppy, so that neither `kernel` nor a command line is passed.
        initrd: The options that pass the initramfs, with {initrd} for its path.
        dtb: The options that pass the device tree, with {dtb} for its path.
        nic: The network card. {net} stands for the backend ("user", "tap,ifname=tap0,script=no",
            ...), {mac} for the hardware address.
        rtc: Whether Linux reads a clock at boot. Without one qemu_test does not check the year.
        append: For the kernel's command line, after what `command_line` puts there.
        args: Other options. They precede the console's -serial, so that a "-serial null" here makes
            the console the second port.
        display: For -display.
        needs: The kernel symbols without which this machine can't boot, by purpose: {"console":
            [...], "disk": [...]}; "A|B" means either. "disk" counts only when the root disk is
            used, "nic" only with a network.
    """

    binary: str
    machine: str
    cpu: str = ""
    memory: int = 32
    console: str = "ttyS0"
    disk: Disk | None = None
    kernel: tuple[str, ...] = ("-kernel", "{kernel}")
    floppy: tuple[str, ...] = ()
    initrd: tuple[str, ...] = ("-initrd", "{initrd}")
    dtb: tuple[str, ...] = ("-dtb", "{dtb}")
    nic: tuple[str, ...] = ()
    rtc: bool = True
    append: str = ""
    args: tuple[str, ...] = ()
    display: str = "none"
    needs: Mapping[str, tuple[str, ...]] = {}

    def __post_init__(self) -> None:
        if self.memory < 1:
            raise ValueError(f"memory = {self.memory}: at least 1 (MB)")
        for field, name in (("kernel", "kernel"), ("initrd", "initrd"), ("dtb", "dtb")):
            _placeholders(field, getattr(self, field), name)
        if self.floppy:
            _placeholders("floppy", self.floppy, "image")
        if self.nic:
            _placeholders("nic", self.nic, "net", "mac")
        _placeholders("args", self.args)


def _placeholders(field: str, words: Sequence[str], wanted: str = "", optional: str = "") -> None:
    """Check that options hold {wanted}, perhaps {optional}, and no other placeholder.

    Raises:
        ValueError: They do not; msgspec adds the key's path to the message.
    """
    found = {name for word in words for name in _PLACEHOLDER.findall(word)} - {optional}
    if wanted and wanted not in found:
        raise ValueError(f"{field} must hold {{{wanted}}}")
    if found - {wanted}:
        known = " and ".join(f"{{{name}}}" for name in (wanted, optional) if name)
        only = f", only {known} is known" if known else ""
        raise ValueError(f"{field} holds {{{min(found - {wanted})}}}{only}")
