"""Asking a web server that may do as it likes.

One deadline for each answer's head, a least speed for its body, redirects followed by hand with
their bodies unread, and passwords kept to the server that they are for.

requests does the rest (proxies, certificates, .netrc), but by itself it reads the body of each
redirect to its end, and waits for ever for a server that sends a byte now and then.
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
HEAD_SECONDS = (
    30  # for the head of one answer, whatever comes before it (100 Continue, a proxy's answer)
)
STALL_SECONDS, STALL_BYTES = 30, 30_000  # a body that is slower than that is as good as dead
HOPS = 10  # redirects that are followed
LONGEST_ADDRESS = 8000  # characters: what servers and proxies take (RFC 9110, section 4.1)
_REDIRECTS = (301, 302, 303, 307, 308)
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


class Unavailable(Exception):
    """Why one origin can't give the file; the next one may."""


class Again(Exception):
    """A failure that another try may cure.

    connecting:  nobody answered at all, so few more tries are worth their time.
    retry_after: the server's header of that name (RFC 9110, section 10.2.3), "" for none.
    """

    def __init__(self, why: object, *, connecting: bool = False, retry_after: str = "") -> None:
        super().__init__(why)
        self.connecting, self.retry_after = connecting, retry_after


class Answer(NamedTuple):
    """An answer whose body is still to come.

    read: gives the next piece of the body, of that many bytes at most, b"" at its end.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    read: Callable[[int], bytes]


class Client:
    """A session with web servers; to be used in a `with`."""

    def __init__(self) -> None:
        self._watch = _Watch()
        self._session = _session(self._watch)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    @contextlib.contextmanager
    def ask(self, url: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        """Give the answer to GET, after redirects, for the body of a `with`.

        Raises Again for what another try may cure, Unavailable for the rest; neither holds a
        password.
        """
        from requests.auth import HTTPBasicAuth

        with contextlib.ExitStack() as stack:
            try:
                parts, login = address.split(url)
            except ValueError as error:
                raise Unavailable(str(error)) from None
            stack.enter_context(self._watch.running())
            for _ in range(HOPS + 1):
                stack.enter_context(_said_plainly(f"{parts.scheme}://{parts.netloc}", self._watch))
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
                response.close()  # its body is nobody's business
            raise Unavailable(
                f"more than {HOPS} redirects, the last to {address.shown(parts.geturl())}"
            )

    def _reader(self, response: requests.Response) -> Callable[[int], bytes]:
        some = getattr(
            response.raw, "read1", response.raw.read
        )  # read1 returns what has come: progress is shown

        def read(size: int) -> bytes:
            data: bytes = some(
                size, decode_content=False
            )  # what is decoded could be a thousand times as much
            if not data:
                self._watch.check()
            self._watch.bytes += len(data)
            return data

        return read


def _onward(parts: SplitResult, login: Any, target: str, secret: bool) -> tuple[SplitResult, Any]:
    """Return where a redirect leads, and the login to use there.

    The same one only at the same server.

    secret: whether a password was sent. Then the redirect must not lead from https to http.
    """
    with contextlib.suppress(
        UnicodeError
    ):  # http.client decodes headers so; most servers mean UTF-8
        target = target.encode("latin-1").decode()
    if len(target) > LONGEST_ADDRESS:
        raise Unavailable(f"it redirects to an address of {len(target):,} characters")
    with contextlib.suppress(ValueError):  # then split() says it, without a password
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
    """Cuts a connection when its answer's head is not there in time, or its body hardly moves.

    Timeouts of a socket don't: each byte that comes starts them anew.
    """

    def __init__(self) -> None:
        self.bytes = 0  # of the body, so far
        self.why = ""  # it was cut
        self._connection: Any = None
        self._socket: Any = None
        self._until = float("inf")
        self._then = -1  # bytes of the body at the last look; -1: no body yet
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Watch for the body of a `with`."""
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
        """Give the body HEAD_SECONDS for urllib3's connection up to an answer's head."""
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
        """From now on watch the speed of the body."""
        self._then = 0
        self._set(STALL_SECONDS, None)

    def check(self) -> None:
        """Raise TimeoutError when the connection was cut: its end is not the answer's."""
        if self.why:
            raise TimeoutError(self.why)

    def _set(self, seconds: float, connection: Any) -> None:
        with self._changed:
            self._connection = connection
            # http.client lets go of a socket that closes after its answer: the answer alone holds
            # it then
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
        one = getattr(self._connection, "sock", None) or self._socket
        with contextlib.suppress(OSError, TypeError):
            socket.socket.shutdown(
                one, socket.SHUT_RDWR
            )  # not SSLSocket's own: it is no use while another thread reads


def _session(watch: _Watch) -> requests.Session:
    """Return a session of requests that follows no redirects and has its connections watched."""
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
            if isinstance(
                manager, urllib3.ProxyManager
            ):  # a SOCKS proxy has connections of its own
                manager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
            return manager

    class Session(requests.Session):
        def get_redirect_target(self, response: requests.Response) -> None:
            """There is none.

            Also with allow_redirects=False requests would read a redirect's body to its end.
            """

    session = Session()
    session.mount("http://", Adapter())
    session.mount("https://", Adapter())
    return session


@contextlib.contextmanager
def _said_plainly(host: str, watch: _Watch) -> Iterator[None]:
    """Turn whatever requests, urllib3 and sockets raise into Again or Unavailable."""
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
        said = address.shown(error)[:500]
        if isinstance(
            error, requests.exceptions.SSLError | requests.exceptions.ProxyError | ValueError
        ):
            raise Unavailable(f"{type(error).__name__}: {said}") from error
        if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
            raise Again(f"{host} is silent for {READ_SECONDS} seconds") from error
        raise Again(f"the connection broke: {said}") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it was raised from.

    Urllib3 keeps some in `reason` and in the arguments.
    """
    todo, seen = [error], set()
    while todo:
        one = todo.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [
                other
                for other in (
                    one.__cause__,
                    one.__context__,
                    getattr(one, "reason", None),
                    *one.args,
                )
                if isinstance(other, BaseException)
            ]
