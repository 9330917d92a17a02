"""The files below include/config/ by which make learns that a symbol changed.

There is one for each, empty, touched by Kconfig.

Objects depend on those of the symbols that their sources name. A symbol that is changed, configured
and changed back has a file newer than all these objects, which are still good; where nothing was
built meanwhile, the old times are put back. Source: conf_touch_deps in scripts/kconfig/confdata.c.
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
from tasks.system.files import decoded, write_whole

FILE = "piggyback.symbols"
_TOP = "include/config"
_OTHERS = re.compile(r"(auto|tristate)\.conf(\.cmd)?|kernel\.release|\..*")  # what else lies there


class _Symbols(msgspec.Struct):
    """The symbols that are set, and the times of their files.

    values: by name without CONFIG_; times: of their files (ns since 1970), by path.
    """

    values: dict[str, str] = {}
    times: dict[str, int] = {}


def keep(obj: Path) -> None:
    """Write down which values the objects of a folder were made with.

    The times by which make knows are written down, too.
    """
    values = _values(obj)
    if values:
        write_whole(obj / FILE, msgspec.msgpack.encode(_Symbols(values, _times(obj))))


def settle(obj: Path) -> None:
    """Put back the times of the symbols that have the values that the objects were made with.

    This is for after Kconfig ran; no object may have been made since `keep`.
    """
    kept, values = _read(obj), _values(obj)
    if not kept.values or not values:
        return
    changed = _different(kept.values, values)
    stale = {path for symbol in changed for path in paths(symbol)}
    for path, when in _times(obj).items():
        if path not in stale and kept.times.get(path) != when:
            if path in kept.times:
                os.utime(obj / _TOP / path, ns=(kept.times[path], kept.times[path]))
            else:
                os.remove(obj / _TOP / path)


def changed(obj: Path) -> set[str]:
    """Return the symbols that have other values now than the objects were made with.

    None where nothing was built yet.
    """
    kept = _read(obj)
    return _different(kept.values, _values(obj)) if kept.values else set()


def _different(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def paths(symbol: str) -> tuple[str, str]:
    """Return the file of a symbol below include/config/, by both names that there are.

    That is as kernels from 5.14 on have it, and as earlier ones and busybox do.
    """
    return symbol, symbol.lower().replace("_", "/") + ".h"


def _values(obj: Path) -> dict[str, str]:
    """What auto.conf says; nothing if there is none, or it is damaged."""
    with contextlib.suppress(PiggyError):
        return dotconfig.read_config(obj / _TOP / "auto.conf")
    return {}


def _times(obj: Path) -> dict[str, int]:
    found = {}
    for folder, _, names in os.walk(obj / _TOP):
        for name in names:
            if not _OTHERS.fullmatch(name):
                path = os.path.join(folder, name)
                found[os.path.relpath(path, obj / _TOP)] = os.stat(path).st_mtime_ns
    return found


def _read(obj: Path) -> _Symbols:
    return decoded(obj / FILE, _Symbols, _Symbols())
