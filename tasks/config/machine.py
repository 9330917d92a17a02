"""The machine model: the content of one file of configs/machines, as frozen data.

A machine is data alone. Where a new machine would need code, this model lacks something.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from tasks.config import toml
from tasks.config.emulator import Qemu
from tasks.system.errors import PiggyError, nearest
from tasks.system.pattern import pattern

NO_DISPLAY = "none"
LIMIT = pattern(r"[0-9]{1,15}(\.[0-9]{1,6})?[KMGT]?")  # of an image, in bytes
SIZES = "bytes, or with K, M or G for units of 1024: 900K"
# Every link of an image chain that there can be, in the order of `doit list`, with its doc.
LINKS = {
    "Image": "the raw binary of the kernel proper",
    "Image.gz": "the compressed Image that a boot loader unpacks",
    "piggy.gz": "the compressed Image, whatever the compressor",
    "piggy.o": "the object that carries the compressed Image (.incbin)",
    "compressed_vmlinux": "the bootstrap loader with piggy on its back",
    "zImage": "the bootable, self-extracting image",
    "bzImage": "the bootable, self-extracting image (x86: with its real-mode setup code)",
    "vmlinuz": "the bootable, self-extracting ELF file (MIPS)",
    "xipImage": "the kernel that runs in place, from flash (execute in place)",
    "uImage": "the bootable image in U-Boot's wrapping",
    "bootpImage": "zImage and initramfs in one, for boot loaders that know of one file only",
}


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One link of the chain from vmlinux to a bootable image.

    Attributes:
        dir: The folder whose Makefile makes it, below the object folder.
        file: Its path from there, as that Makefile has it. It may hold make variables, such as
            $(suffix-y), which Kbuild expands.
        after: The link that it is made from.
        vars: The variables that the architecture's Makefile passes to that Makefile, such as
            $(bootvars-y) on MIPS.
        optional: Whether only machines that name it in [kernel] links have it, as it takes settings
            of theirs, such as a load address.
        takes: Images that it is made from, too: by make variable the image ("initramfs", "rootfs")
            whose path the variable gets.
        hidden: Objects that include those images by .incbin, which make does not know.
        symbols: Whether it is linked with addresses of vmlinux's symbols (x86's voffset.h, ARM's
            _kernel_bss_size), which may change while the link before it stays the same.
        tools: Programs that it takes besides those of every link.
    """

    dir: str
    file: str
    after: str
    vars: str = ""
    optional: bool = False
    takes: dict[str, Literal["initramfs", "rootfs"]] = {}
    hidden: tuple[str, ...] = ()
    symbols: bool = False
    tools: tuple[str, ...] = ()


class Kernel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The [kernel] table.

    Attributes:
        base: The configuration target to start from.
        fragments: Names of fragments, in order.
        patches: Folders of patches, in order (see config/patches.py).
        chain: The name of a chain in configs/chains.toml.
        links: The optional links of the chain that this machine has.
        image: The link that is booted.
        boots: Other links that can be booted (image=NAME), each with the fragments that this takes.
        initramfs: Whether the initramfs is built into the kernel, by a fragment with
            INITRAMFS_SOURCE.
        dtbs: Names of device trees, as their .dts files; the first is used at boot.
        variables: Make variables of every call, such as LOADADDR.
    """

    base: str = "allnoconfig"
    fragments: tuple[str, ...] = ()
    patches: tuple[str, ...] = ()
    chain: str
    links: tuple[str, ...] = ()
    image: str
    boots: dict[str, tuple[str, ...]] = {}
    initramfs: bool = False
    dtbs: tuple[str, ...] = ()
    variables: dict[str, str] = {}


class Busybox(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The [busybox] table: the configuration target to start from, the fragments, the patches."""

    base: Literal["defconfig", "allnoconfig"] = "defconfig"
    fragments: tuple[str, ...] = ()
    patches: tuple[str, ...] = ()


class Rootfs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The [rootfs] table: the overlays in order, and the device table of configs/rootfs."""

    overlays: tuple[str, ...] = ("base",)
    devices: str = "devices"


class Display(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table [display.NAME], in force with display=NAME: a screen and a keyboard.

    Attributes:
        fragments: Fragments of the kernel, after the machine's own.
        overlays: Overlays of the root filesystem, after the machine's own.
        console: The terminal on it, for console= ("tty0": the one in the foreground). It precedes
            the serial one, since /dev/console is the last
            (Documentation/admin-guide/serial-console.rst).
        args: QEMU's options for the hardware; none if the board has it anyway.
        append: For the kernel's command line.
    """

    fragments: tuple[str, ...] = ()
    overlays: tuple[str, ...] = ()
    console: str = ""
    args: tuple[str, ...] = ()
    append: str = ""


class Nic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table [nic.NAME], in force with nic=NAME: another network card than the machine's own.

    Attributes:
        args: QEMU's options for it, as in [qemu] nic.
        fragments: Fragments of the kernel, after the machine's own.
        instead_of: Fragments of the machine's own that are left out.
    """

    args: tuple[str, ...]
    fragments: tuple[str, ...] = ()
    instead_of: tuple[str, ...] = ()


class Firmware(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table [firmware.NAME], in force with firmware=NAME: another firmware than QEMU's own.

    Attributes:
        args: QEMU's options for it.
        screens: Whether it switches a screen on; if not, QEMU's own serves with a display.
    """

    args: tuple[str, ...]
    screens: bool = False


class Processor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The [toolchain] table: each provider's name of the machine's processor.

    Attributes:
        buildroot: Fragments of configs/buildroot.
        bootlin: Bootlin's name of the architecture (configs/bootlin.toml).
        llvm: Whether Linux can be built with LLVM=1 for it (Documentation/kbuild/llvm.rst).
        uclibc: uClibc-ng's name of the architecture, then further lines of its configuration.
    """

    buildroot: tuple[str, ...] = ()
    bootlin: str = ""
    llvm: bool = False
    uclibc: tuple[str, ...] = ()


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One machine.

    Attributes:
        description: One line for people.
        arch: The kernel's ARCH=.
        triple: The prefix of the distribution's cross compiler, without the last hyphen.
        cflags: Compiler flags of user space.
        userspace: False for a machine that has only a kernel, as the distribution's compiler and
            musl make no programs for its processor.
        kernel: The table of that name, as for the following ones.
        settings: Settings that this machine changes from their defaults.
        presets: The same for the setting `fragments`: what else changes if it names a fragment.
        limits: The most bytes that an image may have, by its name, for `doit size`; as a number or
            as "900K".
    """

    description: str
    arch: str
    triple: str
    cflags: str = ""
    userspace: bool = True
    kernel: Kernel
    toolchain: Processor = Processor()
    busybox: Busybox = Busybox()
    rootfs: Rootfs = Rootfs()
    qemu: Qemu | None = None
    display: dict[str, Display] = {}
    nic: dict[str, Nic] = {}
    firmware: dict[str, Firmware] = {}
    settings: dict[str, str | int | bool] = {}
    presets: dict[str, dict[str, str | int | bool]] = {}
    limits: dict[str, int | str] = {}


def load(top: Path, name: str) -> tuple[Machine, dict[str, Link]]:
    """Read and check configs/machines/NAME.toml and its chain.

    Args:
        top: The project's folder.
        name: The machine's name.

    Returns:
        The machine, and the links of its chain in order.

    Raises:
        PiggyError: A file is wrong; the message names file and key.
    """
    origin = f"configs/machines/{name}.toml"
    machine = toml.convert(toml.read(top / origin), Machine, origin)
    chains = toml.convert(
        toml.read(top / "configs" / "chains.toml"),
        dict[str, dict[str, Link]],
        "configs/chains.toml",
    )
    if machine.kernel.chain not in chains:
        raise PiggyError(
            f"{origin}: there is no chain '{machine.kernel.chain}' in configs/chains.toml."
            + nearest(machine.kernel.chain, chains)
        )
    where = f"configs/chains.toml [{machine.kernel.chain}]"
    chain = _links(machine, chains[machine.kernel.chain], origin, where)
    order = list(LINKS)
    for link_name, link in chain.items():
        if link_name not in LINKS:
            raise PiggyError(f"{where}: unknown link '{link_name}'.{nearest(link_name, LINKS)}")
        if link.after not in ("vmlinux", *chain):
            raise PiggyError(
                f"{where}: '{link_name}' comes after '{link.after}', which is not in the chain."
                + nearest(link.after, ("vmlinux", *chain))
            )
        if link.after in LINKS and order.index(link.after) >= order.index(link_name):
            raise PiggyError(
                f"{where}: '{link_name}' comes after '{link.after}', a later link",
                "in order: " + ", ".join(order),
            )
    if not machine.userspace and machine.qemu is not None:
        raise PiggyError(
            f"{origin}: a machine with 'userspace = false' has nothing to boot into, so it can't"
            " have [qemu]"
        )
    if machine.kernel.initramfs and not machine.userspace:
        raise PiggyError(
            f"{origin}: a machine with 'userspace = false' has no initramfs, which"
            " 'kernel.initramfs' would build in"
        )
    for key, image in [
        ("image", machine.kernel.image),
        *(("boots", image) for image in machine.kernel.boots),
    ]:
        if image not in ("vmlinux", *chain):
            raise PiggyError(
                f"{origin}: 'kernel.{key}' is '{image}', which its chain does not have."
                + nearest(image, ("vmlinux", *chain))
            )
    floppy = ["floppy"] if machine.qemu and machine.qemu.floppy else []
    images = ("vmlinux", *chain, "busybox", "rootfs", "initramfs", *floppy)
    for name, limit in machine.limits.items():
        if not LIMIT.fullmatch(str(limit)):
            raise PiggyError(f"{origin}: 'limits' gives {name} '{limit}', which is no size", SIZES)
        if name not in images:
            raise PiggyError(
                f"{origin}: 'limits' names '{name}', which is no image.{nearest(name, images)}",
                f"images: {', '.join(images)}",
            )
    if NO_DISPLAY in machine.display:
        raise PiggyError(
            f"{origin}: no display can be called '{NO_DISPLAY}'",
            f"display={NO_DISPLAY} is to have none",
        )
    displays = machine.display.values()
    for kind, names, ending in (
        ("kernel", machine.kernel.fragments, ".config"),
        *(("kernel", display.fragments, ".config") for display in displays),
        *(("kernel", names, ".config") for names in machine.kernel.boots.values()),
        *(("kernel", nic.fragments, ".config") for nic in machine.nic.values()),
        ("kernel", tuple(machine.presets), ".config"),
        ("busybox", machine.busybox.fragments, ".config"),
        ("buildroot", machine.toolchain.buildroot, ".config"),
        ("rootfs", (machine.rootfs.devices,), ".txt"),
    ):
        for fragment in names:
            path = f"configs/{kind}/{fragment}{ending}"
            if not os.path.isfile(top / path):
                known = [file.stem for file in (top / "configs" / kind).glob(f"*{ending}")]
                raise PiggyError(
                    f"{origin}: {path} {_lacking(top / path)}.{nearest(fragment, known)}"
                )
    for overlay in (
        *machine.rootfs.overlays,
        *(name for display in displays for name in display.overlays),
    ):
        if not os.path.isdir(top / "overlays" / overlay):
            known = [path.name for path in (top / "overlays").glob("*")]
            raise PiggyError(
                f"{origin}: overlays/{overlay} {_lacking(top / 'overlays' / overlay, 'folder')}."
                + nearest(overlay, known)
            )
    return machine, {name: chain[name] for name in LINKS if name in chain}


def _lacking(path: Path, kind: str = "regular file") -> str:
    """Return in words why there is no such file, or folder, at a path."""
    if not os.path.lexists(path):
        return "does not exist"
    return f"is no {kind}" if os.path.exists(path) else "is a link to nothing"


def _links(machine: Machine, chain: dict[str, Link], origin: str, where: str) -> dict[str, Link]:
    """Return the links of a chain that the machine has.

    Raises:
        PiggyError: The machine names an optional link that the chain does not have.
    """
    optional = [name for name, link in chain.items() if link.optional]
    for name in machine.kernel.links:
        if name not in optional:
            raise PiggyError(
                f"{origin}: 'kernel.links' names '{name}', which is no optional link of {where}."
                + nearest(name, optional)
            )
        if chain[name].takes and not machine.userspace:
            raise PiggyError(
                f"{origin}: '{name}' takes the initramfs, which a machine with 'userspace = false'"
                " lacks"
            )
    return {
        name: link
        for name, link in chain.items()
        if not link.optional or name in machine.kernel.links
    }
