"""Which objects a goal has, as the store knows it from earlier builds in any folder."""

from __future__ import annotations

import os
import time
from collections.abc import Collection

import msgspec

from tasks.cache.store import Store
from tasks.cache.store_files import Result, short_hash

TASK = "objects"  # the task's name in the store


class Goals(msgspec.Struct, frozen=True):
    """The lists of objects in a store.

    Attributes:
        store: The store.
        tools: A digest of compiler and binutils.
        arch: ARCH.
    """

    store: Store
    tools: str
    arch: str

    def key(self, goal: str) -> str:
        """Return the key of a goal's list."""
        return short_hash("\0".join([TASK, "goal", self.tools, self.arch, goal]).encode())

    def targets(self, goal: str) -> list[str]:
        """Return the objects that the goal had in earlier builds."""
        for folder, _ in self.store.lists(self.key(goal)):
            result = self.store.at(folder, [])
            if result:
                targets = result.values.get("targets")
                if isinstance(targets, list):
                    return [one for one in targets if isinstance(one, str) and relative(one)]
        return []

    def add(self, goal: str, compiled: Collection[str]) -> None:
        """Add objects to the goal's list."""
        before = self.targets(goal)
        more = sorted({*before, *compiled})
        if len(more) > len(before):
            self.store.put(self.key(goal), {}, Result(TASK, time.time(), {"targets": more}, []), [])


def relative(target: str) -> bool:
    """Tell whether a target's name is an object's and leads, links aside, into the folder."""
    words = target.split("/")
    return target.endswith(".o") and words[0] != "" and ".." not in words and "\0" not in target


def within(obj: str, targets: Collection[str]) -> list[str]:
    """Return the targets that no link leads out of the object folder.

    Kbuild's link `source` there leads to the tree, which nothing is written to.

    Args:
        obj: The object folder.
        targets: The targets, relative to it.
    """
    top = os.path.realpath(obj)
    folders = {
        folder: os.path.normpath(os.path.join(top, folder))
        for folder in set(map(os.path.dirname, targets))
    }
    inside = {folder for folder, path in folders.items() if os.path.realpath(path) == path}
    return [target for target in targets if os.path.dirname(target) in inside]
