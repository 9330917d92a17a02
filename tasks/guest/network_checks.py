"""Checks of the network, in the guest and from the host; they are run with those of `checks`."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial

from tasks.guest.checks import Check
from tasks.network.cable import PAGE_PORT, Cable

_SERVED = 20.0  # seconds that the guest's web server may take
_LONGEST = 1 << 20  # bytes of its answer
_POLL = 0.05  # seconds in which the host's page server sees that it has to end
_SECONDS = 60  # for a slow guest's DHCP and the link of its card
# Functions that print the cards' addresses and the routes: as ip does, or by ifconfig and route.
_ASK = """a() { if command -v ip >/dev/null; then ip -4 addr show scope global; return; fi
for i in /sys/class/net/*; do
[ -e $i/device ] && o=$(ifconfig ${i##*/}) && o=${o#*inet addr:} && case $o in
[0-9]*) echo "inet ${o%% *} ${i##*/}" ;; esac
done; }
r() { if command -v ip >/dev/null; then ip route; return; fi
route -n | while read -r d g _; do [ $d = 0.0.0.0 ] && echo "default via $g"; done; true; }
"""
# Wait for an address on the first card; then print addresses and routes. A sleep of less than a
# second needs busybox's FEATURE_FANCY_SLEEP.
_UP = """n=0
until case $(a) in *inet*) ;; *) false ;; esac; do
n=$((n+1)); [ $n -gt 33 ] && break
[ $n -le 10 ] && sleep 0.2 2>/dev/null || sleep 1
done
a; r"""
_PING = """gw=$(r | while read -r d v g _; do
[ "$d" = default ] && echo $g && break; done)
[ -n "$gw" ] || { echo "there is no default route"; exit 1; }
ping -c 1 -W 5 "$gw" || ping -c 2 -W 5 "$gw\""""


def checks(
    cable: Cable,
    overlays: Sequence[str],
    page: tuple[str, str] = ("", ""),
    others: Sequence[str] = (),
) -> list[Check]:
    """Return the checks for a guest on a cable.

    Args:
        cable: The network card's connection.
        overlays: Names of the root filesystem's overlays; without "network" nothing sets the card
            up, and there are no checks.
        page: A URL for the guest to fetch, and the expected content; ("", "") for none.
        others: Addresses of guests that it must reach.
    """
    if not cable.net or "network" not in overlays or cable.append == "ip=off":
        return []
    result = [Check("network", _UP, partial(_up, cable.address), _SECONDS, _ASK)]
    if not cable.closed:
        result.append(Check("gateway", _PING, _ping, _SECONDS, _ASK))
    if page[0]:
        result.append(
            Check("fetch", f"wget -q -T 10 -O - {page[0]}", partial(_fetched, *page), _SECONDS)
        )
    result += [
        Check(
            f"neighbour {other}",
            f"ping -c 1 -W 5 {other} || ping -c 3 -W 5 {other}",
            _ping,
            _SECONDS,
        )
        for other in others
    ]
    port = next((port for forward, port in cable.taken if forward.guest == 80), 0)
    direct = not cable.taken and cable.listen and cable.listen != "127.0.0.1"
    if "httpd" in overlays and (port or direct):
        url = f"http://127.0.0.1:{port}/" if port else ""
        result.append(Check("httpd", "a; uname -r", partial(_served, url), _SECONDS, _ASK))
    return result


def _up(expected: str, output: str) -> str:
    match = re.search(r"^\s*inet (\d+\.\d+\.\d+\.\d+(?:/\d+)?)\b.* (\S+)\s*$", output, re.M)
    if not match:
        raise ValueError(
            f"no address within 25 s: {' '.join(output.split())[-200:] or 'ip says nothing'}"
        )
    if expected and match[1].partition("/")[0] != expected:
        raise ValueError(f"its address is {match[1]}, and DHCP was to give {expected}")
    gateway = re.search(r"^default via (\S+)", output, re.M)
    return f"{match[2]} has {match[1]}, {'gateway ' + gateway[1] if gateway else 'no gateway'}"


def _ping(output: str) -> str:
    match = re.search(r"bytes from (\S+): .*time=([\d.]+) ms", output)
    if not match:
        raise ValueError(" ".join(output.split())[-200:] or "no answer")
    return f"{match[1].rstrip(':')} answers after {match[2]} ms"


def _fetched(url: str, expected: str, output: str) -> str:
    if expected not in output:
        raise ValueError(f"{url} gave {output[:100]!r}")
    return f"{url} fetched ({len(expected)} bytes)"


def _served(url: str, output: str) -> str:
    """Fetch the guest's status page from the host; it must show the guest's kernel release."""
    address = re.search(r"inet (\d+\.\d+\.\d+\.\d+)[/ ]", output, re.ASCII)
    release = (output.split() or [""])[-1]
    url = url or (f"http://{address[1]}/" if address else "")
    if not url or not release:
        raise ValueError(
            "the guest has no address" if release else "the guest says nothing of itself"
        )
    until = time.monotonic() + _SERVED
    while True:
        try:
            text = fetched(url, min(until, time.monotonic() + 15))
            break
        except OSError as error:
            if time.monotonic() > until - 0.5:
                raise ValueError(f"{url}: {error}") from error
            time.sleep(0.1)
    if release not in text:
        raise ValueError(f"{url} does not show the guest's kernel {release}: {text[:100]!r}")
    return f"{url} fetched from the host ({len(text)} bytes)"


def fetched(url: str, until: float) -> str:
    """Return the body of a guest's answer to an HTTP/1.0 request (RFC 1945).

    urllib is not used: it follows any redirect, restarts its timeout at each byte, has no size
    limit, and would use the host's proxy.

    Args:
        url: The address, http://HOST[:PORT]/.
        until: When to give up (time.monotonic).

    Raises:
        OSError: There is no complete answer.
        ValueError: It is no HTTP answer.
    """
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    with socket.create_connection(
        (host, int(port or 80)), max(0.1, until - time.monotonic())
    ) as peer:
        peer.sendall(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        data = b""
        while len(data) < _LONGEST:
            if (left := until - time.monotonic()) <= 0:
                raise TimeoutError("no whole answer in time")
            peer.settimeout(left)
            if not (chunk := peer.recv(1 << 16)):
                break
            data += chunk
    if not data.startswith(b"HTTP/1."):
        raise ValueError(
            f"{url} gives no answer of HTTP: {data[:100]!r}" if data else f"{url} gives no answer"
        )
    # busybox passes on a CGI's line ends.
    return re.split(r"\r?\n\r?\n", data.decode(errors="replace"), maxsplit=1)[-1]


class _PageServer(http.server.ThreadingHTTPServer):
    """A server of pages, each in a thread of its own; those that hang end with the program."""

    def server_bind(self) -> None:
        """Bind without asking the resolver for the host's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]


@contextlib.contextmanager
def served(cable: Cable, token: str = "") -> Iterator[tuple[str, str]]:
    """Serve a page on the host for the guest to fetch, for the body of a `with`.

    Yields:
        Its URL as the guest sees it, and its content. The URL is "" if the guest can't reach the
        host.
    """
    token = token or f"piggyback {os.urandom(8).hex()}"
    if cable.prefix:  # a lab: its gateway serves the page
        yield f"http://{cable.gateway}:{PAGE_PORT}/", token
        return
    if not cable.listen:
        yield "", token
        return

    class Page(http.server.BaseHTTPRequestHandler):
        timeout = _SERVED

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(token)))
            self.end_headers()
            self.wfile.write(token.encode())

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the guest broke off; the check tells what it got
                super().handle()

        def log_message(self, *words: object) -> None:
            pass

    with _PageServer((cable.listen, 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=[_POLL], daemon=True)
        thread.start()
        try:
            yield f"http://{cable.gateway}:{server.server_address[1]}/", token
        finally:
            server.shutdown()
            thread.join()
