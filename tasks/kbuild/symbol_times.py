"""Times of the empty files below include/config/, one for each symbol, which Kconfig touches.

An object depends on those of the symbols that its sources use. A symbol that was changed and
changed back has a file that is newer than these objects, though they are up to date; if nothing was
built meanwhile, the old times are restored. Source: conf_touch_deps in scripts/kconfig/confdata.c.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tasks.kconfig import dotconfig
from tasks.system.errors import PiggyError
from tasks.system.files import decoded, packed, remembering, write_whole
from tasks.system.pattern import pattern

FILE = "piggyback.symbols"
_TOP = "include/config"
_STEP = 1_000_000  # ns; a file system may keep times less exactly
_OTHERS = pattern(r"(auto|tristate)\.conf(\.cmd)?|kernel\.release|\..*")  # no symbols' files


class _Symbols(msgspec.Struct):
    """The symbols that are set, and the times of their files.

    Attributes:
        values: Symbol, without CONFIG_, to value.
        times: Path of a file below include/config/ to mtime, ns since 1970.
    """

    values: dict[str, str] = {}
    times: dict[str, int] = {}


def keep(obj: Path) -> None:
    """Record the symbols' values and times after a make.

    busybox has no auto.conf, and times alone. Where an auto.conf was lost, the record stays.
    """
    values = values_of(obj)
    if values or not _read(obj).values:
        write_whole(obj / FILE, packed(_Symbols(values, times(obj))))


def settle(obj: Path) -> None:
    """Restore the times of symbols whose values are as recorded, after a run of Kconfig.

    No object must have been made since `keep`.
    """
    recorded, values = _read(obj), values_of(obj)
    if not recorded.values or not values:
        return
    changed = different(recorded.values, values)
    stale = {path for symbol in changed for path in paths(symbol)}
    for path, when in times(obj).items():
        if path not in stale and recorded.times.get(path) != when:
            if path in recorded.times:
                os.utime(obj / _TOP / path, ns=(recorded.times[path], recorded.times[path]))
            else:
                os.remove(obj / _TOP / path)


def outdate(obj: Path, made: int) -> None:
    """Have each symbol whose value is not as recorded look changed, after a run of Kconfig.

    Kconfig touches what differs from the auto.conf of before. Without that (it was lost, or
    damaged) it touches nothing for a symbol that is off now, which objects have that are there. If
    there is no record of a make either, all symbols look changed. busybox has no auto.conf, and its
    objects learn of symbols otherwise.

    Args:
        obj: The object folder.
        made: When the last make ended, ns since 1970; -1 if there was none.
    """
    recorded, values = _read(obj), values_of(obj)
    if not values:
        return
    there = times(obj)
    stale = {path for name in different(recorded.values, values) for path in paths(name)}
    if not recorded.values:
        stale = {*there} if made >= 0 else set()
    for path in stale & there.keys():
        if recorded.times.get(path, 0) == there[path] or not recorded.values:
            os.utime(obj / _TOP / path)
    old = any(path.endswith(".h") for path in there)
    for name in recorded.values.keys() - values.keys():
        path = paths(name)[old]
        if path not in there:  # it was lost, too
            (obj / _TOP / path).parent.mkdir(parents=True, exist_ok=True)
            (obj / _TOP / path).touch()


def outrun(obj: Path, made: int) -> None:
    """Make the files that Kconfig touched since `keep` newer than the last make.

    If the clock was set back since then, they are older than objects of other values.

    Args:
        obj: The object folder.
        made: When the last make ended, ns since 1970; -1 if there was none.
    """
    recorded = _read(obj).times
    for path, when in times(obj).items():
        if when <= made and recorded.get(path) != when:
            os.utime(obj / _TOP / path, ns=(made + _STEP, made + _STEP))


def changed(obj: Path, values: Mapping[str, str] | None = None) -> set[str]:
    """Return the symbols whose values differ from the recorded ones; none before the first make.

    Args:
        obj: The object folder.
        values: A configuration in the form of auto.conf; None for the one in force.
    """
    recorded = _read(obj)
    now = values_of(obj) if values is None else values
    return different(recorded.values, now) if recorded.values else set()


def as_auto_conf(obj: Path, values: Mapping[str, str]) -> dict[str, str]:
    """Return the values of a .config file as auto.conf would have them.

    It has no symbols that are off, and in kernels since 5.18 no quotes around strings (see
    print_symbol_for_autoconf in scripts/kconfig/confdata.c).

    Args:
        obj: The object folder, whose auto.conf shows the form.
        values: The values.
    """
    quoted = any(value.startswith('"') for value in values_of(obj).values())
    return {
        name: value if quoted or value[:1] != '"' else re.sub(r"\\(.)", r"\1", value[1:-1])
        for name, value in values.items()
        if value != "n"
    }


def different(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """Return the symbols with another value; those that are in one of both only, too."""
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def paths(symbol: str) -> tuple[str, str]:
    """Return both names of a symbol's file below include/config/.

    The first is for kernels since 5.14, the second for earlier ones and busybox.
    """
    return symbol, symbol.lower().replace("_", "/") + ".h"


def values_of(obj: Path) -> dict[str, str]:
    """Return the symbols in auto.conf; none if it is missing or damaged."""
    with contextlib.suppress(PiggyError):
        return in_force(obj).copy()
    return {}


def in_force(obj: Path) -> dict[str, str]:
    """Return the symbols in auto.conf, for reading only.

    Raises:
        PiggyError: It is missing or damaged.
    """
    return dotconfig.read_known(obj / _TOP / "auto.conf")


def by_file(obj: Path) -> dict[str, str]:
    """Return the values in auto.conf by the symbols' files below the object folder, for reading.

    A symbol's name can't be told from its file: before 5.14 M53xx is m53xx.h.

    Raises:
        PiggyError: It is missing or damaged.
    """
    return _read_by_file(obj / _TOP / "auto.conf")


def files_of(values: Mapping[str, str]) -> dict[str, str]:
    """Return a configuration's values by both names of each symbol's file (see `paths`)."""
    return {f"{_TOP}/{path}": value for symbol, value in values.items() for path in paths(symbol)}


@remembering
def _read_by_file(path: Path) -> dict[str, str]:
    return files_of(dotconfig.read_known(path))


def times(obj: Path) -> dict[str, int]:
    """Return the mtimes (ns since 1970) of all symbols' files, by path below include/config/."""
    found = {}
    pending = [(f"{obj}/{_TOP}", "")]
    while pending:
        folder, short = pending.pop()
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, f"{short}{entry.name}/"))
                elif not _OTHERS.fullmatch(entry.name):
                    found[short + entry.name] = entry.stat().st_mtime_ns
    return found


def _read(obj: Path) -> _Symbols:
    return decoded(obj / FILE, _Symbols, _Symbols())
