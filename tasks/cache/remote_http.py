"""Exchanges with the server of a shared store: each with a limit that it can't talk its way round.

requests does the work (proxies, certificates, ~/.netrc), in a thread that nobody has to wait for: a
name server that does not answer, a peer that sends a byte now and then and one that never ends are
left alone there. An exchange may stop moving for PATIENCE seconds, and must be faster than RATE.

No redirect is followed, so a password goes to the named server only. Nothing is unpacked: content
that came compressed is not what was asked for, and is found out by its digest.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tasks.system import address

PATIENCE = 1.8  # seconds: for the head of an answer, and between two pieces of a body
RATE = 256 << 10  # bytes a second; over a slower line it is no gain to fetch what can be built
QUICK = 0.25  # seconds that an answer may take; what is beyond that adds up to PATIENCE at most
PIECE = 1 << 16  # bytes
_AHEAD = 16  # pieces that are read ahead
Content = Callable[[], Iterable[bytes]]


class Failure(Exception):
    """The server is of no use in this run. The message holds no password."""


class Damaged(Exception):
    """One answer is of no use."""


class Login(NamedTuple):
    """How to log in: user and password, or a token; all empty for what ~/.netrc says, if at all."""

    user: str = ""
    password: str = ""
    token: str = ""


class Server:
    """A server with folders `ac` and `cas`, below an address. Any thread may use it."""

    def __init__(self, url: str, login: Login) -> None:
        """Know where it is; nothing is sent yet.

        Args:
            url: Its http or https address, without a password in it.
            login: How to log in there.
        """
        self.url, self.login = url.rstrip("/"), login
        self.shown = address.shown(self.url)
        self._sessions: queue.SimpleQueue[Any] = queue.SimpleQueue()  # those that are free
        self._late = 0.0  # seconds that answers took too long

    def get(self, path: str, most: int) -> Iterator[bytes] | None:
        """Return the content of a file piece by piece; None if there is none.

        Args:
            path: Below the address.
            most: Bytes that it may have.

        Raises:
            Failure: The server does not serve; while the pieces are read, too.
            Damaged: The file is longer, or not whole; while the pieces are read.
        """
        exchange = self._begin("GET", path)
        status, headers = self._head(exchange)
        if status in (404, 410):
            return None
        if status != 200:
            raise Failure(_refusal(status, headers))
        return self._body(exchange, headers, most)

    def read(self, path: str, most: int) -> bytes | None:
        """Return the content of a file; None if there is none. For the rest see `get`."""
        pieces = self.get(path, most)
        return None if pieces is None else b"".join(pieces)

    def has(self, path: str) -> bool:
        """Tell whether there is such a file.

        Raises:
            Failure: The server does not serve.
        """
        status, headers = self._begin("HEAD", path).head()
        if status not in (200, 204, 404, 410):
            raise Failure(_refusal(status, headers))
        return status in (200, 204)

    def put(self, path: str, size: int, content: Content) -> None:
        """Store a file.

        Args:
            path: Below the address.
            size: Its bytes, 1 or more.
            content: Gives the pieces of it, anew with each call.

        Raises:
            Failure: The server does not take it, or the content can't be read.
        """
        status, headers = self._begin("PUT", path, size, content).head()
        if status in (403, 404, 409):  # WebDAV: the folder is missing (RFC 4918, section 9.7.1)
            self._make_folders(path)
            status, headers = self._begin("PUT", path, size, content).head()
        if status not in (200, 201, 202, 204):
            raise Failure(f"takes nothing: it {_refusal(status, headers)}")

    def _make_folders(self, path: str) -> None:
        """Make the folder of a file, and those above it."""
        made = ""
        for part in path.split("/")[:-1]:
            made += f"{part}/"
            self._begin("MKCOL", made).head()  # 405: it is there (RFC 4918, section 9.3.1)

    def _begin(self, method: str, path: str, size: int = 0, content: Content = tuple) -> _Exchange:
        headers = {"Accept-Encoding": "identity"}
        if self.login.token:
            headers["Authorization"] = f"Bearer {self.login.token}"
        if method == "PUT":
            headers["Content-Type"] = "application/octet-stream"
        exchange = _Exchange(method, self._sessions, _Body(size, content))
        exchange.start(f"{self.url}/{path}", headers, self.login)
        return exchange

    def _head(self, exchange: _Exchange) -> tuple[int, Mapping[str, str]]:
        """Return the head of an answer that should be quick.

        Raises:
            Failure: It comes too late, or such answers came late too often.
        """
        status, headers = exchange.head()
        self._late += max(0.0, time.monotonic() - exchange.began - QUICK)
        if self._late > PATIENCE:
            exchange.close()
            raise Failure("is slow: to wait for its answers takes longer than it may gain")
        return status, headers

    @staticmethod
    def _body(exchange: _Exchange, headers: Mapping[str, str], most: int) -> Iterator[bytes]:
        length, read = headers.get("Content-Length", ""), 0
        with contextlib.closing(exchange):
            while data := exchange.next():
                read += len(data)
                if read > most:
                    raise Damaged(f"a file is longer than the {most} bytes that it may have")
                yield data
        if length and length != str(read):
            raise Damaged(f"a file broke off after {read} bytes of {address.shown(length)[:20]}")


class _Body:
    """What is sent, with its size, as requests wants it; its size is 0 for nothing."""

    def __init__(self, size: int, content: Content) -> None:
        self.size, self.content = size, content
        self.sent: Callable[[int], None] = lambda count: None

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.content():
            yield piece
            self.sent(len(piece))


class _Exchange:
    """One request and its answer, in a thread of its own."""

    def __init__(self, method: str, sessions: queue.SimpleQueue[Any], body: _Body) -> None:
        self.method, self._sessions, self._body = method, sessions, body
        self._session = _free(sessions)  # first: the clock starts after requests is loaded
        self.began = self._last = time.monotonic()
        self._moved = 0  # bytes of both bodies
        self._left = threading.Event()
        self._said: queue.Queue[Any] = queue.Queue(_AHEAD)
        body.sent = self._progress

    def start(self, url: str, headers: Mapping[str, str], login: Login) -> None:
        """Send the request."""
        threading.Thread(target=self._run, args=(url, headers, login), daemon=True).start()

    def head(self) -> tuple[int, Mapping[str, str]]:
        """Return status and headers of the answer.

        Raises:
            Failure: There is none in time.
        """
        status, headers = self.next()
        return status, headers

    def next(self) -> Any:
        """Return what the thread has got next: the head, then pieces, b"" at the end.

        Raises:
            Failure: It comes too late, or the connection broke.
            Damaged: The connection broke in the middle of a body.
        """
        while True:
            now = time.monotonic()
            limit = min(self._last, self.began + self._moved / RATE) + PATIENCE
            if now > limit:
                self.close()
                moved = f" after {self._moved} bytes" if self._moved else ""
                raise Failure(f"does not answer in {PATIENCE} s{moved}")
            try:
                said = self._said.get(timeout=min(limit - now + 0.01, 0.1))
            except queue.Empty:
                continue
            if isinstance(said, Exception):
                raise said
            self._progress(len(said) if isinstance(said, bytes) else 0)
            return said

    def close(self) -> None:
        """Let the thread end by itself; nothing of it is wanted any more."""
        self._left.set()

    def _progress(self, count: int) -> None:
        if self._left.is_set():
            raise Failure("was left")  # in its thread, which ends so
        self._moved += count
        self._last = time.monotonic()

    def _say(self, what: Any) -> None:
        while not self._left.is_set():
            with contextlib.suppress(queue.Full):
                self._said.put(what, timeout=0.2)
                return

    def _run(self, url: str, headers: Mapping[str, str], login: Login) -> None:
        """Do the exchange, and say what comes of it."""
        began = False
        try:
            with self._session.request(
                self.method,
                url,
                headers=dict(headers),
                data=self._body if self._body.size else None,
                auth=_auth(login),
                stream=True,
                allow_redirects=False,
                timeout=(PATIENCE, PATIENCE),
            ) as answer:
                wanted = began = self.method == "GET" and answer.status_code == 200
                head = answer.status_code, answer.headers
                if wanted:
                    self._say(head)
                read, some = 0, getattr(answer.raw, "read1", answer.raw.read)
                while not self._left.is_set() and (wanted or read < PIECE):
                    data = some(PIECE, decode_content=False)
                    if not data:
                        self._sessions.put(self._session)  # its connection can be used again
                        break
                    if wanted:
                        self._say(data)
                    read += len(data)
                self._say(b"" if wanted else head)
        except Failure as error:
            self._say(error)
        except Exception as error:  # whatever requests, urllib3, http.client and ssl raise
            self._say(_as_ours(error, began))


def _auth(login: Login) -> Any:
    """Return what requests is to log in with; None for what ~/.netrc says."""
    if login.token:
        return lambda request: request  # which has its header already
    if login.user or login.password:
        return login.user.encode(), login.password.encode()
    return None


def _free(sessions: queue.SimpleQueue[Any]) -> Any:
    """Return a session that no thread uses, a new one if need be. It follows no redirects."""
    with contextlib.suppress(queue.Empty):
        return sessions.get_nowait()
    import requests
    import urllib3
    from requests.adapters import HTTPAdapter

    # What is sent is to move as the network does, not into a buffer as large as a file.
    small = (socket.SOL_SOCKET, socket.SO_SNDBUF, 256 << 10)

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            plain = urllib3.connection.HTTPConnection.default_socket_options
            super().init_poolmanager(*args, socket_options=[*plain, small], **options)

    class Session(requests.Session):
        def get_redirect_target(self, response: requests.Response) -> None:
            """Return None: else requests would read the body of a redirect."""

    session = Session()
    session.mount("http://", Adapter())
    session.mount("https://", Adapter())
    return session


def _refusal(status: int, headers: Mapping[str, str]) -> str:
    """Say in words what is wrong with an answer."""
    if status == 401:
        return "wants another login (401)"
    if target := headers.get("Location", "") if 300 <= status < 400 else "":
        return f"redirects to {address.shown(target)[:200]}; that is not followed"
    return f"answers {status}"


def _as_ours(error: Exception, began: bool) -> Exception:
    """Return the error for what went wrong in an exchange.

    Args:
        error: What was raised.
        began: Whether the answer's head had come.
    """
    causes: list[BaseException] = []
    todo: list[BaseException] = [error]
    while todo and len(causes) < 100:
        cause = todo.pop()
        causes.append(cause)
        others = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        todo += [other for other in others if isinstance(other, Exception) and other not in causes]
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return Failure("has a name that does not resolve")
        if isinstance(cause, ConnectionRefusedError):
            return Failure("refuses the connection")
        if isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__:
            return Failure(f"does not answer in {PATIENCE} s")
    if began:
        return Damaged("a file broke off")
    return Failure(f"can't be talked to: {address.shown(causes[-1])[:300]}")
