"""A clock that was set back, by what it leaves: files that are from ahead, as they are recorded."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.kbuild import manifest, symbol_times
from tasks.system import files


def shift(top: Path, ahead: int) -> None:
    """Make all files below a folder younger by `ahead` ns, and what object folders say of them.

    Without the latter all objects would be taken for spoilt, and be made again.
    """
    for where, _, names in os.walk(top):
        for path in (Path(where, name) for name in names):
            info = path.lstat()
            if not info.st_mtime_ns:  # the oldest time, which no clock wrote
                continue
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns + ahead), follow_symlinks=False)
    for path in list(top.rglob(manifest.FILE)):
        made = manifest._read(path.parent)
        later = {name: (when and when + ahead, size) for name, (when, size) in made.items()}
        path.write_bytes(files.packed(later))
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + ahead))
    for path in list(top.rglob(symbol_times.FILE)):
        symbols = symbol_times._read(path.parent)
        symbols.times = {name: when + ahead for name, when in symbols.times.items()}
        path.write_bytes(files.packed(symbols))
