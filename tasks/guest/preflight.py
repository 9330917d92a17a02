"""Checks before a boot: do kernel configuration, command line and machine fit together?

An impossible combination is an error with a hint, not a black screen. Anything that `facts` does
not list is accepted. All functions are pure.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping

import msgspec

from tasks.config.emulator import Qemu
from tasks.guest import facts

Have = Callable[[str], bool]  # tells whether "A", or either of "A|B", is in the kernel
_MB = 1 << 20
_X86 = ("i386", "x86_64", "x86")
# Bytes of a kernel image up to the last field of the x86 boot protocol's header that is read here.
HEAD = 0x264


class Problem(msgspec.Struct, frozen=True):
    """A fault of the combination.

    Attributes:
        message: The fault.
        hint: The remedy.
        fatal: Whether the guest can't boot; else it boots with a defect.
    """

    message: str
    hint: str
    fatal: bool = True


def check(
    config: Mapping[str, str],
    append: str,
    qemu: Qemu,
    has_disk: bool,
    has_initrd: bool,
    root_fstype: str = "ext2",
    arch: str = "",
    *,
    memory: int = 0,
    kernel_head: bytes = b"",
    payload: int = 0,
    initrd_head: bytes = b"",
    static_dev: bool = False,
    has_nic: bool = False,
    unpacked: int = 0,
    attributes: bool = False,
) -> list[Problem]:
    """Return the faults of a boot, the fatal ones first.

    Args:
        config: The kernel's .config: symbol without CONFIG_ to value ("n" for "is not set").
        append: The whole command line (qemu.command_line).
        qemu: The machine's [qemu] table.
        has_disk: Whether the root filesystem is on a disk.
        has_initrd: Whether there is an initramfs.
        root_fstype: The root filesystem's type.
        arch: The kernel's ARCH; "" skips what depends on it.
        memory: MB; 0 for the machine's.
        kernel_head: The first HEAD bytes of the kernel image.
        payload: Bytes of kernel image and initramfs together.
        initrd_head: The first bytes of the initramfs.
        static_dev: Whether the root filesystem has a /dev/console of its own.
        has_nic: Whether the boot has a network card.
        unpacked: Bytes of memory that the unpacked initramfs takes.
        attributes: Whether the root disk has extended attributes.
    """
    # A module can only be loaded from an initramfs.
    on = ("y", "m") if has_initrd else ("y",)

    def have(symbols: str) -> bool:
        if symbols.startswith("*"):
            return any(
                value in on and facts.is_adapter(symbol, symbols[1:])
                for symbol, value in config.items()
            )
        return any(config.get(symbol) in on for symbol in symbols.split("|"))

    line = effective(config, append)
    problems = [*_console(config, line, qemu, have), *_programs(config, qemu, have)]
    problems += _memory(config, memory or qemu.memory, arch, kernel_head, payload)
    if has_disk:
        problems += _root(config, line, root_fstype, have, has_initrd)
        problems += _attributes(config, have) if attributes else []
    if has_initrd:
        problems += _unpacked(config, line, memory or qemu.memory, payload, unpacked)
    problems += _initrd(config, initrd_head) if has_initrd else [] if static_dev else _dev(config)
    for purpose, symbols in qemu.needs.items():
        if (purpose != "disk" or has_disk) and (purpose != "nic" or has_nic):
            problems += [
                _lacks(config, symbol, f"the machine '{qemu.machine}' ({purpose})")
                for symbol in symbols
                if not have(symbol)
            ]
    own = config.get("COMMAND_LINE_SIZE", "")
    size = int(own) if own.isdigit() else facts.COMMAND_LINE_SIZE.get(arch, len(line) + 1)
    if len(line) >= size:
        problems.append(
            Problem(
                f"the kernel's command line has {len(line)} characters; {arch} cuts it off after "
                f"{size - 1}",
                "shorten append",
            )
        )
    return sorted(dict.fromkeys(problems), key=lambda problem: not problem.fatal)


def effective(config: Mapping[str, str], append: str) -> str:
    """Return the command line that the kernel uses.

    CONFIG_CMDLINE precedes the boot loader's command line, or replaces it.
    """
    built_in = config.get("CMDLINE", '""').strip('"')
    if any(config.get(symbol) == "y" for symbol in ("CMDLINE_OVERRIDE", "CMDLINE_FORCE")):
        return built_in
    joined = any(config.get(symbol) == "y" for symbol in ("CMDLINE_BOOL", "CMDLINE_EXTEND"))
    return f"{built_in} {append}".strip() if joined else append


def compression(head: bytes) -> str:
    """Return an initramfs's compressor by its first bytes, as in CONFIG_RD_*; "" if unknown."""
    return next((name for magic, name in facts.MAGIC if head.startswith(magic)), "")


def _lacks(config: Mapping[str, str], symbols: str, whose: str, fatal: bool = True) -> Problem:
    first, *others = symbols.split("|")
    state = {"m": "is only a module", "n": "is not set"}.get(
        config.get(first, ""), "is not in its configuration"
    )
    either = "".join(f", or CONFIG_{symbol}=y" for symbol in others[:2])
    return Problem(
        f"{whose} needs CONFIG_{first} in the kernel, where it {state}",
        f"add to a fragment: CONFIG_{first}=y{either}",
        fatal,
    )


def _words(line: str, name: str) -> list[str]:
    return [word.removeprefix(name + "=") for word in line.split() if word.startswith(name + "=")]


def _console(config: Mapping[str, str], line: str, qemu: Qemu, have: Have) -> Iterator[Problem]:
    if config.get("TTY") == "n":
        yield Problem("the kernel has no terminals at all", "add to a fragment: CONFIG_TTY=y")
        return
    devices = list(
        dict.fromkeys(reversed([word.split(",")[0] for word in _words(line, "console")]))
    )
    for device in devices:  # the last first: that one becomes /dev/console
        kind = device.rstrip("0123456789")
        number = int(device[len(kind) :] or 0)
        # The kernel skips a missing console, so that is fatal only for the one that QEMU shows.
        harm = device == qemu.console or len(devices) == 1
        if kind in facts.CONSOLES and not have(facts.CONSOLES[kind]):
            yield _lacks(config, facts.CONSOLES[kind], f"console={device}", harm)
        elif (
            device != qemu.console
            and device == devices[0]
            and qemu.display == "none"
            and kind in facts.CONSOLES
        ):
            yield Problem(
                f"the last console= is {device}: the shell goes there, and QEMU shows"
                f" {qemu.console}",
                f"put console={qemu.console} last",
            )
        ports = config.get("SERIAL_8250_RUNTIME_UARTS", "")
        if (
            kind == "ttyS"
            and have("SERIAL_8250_CONSOLE")
            and ports.isdigit()
            and "8250.nr_uarts=" not in line
            and number >= int(ports)
        ):
            yield Problem(
                f"console={device}, but the kernel sets up {ports} serial ports"
                " (SERIAL_8250_RUNTIME_UARTS)",
                f"add to a fragment: CONFIG_SERIAL_8250_RUNTIME_UARTS={number + 1}",
                harm,
            )
    if config.get("PRINTK") == "n":
        yield Problem(
            "the kernel is mute: a boot that fails will not say why",
            "add to a fragment: CONFIG_PRINTK=y",
            False,
        )


def _programs(config: Mapping[str, str], qemu: Qemu, have: Have) -> Iterator[Problem]:
    if not have(facts.PROGRAMS):
        yield _lacks(config, "BINFMT_ELF", "any program, init first,")
    if config.get("X86_64") == "y" and qemu.binary.endswith("-i386"):
        yield Problem(
            f"the kernel is for 64 bits (CONFIG_X86_64), and {qemu.binary} is a 32-bit machine",
            "add to a fragment: # CONFIG_64BIT is not set; or use qemu-system-x86_64",
        )
    if config.get("COMPAT_32BIT_TIME") == "n" and config.get("64BIT", "n") == "n":
        yield Problem(
            "the kernel lacks the system calls that 32-bit C libraries (glibc, musl) wait with "
            "(COMPAT_32BIT_TIME): sleep returns at once, and init does not heed poweroff",
            "add to a fragment: CONFIG_COMPAT_32BIT_TIME=y",
            False,
        )
    for symbol, what in (("PROC_FS", "/proc"), ("SYSFS", "/sys")):
        if config.get(symbol) == "n":
            yield Problem(
                f"the kernel has no {what}", f"add to a fragment: CONFIG_{symbol}=y", False
            )


def _root(
    config: Mapping[str, str], line: str, fstype: str, have: Have, has_initrd: bool
) -> Iterator[Problem]:
    roots = _words(line, "root")
    if not roots:
        if not has_initrd:
            yield Problem(
                "the kernel's command line has no root=",
                "[qemu.disk] root in the machine file names it",
            )
        return
    device = roots[-1].removeprefix("/dev/")
    if facts.IDE_DISK.fullmatch(device):
        if not have(facts.IDE):
            yield Problem(
                f"root={roots[-1]} is a name of the old IDE driver (CONFIG_IDE), which this kernel"
                " lacks",
                f"with libata, and always since Linux 5.14, the disk is /dev/s{device[1:]}",
            )
        return
    needs = next((needs for pattern, needs in facts.DISKS if re.fullmatch(pattern, device)), ())
    for need in needs:
        if not have(need) and not need.startswith("*"):
            yield _lacks(config, need, f"root={roots[-1]}")
        elif not have(need):
            yield Problem(
                f"root={roots[-1]} needs the driver of the disk's adapter, and the kernel has none"
                " at all",
                f"add to a fragment what the machine has: {facts.ADAPTERS[need[1:]]}",
            )
    if needs and device != "nfs":
        if config.get("BLOCK") == "n":
            yield _lacks(config, "BLOCK", f"root={roots[-1]}")
        if not have(facts.FILE_SYSTEMS.get(fstype, "")) and fstype in facts.FILE_SYSTEMS:
            yield _lacks(config, facts.FILE_SYSTEMS[fstype], f"a root filesystem of type {fstype}")


def _dev(config: Mapping[str, str]) -> Iterator[Problem]:
    for symbol in ("DEVTMPFS", "DEVTMPFS_MOUNT"):
        if config.get(symbol) != "y":
            yield _lacks(config, symbol, "a root filesystem without a /dev/console of its own")
            return


def _initrd(config: Mapping[str, str], head: bytes) -> Iterator[Problem]:
    if config.get("BLK_DEV_INITRD") != "y":
        yield _lacks(config, "BLK_DEV_INITRD", "an initramfs")
    elif (packed := compression(head)) and config.get(f"RD_{packed}") != "y":
        yield _lacks(config, f"RD_{packed}", f"an initramfs compressed with {packed.lower()}")


def _unpacked(
    config: Mapping[str, str], line: str, memory: int, payload: int, unpacked: int
) -> Iterator[Problem]:
    """Check that the memory suffices for the initramfs, which is there twice while it is unpacked.

    `memory` is in MB, `payload` and `unpacked` in bytes. The initramfs is unpacked to a tmpfs if
    the kernel has one and no root= is given (init_rootfs() in init/do_mounts.c); that takes up to
    half of the memory (shmem_default_max_blocks() in mm/shmem.c).
    """
    kinds = ",".join(_words(line, "rootfstype"))
    half = config.get("TMPFS") == "y" and ("tmpfs" in kinds if kinds else not _words(line, "root"))
    whole, limit = payload + unpacked, memory * _MB
    if (
        unpacked
        and whole >= limit
        or half
        and unpacked > limit // 2
        and not _words(line, "initramfs_options")
    ):
        needed = max(whole, 2 * unpacked if half else 0) // _MB + 1
        yield Problem(
            f"the initramfs takes {unpacked / _MB:.1f} MB of memory when it is unpacked, and the"
            f" machine has {memory} MB{', of which a tmpfs takes half' if half else ''}",
            f"give it more: memory={needed} at the least; or boot from a disk (boot=disk)",
        )


def _attributes(config: Mapping[str, str], have: Have) -> Iterator[Problem]:
    for symbols, what in (
        ("EXT2_FS_XATTR|EXT4_FS", "extended attributes"),
        ("EXT2_FS_SECURITY|EXT4_FS_SECURITY", "file capabilities"),
    ):
        if not have(symbols):
            yield _lacks(
                config, symbols, f"whatever uses {what} of the root filesystem", fatal=False
            )
            return


def _memory(
    config: Mapping[str, str], memory: int, arch: str, head: bytes, payload: int
) -> Iterator[Problem]:
    """Check that kernel and initramfs (`payload` bytes) fit into the memory (MB).

    An x86 kernel unpacks itself to pref_address and takes init_size bytes there
    (Documentation/x86/boot.rst). Without its header, and on other architectures, at least the
    images must fit.
    """
    start, size = 0, payload
    if (
        head[0x202:0x206] == b"HdrS"
        and len(head) >= HEAD
        and struct.unpack_from("<H", head, 0x206)[0] >= 0x20A
    ):
        start, size = struct.unpack_from("<QI", head, 0x258)
    elif arch in _X86 and re.fullmatch(r"0x[0-9a-fA-F]+|\d+", config.get("PHYSICAL_START", "")):
        start = int(config["PHYSICAL_START"], 0)
    if start + size >= memory * _MB:
        needed = (start + size) // _MB + 1
        lower = (
            f"add to a fragment: CONFIG_PHYSICAL_START=0x100000 (now {start:#x}); or "
            if start > _MB
            else ""
        )
        yield Problem(
            f"the kernel needs at least {needed} MB to start ({size / _MB:.1f} MB from"
            f" {start / _MB:.0f} MB on), and the machine has {memory} MB",
            f"{lower}give it more memory",
        )
