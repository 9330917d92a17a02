"""The folders of patches that are in force, for the kernel and for busybox.

A patch is meant for one release, so a folder of patches may have a folder for each: of
configs/patches/NAME with kernel=6.1 that is configs/patches/NAME/6.1, if it exists. (Buildroot's
BR2_GLOBAL_PATCH_DIR has <package>/<version>/ for the same purpose.) A name that ends with "?" is
passed over where its folder has nothing for the kernel, as an optional fragment is.

A tree of the user's own is built as it is: patches are for a pinned source.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.config.machine import Machine
from tasks.config.settings import Settings
from tasks.system.errors import PiggyError, nearest

FOLDER = Path("configs") / "patches"
SERIES = "series"  # quilt's list of patches
ENDING = ".patch"


def of_kernel(
    top: Path, settings: Settings, machine: Machine, origins: Mapping[str, str]
) -> tuple[Path, ...]:
    """Return the kernel's: the folders of the machine, then those of the setting `patches`.

    Args:
        top: The project's folder.
        settings: The settings in force.
        machine: The selected machine.
        origins: Where each setting came from.

    Raises:
        PiggyError: One is no folder of patches; or the command line asks for patches, and the tree
            is one of the user's own.
    """
    named = [name.strip() for name in settings.patches.split(",") if name.strip()]
    if settings.kernel_src:
        if named and origins["patches"] == "command line":
            raise PiggyError(
                "patches= is for the pinned kernel, and kernel_src= names a tree of your own,"
                " into which nothing is written",
                "apply them there, as with 'git am', or leave one of the two out",
            )
        return ()
    own = f"configs/machines/{settings.machine}.toml"
    places = (
        _place(top, name, origin, settings.kernel)
        for names, origin in (
            (machine.kernel.patches, f"{own}: kernel.patches"),
            (named, f"{origins['patches']}: patches"),
        )
        for name in names
    )
    return tuple(place for place in places if place)


def of_busybox(top: Path, settings: Settings, machine: Machine) -> tuple[Path, ...]:
    """Return busybox's: the folders of the machine; see `of_kernel`."""
    if settings.busybox_src or not machine.userspace:
        return ()
    origin = f"configs/machines/{settings.machine}.toml: busybox.patches"
    places = (_place(top, name, origin, "") for name in machine.busybox.patches)
    return tuple(place for place in places if place)


def _place(top: Path, asked: str, origin: str, release: str) -> Path | None:
    """Return the folder, or the single file, that a name stands for.

    Args:
        top: The project's folder.
        asked: The name, or a path; with "?" behind it, it is optional.
        origin: Where it was named.
        release: The kernel, as in the name of its source; "" for any.

    Returns:
        None if it is optional and has nothing for this release.

    Raises:
        PiggyError: There is none, or it has nothing for this release.
    """
    name, optional = asked.removesuffix("?"), asked.endswith("?")
    if not name:
        raise PiggyError(f"{origin}: '{asked}' names no patches", "docs/patches.md")
    place = FOLDER / name
    if not os.path.isdir(top / place):
        place = Path(name).expanduser()
    if os.path.isfile(top / place) and place.name.endswith(ENDING):
        return place
    if not os.path.isdir(top / place):
        known = [path.name for path in (top / FOLDER).glob("*") if path.is_dir()]
        what = (
            f"'{name}' is no folder, nor a file NAME{ENDING}"
            if os.path.lexists(top / place)
            else f"there are no patches '{name}'.{nearest(name, known)}"
        )
        raise PiggyError(
            f"{origin}: {what}",
            f"a folder of {FOLDER}, or any folder or {ENDING} file by its path",
        )
    if release and os.path.isdir(top / place / release):
        return place / release
    if not _has_patches(top / place):
        if optional:
            return None
        others = sorted(path.name for path in (top / place).iterdir() if _has_patches(path))
        asked_for = release or "busybox"  # of which there is one release
        raise PiggyError(
            f"{origin}: {place} has no {SERIES} and no *{ENDING}"
            + (f" for {asked_for}; it has some for {', '.join(others)}" if others else ""),
            f"the patches lie there, in the order of their names or of a file '{SERIES}'",
        )
    return place


def _has_patches(folder: Path) -> bool:
    try:
        names: Sequence[str] = os.listdir(folder)
    except OSError:
        return False
    return SERIES in names or any(map(is_patch, names))


def is_patch(name: str) -> bool:
    """Tell whether a file of a folder of patches is one by its name; hidden ones are not."""
    return name.endswith(ENDING) and not name.startswith(".")
