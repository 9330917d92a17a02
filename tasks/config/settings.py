"""The settings: types, defaults and help. Their sources are in resolve.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Filled = Annotated[str, msgspec.Meta(min_length=1)]
# The form that store.bytes_of reads.
Size = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})?[KMGT]?$")]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every setting with its type and default; HELP describes each."""

    machine: str = "pc"
    toolchain: Literal["distro", "path", "bootlin", "llvm", "buildroot"] = "distro"
    toolchain_prefix: str = ""
    libc: Literal["auto", "musl", "uclibc"] = "auto"
    llvm: Filled = "1"
    buildroot_src: str = ""
    buildroot_fragments: str = ""
    buildroot_override: str = ""
    buildroot_headers: str = ""
    buildroot_site: str = ""
    buildroot_site_only: bool = False
    buildroot_ccache: bool = False
    kernel: Filled = "6.1"
    kernel_src: str = ""
    busybox_src: str = ""
    build: Filled = "build"
    dl: Filled = "dl"
    store: str = ""
    store_size: Size = "2G"
    store_remote: str = ""
    store_signers: str = ""
    store_check: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 50
    store_push: bool = False
    store_key: str = ""
    mirror: str = ""
    offline: bool = False
    jobs: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    menu: Literal["menuconfig", "nconfig", "xconfig"] = "menuconfig"
    rootfs_size: Annotated[int, msgspec.Meta(ge=0, le=32 << 20)] = 0  # tree.IMAGE_MAX in KiB
    rootfs_free: Annotated[int, msgspec.Meta(ge=0, le=32 << 20)] = 512
    fragments: str = ""
    busybox_fragments: str = ""
    patches: str = ""
    overlays: str = ""
    devices: str = ""
    src: str = ""
    initramfs: Literal["none", "gzip", "bzip2", "lzma", "xz", "lz4", "zstd"] = "gzip"
    memory: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 0
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    snapshot: bool = True
    boot: Literal["auto", "disk", "initramfs"] = "auto"
    image: str = ""
    append: str = ""
    display: Filled = "none"
    window: Literal["auto", "gtk", "sdl", "vnc", "none"] = "auto"
    net: Literal["user", "nat", "bridged", "lab", "none"] = "user"
    nic: str = ""
    firmware: str = ""
    restrict: bool = False
    forward: str = "http=80"
    address: Filled = "dhcp"
    bridge: Filled = "piggy0"
    bridge_address: Filled = "192.168.135.251/24"
    uplink: str = ""
    guests: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    timeout: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 120
    machines: str = ""


HELP = {
    "machine": "what to build for: a file of configs/machines",
    "toolchain": "where the cross toolchain comes from (docs/toolchains.md compares them)",
    "toolchain_prefix": (
        "for toolchain=path: a prefix (/opt/x/bin/arm-linux-), a toolchain's folder, or an SDK's"
        " tarball"
    ),
    "libc": (
        "libc of user space (auto: musl for distro and llvm, uClibc-ng for bootlin and buildroot)"
    ),
    "llvm": (
        "for toolchain=llvm, as the kernel's LLVM=: 1, a suffix (-14), or a folder"
        " (/usr/lib/llvm-14/bin/)"
    ),
    "buildroot_src": (
        "a Buildroot release tarball or tree of your own to build with; never written to"
    ),
    "buildroot_fragments": "further Buildroot defconfig fragments, separated by commas",
    "buildroot_override": "a Buildroot override file (NAME_OVERRIDE_SRCDIR = FOLDER lines)",
    "buildroot_headers": (
        "a kernel tarball to take the toolchain's headers from (empty: what Buildroot downloads)"
    ),
    "buildroot_site": (
        "Buildroot's primary site: an address or folder asked first for its sources (empty:"
        " mirror=)"
    ),
    "buildroot_site_only": "ask no other site than that one for Buildroot's sources",
    "buildroot_ccache": "have Buildroot compile through a ccache of its own",
    "kernel": "kernel version: a 'linux-VERSION' of configs/sources.toml",
    "kernel_src": "a kernel tree of your own to build instead; never written to",
    "busybox_src": "a busybox tree of your own to build instead; never written to",
    "build": "folder for everything that is built",
    "dl": "folder for what is downloaded",
    "store": "folder that keeps earlier results (empty: 'store' in the build folder)",
    "store_size": (
        "the most that it may take, as 500M or 2G; what was not used for longest goes (0: keep"
        " nothing)"
    ),
    "store_remote": (
        "address of a store that several machines share, on a server for Bazel's HTTP cache or"
        " with WebDAV (docs/sharedstore.md)"
    ),
    "store_signers": (
        "file with the keys whose results are taken from it, as ssh-keygen's allowed_signers"
        " (empty: take nothing)"
    ),
    "store_check": (
        "one in so many results that it has is made again and compared with it (0: none)"
    ),
    "store_push": "send what is made here to it",
    "store_key": (
        "SSH key that signs what is sent: a private key, or the public key of one in ssh-agent"
    ),
    "mirror": "URL or folder that is asked for sources before upstream",
    "offline": "never use the network",
    "jobs": "commands to run at once (0: one for each core)",
    "menu": "configuration editor for the *_menuconfig tasks",
    "rootfs_size": "size of rootfs.ext2 in KiB, up to 32 GiB (0: fitted to its content)",
    "rootfs_free": "KiB left free in a fitted rootfs.ext2, up to 32 GiB",
    "fragments": "further kernel fragments, separated by commas",
    "busybox_fragments": (
        "busybox fragments in place of the machine's, separated by commas; nothing else is on"
    ),
    "patches": (
        "further patches for the kernel, separated by commas: folders of configs/patches, or any"
        " folder or .patch file by its path; NAME? only where it has some for the kernel"
        " (docs/patches.md)"
    ),
    "overlays": "further overlay folders, separated by commas",
    "devices": "the table of device nodes, a file of configs/rootfs (empty: the machine's own)",
    "src": "folder of an external module, for the task 'module'; the root filesystem then holds it",
    "initramfs": "compressor of the initramfs",
    "memory": "guest memory in MB (0: what the machine file says)",
    "accel": "kvm, tcg, or auto: KVM where a trial boot works",
    "snapshot": "leave rootfs.ext2 or the floppy as it is; no: go on with what the guest wrote",
    "boot": "root from disk or initramfs (auto: disk where the machine has one)",
    "image": (
        "the link of the chain to boot, where the machine can boot more than one (empty: its own)"
    ),
    "append": "added to the kernel command line",
    "display": "a screen of the machine, a [display.NAME] of its file (none: serial console only)",
    "window": (
        "what qemu_boot shows the display in (auto: a window where there is a graphical session)"
    ),
    "net": (
        "what the guest's network card is plugged into (user: QEMU's own network, which needs no"
        " rights)"
    ),
    "nic": "the network card, a [nic.NAME] of the machine file (empty: the machine's own)",
    "firmware": "the machine's firmware, a [firmware.NAME] of its file (empty: QEMU's own)",
    "restrict": (
        "net=user without a way out: the guest reaches neither this host (10.0.2.2) nor others;"
        " forward= works"
    ),
    "forward": (
        "ports of the guest to be had on this host, separated by spaces: http=80 2222:22 53/udp"
    ),
    "address": "the guest's IPv4 address, such as 192.168.135.10, or dhcp",
    "bridge": "name of the bridge for net=nat, bridged and lab",
    "bridge_address": "the bridge's address for net=nat and lab; the guests' gateway",
    "uplink": "the host's network card: a port of the bridge (bridged), or the only way out (nat)",
    "guests": "how many guests: taps for net=nat and bridged, machines for net=lab",
    "timeout": "seconds that qemu_test may take in all",
    "machines": (
        "what matrix builds and boots, separated by commas (empty: every file of configs/machines)"
    ),
}


def choices(kind: Any) -> tuple[str, ...]:
    """Return the words that a setting of this type takes, () if it takes any."""
    return tuple(choice for choice in getattr(kind, "__args__", ()) if isinstance(choice, str))


def in_words(name: str) -> str:
    """Return what a setting takes on the command line, such as "one of musl, uclibc"."""
    return kind_in_words(
        next(field.type for field in msgspec.structs.fields(Settings) if field.name == name), True
    )


def kind_in_words(kind: Any, from_text: bool) -> str:
    """Return what a setting of a type takes, in words for people.

    Args:
        kind: The type.
        from_text: As text of environment and command line, not as a TOML value.
    """
    if words := choices(kind):
        return "one of " + ", ".join(words)
    if kind is bool:
        return "yes or no" if from_text else "true or false"
    if getattr(kind, "__origin__", None) is int:
        meta = kind.__metadata__[0]
        return (
            f"a whole number from {meta.ge} to {meta.le}"
            if meta.le
            else f"a whole number, at least {meta.ge}"
        )
    if kind is Size:
        return "a size such as 500M or 2G" + ("" if from_text else ", in quotes")
    return ("text that is not empty" if kind is Filled else "text") + (
        "" if from_text else ", in quotes"
    )
