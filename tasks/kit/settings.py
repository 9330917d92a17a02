"""Settings: what can be said by file, environment or command line, where each value came from, and what is a typo.

Last wins: defaults, `[settings]` of configs/machines/NAME.toml, local.toml (then its [machines.NAME]), environment,
`name=value` on the command line. In the environment every setting is PIGGYBACK_NAME; those in PLAIN_ENV are also read
under their bare name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from tasks.kit import toml
from tasks.kit.errors import PiggyError, nearest

PREFIX = "PIGGYBACK_"
PLAIN_ENV = ("MACHINE", "TOOLCHAIN", "KERNEL", "KERNEL_SRC", "BUSYBOX_SRC")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every setting with its type and default; HELP says what each means."""

    machine: str = "pc"
    toolchain: Literal["distro"] = "distro"
    kernel: str = "6.1"
    kernel_src: str = ""
    busybox_src: str = ""
    build: str = "build"
    dl: str = "dl"
    mirror: str = ""
    offline: bool = False
    jobs: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    menu: Literal["menuconfig", "nconfig", "xconfig"] = "menuconfig"
    rootfs_size: Annotated[int, msgspec.Meta(ge=0)] = 0
    rootfs_free: Annotated[int, msgspec.Meta(ge=0)] = 512
    overlays: str = ""
    initramfs: Literal["none", "gzip", "bzip2", "lzma", "xz", "lz4", "zstd"] = "gzip"
    memory: Annotated[int, msgspec.Meta(ge=0)] = 0
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    snapshot: bool = True
    boot: Literal["auto", "disk", "initramfs"] = "auto"
    append: str = ""
    timeout: Annotated[int, msgspec.Meta(ge=1)] = 120


HELP = {
    "machine": "what to build for: a file of configs/machines",
    "toolchain": "where the cross toolchain comes from",
    "kernel": "kernel version: a 'linux-VERSION' of configs/sources.toml",
    "kernel_src": "a kernel tree of your own to build instead; never written to",
    "busybox_src": "a busybox tree of your own to build instead; never written to",
    "build": "folder for everything that is built",
    "dl": "folder for what is downloaded",
    "mirror": "URL or folder that is asked for sources before upstream",
    "offline": "never use the network",
    "jobs": "commands to run at once (0: one for each core)",
    "menu": "configuration editor for the *_menuconfig tasks",
    "rootfs_size": "size of rootfs.ext2 in KiB (0: fitted to its content)",
    "rootfs_free": "KiB left free in a fitted rootfs.ext2",
    "overlays": "further overlay folders, separated by commas",
    "initramfs": "compressor of the initramfs",
    "memory": "guest memory in MB (0: what the machine file says)",
    "accel": "kvm, tcg, or auto: KVM where a trial boot works",
    "snapshot": "leave rootfs.ext2 untouched by the guest",
    "boot": "root from disk or initramfs (auto: disk where the machine has one)",
    "append": "added to the kernel command line",
    "timeout": "seconds that qemu_test may take in all",
}


@dataclass(frozen=True)
class Resolved:
    """The settings in force, and for each where its value came from ("default", a file, "environment", ...)."""

    values: Settings
    origins: Mapping[str, str]


def resolve(top: Path, environ: Mapping[str, str], command_line: Mapping[str, str]) -> Resolved:
    """Read and check all sources of settings.

    top: the project's folder. environ: the environment. command_line: the `name=value` words.
    Raises PiggyError naming the file (or "environment", "command line"), the key and the nearest right one.
    """
    fields = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    local_file = top / "local.toml"
    local = toml.read(local_file) if local_file.exists() else {}
    per_machine = local.pop("machines", {})
    from_env = _from_environment(environ, fields)
    from_words = {name: (value, "command line") for name, value in command_line.items()}
    machine = {"machine": ("pc", ""), **{k: (v, "") for k, v in local.items()}, **from_env, **from_words}["machine"][0]

    values: dict[str, tuple[Any, str]] = {}
    machine_file = top / "configs" / "machines" / f"{machine}.toml"
    if machine_file.exists():
        values.update(_table(toml.read(machine_file).get("settings", {}), f"configs/machines/{machine}.toml [settings]"))
    values.update(_table(local, "local.toml"))
    if not isinstance(per_machine, dict):
        raise PiggyError("local.toml: 'machines' is a table of tables: [machines.NAME]")
    for name, table in per_machine.items():
        _known_machine(top, name, f"local.toml [machines.{name}]")
        if name == machine:
            values.update(_table(table, f"local.toml [machines.{name}]"))
    values.update(from_env)
    values.update(from_words)

    origins = dict.fromkeys(fields, "default")
    checked: dict[str, Any] = {}
    for name, (value, origin) in values.items():
        if name not in fields:
            raise PiggyError(f"{origin}: unknown setting '{name}'.{nearest(name, fields)}",
                             "'doit settings' lists them all")
        checked[name] = _typed(name, value, fields[name], origin)
        origins[name] = origin
    settings = Settings(**checked)
    _known_machine(top, settings.machine, origins["machine"])
    return Resolved(settings, origins)


def _table(table: Any, origin: str) -> dict[str, tuple[Any, str]]:
    if not isinstance(table, dict):
        raise PiggyError(f"{origin}: expected a table of settings, got {table!r}")
    return {name: (value, origin) for name, value in table.items()}


def _from_environment(environ: Mapping[str, str], fields: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for name in PLAIN_ENV:
        if environ.get(name):
            found[name.lower()] = (environ[name], f"environment {name}")
    for name, value in environ.items():
        if name.startswith(PREFIX):
            key = name.removeprefix(PREFIX).lower()
            if key not in fields:
                raise PiggyError(f"environment: unknown setting '{name}'."
                                 + nearest(name, [PREFIX + field.upper() for field in fields]))
            found[key] = (value, f"environment {name}")
    return found


def _typed(name: str, value: Any, kind: Any, origin: str) -> Any:
    """Check one value; text (environment, command line) is turned into the setting's type, TOML values must have it."""
    from_text = isinstance(value, str) and not origin.endswith("]") and origin != "local.toml"
    if from_text and kind is bool:
        value = {"yes": "true", "no": "false", "on": "true", "off": "false"}.get(value.lower(), value)
    try:
        return msgspec.convert(value, kind, strict=not from_text)
    except msgspec.ValidationError as error:
        near = nearest(str(value), getattr(kind, "__args__", ())) if from_text else ""
        raise PiggyError(f"{origin}: setting '{name}': {error}: {value!r}.{near}",
                         f"{name}: {HELP[name]}; {_kind_in_words(kind)}") from error


def _kind_in_words(kind: Any) -> str:
    choices = getattr(kind, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return "one of " + ", ".join(choices)
    return {bool: "yes or no", str: "text"}.get(kind, "a whole number")


def _known_machine(top: Path, name: str, origin: str) -> None:
    folder = top / "configs" / "machines"
    if "/" not in name and (folder / f"{name}.toml").exists():
        return
    known = sorted(path.stem for path in folder.glob("*.toml"))
    raise PiggyError(f"{origin}: there is no machine '{name}'.{nearest(name, known)}", "machines: " + ", ".join(known))
