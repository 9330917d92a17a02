"""Settings: what can be said by file, environment or command line, where each value came from, and
what is a typo.

Last wins: defaults, `[settings]` of configs/machines/NAME.toml, local.toml (then its
[machines.NAME]), environment, `name=value` on the command line. In the environment every setting is
PIGGYBACK_NAME; those in PLAIN_ENV are also read under their bare name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from tasks.config import toml
from tasks.system.address import hidden
from tasks.system.errors import PiggyError, nearest

PREFIX = "PIGGYBACK_"
PLAIN_ENV = ("MACHINE", "TOOLCHAIN", "KERNEL", "KERNEL_SRC", "BUSYBOX_SRC")
PATHS = (
    "build",
    "dl",
    "store",
    "kernel_src",
    "busybox_src",
    "src",
    "mirror",
    "toolchain_prefix",
    "llvm",
    "buildroot_src",
    "buildroot_override",
    "buildroot_headers",
    "buildroot_site",
)
PATH_LISTS = ("fragments", "overlays", "buildroot_fragments")
Filled = Annotated[str, msgspec.Meta(min_length=1)]
Size = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})?[KMGT]?$")
]  # what store.bytes_of reads
Layer = dict[str, tuple[Any, str]]  # what one source says: value and origin by name
_WORDS = {
    "yes": True,
    "true": True,
    "on": True,
    "1": True,
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every setting with its type and default; HELP says what each means."""

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
    mirror: str = ""
    offline: bool = False
    jobs: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    menu: Literal["menuconfig", "nconfig", "xconfig"] = "menuconfig"
    rootfs_size: Annotated[int, msgspec.Meta(ge=0, le=32 << 20)] = 0  # tree.IMAGE_MAX in KiB
    rootfs_free: Annotated[int, msgspec.Meta(ge=0, le=32 << 20)] = 512
    fragments: str = ""
    overlays: str = ""
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
    "mirror": "URL or folder that is asked for sources before upstream",
    "offline": "never use the network",
    "jobs": "commands to run at once (0: one for each core)",
    "menu": "configuration editor for the *_menuconfig tasks",
    "rootfs_size": "size of rootfs.ext2 in KiB, up to 32 GiB (0: fitted to its content)",
    "rootfs_free": "KiB left free in a fitted rootfs.ext2, up to 32 GiB",
    "fragments": "further kernel fragments, separated by commas",
    "overlays": "further overlay folders, separated by commas",
    "src": "folder of an external module, for the task 'module'; the root filesystem then holds it",
    "initramfs": "compressor of the initramfs",
    "memory": "guest memory in MB (0: what the machine file says)",
    "accel": "kvm, tcg, or auto: KVM where a trial boot works",
    "snapshot": "leave rootfs.ext2 untouched by the guest",
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


class Resolved(msgspec.Struct, frozen=True):
    """The settings in force, and for each where its value came from ("default", a file,
    "environment", ...)."""

    values: Settings
    origins: Mapping[str, str]


def resolve(top: Path, environ: Mapping[str, str], command_line: Mapping[str, str]) -> Resolved:
    """Read and check all sources of settings.

    top: the project's folder. environ: the environment. command_line: the `name=value` words.
    Raises PiggyError naming the file (or "environment", "command line"), the key and the nearest
    right one.
    """
    fields = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    local_file = top / "local.toml"
    local = toml.read(local_file) if os.path.lexists(local_file) else {}
    per_machine = local.pop("machines", {})
    from_env = _from_environment(environ, fields)
    from_words = {name: (value, "command line") for name, value in command_line.items()}
    machine = {
        "machine": ("pc", ""),
        **{k: (v, "") for k, v in local.items()},
        **from_env,
        **from_words,
    }["machine"][0]

    layers: list[Layer] = []
    machine_file = top / "configs" / "machines" / f"{machine}.toml"
    if _is_name(machine) and os.path.lexists(machine_file):
        layers.append(
            _table(
                toml.read(machine_file).get("settings", {}),
                f"configs/machines/{machine}.toml [settings]",
            )
        )
    layers.append({name: (value, "local.toml") for name, value in local.items()})
    if not isinstance(per_machine, dict):
        raise PiggyError("local.toml: 'machines' is a table of tables: [machines.NAME]")
    for name, table in per_machine.items():
        origin = f"local.toml [machines.{name}]"
        _known_machine(top, name, origin)
        layer = _table(table, origin)
        if name == machine:
            layers.append(layer)
        else:
            _checked(
                layer, fields
            )  # a typo is found now, not on the day when that machine is selected
    layers += [from_env, from_words]

    checked: dict[str, Any] = {}
    origins = dict.fromkeys(fields, "default")
    for layer in layers:
        checked.update(_checked(layer, fields))
        origins.update((name, origin) for name, (_, origin) in layer.items())
    settings = Settings(**checked)
    _known_machine(top, settings.machine, origins["machine"])
    return Resolved(settings, origins)


def _table(table: Any, origin: str) -> Layer:
    """The settings of a table that holds for one machine only."""
    if not isinstance(table, dict):
        raise PiggyError(f"{origin}: expected a table of settings, got {_short(table)}")
    if "machine" in table:
        raise PiggyError(
            f"{origin}: 'machine' can't be set in a table that holds for one machine",
            "set it at the top of local.toml, in the environment, or on the command line",
        )
    return {name: (value, origin) for name, value in table.items()}


def _checked(layer: Layer, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check names and types of what one source says; return the values by name."""
    for name, (_, origin) in layer.items():
        if name not in fields:
            raise PiggyError(
                f"{origin}: unknown setting {_short(name)}.{nearest(name, fields)}",
                "'doit settings' lists them all",
            )
    return {
        name: _typed(name, value, fields[name], origin) for name, (value, origin) in layer.items()
    }


def _from_environment(environ: Mapping[str, str], fields: Mapping[str, Any]) -> Layer:
    found: Layer = {}
    for name in PLAIN_ENV:
        if environ.get(name):
            found[name.lower()] = (environ[name], f"environment {name}")
    for name, value in environ.items():
        if name.startswith(PREFIX):
            key = name.removeprefix(PREFIX).lower()
            if key not in fields:
                raise PiggyError(
                    f"environment: unknown setting {_short(name)}."
                    + nearest(name, [PREFIX + field.upper() for field in fields])
                )
            found[key] = (value, f"environment {name}")
    return found


def _typed(name: str, value: Any, kind: Any, origin: str) -> Any:
    """Check one value; text (environment, command line) is turned into the setting's type, TOML
    values must have it."""
    from_text = origin.startswith(("environment ", "command line"))
    try:
        found = msgspec.convert(_from_text(value, kind) if from_text else value, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        near = nearest(value, _choices(kind)) if isinstance(value, str) else ""
        raise PiggyError(
            f"{origin}: setting '{name}' takes {_kind_in_words(kind, from_text)}, not"
            f" {hidden(_short(value))}.{near}",
            f"{name}: {HELP[name]}",
        ) from error
    if isinstance(found, str) and "\0" in found:
        raise PiggyError(f"{origin}: setting '{name}' can't hold a NUL character")
    for part in found.split(",") if name in PATH_LISTS else [found] if name in PATHS else []:
        _expandable(part.strip(), name, origin)
    return found


def _expandable(path: str, name: str, origin: str) -> None:
    """Raise PiggyError where a path begins with ~ and nothing can be put in its place."""
    user = path.partition("/")[0]
    whole = os.path.expanduser(path)
    if path.startswith("~") and whole.startswith("~"):
        raise PiggyError(
            f"{origin}: {name}={_short(path)}: "
            + (
                f"there is no user {_short(user[1:])}"
                if user[1:]
                else "nobody knows your home folder"
            ),
            f"write the path in full; ./{user[:40]} is a folder that is called so",
        )
    try:
        whole.encode()
    except UnicodeEncodeError:
        raise PiggyError(
            f"{origin}: {name}={_short(path)} stands for a path that is not UTF-8: {whole}",
            "write another path in full",
        ) from None


def _short(value: Any) -> str:
    """A value as a person can read it, whatever its size."""
    try:
        text = repr(value)
    except ValueError:  # a number of more digits than Python writes
        text = "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:60]}... ({len(text)} characters)"


def _from_text(text: str, kind: Any) -> Any:
    """The value that a text stands for; the text itself where it stands for none of this type."""
    text.encode()  # raises UnicodeEncodeError for what was no UTF-8 in the environment
    if kind is bool:
        return _WORDS.get(text.lower(), text)
    if getattr(kind, "__origin__", None) is int and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    return text


def _choices(kind: Any) -> tuple[str, ...]:
    return tuple(choice for choice in getattr(kind, "__args__", ()) if isinstance(choice, str))


def in_words(name: str) -> str:
    """Return what a setting takes on the command line, for people: "yes or no", "one of musl,
    uclibc", ..."""
    return _kind_in_words(
        next(field.type for field in msgspec.structs.fields(Settings) if field.name == name), True
    )


def _kind_in_words(kind: Any, from_text: bool) -> str:
    if choices := _choices(kind):
        return "one of " + ", ".join(choices)
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


def _known_machine(top: Path, name: str, origin: str) -> None:
    folder = top / "configs" / "machines"
    if _is_name(name) and os.path.lexists(folder / f"{name}.toml"):
        return
    known = sorted(path.stem for path in folder.glob("*.toml"))
    raise PiggyError(
        f"{origin}: there is no machine {_short(name)}.{nearest(name, known)}",
        "machines: " + ", ".join(known),
    )


def _is_name(name: Any) -> bool:
    """Can it be the name of a machine's file at all?"""
    return isinstance(name, str) and re.fullmatch(r"[^/\0\ud800-\udfff]{1,60}", name) is not None
