"""The present state of what an object is made from, by the names of object_key.py."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from tasks.cache.digests import Stamps
from tasks.kbuild import object_key, symbol_times, texts
from tasks.kbuild.object_key import HIDING, OBJTOOL, PLACE, SYMBOL, Roots
from tasks.kbuild.saved import Unfamiliar
from tasks.system import files

_TIMESTAMP = b"__TIMESTAMP__"  # the time of a source


class States:
    """The states of inputs, as of when this was made: make may change the files.

    Attributes:
        roots: The folders that names are relative to.
    """

    def __init__(
        self, roots: Roots, stamps: Stamps, config: Mapping[str, str] | None = None
    ) -> None:
        """Read the configuration in force.

        Args:
            roots: The folders that names are relative to.
            stamps: Digests of files.
            config: The configuration; None for the one in force.
        """
        self.roots, self._stamps = roots, stamps
        self._values = (
            symbol_times.by_file(Path(roots.obj))
            if config is None
            else symbol_times.files_of(config)
        )
        self._digests: dict[str, str] = {}
        self._files: dict[str, tuple[str, int, bool]] = {}
        self._times: dict[str, int] = {}
        self._hiding = object_key.Hiding(roots.obj)
        self._shown = cache(roots.shown)

    def of_all(self, names: Sequence[str]) -> list[str]:
        """Return the states of all these names of one object."""
        known = self._digests
        return [known[name] if name in known else self.of(names, name) for name in names]

    def of(self, names: Sequence[str], name: str) -> str:
        """Return the state of the input `name` of an object with these names."""
        if name == HIDING:
            record = object_key.of_record(names)
            if len(record) < 3:  # no names of ours
                return ""
            command, source, *deps, _ = record
            headers = [self._shown(one) for one in deps if one[:1] != "$"]
            found = self._hiding.of(self.roots.shown(command), self._shown(source), headers)
            return self.roots.hidden("\0".join(found))
        if name == PLACE:
            return "\0".join(path for path, _ in self.roots.pairs())
        if name not in self._digests:
            self._digests[name] = self._of_input(name)
        return self._digests[name]

    def _of_input(self, name: str) -> str:
        if symbol := object_key.symbol_file(name):
            return self._values.get(symbol, "n")
        if name.startswith(SYMBOL):
            return self._values.get(f"include/config/{name[len(SYMBOL) :]}", "n")
        if name == OBJTOOL:
            return self._stamps.digest(f"{self.roots.obj}/{object_key.PROGRAM}")
        path = self._path(name)
        return self._stamps.digest(path) if path else ""

    def check(self, name: str, started: int, made: int) -> None:
        """Check that an input has not changed since the compiler read it, and names no others.

        Each input is looked at once, when all objects are made. Its state (`of`) must be known: a
        change after that look would not be seen otherwise.

        Args:
            name: The input.
            started: When make began, ns since 1970.
            made: The object's mtime, ns since 1970.

        Raises:
            Unfamiliar: It may have changed, or it names files or symbols that no .cmd file has.
        """
        known = self._files.get(name)
        if known is None:
            known = self._files[name] = self._looked_at(name)
        path, changed, strange = known
        if not path:
            return
        if changed > (made if path.startswith(self.roots.obj + "/") else started):
            raise Unfamiliar(f"{path} changed")
        if strange:
            raise Unfamiliar(f"{path} names what no record names")

    def check_hiding(self, paths: str, started: int, made: int) -> None:
        """Check that the headers which would hide one that was read have not come since then.

        Args:
            paths: The state of HIDING.
            started: As in `check`.
            made: As in `check`.

        Raises:
            Unfamiliar: One may have come meanwhile, by itself or with its folder.
        """
        for name in filter(None, self._shown(paths).split("\0")):
            path = os.path.normpath(os.path.join(self.roots.obj, name))
            inside = path.startswith(f"{self.roots.obj}/")
            if self._came(path, inside) > (made if inside else started):
                raise Unfamiliar(f"{path} came")

    def _came(self, path: str, inside: bool) -> int:
        """Return the time (ns) at which a header came at the latest.

        Args:
            path: The header.
            inside: Whether it is one of the object folder, where folders get new files all the
                time.
        """
        if path not in self._times:
            place, when = path, os.lstat(path).st_ctime_ns
            while not inside and len(place := os.path.dirname(place)) > len(self.roots.tree):
                info = os.lstat(place)
                if files.moved(info):
                    when = max(when, info.st_ctime_ns)
            self._times[path] = when
        return self._times[path]

    def _looked_at(self, name: str) -> tuple[str, int, bool]:
        """Return an input's file, when it was touched (ns), and whether it names others."""
        path = self._path(name)
        if not path:
            return "", 0, False
        info = os.stat(path)
        return (
            path,
            max(info.st_mtime_ns, info.st_ctime_ns, files.turned(path)),
            _names_unknown(path, Path(path).read_bytes()),
        )

    def _path(self, name: str) -> str:
        """Return the file that a name stands for; "" if it is no file's."""
        if not name or name[0] in "#$\n" or " := " in name:
            return ""
        return os.path.join(self.roots.obj, self.roots.shown(name))


def _names_unknown(path: str, text: bytes) -> bool:
    """Tell whether a source, outside of comments, names files or symbols that no record has.

    One that includes "../x.h" through -I counts, too: other places of it are not looked at. The
    kernel's headers have comments on such things, among them one that nearly all objects of x86
    read.
    """
    said = texts.of_text(text)
    return (
        bool(said.pasted)
        or texts.reads(text)
        or any(texts.found_elsewhere(path, said))
        or (_TIMESTAMP in text and _TIMESTAMP in texts.code(text))
    )
