"""Time and size of every file that make left in an object folder.

What is not as it was left, somebody has cut short, edited, or made otherwise. Make would take it
for good by its time, so it is removed before make runs, and made again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from tasks.kbuild import symbol_times
from tasks.system.files import decoded, remove, write_whole

FILE = "piggyback.made"
# Kconfig's, the kernel's and busybox's: all are made together when the first is missing
KCONFIG = (
    "include/config/auto.conf",
    "include/config/auto.conf.cmd",
    "include/generated/autoconf.h",
    "include/autoconf.h",
    "include/generated/rustc_cfg",
)
SLACK_NS = 20_000_000  # file systems stamp with a clock that lags by up to a tick
_OTHERS = (
    "include/config/",
    ".config",
    "Makefile",
)  # Kconfig's, too, and in no image; the last each make writes anew
TOOLS = ("scripts/basic", "scripts/kconfig")  # what Kconfig itself is run with
_States = dict[
    str, tuple[int, int]
]  # by path below the folder: mtime (ns since 1970), size in bytes


def keep(obj: Path) -> None:
    """Write down how make left the folder."""
    symbol_times.keep(obj)
    write_whole(obj / FILE, msgspec.msgpack.encode({**dict(_files(obj)), **_kconfig(obj)}))


def renew(obj: Path) -> None:
    """Write down what Kconfig has made since, and its programs.

    Where nothing else was made since, have make see no change in symbols that only went and came
    back.
    """
    kept = _read(obj)
    if kept:
        found = dict(_files(obj))
        tools = {name: state for name, state in found.items() if _tool(name)}
        others = {
            name: state for name, state in kept.items() if name not in KCONFIG and not _tool(name)
        }
        if {**others, **tools} == found:
            symbol_times.settle(obj)
        write_whole(obj / FILE, msgspec.msgpack.encode({**others, **_kconfig(obj), **tools}))


def update(obj: Path, names: Iterable[str], since: int) -> None:
    """Write down targets (relative to the folder) that were made anew.

    All that was written beside them since then (ns since 1970) is, too: what was damaged before
    stays known as such.
    """
    kept = _read(obj)
    if not kept:
        return
    wanted = set(map(os.path.normpath, names))
    for folder in {"", *map(os.path.dirname, wanted)}:
        for name, state in _listed(os.path.join(obj, folder), folder + "/" if folder else "")[0]:
            if name in wanted or state[0] > since - SLACK_NS:
                kept[name] = state
    write_whole(obj / FILE, msgspec.msgpack.encode(kept))


def purge(obj: Path) -> list[str]:
    """Remove what is not as it was left, and what belongs to a damaged .cmd file.

    A file with the oldest time there is was put there, or given that time, by us (image.hand_over,
    configure.put).

    Returns:
        The names (relative to the folder) of that, and of what is gone by itself, which make sees
        where it has a rule for it.
    """
    return _purged(obj, _read(obj))


def purge_tools(obj: Path) -> None:
    """The same, of Kconfig's programs and what they are made from alone."""
    _purged(obj, {name: state for name, state in _read(obj).items() if _tool(name)}, TOOLS)


def _tool(name: str) -> bool:
    return name.startswith(tuple(f"{folder}/" for folder in TOOLS))


def _purged(obj: Path, kept: _States, tops: Iterable[str] = ("",)) -> list[str]:
    lost = list[str]()
    found = {**dict(_files(obj, tops)), **_kconfig(obj)} if kept else {}
    if any(
        found.get(name) != kept[name] and found.get(name, (1, 0))[0] != 0
        for name in KCONFIG
        if name in kept
    ):
        remove(*(str(obj / name) for name in KCONFIG))
    for name, state in kept.items():
        if name not in KCONFIG and found.get(name) != state and found.get(name, (1, 0))[0] != 0:
            lost.append(name)
            folder, base = os.path.split(obj / name)
            if base.startswith(".") and base.endswith(".cmd"):
                base = base[1 : -len(".cmd")]
            if name in found:
                remove(os.path.join(folder, base), os.path.join(folder, f".{base}.cmd"))
    return lost


def spoilt(obj: Path, names: Iterable[str]) -> str:
    """Return one of these files that is there and not as it was left; "" if there is none.

    Names are relative to the folder. Of a file that is gone, or that has the oldest time there is,
    see `purge`.
    """
    kept, top = _read(obj), f"{obj}/"
    for name in names:
        if name in kept:
            try:
                info = os.stat(top + name)
            except FileNotFoundError:
                continue
            if (info.st_mtime_ns, info.st_size) != kept[name] and info.st_mtime_ns:
                return name
    return ""


def _read(obj: Path) -> _States:
    return decoded(obj / FILE, _States, {})


def _kconfig(obj: Path) -> _States:
    """The state of what Kconfig makes."""
    found: _States = {}
    for name in KCONFIG:
        with contextlib.suppress(FileNotFoundError):
            info = os.stat(obj / name)
            found[name] = info.st_mtime_ns, info.st_size
    return found


def _files(obj: Path, tops: Iterable[str] = ("",)) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every other file below these folders with its state; links are left out, and what is ours."""
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
        short: Its name from the object folder on, which begins the names.
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
