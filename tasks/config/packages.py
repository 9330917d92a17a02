"""Host packages as data.

What the selected machine needs on the host, what is missing, and the command that installs it.
"""

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
    """A package manager: its program, and the words that refresh its lists and install packages.

    With the releases on which its names of packages were tried ("debian 12": ID and VERSION_ID of
    os-release(5)).
    """

    program: str
    install: tuple[str, ...]
    update: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something the host must have (see configs/packages.toml).

    With `toolchain`, for those providers only.
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
    """configs/packages.toml."""

    managers: dict[str, Manager]
    tools: dict[str, Tool]


class Need(msgspec.Struct, frozen=True):
    """A tool with the machine's names filled in.

    Where it was found ("" if missing), and its package for each manager.
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

    net, toolchain, llvm: the settings of those names: the network, the provider, and the suffix or
        folder of its programs.
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
    return (
        package.replace("_", "-") if manager == "apt" else package
    )  # Debian's names have no underscore (Policy 5.6.1)


def _look(name: str, tool: Tool) -> str:
    if tool.file:
        return next((path for pattern in tool.file for path in sorted(glob.glob(pattern))), "")
    return shutil.which(name, path=clean_env()["PATH"]) or ""


def manager_of_host(table: Table) -> str:
    """Return the name of the package manager that this host has, "" if none of the known ones."""
    return next(
        (name for name, manager in table.managers.items() if shutil.which(manager.program)), ""
    )


def untried(table: Table, manager: str) -> str:
    """Say that the manager's package names were never tried on this release, "" if they were."""
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
    """Return the commands that install what is missing, with sudo in front when we are not root.

    Raises PiggyError for what a manager would take for something else than a package's name: to
    apt-get `x-` is to remove x, `x=1` a version and `x*` a pattern (apt-get(8), install), and the
    others have signs of that kind, too.
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
