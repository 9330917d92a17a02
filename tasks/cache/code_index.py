"""The identities of actions, kept from run to run.

It takes a millisecond or more to work one out, and none to look it up.

An identity holds as long as no module of this package was touched, none came or went, Python is the
same, and so are the other files that the action names.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tasks.cache.code import TOP, code_id, files_of
from tasks.cache.digests import Stamps
from tasks.system.files import RACY_NS, decoded, packed, write_whole


class _Known(msgspec.Struct):
    """What is written down.

    Attributes:
        state: Of all that identities may depend on.
        ids: By action, its identity and its files with their digests.
    """

    state: str
    ids: dict[str, tuple[str, dict[str, str]]]


class Codes:
    """Identities of actions, kept in a file."""

    def __init__(self, store: Path, stamps: Stamps, begun: int = 0) -> None:
        """Know where they are kept; nothing is read yet.

        Args:
            store: The file.
            stamps: Digests of files.
            begun: When this process began to load modules (ns since 1970). What was touched since
                then need not be what was loaded, so nothing is looked up or kept then; 0: never.
        """
        self.store, self.stamps, self.begun = store, stamps, begun
        self._known: _Known | None = None
        self._dirty = False

    def of(self, action: Callable[..., Any]) -> str:
        """Return the identity of an action (see cache/code.py)."""
        if not self.begun:
            return code_id(action)
        if self._known is None:
            self._known = self._load()
        name = f"{action.__module__}.{action.__qualname__}"
        ident, files = self._known.ids.get(name, ("", {}))
        if not ident or any(self.stamps.digest(path) != digest for path, digest in files.items()):
            files = {path: self.stamps.digest(path) for path in files_of(action)}
            ident = code_id(action)
            self._known.ids[name] = ident, files
            self._dirty = True
        return ident

    def save(self) -> None:
        """Write them down, if there are new ones.

        A failure to do so costs time at the next run and nothing else.
        """
        if self._dirty and self._known and self._known.state:
            try:
                write_whole(self.store, packed(self._known))
            except OSError:
                return
            self._dirty = False

    def _load(self) -> _Known:
        state = self._state()
        known = decoded(self.store, _Known, _Known(state, {}))
        return known if state and known.state == state else _Known(state, {})

    def _state(self) -> str:
        """All that identities depend on but the files that they name.

        "" where that is not known for sure.
        """
        said = [sys.version, msgspec.__version__]
        for path in sorted(_modules(os.path.join(TOP, "tasks"))):
            try:
                if os.stat(path).st_ctime_ns >= self.begun - RACY_NS:
                    return ""
            except OSError:
                return ""
            said.append(f"{path[len(str(TOP)) :]} {self.stamps.digest(path)}")
        return "\n".join(said)


def _modules(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                yield entry.path
            elif entry.is_dir() and not entry.name.startswith((".", "__")):
                yield from _modules(entry.path)
