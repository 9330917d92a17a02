from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest
from faultyserver import closed_port, send, serving, talking

from tasks.fetch import webclient
from tasks.fetch.webclient import Again, Unavailable
from tasks.system.terminal import printable

LOGIN = "Basic " + base64.b64encode(b"me:secret").decode()


def ask(url: str) -> tuple[int, bytes]:
    with webclient.Client() as client, client.ask(url, {}) as answer:
        body = b""
        while data := answer.read(1 << 16):
            body += data
        return answer.status, body


def endlessly(
    data: bytes, before: bytes = b"", pause: float = 0
) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.sendall(before)
        while True:
            connection.sendall(data)
            time.sleep(pause)

    return talk


@pytest.mark.parametrize(
    ("data", "before", "pause"),
    [
        (b"H", b"", 0.03),
        (b"X-A: 1\r\n", b"HTTP/1.1 200 OK\r\n", 0.03),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"", 0),
        (b"a", b"HTTP/1.1 302 Found\r\nLocation: ", 0.03),
    ],
    ids=["status", "headers", "continue", "redirect"],
)
def test_a_head_without_end_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, data: bytes, before: bytes, pause: float
) -> None:
    monkeypatch.setattr(webclient, "HEAD_SECONDS", 0.3)
    started = time.monotonic()
    with talking(endlessly(data, before, pause)) as url, pytest.raises(Again) as caught:
        ask(url)
    assert str(caught.value) == f"{url} does not end the head of its answer in 0.3 seconds"
    assert caught.value.connecting
    assert time.monotonic() - started < 3


def test_a_proxys_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webclient, "HEAD_SECONDS", 0.3)
    with talking(endlessly(b"X-A: 1\r\n", b"HTTP/1.1 200 OK\r\n", 0.01)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.replace("//", "//me:secret@"))
        with pytest.raises(Again, match=r"https://files\.example does not end the head"):
            ask("https://files.example/f")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"X-A: 1\r\n", "got more than 100 headers"),
        (b"x" * 10_000, "got more than 65536 bytes when reading header line"),
    ],
)
def test_a_head_that_is_too_long_is_an_end(data: bytes, said: str) -> None:
    with talking(endlessly(data, b"HTTP/1.1 200 OK\r\n")) as url, pytest.raises(Again, match=said):
        ask(url)


@pytest.mark.parametrize("before", [b"", b"Transfer-Encoding: chunked\r\n"])
def test_the_body_of_a_redirect_is_not_read(before: bytes) -> None:
    sent: list[int] = []

    def talk(connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 302 Found\r\nLocation: " + good.url.encode() + b"/f\r\n" + before + b"\r\n"
        )
        for _ in range(2000):
            connection.sendall(b"ffff\r\n" + bytes(0xFFFF) + b"\r\n")
            sent.append(0xFFFF)

    with serving(lambda request: send(request, 200, b"good")) as good, talking(talk) as url:
        assert ask(url) == (200, b"good")
    assert sum(sent) < 20_000_000  # what fits into the kernel's buffers, on both sides


def test_trailers_without_end_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webclient, "STALL_SECONDS", 0.3)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    with (
        talking(endlessly(b"X-A: 1\r\n", head)) as url,
        pytest.raises(Again, match=r"sends only \d bytes in 0\.3 seconds"),
    ):
        ask(url)


def test_a_body_that_moves_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webclient, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(webclient, "STALL_BYTES", 10)

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(10):
            connection.sendall(b"x" * 20)
            time.sleep(0.06)

    before = threading.active_count()
    with talking(talk) as url:
        assert ask(url) == (200, b"x" * 200)
        assert threading.active_count() <= before + 2  # the server's own: no watch is left


def to(url: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: send(request, 302, headers={"Location": url})


def login(url: str) -> str:
    return url.replace("//", "//me:secret@")


def test_a_password_goes_to_its_own_server_only() -> None:
    def own(request: BaseHTTPRequestHandler) -> None:
        send(request, 302, headers={"Location": {"/a": "/b", "/b": f"{other.url}/c"}[request.path]})

    with serving(lambda request: send(request, 200, b"x")) as other, serving(own) as site:
        assert ask(login(site.url) + "/a") == (200, b"x")
        assert [(path, seen.get("Authorization")) for path, seen in site.seen] == [
            ("/a", LOGIN),
            ("/b", LOGIN),
        ]
        assert [(path, seen.get("Authorization")) for path, seen in other.seen] == [("/c", None)]


def test_a_password_in_a_redirect_is_used_there_and_not_shown() -> None:
    with (
        serving(lambda request: send(request, 404)) as other,
        serving(to(login(other.url) + "/c")) as site,
    ):
        assert ask(site.url)[0] == 404
        assert other.seen[0][1]["Authorization"] == LOGIN
    for target in (
        "http://me:secret@[::1",
        "ftp://me:secret@h/x",
        "http://me:secret/w@h/",
        "//me:secret@/x",
    ):
        with (
            serving(to(target)) as site,
            pytest.raises(Unavailable, match="it redirects, and '.*' is no") as caught,
        ):
            ask(site.url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("start", "target", "secret", "kept"),
    [
        ("https://h/a", "https://h/b", True, True),
        ("http://h/a", "https://h/b", True, True),
        ("http://h/a", "http://h:81/b", True, False),
        ("http://h:81/a", "https://h/b", True, False),
        ("https://h/a", "https://i/b", True, False),
        ("https://h/a", "http://i/b", False, False),
    ],
)
def test_where_a_login_goes_on(start: str, target: str, secret: bool, kept: bool) -> None:
    mine = (b"me", b"secret") if secret else None
    parts, given = webclient._onward(webclient.address.split(start)[0], mine, target, secret)
    assert parts.geturl() == target
    assert given == (mine if kept else None)


@pytest.mark.parametrize("target", ["http://h/b", "http://i/b"])
def test_from_https_to_http_no_password_may_have_been_sent(target: str) -> None:
    with pytest.raises(
        Unavailable, match=f"from https to {target}, and a password was sent: refused"
    ):
        webclient._onward(webclient.address.split("https://h/a")[0], None, target, True)


def test_redirects_end() -> None:
    with serving(
        lambda request: send(request, 302, headers={"Location": request.path + "a"})
    ) as site:
        with pytest.raises(
            Unavailable, match=f"more than {webclient.HOPS} redirects, the last to {site.url}/fa"
        ):
            ask(site.url + "/f")
        assert len(site.seen) == webclient.HOPS + 1


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://h\x1b[2J/",
        "http://a\xa0b:x/",
        "http://h/" + "a" * 9000,
    ],
)
def test_a_redirect_to_nowhere_is_said_in_plain_letters(target: str) -> None:
    with serving(to(target)) as site:
        with pytest.raises(Unavailable, match="it redirects") as caught:
            ask(site.url)
        assert printable(str(caught.value)) == str(caught.value)
        assert len(str(caught.value)) < 300
        assert len(site.seen) == 1


def test_what_a_server_says_is_shown_in_plain_letters() -> None:
    with (
        talking(
            lambda connection: connection.sendall(
                b"HTTP/1.1 404 \x1b]0;x\x07\x9b2J http://a:b@c/ " + b"z" * 5000 + b"\r\n\r\n"
            )
        ) as url,
        webclient.Client() as client,
        client.ask(url, {}) as answer,
    ):
        assert answer.status == 404
        assert answer.reason.startswith("\\x1b]0;x\\x07\\x9b2J http://c/ zzz")
        assert len(answer.reason) == 200


@pytest.mark.parametrize(
    "line",
    [
        b"\x1b[2J\r\n\r\n",
        b"HTTP/9 200 x\x1b\r\n\r\n",
        b"HTTP/1.1 9999999 x\r\n\r\n",
        b"\0" * 100,
        b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n\x1b[2J\r\n",
    ],
)
def test_nonsense_is_said_in_plain_letters(line: bytes) -> None:
    with (
        talking(lambda connection: connection.sendall(line)) as url,
        pytest.raises(Again) as caught,
    ):
        ask(url)
    assert printable(str(caught.value)) == str(caught.value)


def test_a_length_of_any_size_is_no_crash() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx"
    with talking(lambda connection: connection.sendall(head)) as url:
        assert ask(url) == (200, b"x")


def test_a_login_is_in_no_message_of_a_failed_connection() -> None:
    url = f"http://me:secret@127.0.0.1:{closed_port()}/f?key=secret"
    with pytest.raises(Unavailable, match="refuses the connection") as caught:
        ask(url)
    assert "secret" not in str(caught.value)
    with (
        talking(lambda connection: None) as site,
        pytest.raises(Again, match="the connection broke") as broke,
    ):
        ask(login(site) + "/f?key=secret")
    assert "secret" not in str(broke.value)


def test_a_server_that_speaks_no_tls() -> None:
    with (
        serving(lambda request: send(request, 200)) as site,
        pytest.raises(Unavailable, match="SSLError") as caught,
    ):
        ask(login(site.url.replace("http:", "https:")) + "/f?key=secret")
    assert "secret" not in str(caught.value)
