"""The inside of net=lab: the first process of the namespaces, started by `netlab`.

When it ends, all in them ends.

python -m tasks.network.lab_inside FD     FD: a socket to the outside, whose end is our end
python -m tasks.network.lab_inside guard PROGRAM...     runs PROGRAM until standard input ends
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

from tasks.network import apply
from tasks.network import plan as netplan
from tasks.network import state as netstate
from tasks.network.plan import Wanted
from tasks.system.errors import PiggyError
from tasks.system.process import clean_env

_UPSTREAM = 8.0  # seconds that pasta or slirp4netns may take
MESSAGE = 1 << 16  # bytes of the longest message


class Lab(msgspec.Struct, frozen=True, kw_only=True):
    """What the inside is to be.

    hosts:   each guest's address, by hardware address.   servers: for DNS.   upstream: wait for a
        way out.
    relays:  (listening socket, address, port): who connects to the socket, which listens outside,
        speaks to that guest.
    page:    a text that the bridge's own port `page_port` answers with, so that a guest has
        something to fetch.
    """

    wanted: Wanted
    hosts: dict[str, str]
    servers: list[str] = []
    upstream: bool = False
    relays: list[tuple[int, str, int]] = []
    page: str = ""
    page_port: int = 8000


def build(lab: Lab) -> list[subprocess.Popen]:
    """Make bridge, taps, NAT and DHCP; return the daemons. Raises PiggyError."""
    subprocess.run(["ip", "link", "set", "lo", "up"], env=clean_env(), check=True)
    until = time.monotonic() + _UPSTREAM
    while lab.upstream and not netstate.observe().defaults():
        if time.monotonic() > until:
            raise PiggyError(
                "pasta or slirp4netns gave the lab no way out",
                "does the host itself have an IPv4 default route?",
            )
        time.sleep(0.05)
    state = netstate.observe()
    plan = netplan.nat(state, lab.wanted, mode="lab", hosts=lab.hosts, servers=lab.servers)
    daemons = []
    for step in plan.steps:
        if (
            step.do[0] == "dnsmasq"
        ):  # a child, not a daemon of its own: pidfiles tell nothing across namespaces
            # without --no-daemon it wants to give up groups, which a user namespace forbids
            # (user_namespaces(7), setgroups)
            with open(f"{lab.wanted.run_dir}/dnsmasq.log", "wb") as log:
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
        with open(f"{lab.wanted.run_dir}/dnsmasq.log", encoding="utf-8", errors="replace") as log:
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
                str(netplan.interface(lab.wanted.address).ip),
                lab.page_port,
            )
        )
    control.setblocking(False)
    control.send(b"ready")
    await asyncio.get_running_loop().sock_recv(control, MESSAGE)  # nothing more comes but the end


async def _relay(
    address: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry bytes both ways until both sides have ended."""

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
    """Be the first process of a lab until the outside is gone."""
    control = socket.socket(fileno=descriptor)
    control.send(
        b"hello"
    )  # the outside learns our number from the credentials that the kernel sends along (unix(7))
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
    """Run a program until it ends or standard input does.

    Those that change who they are forget the signal that a child asks for at its parent's death
    (PR_SET_PDEATHSIG, prctl(2)).
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
