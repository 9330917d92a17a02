"""The machine model: what one file of configs/machines says, as frozen data.

A machine is data alone; where a new one would need code, this model is what is to be mended.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from tasks.kit import toml
from tasks.kit.errors import PiggyError, nearest
from tasks.kit.qemu import Qemu

# What kernel people call each link of an image chain, in the order in which they stand in `doit list`.
LINKS = {
    "Image": "the raw binary of the kernel proper",
    "piggy.gz": "the compressed Image, whatever the compressor",
    "piggy.o": "the object that carries the compressed Image (.incbin)",
    "compressed_vmlinux": "the bootstrap loader with piggy on its back",
    "zImage": "the bootable, self-extracting image (ARM)",
    "bzImage": "the bootable image with the real-mode setup code (x86)",
    "vmlinuz": "the bootable, self-extracting ELF file (MIPS)",
}


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One link of the chain from vmlinux to a bootable image.

    dir:   the folder whose Makefile makes it, below the object folder.
    file:  its name from there, as that Makefile has it; may hold make variables of it, such as $(suffix-y), which Kbuild
           expands.
    after: the link that it is made from.
    vars:  what the architecture's Makefile hands to that one, in its own variables: $(bootvars-y) on MIPS.
    """

    dir: str
    file: str
    after: str
    vars: str = ""


class Kernel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The [kernel] table: the configuration target to start from, fragments by name, the chain of configs/chains.toml, and
    the link of it that is booted."""

    base: str = "allnoconfig"
    fragments: tuple[str, ...]
    chain: str
    image: str


class Busybox(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The [busybox] table: the configuration it starts from, and the fragments over that."""

    base: Literal["defconfig", "allnoconfig"] = "defconfig"
    fragments: tuple[str, ...] = ()


class Rootfs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The [rootfs] table: overlays in order, and the device and permission table of configs/rootfs."""

    overlays: tuple[str, ...] = ("base",)
    devices: str = "devices"


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One machine. `arch` is the kernel's ARCH=, `triple` the prefix of the distribution's cross compiler, `cflags` what
    user space is compiled with on top of it."""

    description: str
    arch: str
    triple: str
    cflags: str = ""
    kernel: Kernel
    busybox: Busybox = Busybox()
    rootfs: Rootfs = Rootfs()
    qemu: Qemu | None = None
    settings: dict[str, str | int | bool] = {}


def load(top: Path, name: str) -> tuple[Machine, dict[str, Link]]:
    """Read configs/machines/NAME.toml and its chain. Raises PiggyError naming file and key."""
    origin = f"configs/machines/{name}.toml"
    machine = toml.convert(toml.read(top / origin), Machine, origin)
    chains = toml.convert(toml.read(top / "configs" / "chains.toml"), dict[str, dict[str, Link]], "configs/chains.toml")
    if machine.kernel.chain not in chains:
        raise PiggyError(f"{origin}: there is no chain '{machine.kernel.chain}' in configs/chains.toml."
                         + nearest(machine.kernel.chain, chains))
    chain = chains[machine.kernel.chain]
    order = list(LINKS)
    for link_name, link in chain.items():
        where = f"configs/chains.toml [{machine.kernel.chain}]"
        if link_name not in LINKS:
            raise PiggyError(f"{where}: unknown link '{link_name}'.{nearest(link_name, LINKS)}")
        if link.after not in ("vmlinux", *chain):
            raise PiggyError(f"{where}: '{link_name}' comes after '{link.after}', which is not in the chain."
                             + nearest(link.after, ("vmlinux", *chain)))
        if link.after in LINKS and order.index(link.after) >= order.index(link_name):
            raise PiggyError(f"{where}: '{link_name}' comes after '{link.after}', a later link",
                             "in order: " + ", ".join(order))
    if machine.kernel.image not in ("vmlinux", *chain):
        raise PiggyError(f"{origin}: 'kernel.image' is '{machine.kernel.image}', which its chain does not have."
                         + nearest(machine.kernel.image, ("vmlinux", *chain)))
    for kind, names, ending in (("kernel", machine.kernel.fragments, ".config"),
                                ("busybox", machine.busybox.fragments, ".config"),
                                ("rootfs", (machine.rootfs.devices,), ".txt")):
        for fragment in names:
            if not (top / "configs" / kind / f"{fragment}{ending}").exists():
                known = [path.stem for path in (top / "configs" / kind).glob(f"*{ending}")]
                raise PiggyError(f"{origin}: configs/{kind}/{fragment}{ending} does not exist.{nearest(fragment, known)}")
    for overlay in machine.rootfs.overlays:
        if not (top / "overlays" / overlay).is_dir():
            known = [path.name for path in (top / "overlays").glob("*")]
            raise PiggyError(f"{origin}: overlays/{overlay} does not exist.{nearest(overlay, known)}")
    return machine, {name: chain[name] for name in LINKS if name in chain}
