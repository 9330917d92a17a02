"""What was made here, on its way to a shared store (see cache/remote.py)."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tasks.cache import action_result
from tasks.cache.action_result import ActionResult, OutputFile
from tasks.cache.remote_entries import (
    FORMAT,
    Bundle,
    Listed,
    Made,
    Signed,
    decoded,
    name_of,
    text_of,
)
from tasks.cache.remote_http import PIECE, Damaged
from tasks.cache.remote_pack import pack
from tasks.cache.signing import sign
from tasks.cache.store_files import Output, Place
from tasks.system import owned, terminal

if TYPE_CHECKING:
    from tasks.cache.remote import Remote
    from tasks.cache.store import Store

LISTS = 64  # lists of names that are kept under one key
END_SECONDS = 120  # that the end of a run waits for what is still to be sent


class Sender:
    """A thread that sends results while the run goes on."""

    def __init__(self, remote: Remote, key: Path) -> None:
        """Prepare to send; the thread starts with the first result.

        Args:
            remote: The shared store.
            key: The key to sign with.
        """
        self.remote, self.key = remote, key
        self._waiting: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def add(self, store: Store, place: Place | str, pack: tuple[Place, ...] = ()) -> None:
        """Have a result sent, or several as a pack.

        Args:
            store: The local store that has it.
            place: Where; of a pack, its key.
            pack: Where the results of a pack lie.
        """
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_all, daemon=True)
                self._thread.start()
        self._waiting.put((store, place, pack))

    def finish(self) -> None:
        """Wait until all is sent, END_SECONDS at most."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._waiting.put(None)
        started = time.monotonic()
        while thread.is_alive() and time.monotonic() - started < END_SECONDS:
            thread.join(0.2)
            if time.monotonic() - started > 1:
                self.remote.tell(f"sending results to {self.remote.server.shown}")
        if thread.is_alive():
            terminal.line("store", f"not all is sent in {END_SECONDS} s; 'doit store push' goes on")

    def _send_all(self) -> None:
        while (one := self._waiting.get()) is not None:
            store, what, places = one
            if not self.remote.off:
                with self.remote.failing(), contextlib.suppress(OSError):
                    if places:
                        self._send_pack(store, what, places)
                    else:
                        self._send(store, what)

    def _send(self, store: Store, place: Place) -> None:
        """Send one result: contents first, as a server looks for them when the entry is read.

        Raises:
            Failure: The server does not serve.
            PiggyError: ssh-keygen does not sign.
            OSError: The local store does not have it any more.
        """
        where = store.folder.joinpath("results", *place)
        result, names = store.read(where), store.listed(where.parent)
        if result is None or names is None:
            return
        files = [
            OutputFile(f"{number}", self._upload(store, output), output.size)
            for number, output in enumerate(result.outputs)
        ]
        listed = OutputFile(place.names, hashlib.sha256(names).hexdigest(), len(names))
        self._give(listed.sha256, len(names), lambda: [names])
        if not self._there(place):
            made = Made(FORMAT, place, result, [file.sha256 for file in files])
            self._put_action(name_of("result", *place), files, self._sign(made))
        self._put_list(place.key, listed)

    def _send_pack(self, store: Store, key: str, places: Sequence[Place]) -> None:
        """Send a pack. It may raise what `_send` does."""
        data = pack(store, places)
        file = OutputFile("pack", hashlib.sha256(data).hexdigest(), len(data))
        self._give(file.sha256, file.size, lambda: [data[at : at + PIECE] for at in _steps(data)])
        bundle = Bundle(FORMAT, key, file.sha256, file.size)
        self._put_action(name_of("pack", key), [file], self._sign(bundle))

    def _there(self, place: Place) -> bool:
        """Tell whether there is a result already, by somebody who is believed here."""
        if self.remote.signers is None:
            return False
        try:
            return self.remote.offer(place) is not None
        except Damaged:
            return False

    def _put_list(self, key: str, listed: OutputFile) -> None:
        """Add a list to those of a key. Who writes at the same time may be lost: that is a miss."""
        try:
            index = self.remote.index(key)
        except Damaged:
            index = []
        known = [(one, found) for one in index if (found := decoded(one.statement, Listed))]
        if any(found.sha256 == listed.sha256 for _, found in known) and self._believed(
            known, listed
        ):
            return
        own = Listed(FORMAT, key, listed.sha256, listed.size)
        others = [pair for pair in known if pair[1].sha256 != listed.sha256][: LISTS - 1]
        kept = [(self._sign(own), own), *others]
        files = [OutputFile(one.sha256[:32], one.sha256, one.size) for _, one in kept]
        self._put_action(name_of("names", key), files, [signed for signed, _ in kept])

    def _believed(self, known: Sequence[tuple[Signed, Listed]], listed: OutputFile) -> bool:
        if self.remote.signers is None:
            return True
        return any(
            found.sha256 == listed.sha256 and self.remote.signer(signed) for signed, found in known
        )

    def _put_action(self, name: str, files: Sequence[OutputFile], stdout: Any) -> None:
        data = action_result.encode(
            ActionResult([file for file in files if file.size], msgspec.msgpack.encode(stdout))
        )
        if len(data) <= action_result.LONGEST:
            self.remote.server.put(f"ac/{name}", len(data), lambda: [data])

    def _sign(self, statement: Listed | Made | Bundle) -> Signed:
        data = msgspec.msgpack.encode(statement)
        return Signed(data, sign(self.key, text_of(data)))

    def _upload(self, store: Store, output: Output) -> str:
        """Have the server have an output's content; return its SHA256."""

        def pieces() -> Iterator[bytes]:
            with owned.reading(store.folder, store.blob(output.digest)) as blob:
                while piece := blob.read(PIECE):
                    yield piece

        digest, size = hashlib.sha256(), 0
        for piece in pieces():
            digest.update(piece)
            size += len(piece)
        sha256 = digest.hexdigest()
        if (sha256[:32], size) != (output.digest, output.size):
            raise OSError(f"{output.digest} is damaged")
        self._give(sha256, size, pieces)
        return sha256

    def _give(self, sha256: str, size: int, content: Callable[[], Iterable[bytes]]) -> None:
        path = f"cas/{sha256}"
        if size and (sha256 in self.remote.bad or not self.remote.server.has(path)):
            self.remote.server.put(path, size, content)
            self.remote.bad.discard(sha256)


def _steps(data: bytes) -> range:
    return range(0, len(data), PIECE)
