"""A proxy before a server of a shared store, which damages some of the exchanges."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from cacheservers import serving

LONG = 2.5  # seconds: more than an answer may take
STATUS = ("401", "403", "429", "500", "503", "302", "206", "204", "400")
# What becomes of an answer with a body, and of a request with one.
ANSWERS = (
    "hang",
    "drop",
    "reset",
    "late",
    "trickle",
    "stall",
    "cut",
    "short",
    "longer",
    "endless",
    "flip",
    "zeros",
    "swap",
    "other kind",
    "evict",
    "gzip",
    "garbage",
    "head without end",
    *STATUS,
)
REQUESTS = ("hang", "drop", "reset", "late", "lost", "send flipped", "send cut", *STATUS)
EMPTY = ("hang", "drop", "reset", "late", "garbage", *STATUS)  # there is no body either way
# The server is asked on after some of these.
MILD = ("late", "evict", "swap", "other kind", "flip", "short", "lost", "send flipped", "send cut")


@dataclass
class Proxy:
    """The address to use, and what was done.

    choose: gives the fault for a request from its method, its path and whether it has a body to
    damage ("" for none); `done` counts those that were carried out; `seen` are the methods and
    paths of all requests.
    """

    url: str
    choose: Callable[[str, str, bool], str]
    done: Counter[str] = field(default_factory=Counter)
    seen: list[tuple[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)  # what was there, for `swap`
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextlib.contextmanager
def before(url: str, choose: Callable[[str, str, bool], str], seed: object = 0) -> Iterator[Proxy]:
    """Run a proxy before the server at an address, with a path of its own."""
    there, dice = urlsplit(url), random.Random(f"{seed}/proxy")
    assert there.hostname
    assert there.port

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = 20

        def forward(
            self, method: str, path: str, body: bytes | None
        ) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(there.hostname or "", there.port, timeout=20)
            with contextlib.closing(connection):
                headers = {k: v for k, v in self.headers.items() if k.lower() == "authorization"}
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                return answer.status, dict(answer.headers), answer.read()

        def handle_one(self) -> None:
            method, path = self.command, self.path
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else None
            proxy.seen.append((method, path))
            if method == "PUT":
                fault = self.carried_out(proxy.choose(method, path, True))
                self.on_put(fault, path, body or b"")
                return
            status, headers, data = self.forward(method, path, body)
            there_is = status == 200 and method == "GET" and bool(data)
            fault = proxy.choose(method, path, there_is)
            if fault in ("swap", "other kind") and not self.other(path, fault):
                fault = ""
            self.carried_out(fault)
            if there_is:
                with proxy.lock:
                    proxy.paths.append(path)
            self.on_get(fault, path, status, data)

        do_GET = do_HEAD = do_PUT = do_MKCOL = handle_one

        def carried_out(self, fault: str) -> str:
            if fault:
                with proxy.lock:
                    proxy.done[fault] += 1
            return fault

        def other(self, path: str, fault: str) -> str:
            """The path of another file of the same kind, or of the other kind."""
            kind = path.split("/")[-2]
            with proxy.lock:
                found = [
                    one
                    for one in proxy.paths
                    if one != path and (one.split("/")[-2] == kind) == (fault == "swap")
                ]
            return dice.choice(found) if found else ""

        def on_put(self, fault: str, path: str, body: bytes) -> None:
            if self.plain_fault(fault):
                return
            if fault == "send flipped":
                body = flipped(body, dice)
            elif fault == "send cut":
                body = body[: len(body) // 2]
            if fault == "lost":
                self.say(201)
                return
            status, _, data = self.forward("PUT", path, body)
            self.say(status, data)

        def on_get(self, fault: str, path: str, status: int, data: bytes) -> None:
            if self.plain_fault(fault):
                return
            if fault == "evict":
                self.say(404)
            elif fault in ("swap", "other kind"):
                self.say(200, self.forward("GET", self.other(path, fault), None)[2])
            elif fault == "flip":
                self.say(200, flipped(data, dice))
            elif fault == "zeros":
                self.say(200, bytes(len(data)))
            elif fault == "short":
                self.say(200, data[: len(data) // 2])
            elif fault == "longer":
                self.say(200, data + b"x" * 10)
            elif fault == "gzip":
                self.say(200, gzip.compress(data), {"Content-Encoding": "gzip"})
            elif fault in ("cut", "stall", "trickle"):
                self.say(200, data[: len(data) // 2], length=len(data))
                self.wfile.flush()
                self.broken_off(fault, data[len(data) // 2 :])
            elif fault == "endless":
                self.say(200, length=-1, headers={"Transfer-Encoding": "chunked"})
                for _ in range(400):
                    self.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
                self.close_connection = True
            else:
                self.say(status, data, length=len(data))

        def broken_off(self, fault: str, rest: bytes) -> None:
            self.close_connection = True
            until = time.monotonic() + (0 if fault == "cut" else LONG)
            while time.monotonic() < until:
                time.sleep(0.1)
                if fault == "trickle" and len(rest) > 1:
                    self.wfile.write(rest[:1])
                    rest = rest[1:]

        def plain_fault(self, fault: str) -> bool:
            """Do what has nothing to do with the content; tell whether it was that."""
            if fault == "late":
                time.sleep(0.3)
            elif fault in ("hang", "drop", "reset", "garbage", "head without end"):
                self.close_connection = True
                if fault == "hang":
                    time.sleep(LONG)
                elif fault == "reset":
                    self.connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    self.connection.close()
                elif fault == "garbage":
                    self.wfile.write(b"\x16\x03\x01 what is this?\r\n\r\n")
                elif fault == "head without end":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                    for number in range(40):
                        self.wfile.write(f"X-{number}: x\r\n".encode())
                        time.sleep(LONG / 40)
            elif fault in STATUS:
                more = {"Location": "http://127.0.0.1:9/elsewhere"} if fault == "302" else {}
                self.say(int(fault), b"" if fault == "204" else b"no", more)
            else:
                return False
            return fault != "late"

        def say(
            self,
            status: int,
            data: bytes = b"",
            headers: dict[str, str] | None = None,
            length: int | None = None,
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if length != -1:
                self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().handle()

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().finish()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Handler) as mine:
        proxy = Proxy(f"{mine}{there.path}", choose)
        yield proxy


def flipped(data: bytes, dice: random.Random) -> bytes:
    """The data with one bit the other way."""
    changed = bytearray(data)
    changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)
