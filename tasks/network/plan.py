"""Plan what `net_up` does: pure functions from the host's State to a Plan.

nat:      a bridge with an address, taps, ip_forward, NAT, dnsmasq
bridged:  a bridge and taps; the uplink becomes a port of the bridge, which gets its addresses
and
routes
lab:      as nat, in a network namespace of its own
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

import msgspec

from tasks.network import grammar, routes
from tasks.network.grammar import tap
from tasks.network.nat import dnsmasq, forwarding, translation
from tasks.network.routes import (
    address_arguments,
    family,
    movable_addresses,
    movable_routes,
    route_arguments,
)
from tasks.network.state import State
from tasks.network.steps import Plan, Step
from tasks.system.errors import PiggyError, nearest
from tasks.system.terminal import printable

IFNAMSIZ = 16  # bytes of a link's name with its NUL: include/uapi/linux/if.h
# RFC 6890, section 2.2.2: networks that no bridge for guests can be in.
_RESERVED = {
    ipaddress.IPv4Network(network): what
    for network, what in {
        "0.0.0.0/8": "hosts that do not know their address yet",
        "127.0.0.0/8": "each host's loopback",
        "169.254.0.0/16": "link-local addresses, which are not routed",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "later use and broadcast",
    }.items()
}
_PRIVATE = (
    "networks of one's own are 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16, such as"
    " 192.168.135.251/24"
)


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The network that the user asked for.

    Attributes:
        bridge: The name of the bridge.
        uplink: The name of the host's card.
        address: The bridge's address, such as "192.168.135.251/24".
        guests: The number of taps.
        owner: The number of the user who may open the taps.
        mac: The bridge's hardware address.
        run_dir: The folder for files that last as long as the network.
        consent: Whether the user accepts being cut off.
        ssh: The address at which an SSH session came in; "" for none.
    """

    bridge: str = "piggy0"
    uplink: str = ""
    address: str = "192.168.135.251/24"
    guests: int = 1
    owner: int = 0
    mac: str = "52:54:00:70:69:67"
    run_dir: str = "/run/piggyback"
    consent: bool = False
    ssh: str = ""


def interface(text: str) -> ipaddress.IPv4Interface:
    """Parse a bridge's address with its prefix.

    Raises:
        PiggyError: It is malformed, or unusable for a bridge with guests.
    """
    said, text = text, printable(text)
    try:
        found = ipaddress.IPv4Interface(said)
    except ValueError as error:
        raise PiggyError(
            f"bridge_address={text} is no IPv4 address with a prefix: {error}",
            "such as 192.168.135.251/24",
        ) from None
    if "/" not in text or not 8 <= found.network.prefixlen <= 29:
        raise PiggyError(
            f"bridge_address={text}: its prefix must be from /8 to /29, so that there is room for"
            " guests",
            "such as 192.168.135.251/24",
        )
    for reserved, what in _RESERVED.items():
        if found.network.overlaps(reserved):
            raise PiggyError(
                f"bridge_address={text}: {reserved} is for {what}, and no host's", _PRIVATE
            )
    if found.ip in (found.network.network_address, found.network.broadcast_address):
        raise PiggyError(
            f"bridge_address={text} is the address of the network as a whole, not of a host in it"
        )
    return found


def check_name(name: str, guests: int) -> None:
    """Check that a bridge's name, and those of its taps, are valid names of links.

    Source: dev_valid_name() in net/core/dev.c.

    Args:
        name: The bridge.
        guests: The number of taps.

    Raises:
        PiggyError: One is not.
    """
    longest = tap(name, max(0, guests - 1))
    if (
        not re.fullmatch(r"[A-Za-z0-9_.-]+", name, re.ASCII)
        or name in (".", "..")
        or name.startswith("-")
    ):
        raise PiggyError(
            f"bridge={printable(name)}: a link's name has letters, digits, '_', '.' and '-'"
        )
    if len(longest) >= IFNAMSIZ:
        raise PiggyError(
            f"bridge={name} is too long: its tap would be '{longest}', and a link's name has at"
            f" most {IFNAMSIZ - 1} characters"
        )


def nat(
    state: State,
    request: Request,
    mode: str = "nat",
    hosts: Mapping[str, str] | None = None,
    servers: Sequence[str] = (),
    user: str = "",
) -> Plan:
    """Plan a network of the guests' own behind the host (nat), or in a namespace (lab).

    Args:
        state: The host's network.
        request: The request.
        mode: "nat" or "lab".
        hosts: For dnsmasq (see nat.dnsmasq), as the following ones.
        servers: For dnsmasq.
        user: For dnsmasq.

    Raises:
        PiggyError: A program is missing, or a name or network is taken.
    """
    address = interface(request.address)
    _free(state, request)
    if request.uplink and not state.link(request.uplink):
        raise _no_link(state, request.uplink)
    if "nft" not in state.tools and "iptables" not in state.tools:
        raise PiggyError(
            "NAT needs nft or iptables, and this host has neither", "install the package nftables"
        )
    if "dnsmasq" not in state.tools:
        raise PiggyError(
            "the guests' DHCP and DNS need dnsmasq, which is not installed",
            f"doit net={mode} setup",
        )
    for link, other in networks(state):
        if other.overlaps(address.network):
            raise PiggyError(
                f"{address.network} is taken: {link} has {other}",
                "choose another network: bridge_address=192.168.136.251/24",
            )
    network = str(address.network)
    steps = [
        grammar.bridge(request.bridge, request.mac),
        grammar.address(request.bridge, str(address)),
        *_taps(request),
        grammar.up(request.bridge),
        *forwarding(state),
        *translation(state, request.bridge, network, request.uplink),
        dnsmasq(request.bridge, address, request.run_dir, hosts=hosts, servers=servers, user=user),
    ]
    warnings = []
    if mode == "nat" and not any(family(route) == "-4" for route in state.defaults()):
        warnings.append(
            "the host has no IPv4 default route: the guests reach the host and no further"
        )
    return Plan(
        mode=mode,
        bridge=request.bridge,
        taps=taps(request),
        address=str(address),
        uplink=request.uplink,
        leases=f"{request.run_dir}/leases",
        steps=tuple(steps),
        warnings=tuple(warnings),
    )


def bridged(state: State, request: Request, wireless: bool = False) -> Plan:
    """Plan to make the uplink a port of a bridge.

    If the bridge exists and has the uplink as a port, or the request has no uplink, only taps are
    added.

    Args:
        state: The host's network.
        request: The request.
        wireless: Whether the uplink is a wireless card.

    Raises:
        PiggyError: The uplink can't be a port, a name is taken, or the user would be cut off.
    """
    check_name(request.bridge, request.guests)
    uplink = state.link(request.uplink)
    if request.uplink and not uplink:
        raise _no_link(state, request.uplink)
    if (
        state.kind(request.bridge) == "bridge"
        and uplink.get("master", request.bridge) == request.bridge
        and (not request.uplink or "master" in uplink)
    ):
        _taps_free(state, request)
        return Plan(
            mode="bridged",
            bridge=request.bridge,
            taps=taps(request),
            uplink=request.uplink,
            steps=tuple(_taps(request)),
        )
    if not request.uplink:
        cards = [
            link["ifname"]
            for link in state.links
            if link.get("link_type") == "ether" and "linkinfo" not in link
        ]
        raise PiggyError(
            "net=bridged needs the host's network card that becomes a port of the bridge, or a"
            " bridge that is there",
            f"uplink={cards[0] if cards else 'eth0'}, or bridge=NAME",
        )
    _free(state, request)
    if "master" in uplink:
        raise PiggyError(
            f"uplink={request.uplink} is a port of {uplink['master']} already",
            f"bridge={uplink['master']} puts the guests there",
        )
    if wireless:
        raise PiggyError(
            f"uplink={request.uplink} is a wireless card, which takes no frames of others (IEEE"
            " 802.11 has no room for their address)",
            "net=nat",
        )
    if uplink.get("link_type") != "ether" or state.kind(request.uplink) == "bridge":
        raise PiggyError(
            f"uplink={request.uplink} can't be a port of a bridge: it is no Ethernet card",
            f"bridge={request.uplink}, if it is a bridge itself; else net=nat",
        )
    moved = movable_addresses(state.address(request.uplink))
    warnings = _branch(state, request, [info["local"] for info in moved])
    if any(info.get("valid_life_time", routes.FOREVER) != routes.FOREVER for info in moved):
        warnings.append(
            f"an address of {request.uplink} is leased or announced: who renews it must do so on"
            f" {request.bridge}, or it ends when its time is up (systemd-networkd, NetworkManager,"
            " dhclient)"
        )
    kept_routes = movable_routes(state.routes, request.uplink)
    steps = [
        grammar.bridge(
            request.bridge, str(uplink.get("address")), mtu=int(uplink.get("mtu", 1500))
        ),
        *_taps(request),
        grammar.up(request.bridge),
        *(
            grammar.route_off(family(route), route_arguments(route))
            for route in reversed(kept_routes)
        ),
        *(
            grammar.address_off(address_arguments(info, request.uplink, label=True), _local(info))
            for info in reversed(moved)
        ),
        grammar.port(request.uplink, request.bridge),
        *([] if "UP" in uplink.get("flags", ()) else [grammar.up(request.uplink)]),
        *(
            grammar.address_on(address_arguments(info, request.bridge, label=False), _local(info))
            for info in moved
        ),
        *(
            grammar.route_on(family(route), route_arguments(route, request.uplink, request.bridge))
            for route in kept_routes
        ),
    ]
    return Plan(
        mode="bridged",
        bridge=request.bridge,
        taps=taps(request),
        uplink=request.uplink,
        steps=tuple(steps),
        warnings=tuple(warnings),
    )


def networks(state: State) -> list[tuple[str, ipaddress.IPv4Network]]:
    """Return the IPv4 networks of the host's links, each with the link's name."""
    return [
        (entry["ifname"], ipaddress.IPv4Interface(f"{info['local']}/{info['prefixlen']}").network)
        for entry in state.addresses
        for info in entry.get("addr_info", ())
        if info.get("family") == "inet" and "local" in info and entry.get("ifname") != "lo"
    ]


def taps(request: Request) -> tuple[str, ...]:
    """Return the names of all taps."""
    return tuple(tap(request.bridge, number) for number in range(request.guests))


def _taps(request: Request) -> list[Step]:
    return grammar.taps(request.bridge, request.guests, str(request.owner), request.mac[6:])


def _local(info: Mapping[str, object]) -> str:
    return f"{info['local']}/{info['prefixlen']}"


def _branch(state: State, request: Request, addresses: Sequence[str]) -> list[str]:
    """Refuse to move the link that the user's own connection depends on, unless the user consents.

    It is the link of the only default route, or of the SSH session.

    Returns:
        Warnings for a user who consented.
    """
    why = []
    defaults = state.defaults()
    if defaults and all(routes.uses(route, request.uplink) for route in defaults):
        why.append(f"{request.uplink} carries the only default route")
    if request.ssh and request.ssh in addresses:
        why.append(f"your SSH session comes in by {request.uplink} ({request.ssh})")
    if why and not request.consent:
        raise PiggyError(
            f"{' and '.join(why)}: if moving it to {request.bridge} fails, this host may be cut"
            " off",
            "doit net_up --yes does it all the same (should a step fail, everything is put back);"
            " --dry-run shows the steps; net=nat leaves the card alone",
        )
    return [f"{reason}; you said yes" for reason in why]


def _free(state: State, request: Request) -> None:
    check_name(request.bridge, request.guests)
    if state.link(request.bridge):
        what = state.kind(request.bridge) or "network card"
        raise PiggyError(
            f"there is a {what} called '{request.bridge}' already, and it is not ours",
            "choose another name: bridge=piggy1"
            + (
                f"; net=bridged bridge={request.bridge} puts the guests on it"
                if what == "bridge"
                else ""
            ),
        )
    _taps_free(state, request)


def _taps_free(state: State, request: Request) -> None:
    if "missing" in state.tun:
        raise PiggyError(
            f"{state.tun}, and taps come from it",
            "modprobe tun; a container must be given the device",
        )
    taken = [name for name in taps(request) if state.link(name)]
    if taken:
        raise PiggyError(
            f"there is a link called '{taken[0]}' already, and it is not ours",
            "choose another name with bridge=, or remove it: ip link del " + taken[0],
        )


def _no_link(state: State, name: str) -> PiggyError:
    known = [link["ifname"] for link in state.links]
    return PiggyError(
        f"uplink={name}: the host has no such link.{nearest(name, known)}",
        "there are: " + ", ".join(known),
    )
