"""HTTP client for untrusted servers.

It has a deadline for each answer's head and a least speed for its body, follows redirects without
reading their bodies, and sends a password only to the server that it is for.

requests does the rest (proxies, certificates, .netrc). By itself it reads the body of each redirect
to its end, and waits for ever for a server that sends a byte now and then.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, urljoin

from tasks.system import address

if TYPE_CHECKING:
    import requests

CONNECT_SECONDS, READ_SECONDS = 10, 30
# For the head of one answer, with all before it (100 Continue, a proxy's answer).
HEAD_SECONDS = 30
STALL_SECONDS, STALL_BYTES = 30, 30_000  # least speed of a body
HOPS = 10  # redirects that are followed
LONGEST_ADDRESS = 8000  # characters that servers and proxies accept (RFC 9110, section 4.1)
_REDIRECTS = (301, 302, 303, 307, 308)
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


class Unavailable(Exception):
    """A failure of one origin; the next one may have the file."""


class Again(Exception):
    """A failure that a retry may cure.

    Attributes:
        connecting: There was no answer at all, so few retries are worth their time.
        retry_after: The server's Retry-After header (RFC 9110, section 10.2.3); "" for none.
    """

    def __init__(self, why: object, *, connecting: bool = False, retry_after: str = "") -> None:
        super().__init__(why)
        self.connecting, self.retry_after = connecting, retry_after


class Answer(NamedTuple):
    """An answer whose body is still to be read.

    Attributes:
        status: The HTTP status code.
        reason: The server's phrase for it.
        headers: The headers.
        read: Returns the next bytes of the body, at most the given number; b"" at its end.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    read: Callable[[int], bytes]


class Client:
    """A session with web servers; use it in a `with`."""

    def __init__(self) -> None:
        self._watch = _Watch()
        self._session = _session(self._watch)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    @contextlib.contextmanager
    def ask(self, url: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        """Send a GET request, follow redirects, and yield the answer for the body of a `with`.

        Args:
            url: The http or https address.
            headers: The request's headers.

        Raises:
            Again: A failure that a retry may cure.
            Unavailable: Any other failure. Neither message holds a password.
        """
        from requests.auth import HTTPBasicAuth

        with contextlib.ExitStack() as stack:
            try:
                parts, login = address.split(url)
            except ValueError as error:
                raise Unavailable(str(error)) from None
            stack.enter_context(self._watch.running())
            for _ in range(HOPS + 1):
                stack.enter_context(_as_our_errors(f"{parts.scheme}://{parts.netloc}", self._watch))
                response = stack.enter_context(
                    self._session.get(
                        parts.geturl(),
                        stream=True,
                        timeout=(CONNECT_SECONDS, READ_SECONDS),
                        headers=dict(headers),
                        auth=HTTPBasicAuth(*login) if login else None,
                    )
                )
                target = response.headers.get("Location")
                if response.status_code not in _REDIRECTS or not target:
                    self._watch.body()
                    yield Answer(
                        response.status_code,
                        address.shown(response.reason or "")[:200],
                        response.headers,
                        self._reader(response),
                    )
                    return
                parts, login = _onward(
                    parts, login, target, "Authorization" in response.request.headers
                )
                response.close()  # without reading its body
            raise Unavailable(
                f"more than {HOPS} redirects, the last to {address.shown(parts.geturl())}"
            )

    def _reader(self, response: requests.Response) -> Callable[[int], bytes]:
        # read1 returns what has come, so that progress is shown.
        some = getattr(response.raw, "read1", response.raw.read)

        def read(size: int) -> bytes:
            # Decoded content could be a thousand times as long.
            data: bytes = some(size, decode_content=False)
            if not data:
                self._watch.check()
            self._watch.bytes += len(data)
            return data

        return read


def _onward(parts: SplitResult, login: Any, target: str, secret: bool) -> tuple[SplitResult, Any]:
    """Return the target of a redirect and the login to use there: the old one at the same origin.

    Args:
        parts: The address of the request.
        login: User and password of the request; None for none.
        target: The Location header.
        secret: Whether a password was sent. Then a redirect from https to http is refused.

    Raises:
        Unavailable: The target is refused, or is no http or https address.
    """
    # http.client decodes headers as latin-1; most servers send UTF-8.
    with contextlib.suppress(UnicodeError):
        target = target.encode("latin-1").decode()
    if len(target) > LONGEST_ADDRESS:
        raise Unavailable(f"it redirects to an address of {len(target):,} characters")
    with contextlib.suppress(ValueError):  # split() then raises it again, without a password
        target = urljoin(parts.geturl(), target)
    try:
        new, given = address.split(target)
    except ValueError as error:
        raise Unavailable(f"it redirects, and {error}") from None
    if secret and parts.scheme == "https" and new.scheme == "http":
        raise Unavailable(
            f"it redirects from https to {address.shown(new.geturl())}, and a password was sent:"
            " refused"
        )
    before, after = address.origin(parts), address.origin(new)
    same = before == after or (
        before[1] == after[1]
        and (before[0], before[2], after[0], after[2]) == ("http", 80, "https", 443)
    )
    return new, given or (login if same else None)


class _Watch:
    """A watchdog that shuts down a connection whose answer's head is late or whose body is slow.

    A socket's timeout does not do that: each byte that comes starts it again.
    """

    def __init__(self) -> None:
        self.bytes = 0  # of the body, so far
        self.why = ""  # the reason, once the connection was shut down
        self._connection: Any = None
        self._socket: Any = None
        self._until = float("inf")
        self._then = -1  # bytes of the body at the last look; -1: no body yet
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the watchdog's thread for the body of a `with`."""
        self.bytes, self.why, self._then, self._until, self._socket = 0, "", -1, float("inf"), None
        over = threading.Event()
        thread = threading.Thread(target=self._look, args=[over], daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                over.set()
                self._changed.notify()
            thread.join()

    @contextlib.contextmanager
    def head(self, connection: Any) -> Iterator[None]:
        """Allow the body of a `with` HEAD_SECONDS to read an answer's head.

        Args:
            connection: urllib3's connection.

        Raises:
            TimeoutError: The head was late.
        """
        self._set(HEAD_SECONDS, connection)
        try:
            yield
        except Exception:
            self.check()
            raise
        finally:
            self._set(float("inf"), connection)
        self.check()

    def body(self) -> None:
        """Start to watch the speed of the answer's body."""
        self._then = 0
        self._set(STALL_SECONDS, None)

    def check(self) -> None:
        """Check that the connection's end is not due to the watchdog.

        Raises:
            TimeoutError: The watchdog shut it down.
        """
        if self.why:
            raise TimeoutError(self.why)

    def _set(self, seconds: float, connection: Any) -> None:
        with self._changed:
            self._connection = connection
            # http.client drops its reference to a socket that closes after the answer; then only
            # the answer holds it.
            self._socket = getattr(connection, "sock", None) or self._socket
            self._until = time.monotonic() + seconds
            self._changed.notify()

    def _look(self, over: threading.Event) -> None:
        with self._changed:
            while not over.is_set():
                left = self._until - time.monotonic()
                if left > 0:
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
                elif self._then < 0:
                    self._cut(f"does not end the head of its answer in {HEAD_SECONDS} seconds")
                elif self.bytes - self._then < STALL_BYTES:
                    self._cut(
                        f"sends only {self.bytes - self._then} bytes in {STALL_SECONDS} seconds"
                    )
                else:
                    self._then, self._until = self.bytes, time.monotonic() + STALL_SECONDS

    def _cut(self, why: str) -> None:
        self.why, self._until = why, float("inf")
        sock = getattr(self._connection, "sock", None) or self._socket
        with contextlib.suppress(OSError, TypeError):
            # SSLSocket's own shutdown has no effect while another thread reads.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _session(watch: _Watch) -> requests.Session:
    """Return a session of requests that follows no redirects and reports to a watchdog."""
    import requests
    import urllib3
    from requests.adapters import HTTPAdapter

    class Watched:
        def connect(self) -> None:
            with watch.head(self):
                super().connect()  # type: ignore[misc]

        def getresponse(self, *args: Any, **options: Any) -> Any:
            with watch.head(self):
                return super().getresponse(*args, **options)  # type: ignore[misc]

    class Http(Watched, urllib3.connection.HTTPConnection):
        pass

    class Https(Watched, urllib3.connection.HTTPSConnection):
        pass

    class HttpPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Https

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options)
            self.poolmanager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}

        def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
            manager = super().proxy_manager_for(*args, **options)
            # A SOCKS proxy has connection classes of its own.
            if isinstance(manager, urllib3.ProxyManager):
                manager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
            return manager

    class Session(requests.Session):
        def get_redirect_target(self, response: requests.Response) -> None:
            """Return None, so that requests follows no redirect.

            With allow_redirects=False it would still read a redirect's body to its end.
            """

    session = Session()
    session.mount("http://", Adapter())
    session.mount("https://", Adapter())
    return session


@contextlib.contextmanager
def _as_our_errors(host: str, watch: _Watch) -> Iterator[None]:
    """Turn exceptions of requests, urllib3, http.client and sockets into Again or Unavailable."""
    import http.client

    import requests
    import urllib3

    try:
        yield
    except (
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        OSError,
        ValueError,
    ) as error:
        for cause in _causes(error):
            if isinstance(cause, socket.gaierror):
                raise Unavailable(
                    f"the host name of {host} (or of its proxy) does not resolve: no network?"
                ) from error
            if isinstance(cause, ConnectionRefusedError):
                raise Unavailable(f"{host} refuses the connection") from error
            if isinstance(cause, OSError) and cause.errno in _UNREACHABLE:
                raise Unavailable(f"{host} can't be reached: {cause.strerror}") from error
        if watch.why:
            raise Again(f"{host} {watch.why}", connecting=True) from error
        if isinstance(error, requests.exceptions.ConnectTimeout):
            raise Again(f"{host} does not answer", connecting=True) from error
        message = address.shown(error)[:500]
        if isinstance(
            error, requests.exceptions.SSLError | requests.exceptions.ProxyError | ValueError
        ):
            raise Unavailable(f"{type(error).__name__}: {message}") from error
        if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
            raise Again(f"{host} is silent for {READ_SECONDS} seconds") from error
        raise Again(f"the connection broke: {message}") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all its causes; urllib3 has some in `reason` and in the arguments."""
    todo, seen = [error], set()
    while todo:
        cause = todo.pop()
        if id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            todo += [
                other
                for other in (
                    cause.__cause__,
                    cause.__context__,
                    getattr(cause, "reason", None),
                    *cause.args,
                )
                if isinstance(other, BaseException)
            ]
