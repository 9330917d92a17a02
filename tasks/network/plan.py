"""What `net_up` would do, computed from what there is: pure functions from a State to a Plan.

nat:      bridge with an address, taps, ip_forward, NAT, dnsmasq
bridged:  bridge, taps, and the uplink a port of it, whose addresses and routes move to the bridge
lab:      as nat, in a network namespace of its own
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

import msgspec

from tasks.network import grammar, routes
from tasks.network import nat as netnat
from tasks.network.grammar import tap
from tasks.network.routes import (
    address_words,
    family,
    movable_addresses,
    movable_routes,
    route_words,
)
from tasks.network.state import State
from tasks.network.steps import Plan, Step
from tasks.system.errors import PiggyError, nearest
from tasks.system.terminal import printable

IFNAMSIZ = 16  # include/uapi/linux/if.h, with the byte that ends it
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


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the user asked for.

    bridge, uplink: names of links;  address: of the bridge, "192.168.135.251/24";  guests: how many
        taps.
    owner: the user id that may open the taps.  mac: the bridge's hardware address.  run_dir: for
        what runs meanwhile.
    consent: the user said yes to being cut off.  ssh: the address that an SSH session came in at
        ("": none).
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
    """Read an address with its prefix.

    Raises PiggyError for one that no bridge for guests can have.
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
    """Raise PiggyError for a name that the kernel does not take for a link.

    See dev_valid_name in net/core/dev.c.
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
    wanted: Wanted,
    mode: str = "nat",
    hosts: Mapping[str, str] | None = None,
    servers: Sequence[str] = (),
    user: str = "",
) -> Plan:
    """Plan a network of the guests' own behind the host (nat), or in a namespace (lab).

    Raises PiggyError for what is in the way. hosts, servers, user: for dnsmasq (see
    `netnat.dnsmasq`).
    """
    address = interface(wanted.address)
    _free(state, wanted)
    if wanted.uplink and not state.link(wanted.uplink):
        raise _no_link(state, wanted.uplink)
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
        grammar.bridge(wanted.bridge, wanted.mac),
        grammar.address(wanted.bridge, str(address)),
        *_taps(wanted),
        grammar.up(wanted.bridge),
        *netnat.forwarding(state),
        *netnat.translation(state, wanted.bridge, network, wanted.uplink),
        netnat.dnsmasq(
            wanted.bridge, address, wanted.run_dir, hosts=hosts, servers=servers, user=user
        ),
    ]
    warnings = []
    if mode == "nat" and not any(family(route) == "-4" for route in state.defaults()):
        warnings.append(
            "the host has no IPv4 default route: the guests reach the host and no further"
        )
    return Plan(
        mode=mode,
        bridge=wanted.bridge,
        taps=taps(wanted),
        address=str(address),
        uplink=wanted.uplink,
        leases=f"{wanted.run_dir}/leases",
        steps=tuple(steps),
        warnings=tuple(warnings),
    )


def bridged(state: State, wanted: Wanted, wireless: bool = False) -> Plan:
    """Plan to make the uplink a port of a bridge.

    Where the bridge is there already and the uplink is a port of it, or none is named, only taps
    are added to it. Raises PiggyError for what is in the way, or for what would cut the user off.
    """
    check_name(wanted.bridge, wanted.guests)
    uplink = state.link(wanted.uplink)
    if wanted.uplink and not uplink:
        raise _no_link(state, wanted.uplink)
    if (
        state.kind(wanted.bridge) == "bridge"
        and uplink.get("master", wanted.bridge) == wanted.bridge
        and (not wanted.uplink or "master" in uplink)
    ):
        _taps_free(state, wanted)
        return Plan(
            mode="bridged",
            bridge=wanted.bridge,
            taps=taps(wanted),
            uplink=wanted.uplink,
            steps=tuple(_taps(wanted)),
        )
    if not wanted.uplink:
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
    _free(state, wanted)
    if "master" in uplink:
        raise PiggyError(
            f"uplink={wanted.uplink} is a port of {uplink['master']} already",
            f"bridge={uplink['master']} puts the guests there",
        )
    if wireless:
        raise PiggyError(
            f"uplink={wanted.uplink} is a wireless card, which takes no frames of others (IEEE"
            " 802.11 has no room for their address)",
            "net=nat",
        )
    if uplink.get("link_type") != "ether" or state.kind(wanted.uplink) == "bridge":
        raise PiggyError(
            f"uplink={wanted.uplink} can't be a port of a bridge: it is no Ethernet card",
            f"bridge={wanted.uplink}, if it is a bridge itself; else net=nat",
        )
    moved = movable_addresses(state.address(wanted.uplink))
    warnings = _branch(state, wanted, [info["local"] for info in moved])
    if any(info.get("valid_life_time", routes.FOREVER) != routes.FOREVER for info in moved):
        warnings.append(
            f"an address of {wanted.uplink} is leased or announced: who renews it must do so on"
            f" {wanted.bridge}, or it ends when its time is up (systemd-networkd, NetworkManager,"
            " dhclient)"
        )
    ways = movable_routes(state.routes, wanted.uplink)
    steps = [
        grammar.bridge(wanted.bridge, str(uplink.get("address")), mtu=int(uplink.get("mtu", 1500))),
        *_taps(wanted),
        grammar.up(wanted.bridge),
        *(grammar.route_off(family(route), route_words(route)) for route in reversed(ways)),
        *(
            grammar.address_off(address_words(info, wanted.uplink, label=True), _local(info))
            for info in reversed(moved)
        ),
        grammar.port(wanted.uplink, wanted.bridge),
        *([] if "UP" in uplink.get("flags", ()) else [grammar.up(wanted.uplink)]),
        *(
            grammar.address_on(address_words(info, wanted.bridge, label=False), _local(info))
            for info in moved
        ),
        *(
            grammar.route_on(family(route), route_words(route, wanted.uplink, wanted.bridge))
            for route in ways
        ),
    ]
    return Plan(
        mode="bridged",
        bridge=wanted.bridge,
        taps=taps(wanted),
        uplink=wanted.uplink,
        steps=tuple(steps),
        warnings=tuple(warnings),
    )


def networks(state: State) -> list[tuple[str, ipaddress.IPv4Network]]:
    """Return the IPv4 networks that the host's links are in, with the link's name."""
    return [
        (entry["ifname"], ipaddress.IPv4Interface(f"{info['local']}/{info['prefixlen']}").network)
        for entry in state.addresses
        for info in entry.get("addr_info", ())
        if info.get("family") == "inet" and "local" in info and entry.get("ifname") != "lo"
    ]


def taps(wanted: Wanted) -> tuple[str, ...]:
    """Return the names of all taps."""
    return tuple(tap(wanted.bridge, number) for number in range(wanted.guests))


def _taps(wanted: Wanted) -> list[Step]:
    return grammar.taps(wanted.bridge, wanted.guests, str(wanted.owner), wanted.mac[6:])


def _local(info: Mapping[str, object]) -> str:
    return f"{info['local']}/{info['prefixlen']}"


def _branch(state: State, wanted: Wanted, addresses: Sequence[str]) -> list[str]:
    """Refuse to cut the branch we sit on.

    The only default route, or the address of the SSH session.
    """
    why = []
    defaults = state.defaults()
    if defaults and all(routes.uses(route, wanted.uplink) for route in defaults):
        why.append(f"{wanted.uplink} carries the only default route")
    if wanted.ssh and wanted.ssh in addresses:
        why.append(f"your SSH session comes in by {wanted.uplink} ({wanted.ssh})")
    if why and not wanted.consent:
        raise PiggyError(
            f"{' and '.join(why)}: if moving it to {wanted.bridge} fails, this host may be cut off",
            "doit net_up --yes does it all the same (should a step fail, everything is put back);"
            " --dry-run shows the steps; net=nat leaves the card alone",
        )
    return [f"{reason}; you said yes" for reason in why]


def _free(state: State, wanted: Wanted) -> None:
    check_name(wanted.bridge, wanted.guests)
    if state.link(wanted.bridge):
        what = state.kind(wanted.bridge) or "network card"
        raise PiggyError(
            f"there is a {what} called '{wanted.bridge}' already, and it is not ours",
            "choose another name: bridge=piggy1"
            + (
                f"; net=bridged bridge={wanted.bridge} puts the guests on it"
                if what == "bridge"
                else ""
            ),
        )
    _taps_free(state, wanted)


def _taps_free(state: State, wanted: Wanted) -> None:
    if "missing" in state.tun:
        raise PiggyError(
            f"{state.tun}, and taps come from it",
            "modprobe tun; a container must be given the device",
        )
    taken = [name for name in taps(wanted) if state.link(name)]
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
