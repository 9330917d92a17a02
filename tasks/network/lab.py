"""net=lab: a network for guests that needs no rights on the host.

It lies in user, network and process namespaces of its own.

    doit --+-- unshare -- lab_inside    bridge, taps, NAT, dnsmasq; it ends when doit does, and with
           |                            it everything in its namespaces
           +-- lab_inside guard -- pasta or slirp4netns    the way out
           +-- nsenter -- QEMU    a guest
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tasks.network import cable, card, nat, plan, state
from tasks.network.card import Forward
from tasks.network.lab_inside import MESSAGE, Lab
from tasks.network.plan import Request
from tasks.system.errors import PiggyError
from tasks.system.process import clean_env
from tasks.system.terminal import printable

_PATIENCE = 20.0  # seconds within which the first process of the lab must answer
SLIRP_DNS = "10.0.2.3"  # slirp4netns(1), "DEFAULT CONFIGURATION"


class Guest(msgspec.Struct, frozen=True):
    """A guest's place in the lab.

    Attributes:
        tap: Its tap.
        mac: Its hardware address.
        address: The address that DHCP gives it.
        ports: Each forwarded port with the host's port that leads to it.
    """

    tap: str
    mac: str
    address: str
    ports: tuple[tuple[Forward, int], ...] = ()


class Running(msgspec.Struct, frozen=True):
    """A lab that is up.

    Attributes:
        prefix: Arguments in front of a command to run it inside.
        guests: The guests.
        upstream: "pasta", "slirp4netns", or "" for no way out.
        request: What the lab was made for.
        warnings: Lines for the user.
    """

    prefix: tuple[str, ...]
    guests: tuple[Guest, ...]
    upstream: str
    request: Request
    warnings: tuple[str, ...] = msgspec.field(default=())


def upstream(tools: Sequence[str]) -> str:
    """Return the program for the way out of a lab, "" if none is installed."""
    return next((tool for tool in ("pasta", "slirp4netns") if tool in tools), "")


def upstream_argv(program: str, pid: int, root: bool) -> list[str]:
    """Return the command that gives namespaces a way out, but none to the host's loopback.

    Args:
        program: "pasta" or "slirp4netns".
        pid: A process in the namespaces.
        root: Whether we are root.
    """
    if program == "pasta":
        # The addresses that slirp4netns uses. By default pasta copies the host's first address,
        # which may be unusable, such as a /32.
        return [
            "pasta",
            "--quiet",
            "--foreground",
            "--config-net",
            "--no-map-gw",
            "--ipv4-only",
            "--address",
            "10.0.2.100",
            "--netmask",
            "24",
            "--gateway",
            "10.0.2.2",
            *(["--runas", "0"] if root else []),
            "-t",
            "none",
            "-u",
            "none",
            "-T",
            "none",
            "-U",
            "none",
            "--netns",
            f"/proc/{pid}/ns/net",
            "--userns",
            f"/proc/{pid}/ns/user",
        ]
    return [
        "slirp4netns",
        "--configure",
        "--mtu=65520",
        "--disable-host-loopback",
        str(pid),
        "slirp0",
    ]


def guests(request: Request, host: str) -> list[Guest]:
    """Return the guests of a lab, with the first addresses that DHCP gives out.

    Args:
        request: The request.
        host: An identifier for the hardware addresses (card.mac).
    """
    first = ipaddress.IPv4Address(nat.leases(plan.interface(request.address))[0])
    return [
        Guest(tap, card.mac(host, request.bridge, number), str(first + number))
        for number, tap in enumerate(plan.taps(request))
    ]


def listening(forwards: Sequence[Forward], skip: int = 0) -> list[tuple[Forward, socket.socket]]:
    """Listen on the host's loopback for each forwarded TCP port.

    Args:
        forwards: The forwards; each takes the requested port, or the first free one.
        skip: How many ports to skip, so that guests get different ones.

    Raises:
        PiggyError: A requested port is in use, or a forward is for UDP.
    """
    found = []
    for forward in forwards:
        if forward.protocol != "tcp":
            raise PiggyError(f"net=lab forwards TCP only, not {forward.guest}/{forward.protocol}")
        for port in (
            [forward.host]
            if forward.host
            else range(forward.first + skip, min(65536, forward.first + skip + 200))
        ):
            listener = cable.bound(port)
            if listener:
                listener.listen()
                found.append((forward, listener))
                break
        else:
            raise PiggyError(
                f"port {forward.host or forward.first} of this host is in use",
                "forward= can name another one",
            )
    return found


@contextlib.contextmanager
def lab(
    request: Request,
    forwards: Sequence[Forward] = (),
    page: str = "",
    tools: Sequence[str] | None = None,
) -> Iterator[Running]:
    """Run a lab for the body of a `with`. Whatever ends the body, or us, ends everything inside.

    Args:
        request: The network; its run_dir, owner and uplink are not used.
        forwards: The forwarded ports of each guest. A requested host port is for the first guest
            only.
        page: Text that http://BRIDGE:8000/ serves inside.
        tools: Programs to take as installed; None to look for them.

    Raises:
        PiggyError: The host forbids such namespaces, or a program is missing.
    """
    if trouble := state.tun_trouble():
        raise PiggyError(
            f"{trouble}, and QEMU's taps come from it",
            "udev makes it open to all: chmod 0666 /dev/net/tun",
        )
    with contextlib.ExitStack() as stack:
        host = state.observe()
        way_out = upstream(host.tools if tools is None else tools) if host.defaults() else ""
        run_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="piggy."))
        request = msgspec.structs.replace(request, run_dir=run_dir, owner=0, uplink="")
        places, relays, listeners = [], [], []
        for number, guest in enumerate(guests(request, "lab")):
            heard = [
                (forward, stack.enter_context(listener))
                for forward, listener in listening(
                    [forward for forward in forwards if not (number and forward.host)], number
                )
            ]
            listeners += [listener for _, listener in heard]
            relays += [
                (listener.fileno(), guest.address, forward.guest) for forward, listener in heard
            ]
            places.append(
                Guest(
                    guest.tap,
                    guest.mac,
                    guest.address,
                    tuple((forward, listener.getsockname()[1]) for forward, listener in heard),
                )
            )
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(control)
        process = subprocess.Popen(
            [
                "unshare",
                "--user",
                "--map-root-user",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                sys.executable,
                "-B",
                "-m",
                "tasks.network.lab_inside",
                str(theirs.fileno()),
            ],
            env=clean_env(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=[theirs.fileno(), *(listener.fileno() for listener in listeners)],
        )
        theirs.close()
        stack.callback(_end, process)
        pid = _hello(control, process)
        if way_out:
            watch = subprocess.Popen(
                [
                    sys.executable,
                    "-B",
                    "-m",
                    "tasks.network.lab_inside",
                    "guard",
                    *upstream_argv(way_out, pid, os.geteuid() == 0),
                ],
                env=clean_env(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            stack.callback(_unguard, watch)
        servers = (
            [] if not way_out else [SLIRP_DNS] if way_out == "slirp4netns" else state.nameservers()
        )
        control.send(
            msgspec.json.encode(
                Lab(
                    request=request,
                    hosts={guest.mac: guest.address for guest in places},
                    servers=servers,
                    upstream=bool(way_out),
                    relays=relays,
                    page=page,
                )
            )
        )
        answer = control.recv(MESSAGE).decode()
        if answer != "ready":
            raise _failed(answer, process)
        for listener in listeners:
            listener.close()  # the lab's first process has inherited it
        warnings = (
            []
            if way_out
            else [
                "the lab has no way out: "
                + (
                    "neither pasta (package passt) nor slirp4netns is installed"
                    if host.defaults()
                    else "the host has no route"
                )
            ]
        )
        if way_out and not servers:
            warnings.append(
                "the host asks itself for names (a resolver on its loopback), which the lab can't"
                " reach"
            )
        warnings += _pings() if way_out else []
        prefix = (
            "nsenter",
            "--preserve-credentials",
            "--user",
            "--net",
            "--pid",
            "--target",
            str(pid),
            "--",
        )
        yield Running(prefix, tuple(places), way_out, request, tuple(warnings))


def _pings() -> list[str]:
    """Return a warning if the host keeps the guests from pinging.

    pasta and slirp4netns send pings through ICMP sockets, which net.ipv4.ping_group_range allows
    some groups (icmp(7)).
    """
    first, last = map(int, Path("/proc/sys/net/ipv4/ping_group_range").read_text().split())
    if any(first <= group <= last for group in (os.getegid(), *os.getgroups())):
        return []
    cure = "sysctl -w net.ipv4.ping_group_range='0 2147483647'"
    return [f"pings stop at the lab's gateway: {cure} lets them out"]


def _hello(control: socket.socket, process: subprocess.Popen) -> int:
    """Wait for the first message from inside.

    Returns:
        The sender's process number in our namespace (SCM_CREDENTIALS, unix(7)).
    """
    control.settimeout(_PATIENCE)
    control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    try:
        message, ancillary, *_ = control.recvmsg(MESSAGE, socket.CMSG_SPACE(struct.calcsize("3i")))
    except OSError as error:
        raise _failed(str(error), process) from error
    pid = next(
        (
            struct.unpack("3i", data)[0]
            for _, kind, data in ancillary
            if kind == socket.SCM_CREDENTIALS
        ),
        0,
    )
    if not message or not pid:
        raise _failed("", process)
    return pid


def _failed(answer: str, process: subprocess.Popen) -> PiggyError:
    _end(process)
    said = (process.stderr.read() if process.stderr else "").strip().splitlines()
    message, _, hint = answer.partition("\n  hint: ")
    what = printable(message or (said[-1] if said else "it ended without a word"))
    if "unshare" in what:
        return PiggyError(
            f"this host lets you make no namespaces: {what}",
            "sysctl kernel.unprivileged_userns_clone=1 "
            "(Debian), kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), or net=user",
        )
    return PiggyError(f"the lab did not come up: {what}", printable(hint))


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        # unshare's --kill-child ends the first process then, and with it the whole PID namespace.
        process.send_signal(signal.SIGKILL)
    process.wait()


def _unguard(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()
