"""Answers of web servers, and what lies beside a partial file: each byte of both may be
anybody's."""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import random
import re
import socket
import threading
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import urllib3
from fuzz import NUMBERS, Failure, Target, mutated

from tasks.config.pins import Package, Source
from tasks.fetch import download, records
from tasks.fetch.download import Unavailable
from tasks.system.errors import PiggyError

CONTENT = random.Random(1).randbytes(3000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HOST, LOGIN = "files.example", "me:s3cret"
TOKENS = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 302 Found\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: ",
    b"Content-Encoding: gzip\r\n",
    b"Location: ",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b" ",
    b":",
    b"\x1b[2J",
    b"\x9b2J",
    b"\xe2\x80\xae",
    b"ETag: ",
    b"Content-Range: bytes ",
    b"9" * 5000,
    b"ffffffffffffffff\r\n",
    b"-1",
    b"X: " + b"x" * 70_000 + b"\r\n",
    b"a: b\r\n" * 150,
    b"Set-Cookie: a=b\r\n",
    b"WWW-Authenticate: Basic\r\n",
    b"Retry-After: 1\r\n",
]
PLACES = [
    b"/f",
    b"//files.example/f",
    b"http://files.example/g?key=s3cret",
    b"https://other.example/f",
    b"http://other.example/f",
    b"http://me:s3cret@other.example/",
    b"file:///etc/passwd",
    b"ftp://files.example/f",
    b"http://[::1",
    b"?x",
    b"..",
    b"",
    b"http://files.example:99999/",
    b"http://\x1b[2J/",
    b"javascript:x",
    b"http://" + b"a" * 300 + b"/",
    b"/" + b"a" * 9000,
]
ETAGS = [
    '"v1"',
    'W/"v1"',
    '"\x1b[2J"',
    '"' + "x" * 500 + '"',
    "v1",
    "",
    '"a"\tb',
    "Tue, 01 Sep 2026 00:00:00 GMT",
]
NOTES = [
    b"",
    b"{}",
    b"null",
    b"[" * 5000,
    b'{"url": "http://files.example/f", "validator": "\\"v1\\""}',
    b"\xff",
    b"\0",
    b'{"url": "", "validator": "\\"a\\"\\r\\nX-Evil: 1"}',
    b'{"url": 1, "validator": []}',
    b'{"url": "http://files.example/f", "validator": "\\u20ac"}',
]


class Case(NamedTuple):
    """What the server answers, one request after the other (the last one again and again), and what
    lies there before."""

    answers: tuple[bytes, ...]
    part: bytes | None
    note: bytes | None
    planted: str  # "" or what is in place of the part: "link", "pipe", "second name"


def body(rng: random.Random, data: bytes) -> tuple[list[bytes], bytes]:
    """Return headers of a body, and the body, in one of the ways that HTTP has."""
    if rng.random() < 0.3:
        pieces = [data[at : at + 1000] for at in range(0, len(data), 1000)]
        return [b"Transfer-Encoding: chunked"], b"".join(
            b"%x\r\n%s\r\n" % (len(one), one) for one in pieces
        ) + b"0\r\n\r\n"
    length = len(data) if rng.random() < 0.8 else rng.choice(NUMBERS)
    return [b"Content-Length: %d" % length] if rng.random() < 0.8 else [], data


def answer(rng: random.Random) -> bytes:
    """Return one answer, most often one that makes sense."""
    status = rng.choice(
        [b"200 OK"] * 6
        + [
            b"206 Partial",
            b"302 Found",
            b"301 \x1b[2Jx",
            b"307 x",
            b"416 x",
            b"404 \x9b2J",
            b"503 x",
            b"100 Continue",
            b"204 x",
            b"999 x",
            b"200",
        ]
    )
    data = CONTENT if rng.random() < 0.8 else rng.randbytes(100)
    start = rng.choice([0, 7, 100]) if status.startswith(b"206") else 0
    headers, data = body(rng, data[start:])
    if status[:1] == b"3":
        headers.append(b"Location: " + rng.choice(PLACES))
    if status[:3] in (b"206", b"416"):
        headers.append(
            b"Content-Range: bytes "
            + rng.choice([b"%d-2999/3000" % start, b"*/3000", b"x", b"7-9/*"])
        )
    if rng.random() < 0.5:
        headers.append(b"ETag: " + rng.choice(ETAGS).encode("latin-1"))
    made = (
        b"HTTP/1.1 "
        + status
        + b"\r\n"
        + b"".join(line + b"\r\n" for line in headers)
        + b"\r\n"
        + data
    )
    if rng.random() < 0.1:
        made = b"HTTP/1.1 100 Continue\r\n\r\n" * rng.choice([1, 500]) + made
    return mutated(rng, made, TOKENS, rounds=3) if rng.random() < 0.3 else made


def make(rng: random.Random) -> Case:
    """Some answers, and a folder in which others may have been."""
    part = CONTENT[: rng.choice([7, 100, 3000])] if rng.random() < 0.4 else None
    note = rng.choice(NOTES) if rng.random() < 0.5 else None
    if note is not None and rng.random() < 0.3:
        note = mutated(rng, note, TOKENS, rounds=2)
    planted = (
        rng.choice(["link", "pipe", "second name"]) if part is None and rng.random() < 0.2 else ""
    )
    return Case(tuple(answer(rng) for _ in range(rng.randint(1, 3))), part, note, planted)


class Server:
    """A server for all hosts and ports: it answers in turn, closes each connection, and keeps the
    requests."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.requests: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        atexit.register(self.listener.close)

    def connect(self, address: Any, *args: Any, **options: Any) -> socket.socket:
        """Stand in for urllib3's create_connection: whatever host is asked, this server answers."""
        return socket.create_connection(self.listener.getsockname(), 5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.settimeout(5)
                    request = b""
                    while (
                        b"\r\n\r\n" not in request
                        and request[:1] in b"G"
                        and (data := connection.recv(1 << 16))
                    ):
                        request += data
                    self.requests.append(request)
                    if request.startswith(b"GET "):  # else somebody speaks TLS
                        connection.sendall(
                            self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                        )
                except OSError:
                    pass


@functools.cache
def server() -> Server:
    """The one server of this process."""
    return Server()


def check(case: Case, folder: Path) -> None:
    """Download from it: what is taken has the right content, a login goes to its host, and nothing
    else is touched."""
    precious, part = folder / "precious", folder / "f.part"
    precious.write_bytes(CONTENT[:7])
    if case.planted == "link":
        part.symlink_to("precious")
    elif case.planted == "pipe":
        os.mkfifo(part)
    elif case.planted == "second name":
        os.link(precious, part)
    elif case.part is not None:
        part.write_bytes(case.part)
    if case.note is not None:
        download.side_of(part).write_bytes(case.note)
    here = server()
    here.answers, here.requests = list(case.answers), []
    with mock.patch.object(urllib3.util.connection, "create_connection", here.connect):
        try:
            download.download(f"http://{LOGIN}@{HOST}/f", part, SHA256, sleep=lambda seconds: None)
            assert part.read_bytes() == CONTENT
            assert not part.is_symlink()
            assert not download.side_of(part).exists()
        except Unavailable as why:
            if "s3cret" in str(why):
                raise Failure(f"a password is told: {why}") from why
            raise PiggyError(str(why)) from why
        finally:
            look(
                folder, case.note, here.requests, any(b"me:s3cret@" in one for one in case.answers)
            )


def look(folder: Path, note: bytes | None, requests: list[bytes], sent_on: bool) -> None:
    """See what is there after a download, and what was asked. note: what lay beside the part
    before; sent_on: whether a redirect had a login of its own."""
    assert (folder / "precious").read_bytes() == CONTENT[:7]
    assert {path.name for path in folder.iterdir()} <= {"precious", "f.part", "f.part.from"}
    side = folder / "f.part.from"
    if side.exists() and side.read_bytes() != note:
        assert b"s3cret" not in side.read_bytes()
        assert json.loads(side.read_bytes()).keys() == {"url", "validator"}
    for request in requests:
        if not request.startswith(b"GET "):
            continue
        head = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
        names = {line.partition(b":")[0].lower() for line in head[1:]}
        assert re.fullmatch(rb"GET \S+ HTTP/1\.1", head[0]), head
        assert names <= {
            b"host",
            b"user-agent",
            b"accept",
            b"accept-encoding",
            b"connection",
            b"range",
            b"if-range",
            b"authorization",
            b"cookie",
        }, head
        assert b"accept-encoding: identity" in (line.lower() for line in head)
        own = any(
            line.lower() in (b"host: files.example", b"host: files.example:80") for line in head
        )
        assert own or b"authorization" not in names or sent_on, head


RECORD = {
    "name": "tool",
    "file": "tool_1.tar.xz",
    "sha256": SHA256,
    "version": "1",
    "origin": "http://h/f",
    "package": "tool",
    "package_version": "1-1",
    "pinned": "",
    "size": 3000,
    "mtime_ns": 0,
    "ctime_ns": 0,
}
FILES = [
    "tool_1.tar.xz",
    "../target",
    "..",
    ".",
    "",
    "/etc/passwd",
    "a\0b",
    "../etc/passwd",
    "sub/x",
    "\x1b[2J",
    "out",
    "tool.json",
]


def make_record(rng: random.Random) -> bytes:
    """A record of dl/, with other values or noise."""
    record: dict[str, Any] = dict(RECORD)
    if rng.random() < 0.5:
        key = rng.choice(sorted(record))
        record[key] = rng.choice([rng.choice(FILES), rng.choice(NUMBERS), None, [], "x" * 300])
    data = json.dumps(record).encode()
    tokens = [b"[" * 3000, b"9" * 5000, b"\\u0000", b"\\ud800", b'"', b"}", b"null"]
    return mutated(rng, data, tokens) if rng.random() < 0.4 else data


def check_record(data: bytes, folder: Path) -> None:
    """Look for the file that it names: that lies in dl/, and has the hash that the record says."""
    (folder / "tool_1.tar.xz").write_bytes(CONTENT)
    (folder / "tool.json").write_bytes(data)
    source = Source("tool", "1", package=Package("tool", "binary", "tool.tar.xz"))
    got = records.trusted(source, folder) or records.checked(source, folder)
    if not got:
        raise PiggyError("there is nothing of that kind")
    assert got.path == folder / "tool_1.tar.xz"
    assert got.sha256 == SHA256
    assert records.trusted(source, folder) == got


TARGETS = [Target("http", make, check), Target("record", make_record, check_record)]
