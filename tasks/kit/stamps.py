"""Content digests of files, computed again only when the file was touched.

A digest is kept under (mtime, ctime, size, inode). The ctime is what makes it safe: no tool can set it, so a file put back
with its old mtime and size is still seen. A file whose ctime lies within a clock tick of the moment at which it was read
may change again without a new ctime; such an entry is not kept (git's "racy" rule, Documentation/technical/racy-git.txt).
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

import msgspec

from tasks.kit.fs import write_whole

MISSING = ""
RACY_NS = 50_000_000  # several ticks of the coarse clock that file systems stamp with (CONFIG_HZ=100: 10 ms)
_Entry = tuple[int, int, int, int, str]


class Stamps:
    """The digests known so far; read from `store` at first use, written back by `save`."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._known: dict[str, _Entry] | None = None
        self._dirty = False

    def digest(self, path: str | Path) -> str:
        """Return the digest of a file's content, of a link's chain end, or MISSING when there is no such file.

        A folder has the digest "folder": only that it is there counts.
        """
        path = os.fspath(path)
        try:
            info = os.stat(path)
        except OSError:
            return MISSING
        key = (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino)
        if self._known is None:
            self._known = self._load()
        entry = self._known.get(path)
        if entry is not None and entry[:4] == key:
            return entry[4]
        if stat.S_ISDIR(info.st_mode):
            return "folder"
        value = _hash(path)
        if not -RACY_NS < time.time_ns() - info.st_ctime_ns < RACY_NS:
            self._known[path] = (*key, value)
            self._dirty = True
        return value

    def save(self) -> None:
        """Write the digests back if there are new ones; a failure to do so costs time at the next run and nothing else."""
        if self._dirty and self._known is not None:
            try:
                write_whole(self.store, msgspec.msgpack.encode(self._known))
            except OSError:
                return
            self._dirty = False

    def _load(self) -> dict[str, _Entry]:
        try:
            return msgspec.msgpack.decode(self.store.read_bytes(), type=dict[str, _Entry])
        except (OSError, msgspec.DecodeError):
            return {}


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:32]
    except OSError:
        return MISSING
