"""The manifest: time and size of each file in an object folder, as make left it.

A file that differs was truncated, edited or made by another program. Make would consider it up to
date by its time, so it is removed before make runs.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.kbuild import symbol_times
from tasks.system.files import changed, decoded, packed, remove, write_whole

FILE = "piggyback.made"
CLOCK = "piggyback.clock"  # its time is when the last make ended
# Outputs of Kconfig (the kernel's and busybox's): all are made together if the first is missing.
KCONFIG = (
    "include/config/auto.conf",
    "include/config/auto.conf.cmd",
    "include/generated/autoconf.h",
    "include/autoconf.h",
    "include/generated/rustc_cfg",
)
SLACK_NS = 20_000_000  # file systems stamp with a clock that lags by up to a tick
# Further outputs of Kconfig, which no image is made from; each make writes Makefile anew.
_OTHERS = ("include/config/", ".config", "Makefile")
TOOLS = ("scripts/basic", "scripts/kconfig")  # Kconfig's own programs
# Path below the object folder to mtime (ns since 1970) and size (bytes).
_States = dict[str, tuple[int, int]]


def keep(obj: Path) -> None:
    """Record all files of the folder after a make."""
    symbol_times.keep(obj)
    write_whole(obj / FILE, packed({**dict(_files(obj)), **_kconfig(obj)}))


def damaged(obj: Path) -> bool:
    """Tell whether the manifest is gone or can't be read: nothing tells then what else was spoilt.

    It is written at the end of each make, after the clock.
    """
    return (obj / CLOCK).exists() and not _read(obj)


def renew(obj: Path) -> None:
    """Record Kconfig's outputs and programs after a run of Kconfig.

    If nothing else was made since `keep`, symbols that were changed and changed back get their old
    times (see symbol_times.settle). The others that Kconfig touched get a time after the last make.
    """
    recorded = _read(obj)
    if recorded:
        present = dict(_files(obj))
        tools = {name: state for name, state in present.items() if _tool(name)}
        others = {
            name: state
            for name, state in recorded.items()
            if name not in KCONFIG and not _tool(name)
        }
        if {**others, **tools} == present:
            symbol_times.settle(obj)
        write_whole(obj / FILE, packed({**others, **_kconfig(obj), **tools}))
    symbol_times.outdate(obj, changed(obj / CLOCK))
    symbol_times.outrun(obj, changed(obj / CLOCK))


def update(obj: Path, names: Iterable[str], since: int) -> None:
    """Record targets that were made anew, and new files beside them.

    Older files are not recorded again, so that earlier damage remains visible.

    Args:
        obj: The object folder.
        names: The targets, relative to it.
        since: When their commands began, ns since 1970.
    """
    recorded = _read(obj)
    if not recorded:
        return
    targets = set(map(os.path.normpath, names))
    for folder in {"", *map(os.path.dirname, targets)}:
        for name, state in _listed(os.path.join(obj, folder), folder + "/" if folder else "")[0]:
            if name in targets or state[0] > since - SLACK_NS:
                recorded[name] = state
    write_whole(obj / FILE, packed(recorded))


def purge(obj: Path) -> list[str]:
    """Remove the files that differ from the manifest, and the targets of damaged .cmd files.

    A file with mtime 0 was put there by us (image.hand_over, configure.put), and stays.

    Returns:
        The names, relative to the folder, of these files and of missing ones.
    """
    return _purged(obj, _read(obj))


def purge_tools(obj: Path) -> None:
    """Do as `purge` for Kconfig's programs, and for its outputs if one has another size.

    Their times may have been changed (see configure.put), and make reads them.
    """
    recorded = _read(obj)
    _purged(obj, {name: state for name, state in recorded.items() if _tool(name)}, TOOLS)
    if any(
        name in recorded and state[1] != recorded[name][1] for name, state in _kconfig(obj).items()
    ):
        remove(*(str(obj / name) for name in KCONFIG))


def _tool(name: str) -> bool:
    return name.startswith(tuple(f"{folder}/" for folder in TOOLS))


def _purged(obj: Path, kept: _States, tops: Iterable[str] = ("",)) -> list[str]:
    lost = list[str]()
    present = {**dict(_files(obj, tops)), **_kconfig(obj)} if kept else {}
    if any(
        present.get(name) != kept[name] and present.get(name, (1, 0))[0] != 0
        for name in KCONFIG
        if name in kept
    ):
        remove(*(str(obj / name) for name in KCONFIG))
    for name, state in kept.items():
        if name not in KCONFIG and present.get(name) != state and present.get(name, (1, 0))[0] != 0:
            lost.append(name)
            folder, base = os.path.split(obj / name)
            if base.startswith(".") and base.endswith(".cmd"):
                base = base[1 : -len(".cmd")]
            if name in present:
                remove(os.path.join(folder, base), os.path.join(folder, f".{base}.cmd"))
    return lost


def spoilt(obj: Path, names: Iterable[str]) -> str:
    """Return the first of these files that differs from the manifest; "" if there is none.

    Missing files, and those with mtime 0 (see `purge`), don't count.

    Args:
        obj: The object folder.
        names: The files, relative to it.
    """
    recorded, top = _read(obj), f"{obj}/"
    for name in names:
        if name in recorded:
            try:
                info = os.stat(top + name)
            except FileNotFoundError:
                continue
            if (info.st_mtime_ns, info.st_size) != recorded[name] and info.st_mtime_ns:
                return name
    return ""


def _read(obj: Path) -> _States:
    return decoded(obj / FILE, _States, {})


def _kconfig(obj: Path) -> _States:
    """Return the states of Kconfig's outputs."""
    states: _States = {}
    for name in KCONFIG:
        with contextlib.suppress(FileNotFoundError):
            info = os.stat(obj / name)
            states[name] = info.st_mtime_ns, info.st_size
    return states


def _files(obj: Path, tops: Iterable[str] = ("",)) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield all other files below these folders with their states, but for links and our own."""
    pending = [(os.path.join(obj, top), f"{top}/" if top else "") for top in tops]
    while pending:
        files, folders = _listed(*pending.pop())
        yield from files
        pending += folders


def _listed(
    folder: str, short: str
) -> tuple[list[tuple[str, tuple[int, int]]], list[tuple[str, str]]]:
    """Return the files of one folder with their states, and the folders in it.

    Args:
        folder: The folder.
        short: Its path from the object folder on with a trailing "/", the prefix of the names.
    """
    files, folders = [], []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            name = short + entry.name
            if entry.name.startswith("piggyback.") or name.startswith(_OTHERS) or name in KCONFIG:
                continue
            info = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                folders.append((entry.path, name + "/"))
            elif stat.S_ISREG(info.st_mode):
                files.append((name, (info.st_mtime_ns, info.st_size)))
    return files, folders
