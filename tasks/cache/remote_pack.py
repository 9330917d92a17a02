"""Many small results in one content of a shared store: the objects of a kernel.

A kernel has a thousand objects, and a request for each would take longer than to compile some of
them. So what a build of a goal used goes as one content, with one signature, and comes as one: when
the goal is built on a machine for the first time.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tasks.cache.store_files import Place, Result, short_hash
from tasks.cache.store_tag import HASH
from tasks.system import owned

if TYPE_CHECKING:
    from tasks.cache.store import Store

MOST = 1 << 28  # bytes of a pack, unpacked; a kernel's takes some 30 MB


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """One result with all that belongs to it: the list of names, and the contents of its outputs.

    The contents are in the order of the outputs.
    """

    place: Place
    listed: bytes
    result: Result
    contents: list[bytes]

    def sound(self) -> bool:
        """Tell whether the parts belong together, and the place is one in a store."""
        return (
            all(re.fullmatch(HASH, part) for part in self.place)
            and self.place.names == short_hash(self.listed)
            and [out.digest for out in self.result.outputs] == list(map(short_hash, self.contents))
            and [out.size for out in self.result.outputs] == list(map(len, self.contents))
        )

    def write(self, number: int, draft: Path) -> None:
        """Write the content of the output of a number to a file."""
        draft.write_bytes(self.contents[number])


def pack(store: Store, places: Iterable[Place]) -> bytes:
    """Return results of a store as one content; those that it does not have any more are left out.

    Args:
        store: The store.
        places: Where they lie.
    """
    return zlib.compress(msgspec.msgpack.encode(list(_taken(store, places))), 1)


def _taken(store: Store, places: Iterable[Place]) -> Iterator[Packed]:
    total = 0
    for place in places:
        where = store.folder.joinpath("results", *place)
        result, listed = store.read(where), store.listed(where.parent)
        if result is None or listed is None:
            continue
        contents = []
        with contextlib.suppress(OSError):
            for output in result.outputs:
                with owned.reading(store.folder, store.blob(output.digest)) as blob:
                    contents.append(blob.read())
            one = Packed(place, listed, result, contents)
            total += len(listed) + sum(map(len, contents)) + 1000
            if total > MOST:
                return
            if one.sound():
                yield one


def unpack(data: bytes) -> list[Packed]:
    """Return the results that a content holds.

    Raises:
        ValueError: It holds none, or too much.
    """
    try:
        unzip = zlib.decompressobj()
        whole = unzip.decompress(data, MOST)
        if not unzip.eof:
            raise ValueError("it is cut off, or too long")
        found = msgspec.msgpack.decode(whole, type=list[Packed])
    except (zlib.error, msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not all(one.sound() for one in found):
        raise ValueError("it contradicts itself")
    return found
