"""Results of a shared store that are made here all the same, and compared (see cache/remote.py)."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.cache import store_tag
from tasks.cache.remote_entries import Offer, name_of
from tasks.cache.store_files import Output, Place, Result
from tasks.system import terminal
from tasks.system.errors import PiggyError

if TYPE_CHECKING:
    from tasks.cache.store import Store


class Checks:
    """What is made again, and what came of it.

    Attributes:
        wrong: What differed from what was made here, in sentences.
        expected: Offers for what is made again, by key.
        sampled: The same for what came in packs, by place.
    """

    def __init__(self, url: str, one_in: int) -> None:
        """Prepare to compare.

        Args:
            url: The server's address, as it may be shown.
            one_in: One offer in so many is made again; 0 for none.
        """
        self.url, self.one_in = url, one_in
        self.wrong: list[str] = []
        self.expected: dict[str, Offer] = {}
        self.sampled: dict[Place, Offer] = {}

    def chosen(self, store: Store, offer: Offer) -> bool:
        """Tell whether an offer is one of those that are made again.

        Which these are stays the same for a day, on one machine; nobody else can know it.
        """
        if not self.one_in:
            return False
        try:
            info = os.stat(store.folder / store_tag.TAG)
            mine = (info.st_ino, info.st_ctime_ns)
        except OSError:
            mine = (0, 0)
        said = repr((offer.place, time.strftime("%F"), mine)).encode()
        return int.from_bytes(hashlib.sha256(said).digest()[:8]) % self.one_in == 0

    def compare(self, place: Place, result: Result, targets: Sequence[Path]) -> None:
        """Compare what was made with what the server offered, if it was made for that.

        Args:
            place: Where it goes in the local store.
            result: What was made.
            targets: The files, in the order of its outputs.
        """
        # What a task was made from is as `find` saw it, whatever names it found now. An object's
        # key has others, too.
        told = self.expected.pop(place.key, None)
        offer = told or self.sampled.pop(place, None)
        if offer is None:
            return
        named = [path.name for path in targets]
        if len(offer.outputs) != len(result.outputs):
            self._differs(offer, f"{len(offer.outputs)} files there, {len(result.outputs)} here")
            return
        for name, there, here in zip(named, offer.outputs, result.outputs, strict=False):
            if there.digest != here.digest:
                self._differs(offer, f"{name} is {there.digest} there and {here.digest} here")
                return
            if _mode(there) != _mode(here):
                self._differs(offer, f"{name} has mode {there.mode:o} there and {here.mode:o} here")
                return
        same = (
            f"{_task(offer)} was made again, to check the shared store: as {offer.signer} made it"
        )
        terminal.line("store", terminal.printable(same))

    def _differs(self, offer: Offer, what: str) -> None:
        when = time.strftime("%F %T", time.gmtime(offer.time))
        said = PiggyError(
            f"the shared store's {_task(offer)} is not what is made here of the same inputs: {what}"
            f" (entry ac/{name_of('result', *offer.place)} of {self.url}, made {when} UTC,"
            f" signed by {offer.signer})",
            "what was made here is used. Find out which is right before you go on: 'doit verify'"
            " makes it here once more",
        )
        self.wrong.append(str(said))
        terminal.write(f"\nERROR: {said}\n", sys.stderr)


def _mode(output: Output) -> int:
    """Return the mode with which an output is brought back."""
    return output.mode & 0o755 | 0o400


def _task(offer: Offer) -> str:
    return terminal.printable(offer.task.lstrip("_"))
