"""Results of tasks in the store, known by content and not by where they were made.

A result is looked for by what its task is made from. There the project's folder, the build folder,
source trees and toolchains have words in place of their paths (see cache/places.py), and a tool
counts by its content. So a result serves each checkout with the same inputs, wherever it lies, and
each host.

A result whose files hold the path of one of these folders, or whose values name a file elsewhere,
serves these folders alone: the name PLACE is then one of its inputs, with the paths as its state.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tasks.cache.digests import content_digest
from tasks.cache.places import Places
from tasks.cache.store import FORMAT, Store
from tasks.cache.store_files import Output, Result, short_hash
from tasks.graph.reason import Record

FORM = 2  # of the names in a key; part of every key, so that another one is never looked at
PLACE = "#place"
_SYMBOL = "CONFIG_"
States = Callable[[str, str], str]
Digests = Callable[[Iterable[str]], Mapping[str, str]]


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The store, as one task uses it.

    Attributes:
        store: The store.
        places: Gives the folders whose paths have words; called only when the store is asked.
        located: The settings that are paths, by name.
        records: Files that count without the paths in them: JSON objects of text.
        states: Gives what makes of the name and the state of a part of a tree what counts of it.
        relative: Whether the names of files that were made are relative to the project, as the
            names of its outputs are.
    """

    store: Store
    places: Callable[[], Places]
    located: frozenset[str] = frozenset()
    records: frozenset[str] = frozenset()
    states: Callable[[], States] = lambda: lambda name, state: state
    relative: bool = True

    def __bool__(self) -> bool:
        """Tell whether the store keeps anything."""
        return self.store.limit > 0

    def key(self, task: str, known: Record, outputs: Sequence[str], config: str) -> str:
        """Return what is known before a task runs, as one digest.

        Args:
            task: Its name.
            known: The declared parts of its record.
            outputs: Its targets.
            config: The .config file of which it may discover symbols; "" for none.
        """
        places, counts = self.places(), self.states()
        parts = [
            FORMAT,
            FORM,
            task,
            [places.name(path) for path in outputs],
            config and places.name(config),
            sorted(
                (name, places.name(value) if name in self.located else value)
                for name, value in known["settings"].items()
            ),
            sorted(known["code"].items()),
            # "PATH DIGEST", and where it lies does not count
            sorted((name, found.rpartition(" ")[2]) for name, found in known["tools"].items()),
            sorted(
                (places.name(path), _without_paths(path, places) or digest)
                if path in self.records
                else (places.name(path), digest)
                for path, digest in known["files"].items()
            ),
            # "LABEL NAME"; one without a label is a file
            sorted(
                (
                    f" {places.name(name[1:])}" if name.startswith(" ") else name,
                    counts(name, state),
                )
                for name, state in known["trees"].items()
            ),
        ]
        return short_hash(json.dumps(parts).encode())

    def find(self, key: str, digests: Digests) -> tuple[Result, list[str]] | None:
        """Return a result for the discovered inputs as they are now.

        Args:
            key: What is known before the task runs.
            digests: Gives the digests of inputs by their names here.

        Returns:
            The result with values and names as they are here, and the names of the inputs; None if
            there is none.
        """
        places = self.places()

        def states(names: Sequence[str]) -> dict[str, str]:
            here = {name: places.path(name) for name in names if name != PLACE}
            known = digests(here.values())
            found = {name: known[path] for name, path in here.items()}
            return {**found, PLACE: _state(places)} if PLACE in names else found

        found = self.store.find(key, states)
        if not found:
            return None
        result, names = found
        if PLACE not in names:
            try:
                values = _mapped(result.values, places.path)
            except RecursionError:  # none of ours
                return None
            made = {self._as_made(places, name): digest for name, digest in result.made.items()}
            result = msgspec.structs.replace(result, values=values, made=made)
        return result, [places.path(name) for name in names if name != PLACE]

    def put(
        self,
        key: str,
        discovered: Mapping[str, str],
        result: Result,
        targets: Sequence[Path],
        before: Iterable[str] = (),
    ) -> None:
        """Keep a result.

        Args:
            key: What is known before the task runs.
            discovered: The discovered inputs with their digests.
            result: What is kept, with values and names as they are here.
            targets: The files, in the order of its outputs.
            before: Files that the targets were made from by stripping them.

        Raises:
            OSError: A file of them can't be read.
        """
        places = self.places()
        states = {
            name if name.startswith(_SYMBOL) else places.name(name): state
            for name, state in discovered.items()
        }
        try:
            if places.held([*targets, *result.made, *before]):
                raise ValueError("a file holds a path")
            result = msgspec.structs.replace(
                result,
                values=_mapped(result.values, lambda text: _named(places, text)),
                made={_below(places, path): digest for path, digest in result.made.items()},
            )
        except ValueError:
            states[PLACE] = _state(places)
        self.store.put(key, dict(sorted(states.items())), result, targets)

    def _as_made(self, places: Places, name: str) -> str:
        """Return the path of a file that was made, as the task names it."""
        path = places.path(name)
        return os.path.relpath(path, places.base) if path and self.relative else path


def key_of(task: str, *parts: str) -> str:
    """Return the digest of all that a single file is made from."""
    return short_hash(json.dumps([FORMAT, FORM, task, *parts]).encode())


def bring_file(store: Store, key: str, path: Path) -> Result | None:
    """Write a file that was kept alone; return what is known of it, None if there is none."""
    found = store.find(key, lambda names: {})
    return found[0] if found and store.bring_back(found[0], [path]) else None


def keep_file(store: Store, task: str, key: str, path: Path, values: dict[str, Any]) -> None:
    """Keep a single file.

    Args:
        store: The store.
        task: What it is, for the report.
        key: All that it was made from.
        path: The file.
        values: What else is to be known of it.
    """
    info = os.stat(path)
    output = Output(content_digest(path), info.st_size, stat.S_IMODE(info.st_mode))
    store.put(key, {}, Result(task, time.time(), values, [output]), [path])


def _below(places: Places, path: str) -> str:
    """Return the name of a file that has a word.

    Raises:
        ValueError: It lies in no place.
    """
    name = places.name(path)
    if not name.startswith("<"):
        raise ValueError(f"{path} lies elsewhere")
    return name


def _named(places: Places, text: str) -> str:
    """Return the name of a file that a text is the absolute path of.

    Raises:
        ValueError: It is no such path, or has another one in it.
    """
    name = _below(places, text)
    if not text.startswith("/") or any(path in name for path, _ in places.pairs):
        raise ValueError(f"{text} is no path that can be given back")
    return name


def _mapped(value: Any, of_path: Callable[[str], str]) -> Any:
    """Return a value with another text for each path or name in it, which has a "/" or a "<"."""
    if isinstance(value, str):
        return of_path(value) if "/" in value or "<" in value else value
    if isinstance(value, list | tuple):
        return [_mapped(item, of_path) for item in value]
    if isinstance(value, dict):
        return {_mapped(name, of_path): _mapped(item, of_path) for name, item in value.items()}
    return value


def _state(places: Places) -> str:
    return short_hash("\0".join(f"{word} {path}" for path, word in places.pairs).encode())


def _without_paths(path: str, places: Places) -> str:
    """Return the digest of a record with words in place of paths; "" if it can't be read so."""

    def named(text: str) -> str:
        if text.startswith("<"):
            raise ValueError("it has a word of ours")
        return places.name(text) if text.startswith("/") else text

    try:
        held = msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Any])
        return short_hash(msgspec.json.encode(_mapped(held, named), order="sorted"))
    except (OSError, ValueError, RecursionError):
        return ""
