"""A store that several machines share: results by content on a server for Bazel's HTTP cache.

It is asked for what the local store does not have. What comes is put into the local store, whose
checks all hold, and brought back from there. Below the server's address lie

    ac/HASH     an ActionResult (see action_result.py); HASH is that of what it is for
    cas/SHA256  contents

There are three kinds of ActionResult. That of a key has the lists of names under it as its files,
and in its standard output a signed statement for each list. That of a key, a list and a state has
the task's outputs as its files, and a signed statement with the result. The third has a pack of
results (see remote_pack.py).

Nothing from the server is believed but what a key of `signers` has signed (see signing.py), for
just that key, list and state; contents are checked by SHA256. One hit in `check` is made here again
and compared. Nothing that the server does fails a task: what it can't give is made here. It is not
asked again in this run after it failed once, or gave DAMAGED things that were of no use.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tasks.cache import action_result
from tasks.cache.action_result import ActionResult
from tasks.cache.remote_check import Checks
from tasks.cache.remote_entries import (
    FORMAT,
    Bundle,
    Listed,
    Made,
    Offer,
    Signed,
    decoded,
    name_of,
    offered,
    text_of,
)
from tasks.cache.remote_http import Damaged, Failure, Login, Server
from tasks.cache.remote_pack import unpack
from tasks.cache.remote_push import Sender
from tasks.cache.signing import Signers
from tasks.cache.store_files import Place, Result, blocks, names_in, state
from tasks.system import terminal
from tasks.system.errors import PiggyError

if TYPE_CHECKING:
    from tasks.cache.store import Store

TRIED = 8  # lists under a key that are tried, the newest first: each costs a request
DAMAGED = 3  # useless answers after which the server is not asked again
# Tasks whose results are not sent one by one: objects, which go in packs (kbuild/objects.py).
IN_PACKS = ("objects",)
_Digests = Callable[[Sequence[str]], Mapping[str, str]]


class _Gone(Exception):
    """A content is not there any more; or it is one that was refused before."""


class Remote:
    """A shared store. Any thread may use it.

    Attributes:
        checks: What is made again and compared.
        off: Why the server is not asked any more in this run; "" if it is.
    """

    def __init__(
        self, url: str, login: Login, signers: Path | None, key: Path | None, check: int
    ) -> None:
        """Know where it is; nothing is sent yet.

        Args:
            url: The server's http or https address.
            login: How to log in there.
            signers: The file that lists whose results are taken; None to take none.
            key: The key to sign with what is made here; None to send nothing.
            check: One hit in so many is made again and compared; 0 for none.
        """
        self.server = Server(url, login)
        self.checks = Checks(self.server.shown, check)
        self.signers = Signers(signers) if signers else None
        self.off = ""
        self._told: set[str] = set()
        self._useless, self._over = 0, False
        self.bad: set[str] = set()  # SHA256 of contents that came damaged
        self._sender = Sender(self, key) if key else None
        self._lock = threading.Lock()

    # what is read --------------------------------------------------------------------------------

    def find(self, store: Store, key: str, digests: _Digests) -> tuple[Offer, list[str]] | None:
        """Return a result for the discovered inputs as they are now.

        Args:
            store: The local store.
            key: All that is known before the task runs, as one digest.
            digests: Gives the digests of inputs by name.

        Returns:
            The result and the names of the inputs, None if there is none, or if it is one that is
            to be made again.
        """
        if self.signers is None and self._sender is None:
            self.tell(
                f"nothing is taken from {self.server.shown}: store_signers= names no file with the"
                " keys that are believed"
            )
        if self.signers is None or self.off:
            return None
        with self.failing():
            known: dict[str, str] = {}
            for data in self._lists(store, key):
                names = names_in(data)
                known.update(digests([name for name in names if name not in known]))
                listed = hashlib.sha256(data).hexdigest()[:32]
                offer = self.offer(Place(key, listed, state([known[name] for name in names])))
                if offer is None:
                    continue
                offer = msgspec.structs.replace(offer, names=data)
                if not self.checks.chosen(store, offer):
                    return offer, names
                self.checks.expected[key] = offer
                break
        return None

    def fetch(self, store: Store, result: Result) -> bool:
        """Have an offer in the local store; tell whether it is there.

        Args:
            store: The local store.
            result: What `find` returned; a result of the local store is there already.
        """
        if not isinstance(result, Offer):
            return True
        if self.off or sum(blocks(output.size) for output in result.outputs) > store.limit:
            return False
        with self.failing(), contextlib.suppress(_Gone, OSError):

            def fill(number: int, draft: Path) -> None:
                output = result.outputs[number]
                if store.refuses(output.digest):
                    raise _Gone
                self._download(result.sha256s[number], output.size, draft)

            store.receive(result.place, result.names, result.result(), fill)
            return True
        return False

    def fetch_pack(self, store: Store, key: str) -> None:
        """Have the results of a pack in the local store, but those that are to be made again.

        Args:
            store: The local store.
            key: What the pack belongs to.
        """
        if self.signers is None or self.off:
            return
        with self.failing(), contextlib.suppress(OSError):
            found = self._action(name_of("pack", key))
            if found is None:
                return
            signed = decoded(found.stdout, Signed)
            bundle = signed and decoded(signed.statement, Bundle)
            if not bundle or (bundle.format, bundle.key) != (FORMAT, key):
                raise Damaged("an entry is for something else")
            signer = self.signer(signed)
            data = self.server.read(f"cas/{bundle.sha256}", bundle.size) if signer else None
            if data is None:
                return
            if hashlib.sha256(data).hexdigest() != bundle.sha256:
                self.bad.add(bundle.sha256)
                raise Damaged("a pack is not what its name says")
            self._take(store, data, signer)

    def _take(self, store: Store, data: bytes, signer: str) -> None:
        try:
            results = unpack(data)
        except ValueError as error:
            raise Damaged(f"a pack can't be read: {error}") from None
        kept = 0
        for one in results:
            offer = offered(one.result, one.place, signer)
            if one.result.outputs and self.checks.chosen(store, offer):
                self.checks.sampled[one.place] = offer
            elif not any(store.refuses(output.digest) for output in one.result.outputs):
                store.receive(one.place, one.listed, one.result, one.write)
                kept += bool(one.result.outputs)  # the list of them has none
        self.tell(f"{kept} objects that {signer} made are taken from {self.server.shown}")

    def _lists(self, store: Store, key: str) -> Iterator[bytes]:
        """Yield the lists of names under a key, the one added last first."""
        for signed in self.index(key)[:TRIED]:
            listed = decoded(signed.statement, Listed)
            if listed is None or (listed.format, listed.key) != (FORMAT, key):
                raise Damaged("an entry is for something else")
            if not self.signer(signed):
                continue
            data = store.listed(store.folder / "results" / key / listed.sha256[:32])
            if data is None:
                data = self.server.read(f"cas/{listed.sha256}", listed.size) if listed.size else b""
            if data is None:  # evicted
                continue
            if hashlib.sha256(data).hexdigest() != listed.sha256:
                self.bad.add(listed.sha256)
                raise Damaged("a list of names is not what its name says")
            yield data

    def index(self, key: str) -> list[Signed]:
        """Return the statements about the lists under a key, unchecked; the newest comes first."""
        found = self._action(name_of("names", key))
        index = [] if found is None else decoded(found.stdout, list[Signed])
        if index is None:
            raise Damaged("an entry is for something else")
        return index

    def offer(self, place: Place) -> Offer | None:
        """Return the result at a place; None for none, or none that is believed."""
        found = self._action(name_of("result", *place))
        if found is None:
            return None
        signed = decoded(found.stdout, Signed)
        made = signed and decoded(signed.statement, Made)
        if not made or (made.format, made.place) != (FORMAT, place):
            raise Damaged("an entry is for something else")
        result, sha256s = made.result, made.sha256s
        if [sha256[:32] for sha256 in sha256s] != [output.digest for output in result.outputs]:
            raise Damaged("an entry contradicts itself")
        signer = self.signer(signed)
        return offered(result, place, signer, sha256s) if signer else None

    def _action(self, name: str) -> ActionResult | None:
        data = self.server.read(f"ac/{name}", action_result.LONGEST)
        try:
            return None if data is None else action_result.decode(data)
        except ValueError as error:
            raise Damaged(f"an entry is no ActionResult: {error}") from None

    def signer(self, signed: Signed) -> str:
        """Return who signed a statement; "" if it is nobody that is believed, which is said."""
        assert self.signers is not None
        who = self.signers.who(signed.signature, text_of(signed.statement))
        if not who:
            self.tell(
                f"an entry of {self.server.shown} is not signed by a key of {self.signers.path}: it"
                " is not used"
            )
        return who

    def _download(self, sha256: str, size: int, draft: Path) -> None:
        """Write a content to a file.

        Raises:
            Failure: The server does not serve.
            Damaged: It is another content.
            _Gone: There is none.
        """
        pieces: Iterable[bytes] | None = self.server.get(f"cas/{sha256}", size) if size else ()
        if pieces is None:
            raise _Gone
        digest = hashlib.sha256()
        with draft.open("wb") as file:
            try:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
            except Damaged:
                self.bad.add(sha256)
                raise
        if digest.hexdigest() != sha256:
            self.bad.add(sha256)
            raise Damaged("a content is not what its name says")

    # what is sent --------------------------------------------------------------------------------

    def push(self, store: Store, place: Place, task: str) -> None:
        """Send a result of the local store in the background, if what is made here is to be sent.

        Args:
            store: The local store.
            place: The result's place.
            task: Its task.
        """
        if self._sender and not self.off and task not in IN_PACKS:
            self._sender.add(store, place)

    def push_pack(self, store: Store, key: str, places: Sequence[Place]) -> None:
        """Send results of the local store as one, as `push` does; all others under the key go.

        Args:
            store: The local store.
            key: What they belong to.
            places: Where they lie.
        """
        if self._sender and not self.off:
            self._sender.add(store, key, tuple(places))

    def finish(self, wait: bool = True) -> None:
        """Wait until all is sent, for a bounded time.

        Args:
            wait: Wait at all.
        """
        if self._sender and wait:
            self._sender.finish()
        with self._lock:
            self._over = True  # a thread that is left must not write when Python ends

    def described(self) -> str:
        """Return in a line what it is used for, and whether the server answers now."""
        reads = f"takes what {self.signers.path} lists" if self.signers else "takes nothing"
        sends = "sends what is made here" if self._sender else "sends nothing"
        try:
            began = time.monotonic()
            self.server.has(f"cas/{hashlib.sha256().hexdigest()}")
            state = f"answers in {terminal.took(time.monotonic() - began)}"
        except Failure as error:
            state = f"is not used: it {error}"
        return f"{self.server.shown}: {reads}, {sends}; {state}"

    # what goes wrong -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Have the body's failure by the server cost no more than what the body was to do."""
        try:
            yield
        except Failure as error:
            self._switch_off(str(error))
        except PiggyError as error:  # of ssh-keygen
            self._switch_off(f"can't be used: {error.message}")
        except Damaged as error:
            self.tell(f"{self.server.shown}: {error}; what it was for is made here")
            self._useless += 1
            if self._useless >= DAMAGED:
                self._switch_off(f"gave {DAMAGED} useless answers")

    def _switch_off(self, why: str) -> None:
        with self._lock:
            first, self.off = not self.off, self.off or why
        if first:
            self.tell(f"{self.server.shown} is not used any more in this run: it {why}")

    def tell(self, text: str) -> None:
        """Say something, once a run."""
        with self._lock:
            if text in self._told or self._over:
                return
            self._told.add(text)
            terminal.line("store", terminal.printable(text))
