"""The layout: each file and folder that more than one module names.

    build/MACHINE/images/   what tasks make, each file under its task's name
    build/MACHINE/kernel/   Kbuild's O= folder, one for each kernel tree
    build/MACHINE/busybox/  busybox's O= folder
    build/MACHINE/logs/     each task's log, and the history of runs
    build/MACHINE/src/      patched copies of unpacked sources
    build/src/              unpacked sources, for all machines
    build/toolchains/       toolchains that were built or unpacked, for all machines
    build/store/            earlier results, for all machines
    build/host/             facts about this host
    dl/                     downloads
    configs/*/local/        the user's own fragments, written by the editors; not in git

Where possible a path is relative to the project's top, which is doit's working folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tasks.cache.places import Places
from tasks.config import patches
from tasks.config.machine import Machine
from tasks.config.settings import Settings
from tasks.system.address import hidden
from tasks.system.errors import PiggyError, nearest

# The usual file name ending of each compressor of the initramfs.
SUFFIX = {
    "none": "",
    "gzip": ".gz",
    "bzip2": ".bz2",
    "lzma": ".lzma",
    "xz": ".xz",
    "lz4": ".lz4",
    "zstd": ".zst",
}

CHANGE = "change.config"  # the fragment of a trial, in the slot's folder


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The paths of one machine's build; `here` is the folder of everything built for it."""

    build: Path
    trial: bool  # whether the build folder is a slot for trials (tuning/slot.py)
    dl: Path
    store: Path
    here: Path
    images: Path
    logs: Path
    history: Path
    journal: Path

    kernel_src: Path
    kernel_place: str  # its absolute path: depfiles and debug data hold it
    kernel_patches: tuple[Path, ...]  # what the tree is a copy with; see patches.py
    kernel_obj: Path
    kernel_fragment: Path
    config: Path
    miniconfig: Path
    kernel_image: Path  # the link of the chain that is booted

    busybox_src: Path
    busybox_place: str
    busybox_patches: tuple[Path, ...]
    busybox_obj: Path
    busybox_fragment: Path
    busybox_config: Path
    busybox_miniconfig: Path

    toolchains: Path
    toolchain_record: Path  # what the kernel is built with
    userspace_record: Path  # what busybox is built with
    buildroot_obj: Path
    buildroot_fragment: Path
    buildroot_config: Path
    buildroot_facts: Path  # what the configured tree tells about itself

    device_table: Path
    rootfs: Path
    initramfs: Path
    floppy: Path
    run_script: Path  # boots the images by hand
    boot_record: Path  # what qemu_test measured last, if the guest came to its shell
    screenshot: Path


def plan(
    top: Path,
    settings: Settings,
    machine: Machine,
    image: str,
    kernel_pin: str,
    origins: Mapping[str, str],
) -> Layout:
    """Derive all paths from settings and machine.

    Args:
        top: The project's folder.
        settings: The settings in force.
        machine: The selected machine.
        image: The link of the chain that is booted.
        kernel_pin: The name of the pinned kernel, which is that of its unpacked folder.
        origins: Where each setting came from.

    Raises:
        PiggyError: A source tree of the user's own has no Makefile, or there are no such patches.
    """
    name = settings.machine
    build = Path(settings.build).expanduser()
    here, configs = build / name, Path("configs")
    images, logs = here / "images", here / "logs"

    def tree(setting: str, own: str, pinned: str, patched: bool) -> tuple[Path, str]:
        if not own:
            # a link, which may not exist yet
            folder = (here if patched else build) / "src" / pinned
            return folder, os.path.join(os.path.realpath(folder.parent), folder.name)
        folder = Path(own).expanduser()
        if not (top / folder / "Makefile").exists():
            raise PiggyError(
                f"{origins[setting]}: {setting}={hidden(own)} has no Makefile",
                "it names the top folder of a source tree",
            )
        return (folder := Path(os.path.abspath(top / folder))), os.path.realpath(folder)

    kernel_patches = patches.of_kernel(top, settings, machine, origins)
    busybox_patches = patches.of_busybox(top, settings, machine)
    kernel_src, kernel_place = tree(
        "kernel_src", settings.kernel_src, kernel_pin, bool(kernel_patches)
    )
    busybox_src, busybox_place = tree(
        "busybox_src", settings.busybox_src, "busybox", bool(busybox_patches)
    )
    objects = f"{settings.kernel}-patched" if kernel_patches else settings.kernel
    if settings.kernel_src:  # two trees never share objects
        digest = hashlib.sha256(os.fspath(kernel_src).encode()).hexdigest()
        objects = f"{kernel_src.name}-{digest[:6]}"
    return Layout(
        build=build,
        trial=os.path.lexists(top / build / CHANGE),
        dl=Path(settings.dl).expanduser(),
        store=Path(settings.store).expanduser() if settings.store else build / "store",
        here=here,
        images=images,
        logs=logs,
        history=logs / "history.jsonl",
        journal=here / "journal.sqlite",
        kernel_src=kernel_src,
        kernel_place=kernel_place,
        kernel_patches=kernel_patches,
        kernel_obj=here / "kernel" / objects,
        kernel_fragment=configs / "kernel" / "local" / f"{name}.config",
        config=images / "config",
        miniconfig=images / "miniconfig",
        kernel_image=images / image,
        busybox_src=busybox_src,
        busybox_place=busybox_place,
        busybox_patches=busybox_patches,
        busybox_obj=here / "busybox",
        busybox_fragment=configs / "busybox" / "local" / f"{name}.config",
        busybox_config=images / "busybox.config",
        busybox_miniconfig=images / "busybox.miniconfig",
        toolchains=_linked(top, build / "toolchains"),
        toolchain_record=here / "toolchain.json",
        userspace_record=here / "userspace.json",
        buildroot_obj=here / "buildroot",
        buildroot_fragment=configs / "buildroot" / "local" / f"{name}.config",
        buildroot_config=images / "buildroot.config",
        buildroot_facts=here / "buildroot.json",
        device_table=configs / "rootfs" / f"{settings.devices or machine.rootfs.devices}.txt",
        rootfs=images / "rootfs.ext2",
        initramfs=images / f"initramfs.cpio{SUFFIX[settings.initramfs]}",
        floppy=images / "floppy.img",
        run_script=images / "run-qemu.sh",
        boot_record=logs / "boot.json",
        screenshot=images / "screenshot.png",
    )


def _linked(top: Path, path: Path) -> Path:
    """Return where a folder lies that may be a link to that of another build.

    What is installed in it has its path in it, and is known by that.
    """
    return Path(os.path.realpath(top / path)) if os.path.islink(top / path) else path


def places(top: Path, layout: Layout, tools: Mapping[str, str]) -> Places:
    """Return the folders whose paths are not part of what results in the store are known by.

    A source tree is known by its real path first, as Kbuild's records hold that.

    Args:
        top: The project's folder.
        layout: Its layout.
        tools: Words and folders of the toolchain.
    """

    def ways(path: Path) -> list[str]:
        return [os.path.abspath(top / path), os.path.realpath(top / path)]

    kernel, busybox = ways(layout.kernel_src), ways(layout.busybox_src)
    return Places(
        {
            "tree": [kernel[1], layout.kernel_place, kernel[0]],
            "busybox": [busybox[1], layout.busybox_place, busybox[0]],
            "obj": ways(layout.kernel_obj),
            **{
                word: [os.path.abspath(path), os.path.realpath(path)]
                for word, path in tools.items()
            },
            "build": ways(layout.build),
            "top": ways(top),
        },
        base=os.path.abspath(top),
    )


def check_devices(top: Path, table: Path, origin: str) -> None:
    """Refuse a table of device nodes that there is not.

    Args:
        top: The project's folder.
        table: The table.
        origin: Where the setting `devices` comes from.

    Raises:
        PiggyError: It is no file.
    """
    if not os.path.isfile(top / table):
        known = sorted(path.stem for path in (top / table.parent).glob("dev*.txt"))
        raise PiggyError(
            f"{origin}: there is no table {table}.{nearest(table.stem, known)}",
            f"tables: {', '.join(known)}",
        )
