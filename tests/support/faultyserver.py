"""A web server on 127.0.0.1 whose answers a test writes itself, faults included."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """url: the server's address, without a slash at its end; seen: path and headers of each
    request."""

    url: str
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def ranges(self) -> list[str]:
        """Return the Range header of each request, "" for none."""
        return [headers.get("Range", "") for _, headers in self.seen]


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[Site]:
    """Answer every GET by `answer`, each in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.seen.append((self.path, dict(self.headers)))
            with contextlib.suppress(ConnectionError):
                answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    site = Site(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def send(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    length: int | None = None,
) -> None:
    """Send an answer whose Content-Length is that of `body`, or `length`, or none at all (-1)."""
    request.send_response(status)
    for name, value in (headers or {}).items():
        request.send_header(name, value)
    if length != -1:
        request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)


def file_server(content: bytes, etag: str = '"v1"', first_bytes: int = 0) -> Answer:
    """Return an answer that serves `content` as a good server does: ranges, If-Range, ETag.

    first_bytes: break off there when the whole file is asked for (0: never).
    """

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if asked and request.headers.get("If-Range", etag) == etag:
            if start >= len(content):
                send(request, 416, headers={"Content-Range": f"bytes */{len(content)}"})
                return
            send(
                request,
                206,
                content[start:],
                {"ETag": etag, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"},
            )
        else:
            send(request, 200, content[: first_bytes or None], {"ETag": etag}, length=len(content))

    return answer


def closed_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
    return port


@contextlib.contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve bytes that http.server would not: `talk` gets each connection when its request came, in
    a thread of its own."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            while b"\r\n\r\n" not in connection.recv(1 << 16):
                pass
            talk(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
