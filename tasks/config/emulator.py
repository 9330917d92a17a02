"""The [qemu] table of a machine file: the machine as QEMU has it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

# what QEMU gives its first card (qemu_macaddr_default_if_unset in net/net.c)
MAC = "52:54:00:12:34:56"
_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the root disk hangs on the machine.

    QEMU's words, with {image} for the file, and what Linux calls it.
    """

    args: tuple[str, ...]
    root: str

    def __post_init__(self) -> None:
        _placeholders("disk.args", self.args, "image")


class Qemu(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The [qemu] table of a machine file. Every `args`-like field is a list of QEMU's own words.

    binary:  the emulator, found in PATH.
    machine: for -machine;  cpu: for -cpu ("": QEMU's default);  memory: MB.
    console: what the first serial port is to the kernel: the device for console=.
    disk:    the root disk (none: this machine boots only from an initramfs).
    kernel, initrd, dtb: how each of these files is handed over; {kernel}, {initrd}, {dtb} stand for
        its path.
    nic:     a network card; {net} stands for what it is plugged into ("user",
             "tap,ifname=tap0,script=no", ...), {mac} for its hardware address.
    rtc:     whether it has a clock that Linux reads at boot; without one qemu_test does not ask for
        the year.
    append:  for the kernel's command line, after what `command_line` puts there itself.
    args:    anything else; they come before the console's -serial, so that a "-serial null" makes
        it the second port.
    display: for -display.
    needs:   kernel symbols without which this machine can't boot, by purpose: {"console": [...],
             "disk": [...]}; "A|B" is either. "disk" counts only when the root disk is used, "nic"
             only with a network.
    """

    binary: str
    machine: str
    cpu: str = ""
    memory: int = 32
    console: str = "ttyS0"
    disk: Disk | None = None
    kernel: tuple[str, ...] = ("-kernel", "{kernel}")
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
        if self.nic:
            _placeholders("nic", self.nic, "net", "mac")
        _placeholders("args", self.args)


def _placeholders(field: str, words: Sequence[str], wanted: str = "", optional: str = "") -> None:
    """Raise ValueError unless `words` hold {wanted}, {optional} perhaps, and no other placeholder.

    msgspec adds the key's path to the message.
    """
    found = {name for word in words for name in _PLACEHOLDER.findall(word)} - {optional}
    if wanted and wanted not in found:
        raise ValueError(f"{field} must hold {{{wanted}}}")
    if found - {wanted}:
        known = " and ".join(f"{{{name}}}" for name in (wanted, optional) if name)
        only = f", only {known} is known" if known else ""
        raise ValueError(f"{field} holds {{{min(found - {wanted})}}}{only}")
