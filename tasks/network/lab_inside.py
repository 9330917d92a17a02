"""The inside of net=lab: the first process of the namespaces that lab.py makes.

When it ends, everything in them ends.

    python -m tasks.network.lab_inside FD                 FD is a socket; it ends when the peer does
    python -m tasks.network.lab_inside guard PROGRAM...   runs PROGRAM until standard input ends
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from functools import partial

import msgspec

from tasks.network import apply, plan, state
from tasks.network.plan import Request
from tasks.system.errors import PiggyError
from tasks.system.process import clean_env

_UPSTREAM = 8.0  # seconds that pasta or slirp4netns may take to set up the way out
MESSAGE = 1 << 16  # bytes of the longest message between outside and inside


class Lab(msgspec.Struct, frozen=True, kw_only=True):
    """The message from outside: what to set up.

    Attributes:
        request: The network.
        hosts: Each guest's address, by hardware address.
        servers: DNS servers.
        upstream: Whether to wait for a way out.
        relays: (socket, address, port): connections to the socket, which listens outside, go to
            that port of a guest.
        page: Text that the bridge's port `page_port` serves, so that a guest has something to
            fetch.
    """

    request: Request
    hosts: dict[str, str]
    servers: list[str] = []
    upstream: bool = False
    relays: list[tuple[int, str, int]] = []
    page: str = ""
    page_port: int = 8000


def build(lab: Lab) -> list[subprocess.Popen]:
    """Make bridge, taps, NAT and DHCP.

    Returns:
        The daemons.

    Raises:
        PiggyError: A step fails.
    """
    subprocess.run(["ip", "link", "set", "lo", "up"], env=clean_env(), check=True)
    until = time.monotonic() + _UPSTREAM
    while lab.upstream and not state.observe().defaults():
        if time.monotonic() > until:
            raise PiggyError(
                "pasta or slirp4netns gave the lab no way out",
                "does the host itself have an IPv4 default route?",
            )
        time.sleep(0.05)
    observed = state.observe()
    made = plan.nat(observed, lab.request, mode="lab", hosts=lab.hosts, servers=lab.servers)
    daemons = []
    for step in made.steps:
        # dnsmasq stays a child, as a pidfile's number means nothing outside the PID namespace.
        # Without --no-daemon it would drop groups, too, which a user namespace forbids (setgroups
        # in user_namespaces(7)).
        if step.do[0] == "dnsmasq":
            with open(f"{lab.request.run_dir}/dnsmasq.log", "wb") as log:
                daemons.append(
                    subprocess.Popen(
                        [*step.do, "--no-daemon"],
                        env=clean_env(),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                )
        else:
            apply.do(step.do, step.stdin, step.patience)
    time.sleep(0.2)
    if any(daemon.poll() is not None for daemon in daemons):
        with open(f"{lab.request.run_dir}/dnsmasq.log", encoding="utf-8", errors="replace") as log:
            raise PiggyError(
                "dnsmasq does not run in the lab: " + " ".join(log.read().split()[-40:])
            )
    return daemons


async def _serve(lab: Lab, control: socket.socket) -> None:
    servers = []
    for number, address, port in lab.relays:
        servers.append(
            await asyncio.start_server(
                partial(_relay, address, port), sock=socket.socket(fileno=number)
            )
        )
    if lab.page:
        servers.append(
            await asyncio.start_server(
                partial(_page, lab.page),
                str(plan.interface(lab.request.address).ip),
                lab.page_port,
            )
        )
    control.setblocking(False)
    control.send(b"ready")
    await asyncio.get_running_loop().sock_recv(control, MESSAGE)  # returns at end of file


async def _relay(
    address: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Copy bytes both ways until both sides have ended."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(MESSAGE):
                sink.write(data)
                await sink.drain()
            sink.write_eof()

    with contextlib.suppress(OSError):
        there, out = await asyncio.open_connection(address, port)
        await asyncio.gather(pump(reader, out), pump(there, writer))
        out.close()
    writer.close()


async def _page(text: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
        await writer.drain()
        writer.close()


def inside(descriptor: int) -> None:
    """Run as the first process of a lab until the outside is gone.

    Args:
        descriptor: The socket to the outside.
    """
    control = socket.socket(fileno=descriptor)
    # The kernel adds our credentials, from which the outside learns our process number (unix(7)).
    control.send(b"hello")
    message = control.recv(MESSAGE)
    if not message:
        return
    lab = msgspec.json.decode(message, type=Lab)
    daemons: list[subprocess.Popen] = []
    try:
        daemons = build(lab)
        asyncio.run(_serve(lab, control))
    except PiggyError as error:
        with contextlib.suppress(OSError):
            control.send(str(error).encode())
    finally:
        for daemon in daemons:
            daemon.kill()


def guard(argv: list[str]) -> int:
    """Run a program until it ends or standard input does, and return 0.

    Programs that change their user lose PR_SET_PDEATHSIG (prctl(2)), so they would outlive their
    parent without this.
    """
    process = subprocess.Popen(argv, env=clean_env(), stdin=subprocess.DEVNULL)
    try:
        os.read(0, 1)
    finally:
        process.kill()
        process.wait()
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "guard":
        sys.exit(guard(sys.argv[2:]))
    inside(int(sys.argv[1]))
