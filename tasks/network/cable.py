"""The network that a guest's card is connected to during one boot, by the setting `net`."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tasks.config.emulator import MAC
from tasks.config.settings import Settings
from tasks.network import card, record, state
from tasks.network.card import Forward
from tasks.network.plan import Request, check_name, interface
from tasks.network.steps import Plan
from tasks.system.errors import PiggyError

HELPERS = tuple(
    Path(folder) / "qemu-bridge-helper"
    for folder in ("/usr/lib/qemu", "/usr/libexec", "/usr/lib64/qemu")
)
ALLOWED = Path("/etc/qemu/bridge.conf")
PAGE_PORT = 8000  # the port of a lab's gateway that serves a page, for qemu_test


class Cable(msgspec.Struct, frozen=True):
    """One guest's network connection for one boot.

    Attributes:
        net: QEMU's network backend; "" for no card.
        mac: The hardware address.
        append: For the kernel's command line.
        prefix: Arguments in front of QEMU's command.
        taken: Each forwarded port with the host's port that leads to it.
        address: The guest's address; "" if it is not known before the boot.
        gateway: The host's address as the guest sees it; "" if unknown.
        listen: The address at which the host receives what the guest sends to `gateway`; "" for
            none in this network namespace.
        closed: Whether there is no way out, so that DHCP gives the guest no gateway.
        notes: Lines for the user.
    """

    net: str = "user"
    mac: str = MAC
    append: str = ""
    prefix: tuple[str, ...] = ()
    taken: tuple[tuple[Forward, int], ...] = ()
    address: str = ""
    gateway: str = ""
    listen: str = ""
    closed: bool = False
    notes: tuple[str, ...] = ()

    def conflict(self) -> bool:
        """Tell whether another program has taken a port that QEMU was to listen on."""
        return not self.prefix and any(
            not _free(port, forward.protocol) for forward, port in self.taken
        )


UNPLUGGED = Cable(net="")


@contextlib.contextmanager
def cables(settings: Settings, page: str = "") -> Iterator[list[Cable]]:
    """Set up the network of a boot for the body of a `with`.

    Args:
        settings: The settings.
        page: Text that the gateway of a lab serves on PAGE_PORT; "" for none.

    Yields:
        The cable of each guest; only net=lab has more than one.

    Raises:
        PiggyError: The network is not up, or settings contradict each other.
    """
    if settings.net == "none":
        yield [UNPLUGGED]
    elif settings.net == "user":
        yield [user(settings)]
    elif settings.net == "lab":
        with _lab(settings, page) as found:
            yield found
    else:
        yield [tapped(settings)]


def user(settings: Settings) -> Cable:
    """Return the cable for QEMU's own network.

    The ports are free now, but another program may take one before QEMU does (see Cable.conflict).
    """
    taken = _choose(card.forwards(settings.forward))
    append = card.ip_parameter(
        settings.address, card.USER_NETWORK, card.USER_GATEWAY, [card.USER_DNS]
    )
    # Without an address QEMU forwards to the one that its DHCP gives.
    if append and settings.address not in ("off", "none"):
        net = card.user_net(taken, settings.address.partition("/")[0], settings.restrict)
    else:
        net = card.user_net(taken, restrict=settings.restrict)
    return Cable(
        net=net,
        append=append,
        taken=tuple(taken),
        gateway=card.USER_GATEWAY,
        notes=tuple(_told(taken)),
        listen="" if settings.restrict else "127.0.0.1",
        closed=settings.restrict,
    )


def _choose(forwards: Sequence[Forward]) -> list[tuple[Forward, int]]:
    """Choose a free port of this host for each forward.

    It is the requested port, or the first free one from Forward.first on.
    """
    taken: list[tuple[Forward, int]] = []
    for forward in forwards:
        used = [port for other, port in taken if other.protocol == forward.protocol]
        if forward.host and not _free(forward.host, forward.protocol):
            raise PiggyError(
                f"port {forward.host} of this host is in use",
                f"forward={forward.name}={forward.guest} takes a free one",
            )
        candidates = (
            [forward.host]
            if forward.host
            else range(forward.first, min(65536, forward.first + 1000))
        )
        port = next(
            (port for port in candidates if port not in used and _free(port, forward.protocol)), 0
        )
        if not port:
            raise PiggyError(
                f"no port from {forward.first} on is free on this host",
                f"forward={forward.name}=PORT:{forward.guest}",
            )
        taken.append((forward, port))
    return taken


def bound(port: int, protocol: str = "tcp") -> socket.socket | None:
    """Return a socket that holds a port of the host's loopback, None where the port is taken."""
    holder = socket.socket(type=socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM)
    if protocol == "tcp":  # as QEMU does: what is closing is free
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind(("127.0.0.1", port))
    except OSError:
        holder.close()
        return None
    return holder


def _free(port: int, protocol: str) -> bool:
    holder = bound(port, protocol)
    if holder:
        holder.close()
    return bool(holder)


def _told(taken: Sequence[tuple[Forward, int]], whose: str = "the guest's") -> Iterator[str]:
    for forward, port in taken:
        url = f"http://127.0.0.1:{port}/" if forward.name == "http" else f"127.0.0.1:{port}"
        yield (
            f"{url} is {whose} {forward.name} (port"
            f" {forward.guest}{'/udp' if forward.protocol == 'udp' else ''})"
        )


def tapped(settings: Settings) -> Cable:
    """Return the cable for a tap that net_up made.

    Without one, net=bridged connects to an existing bridge by the distribution's
    qemu-bridge-helper.

    Raises:
        PiggyError: There is neither, or every tap has a guest.
    """
    check_name(settings.bridge, 1)
    last = record.read(record.place())
    plan = last.plan if last and last.complete and last.boot == record.boot_id() else None
    if plan is None or (plan.mode, plan.bridge) != (settings.net, settings.bridge):
        if settings.net == "bridged" and (helper := bridge_helper(settings.bridge)):
            return Cable(
                net=f"bridge,br={settings.bridge},helper={helper}",
                mac=_mac(settings, 0),
                append=_static(settings, None, ""),
                notes=(f"{helper} puts the guest on {settings.bridge}",),
            )
        up = f"net={plan.mode} bridge={plan.bridge}" if plan else "no network of ours"
        raise PiggyError(
            f"net={settings.net} bridge={settings.bridge} is not up (up is: {up})",
            f"doit net={settings.net} {'uplink=CARD ' if settings.net == 'bridged' else ''}net_up",
        )
    if trouble := state.tun_trouble():
        raise PiggyError(trouble, "chmod 0666 /dev/net/tun; 'doit net_status' looks for more")
    free = next((number for number, tap in enumerate(plan.taps) if _carrier(tap) == "0"), None)
    if free is None:
        raise PiggyError(
            f"each tap of {plan.bridge} has its guest already ({', '.join(plan.taps)}), or is gone",
            f"doit net_down, then doit net={plan.mode} guests={len(plan.taps) + 1} net_up",
        )
    note = (
        f"the guest is on {plan.bridge} by {plan.taps[free]}; DHCP gives it an address, 'doit"
        " net_status' shows which"
    )
    gateway = plan.address.partition("/")[0] or _own_address(plan.bridge)
    return Cable(
        net=f"tap,ifname={plan.taps[free]},script=no,downscript=no",
        mac=_mac(settings, free),
        gateway=gateway,
        listen=gateway,
        append=_static(settings, plan, gateway),
        notes=(note,),
    )


def _carrier(tap: str) -> str:
    """Return "1" if a process has the tap open, "0" if none has, "" if it is down or missing."""
    try:
        return Path(f"/sys/class/net/{tap}/carrier").read_text().strip()
    except OSError:
        return ""


def _mac(settings: Settings, number: int) -> str:
    try:
        host = Path("/etc/machine-id").read_text().strip()
    except OSError:
        host = os.uname().nodename
    return card.mac(host, settings.bridge, number)


def _own_address(bridge: str) -> str:
    return next(
        (
            info["local"]
            for info in state.observe().address(bridge).get("addr_info", ())
            if info["family"] == "inet" and info.get("scope") == "global"
        ),
        "",
    )


def _static(settings: Settings, plan: Plan | None, gateway: str) -> str:
    if settings.address == "dhcp":
        return ""
    if plan and plan.address:
        return card.ip_parameter(
            settings.address, ipaddress.IPv4Interface(plan.address).network, gateway, [gateway]
        )
    way_out = next(
        (
            str(route["gateway"])
            for route in state.observe().defaults()
            if "gateway" in route and route.get("dev") == settings.bridge
        ),
        "",
    )
    return card.ip_parameter(settings.address, None, way_out, state.nameservers())


def bridge_helper(bridge: str, helpers: Sequence[Path] = HELPERS, allowed: Path = ALLOWED) -> str:
    """Return the path of the distribution's qemu-bridge-helper if it serves this bridge, "" if not.

    It must be setuid root, unless we are root, and its configuration must have "allow BRIDGE" or
    "allow all" (QEMU's documentation, "qemu-bridge-helper").
    """
    if not Path(f"/sys/class/net/{bridge}/bridge").is_dir():
        return ""
    for helper in helpers:
        with contextlib.suppress(OSError):
            mode = helper.stat()
            rules = [line.split() for line in allowed.read_text(errors="replace").splitlines()]
            if (
                (mode.st_mode & stat.S_ISUID and mode.st_uid == 0 or os.geteuid() == 0)
                and any(rule in (["allow", bridge], ["allow", "all"]) for rule in rules)
                and ["deny", bridge] not in rules
            ):
                return str(helper)
    return ""


@contextlib.contextmanager
def _lab(settings: Settings, page: str) -> Iterator[list[Cable]]:
    from tasks.network import lab

    request = Request(
        bridge=settings.bridge, address=settings.bridge_address, guests=settings.guests
    )
    gateway = str(interface(settings.bridge_address).ip)
    if settings.address not in ("dhcp", "off", "none"):
        raise PiggyError(
            f"address={settings.address}: in a lab each guest has its address by DHCP",
            "leave address= out",
        )
    with lab.lab(request, card.forwards(settings.forward), page=page) as running:
        found = []
        for number, guest in enumerate(running.guests):
            whose = "the guest's" if len(running.guests) == 1 else f"guest {number + 1}'s"
            notes = [*_told(guest.ports, whose)]
            if number == 0:
                way = f"out by {running.upstream}" if running.upstream else "no way out"
                notes = [
                    (
                        f"a network of its own ({running.request.address}, {way}), which ends with"
                        " this command"
                    ),
                    *running.warnings,
                    *notes,
                ]
            found.append(
                Cable(
                    net=f"tap,ifname={guest.tap},script=no,downscript=no",
                    mac=guest.mac,
                    prefix=running.prefix,
                    taken=guest.ports,
                    address=guest.address,
                    gateway=gateway,
                    notes=tuple(notes),
                    append="ip=off" if settings.address != "dhcp" else "",
                )
            )
        yield found
