"""The project as it is loaded: settings, machine, pins and places.

They are read once and frozen; no process is started, no connection opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import msgspec

from tasks.cache import store_tag
from tasks.cache.code_index import Codes
from tasks.cache.digests import Stamps
from tasks.cache.store import Store, bytes_of
from tasks.config import layout, machine, pins, resolve, shared_store
from tasks.config.layout import Layout
from tasks.config.machine import NO_DISPLAY, Display, Firmware, Link, Machine, Nic
from tasks.config.pins import Source
from tasks.config.settings import Settings
from tasks.system.errors import PiggyError, nearest
from tasks.system.jobserver import Budget
from tasks.system.lock import Lock

_Table = TypeVar("_Table")

# 2026-01-01 00:00:00 UTC: the time that every image carries, so that it is the same whenever built
EPOCH = 1767225600


class Project(msgspec.Struct, frozen=True, dict=True):
    """All that task creators need.

    Paths are relative to `top`, which is doit's working folder, where they can be.

    Attributes:
        top: The folder of the checkout.
        settings: The settings.
        origins: Where each setting comes from, in words.
        machine: The selected machine.
        chain: The links of its kernel image, by name.
        sources: The pins, by name.
        stamps: The digests of files.
        codes: The identities of actions.
        lock: The lock of the machine's folder.
    """

    top: Path
    settings: Settings
    origins: Mapping[str, str]
    machine: Machine
    chain: Mapping[str, Link]
    sources: Mapping[str, Source]
    stamps: Stamps
    codes: Codes
    lock: Lock

    @cached_property
    def layout(self) -> Layout:
        """Where everything lies."""
        return layout.plan(
            self.top,
            self.settings,
            self.machine,
            self.image,
            self.kernel_pin.name,
            self.origins,
        )

    @cached_property
    def store(self) -> Store:
        """What was made earlier, for all machines."""
        size = bytes_of(self.settings.store_size)
        return Store(self.layout.store, size, shared_store.opened(self.settings))

    @cached_property
    def jobs(self) -> Budget:
        """How many commands all that is started here may run at once, and the right to run them.

        Under a make with a jobserver it is that make's, unless jobs= says another thing.
        """
        return Budget(
            self.settings.jobs or len(os.sched_getaffinity(0)),
            "" if self.settings.jobs else os.environ.get("MAKEFLAGS", ""),
        )

    @cached_property
    def goals(self) -> list[str]:
        """The tasks that a plain `doit` does: everything that the machine boots or ships."""
        kernel = self.machine.kernel
        return list(
            dict.fromkeys(
                [
                    self.image,
                    *kernel.links,
                    *(["dtbs"] if kernel.dtbs else []),
                    *(["rootfs", "initramfs"] if self.machine.userspace else []),
                    *(["floppy"] if self.machine.qemu and self.machine.qemu.floppy else []),
                ]
            )
        )

    @cached_property
    def image(self) -> str:
        """The link that is booted: the machine's own, or the one of `image=`.

        Raises:
            PiggyError: The machine can't be booted from that one.
        """
        name, kernel = self.settings.image, self.machine.kernel
        if name not in ("", kernel.image, *kernel.boots):
            known, machine = [kernel.image, *kernel.boots], self.settings.machine
            raise PiggyError(
                f"{self.origins['image']}: the machine '{machine}' can't be booted from '{name}'."
                + nearest(name, known),
                f"images: {', '.join(known)}",
            )
        return name or kernel.image

    @cached_property
    def kernel_pin(self) -> Source:
        """The pinned kernel that `kernel=` selects."""
        return self.source(f"linux-{self.settings.kernel}")

    @cached_property
    def display(self) -> Display:
        """The machine's display that `display=` selects; one that adds nothing for "none".

        Raises:
            PiggyError: The machine has no such display.
        """
        known = {NO_DISPLAY: Display(), **self.machine.display}
        return self._table("display", known, "display", "displays") or known[NO_DISPLAY]

    @cached_property
    def nic(self) -> Nic | None:
        """The network card that `nic=` selects, None for the machine's own.

        Raises:
            PiggyError: The machine has no such card.
        """
        return self._table("nic", self.machine.nic, "network card", "cards", "none but its own")

    @cached_property
    def firmware(self) -> Firmware | None:
        """The firmware that `firmware=` selects, None for QEMU's own.

        That one also serves if a display is selected that the firmware can't switch on.

        Raises:
            PiggyError: The machine has no such firmware.
        """
        found = self._table(
            "firmware", self.machine.firmware, "firmware", "firmware", "none but what QEMU loads"
        )
        return found if found and (found.screens or self.display == Display()) else None

    def _table(
        self, setting: str, known: Mapping[str, _Table], what: str, several: str, none: str = ""
    ) -> _Table | None:
        """Return the machine's table that a setting names; None if it names none."""
        name = getattr(self.settings, setting)
        if name and name not in known:
            raise PiggyError(
                f"{self.origins[setting]}: the machine '{self.settings.machine}' has no {what}"
                f" '{name}'." + nearest(name, known),
                f"{several}: {', '.join(known) or none}",
            )
        return known.get(name)

    @cached_property
    def overlays(self) -> tuple[Path, ...]:
        """The overlay folders in order: those of the machine, of its display, then of the setting.

        Raises:
            PiggyError: The setting names what is no folder.
        """
        extra = [name.strip() for name in self.settings.overlays.split(",") if name.strip()]
        folders = [
            Path("overlays") / name
            for name in (*self.machine.rootfs.overlays, *self.display.overlays)
        ]
        for name in extra:
            folder = Path("overlays") / name
            if not os.path.isdir(self.top / folder):
                folder = Path(name).expanduser()
            if not os.path.isdir(self.top / folder):
                known = [path.name for path in (self.top / "overlays").glob("*")]
                what = (
                    f"'{name}' is no folder"
                    if os.path.lexists(self.top / folder)
                    else f"there is no overlay '{name}'.{nearest(name, known)}"
                )
                raise PiggyError(
                    f"{self.origins['overlays']}: {what}",
                    "an overlay is a folder of overlays/, or any folder by its path",
                )
            folders.append(folder)
        return tuple(folders)

    @cached_property
    def named_fragments(self) -> dict[Path, bool]:
        """The kernel fragments of the setting, each with whether it is optional: named as FILE?.

        Named twice, it is so only if it is both times.

        Raises:
            PiggyError: The setting names what is no file.
        """
        found: dict[Path, bool] = {}
        for word in filter(None, map(str.strip, self.settings.fragments.split(","))):
            path = self._fragment("fragments", "kernel", word.removesuffix("?"))
            found[path] = found.get(path, True) and word.endswith("?")
        return found

    @cached_property
    def busybox_fragments(self) -> tuple[Path, ...]:
        """The busybox fragments of the setting.

        Raises:
            PiggyError: The setting names what is no file.
        """
        words = filter(None, map(str.strip, self.settings.busybox_fragments.split(",")))
        return tuple(self._fragment("busybox_fragments", "busybox", word) for word in words)

    def _fragment(self, setting: str, kind: str, name: str) -> Path:
        """Return the fragment that a setting names: of configs/KIND, or any file by its path."""
        path = Path("configs") / kind / f"{name}.config"
        if not os.path.isfile(self.top / path):
            path = Path(name).expanduser()
        if not os.path.isfile(self.top / path):
            known = [one.stem for one in (self.top / "configs" / kind).glob("*.config")]
            what = (
                f"'{name}' is no regular file"
                if os.path.lexists(self.top / path)
                else f"there is no fragment '{name}'.{nearest(name, known)}"
            )
            hint = (
                "; what does not take of one that is named with a ? behind it is only reported"
                if setting == "fragments"
                else ""
            )
            raise PiggyError(
                f"{self.origins[setting]}: {what}",
                f"a fragment is a file of configs/{kind}, without .config, or any file by its"
                f" path{hint}",
            )
        return path

    @property
    def fragments(self) -> tuple[Path, ...]:
        """The kernel fragments of the setting, after those of the machine."""
        return tuple(self.named_fragments)

    @property
    def optional_fragments(self) -> frozenset[Path]:
        """Those of them of which nothing need take."""
        return frozenset(path for path, optional in self.named_fragments.items() if optional)

    def source(self, name: str) -> Source:
        """Return a pin of configs/sources.toml by name.

        Raises:
            PiggyError: There is none.
        """
        if name not in self.sources:
            if not name.startswith("linux-"):
                raise PiggyError(
                    f"configs/sources.toml does not name '{name}', which every build needs"
                    + nearest(name, self.sources).replace(" Did", ". Did")
                )
            known = [pin.removeprefix("linux-") for pin in self.sources if pin.startswith("linux-")]
            version = name.removeprefix("linux-")
            raise PiggyError(
                f"{self.origins['kernel']}: configs/sources.toml has no kernel '{version}'."
                + nearest(version, known),
                "kernels: " + ", ".join(known),
            )
        return self.sources[name]


_TREE = (
    "have a copy or a checkout of the tree elsewhere ('git worktree add'); a link will not do, make"
    " follows it"
)
_TOOLS = "name a link to it from elsewhere"
HINTS = {
    "build": "'build=' can name another folder",
    "kernel_src": _TREE,
    "busybox_src": _TREE,
    "toolchain_prefix": _TOOLS,
    "llvm": _TOOLS,
}


def _check_path(path: Path | str, setting: str, origin: str) -> None:
    """Refuse a folder that make can't work in.

    Source: the kernel's top Makefile, "source directory cannot contain spaces or colons"; the rest
    is special to make or to the shell, and the makefiles of musl and busybox quote nothing.

    Args:
        path: The folder.
        setting: The setting that names it.
        origin: Where the setting comes from.

    Raises:
        PiggyError: It is such a folder.
    """
    full = os.path.abspath(path)
    found = re.search(r"[\s:#$%'\"`\\;&|<>()*?\[\]{}!\x00-\x1f\x7f]", full)
    if found:
        raise PiggyError(
            f"{origin}: there is a {found[0]!r} in the path '{full}', and make can't work there",
            f"a space, a colon and what is special to a shell will not do; {HINTS[setting]}",
        )
    _check_utf8(full, f"{origin}: {setting} is the path '{full}'", HINTS[setting])


def _check_utf8(path: str, what: str, hint: str) -> None:
    """Refuse a path that is no text, since what is recorded of files is.

    Raises:
        PiggyError: It is such a path.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise PiggyError(f"{what}, which is not UTF-8", hint) from None


def load(
    top: Path, environ: Mapping[str, str], command_line: Mapping[str, str], begun: int = 0
) -> Project:
    """Read everything under configs/ and all settings.

    Args:
        top: The folder of the checkout.
        environ: The environment.
        command_line: The `name=value` words.
        begun: When this process began to load modules (ns since 1970); see cache/code_index.py.

    Raises:
        PiggyError: Something is wrong in them.
    """
    _check_utf8(os.fspath(top), f"the project lies in '{top}'", "move it to a folder whose path is")
    resolved = resolve.resolve(top, environ, command_line)
    name = resolved.values.machine
    model, chain = machine.load(top, name)
    here = Path(resolved.values.build).expanduser() / name
    stamps = Stamps(here / "stamps")
    project = Project(
        top,
        resolved.values,
        resolved.origins,
        model,
        chain,
        pins.load(top / "configs" / "sources.toml"),
        stamps,
        Codes(here / "codes", stamps, begun),
        Lock(here / "lock", os.fspath(here)),
    )
    # checked now, not in mid-build
    places = project.layout
    _ = project.overlays, project.named_fragments, project.busybox_fragments
    _ = project.nic, project.firmware
    layout.check_devices(top, places.device_table, project.origins["devices"])
    if project.store.limit:
        store_tag.check(places.store)
    chosen, origins = resolved.values, resolved.origins
    shared_store.check(chosen, origins)
    _check_path(top / places.build, "build", origins["build"])
    if chosen.kernel_src:
        _check_path(places.kernel_src, "kernel_src", origins["kernel_src"])
    if chosen.busybox_src:
        _check_path(places.busybox_src, "busybox_src", origins["busybox_src"])
    for name, toolchain in (("toolchain_prefix", "path"), ("llvm", "llvm")):
        value = getattr(chosen, name)
        if (
            "/" in value
            and chosen.toolchain == toolchain
            and not os.path.isfile(os.path.expanduser(value))
        ):
            # a file is a tarball, which is unpacked elsewhere
            _check_path(os.path.expanduser(value), name, origins[name])
    if chosen.src:
        from tasks.kbuild import module_source

        module_source.check_name(
            Path(os.path.abspath(os.path.expanduser(chosen.src))),
            f"{origins['src']}: src={chosen.src}",
        )
    return project
