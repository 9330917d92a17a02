"""The host packages that the selected machine needs, and the commands that install missing ones."""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec

from tasks.config import toml
from tasks.config.machine import Machine
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.process import clean_env

Name = str | dict[str, str]


class Manager(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A package manager.

    Attributes:
        program: Its program.
        install: The arguments that install packages.
        update: The arguments that refresh its lists.
        tried: The releases on which its package names were tried, such as "debian 12": ID and
            VERSION_ID of os-release(5).
    """

    program: str
    install: tuple[str, ...]
    update: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that the host must have (see configs/packages.toml).

    Attributes:
        why: What it is for.
        file: For what is no program: patterns of the file's path.
        net: Only for these networks; empty for all.
        toolchain: Only for these providers; empty for all.
        apt: The package's name, or names by tool, as for the other managers; "" for the tool's
            name.
    """

    why: str
    file: tuple[str, ...] = ()
    net: tuple[str, ...] = ()
    toolchain: tuple[str, ...] = ()
    apt: Name = ""
    dnf: Name = ""
    pacman: Name = ""
    apk: Name = ""


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of configs/packages.toml."""

    managers: dict[str, Manager]
    tools: dict[str, Tool]


class Need(msgspec.Struct, frozen=True):
    """A tool with the machine's names filled in, as looked for on this host.

    Attributes:
        name: The tool.
        why: What it is for.
        found: Its path; "" if it is missing.
        packages: Its package, by manager.
        program: Whether it is a program.
    """

    name: str
    why: str
    found: str
    packages: dict[str, str]
    program: bool


def load(top: Path) -> Table:
    """Read configs/packages.toml."""
    origin = "configs/packages.toml"
    return toml.convert(toml.read(top / origin), Table, origin)


def needs(
    table: Table, machine: Machine, net: str = "", toolchain: str = "distro", llvm: str = "1"
) -> list[Need]:
    """Return what the machine needs, in the order of the table, and look for each on this host.

    Args:
        table: The content of configs/packages.toml.
        machine: The machine.
        net: The setting `net`.
        toolchain: The setting `toolchain`.
        llvm: The setting `llvm`: the suffix or folder of LLVM's programs.
    """
    names = {
        "{triple}": machine.triple,
        "{qemu}": machine.qemu.binary if machine.qemu else "",
        "{llvm_folder}": llvm if llvm.endswith("/") else "",
        "{llvm}": llvm if llvm.startswith("-") else "",
    }
    found = []
    for key, tool in table.tools.items():
        name = _filled(key, names)
        if name and net in (tool.net or (net,)) and toolchain in (tool.toolchain or (toolchain,)):
            packages = {
                manager: _package(manager, getattr(tool, manager, ""), name, names)
                for manager in table.managers
            }
            found.append(Need(name, tool.why, _look(name, tool), packages, not tool.file))
    return found


def _filled(text: str, names: dict[str, str]) -> str:
    for mark, value in names.items():
        text = text.replace(mark, value)
    return text


def _package(manager: str, entry: Name, tool: str, names: dict[str, str]) -> str:
    chosen: Any = entry.get(tool, tool) if isinstance(entry, dict) else entry or tool
    package = _filled(chosen, names)
    # Debian's package names have no underscore (Debian Policy, 5.6.1).
    return package.replace("_", "-") if manager == "apt" else package


def _look(name: str, tool: Tool) -> str:
    if tool.file:
        return next((path for pattern in tool.file for path in sorted(glob.glob(pattern))), "")
    return shutil.which(name, path=clean_env()["PATH"]) or ""


def manager_of_host(table: Table) -> str:
    """Return the name of this host's package manager, "" if it has none that the table knows."""
    return next(
        (name for name, manager in table.managers.items() if shutil.which(manager.program)), ""
    )


def untried(table: Table, manager: str) -> str:
    """Return a warning if the package names were never tried on this release, "" if they were."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    tried = table.managers[manager].tried
    if f"{release.get('ID', '')} {release.get('VERSION_ID', '')}" in tried:
        return ""
    here = terminal.printable(release.get("PRETTY_NAME", "")) or "this system"
    known = " and ".join(tried)
    return f"on {here} these package names were never tried" + (
        f" (they were on {known})" if tried else ""
    )


def commands(table: Table, manager: str, missing: list[Need]) -> list[list[str]]:
    """Return the commands that install what is missing, with sudo unless we are root.

    Args:
        table: The content of configs/packages.toml.
        manager: The package manager.
        missing: What is missing.

    Raises:
        PiggyError: A name would mean something else to the manager: to apt-get `x-` removes x,
            `x=1` is a version and `x*` a pattern (apt-get(8), install).
    """
    how = table.managers[manager]
    packages = list(dict.fromkeys(need.packages[manager] for need in missing))
    for need in missing:
        if not re.fullmatch(
            r"[A-Za-z0-9][A-Za-z0-9+._-]*", need.packages[manager]
        ) or need.packages[manager].endswith("-"):
            raise PiggyError(
                f"{need.packages[manager]!r} is no name of a package "
                f"({terminal.printable(f'{need.name}: {need.why}')})",
                "it comes from configs/packages.toml, with the machine's triple or 'llvm='"
                " filled in",
            )
    root = [] if os.geteuid() == 0 else ["sudo"]
    lines = [[*how.update], [*how.install, *packages]]
    return [[*root, how.program, *words] for words in lines if words]
