"""The steps that give a bridge a way out: forwarding, NAT, and DHCP and DNS by dnsmasq.

These are pure functions.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from tasks.network.state import FORWARD, State
from tasks.network.steps import KILL, Step, write

TABLE = "piggyback"
REDIRECTS = "/proc/sys/net/ipv4/conf/all/accept_redirects"


def forwarding(state: State) -> list[Step]:
    """Return the step that makes the host a router, if it is none.

    A write to ip_forward also sets the switch of every link, that of future links, and
    accept_redirects (inet_forward_change() in net/ipv4/devinet.c). Undoing restores all of them.
    """
    if state.sysctls.get(FORWARD, "0") == "1":
        return []
    others = {
        path: value
        for path, value in state.sysctls.items()
        if path.startswith("/proc/sys/net/ipv4/conf/")
        and (path.endswith("/forwarding") and value != "0" or path == REDIRECTS and value != "1")
    }
    return [
        Step(
            do=write(FORWARD, "1"),
            undo=(
                write(FORWARD, state.sysctls.get(FORWARD, "0")),
                *(write(path, value) for path, value in sorted(others.items())),
            ),
            holds=("file", FORWARD, "1"),
        )
    ]


def nft_rules(bridge: str, network: str, uplink: str) -> str:
    """Return our nftables table: guests go out with the host's address, and only answers come in.

    Args:
        bridge: The bridge.
        network: The guests' network.
        uplink: The link that they go out by; "" for any that the host's routes choose.
    """
    out = f'oifname "{uplink}"' if uplink else f'oifname != "{bridge}"'
    return (
        f"create table ip {TABLE}\n"
        f"add chain ip {TABLE} postrouting {{ type nat hook postrouting priority 100; policy"
        " accept; }\n"
        f"add rule ip {TABLE} postrouting ip saddr {network} ip daddr != {network} {out} counter"
        " masquerade\n"
        f"add chain ip {TABLE} forward {{ type filter hook forward priority 0; policy accept; }}\n"
        f'add rule ip {TABLE} forward iifname "{bridge}" counter accept\n'
        f'add rule ip {TABLE} forward oifname "{bridge}" ct state established,related counter'
        " accept\n"
        f'add rule ip {TABLE} forward oifname "{bridge}" counter drop\n'
    )


def iptables_rules(bridge: str, network: str, uplink: str) -> list[tuple[str, ...]]:
    """Return the rules of `nft_rules` for iptables, as (table, chain, arguments...).

    Those of FORWARD are inserted at its top, in reverse order, so that they precede a rule or
    policy that drops.
    """
    mark = ("-m", "comment", "--comment", TABLE)
    out = ("-o", uplink) if uplink else ("!", "-o", bridge)
    return [
        ("nat", "POSTROUTING", "-s", network, "!", "-d", network, *out, *mark, "-j", "MASQUERADE"),
        ("filter", "FORWARD", "-o", bridge, *mark, "-j", "DROP"),
        (
            "filter",
            "FORWARD",
            "-o",
            bridge,
            "-m",
            "conntrack",
            "--ctstate",
            "ESTABLISHED,RELATED",
            *mark,
            "-j",
            "ACCEPT",
        ),
        ("filter", "FORWARD", "-i", bridge, *mark, "-j", "ACCEPT"),
    ]


def translation(state: State, bridge: str, network: str, uplink: str) -> list[Step]:
    """Return the steps for NAT, by nftables or else by iptables.

    Other programs' tables and rules stay as they are.
    """
    if "nft" in state.tools:
        return [
            Step(
                do=("nft", "-f", "-"),
                stdin=nft_rules(bridge, network, uplink),
                undo=(("nft", "delete", "table", "ip", TABLE),),
                holds=("nft", "ip", TABLE),
            )
        ]
    steps = []
    for table, chain, *rule in iptables_rules(bridge, network, uplink):
        base = ("iptables", "-w", "-t", table)
        steps.append(
            Step(
                do=(*base, "-I", chain, *rule),
                undo=((*base, "-D", chain, *rule),),
                holds=("iptables", *base, "-C", chain, *rule),
            )
        )
    return steps


def leases(address: ipaddress.IPv4Interface) -> tuple[str, str]:
    """Return the first and the last address that DHCP gives out.

    They span the middle half of the network; if the bridge's own address is in there, the longer
    part beside it.
    """
    network = address.network
    first, last = int(network.network_address) + 1, int(network.broadcast_address) - 1
    low, high = first + (last - first) // 4, last - (last - first) // 4
    if low <= int(address.ip) <= high:
        low, high = (
            (int(address.ip) + 1, last)
            if last - int(address.ip) >= int(address.ip) - first
            else (first, int(address.ip) - 1)
        )
    return str(ipaddress.IPv4Address(low)), str(ipaddress.IPv4Address(high))


def dnsmasq(
    bridge: str,
    address: ipaddress.IPv4Interface,
    run_dir: str,
    *,
    hosts: Mapping[str, str] | None = None,
    servers: Sequence[str] = (),
    user: str = "",
) -> Step:
    """Return the step that starts dnsmasq for a bridge.

    It reads no file of the host's configuration, and listens on the bridge only. It does not ping
    an address before it gives it out, as that would delay a guest's boot by three seconds.

    Args:
        bridge: The bridge.
        address: The bridge's address.
        run_dir: The folder of its pidfile and leases.
        hosts: Addresses by hardware address, each given to that card only.
        servers: DNS servers to ask; none for those of /etc/resolv.conf.
        user: The user that it changes to; "" for its default.
    """
    pidfile, first_last = f"{run_dir}/dnsmasq.pid", leases(address)
    argv = ["dnsmasq", "--conf-file=/dev/null"]
    argv += [
        f"--pid-file={pidfile}",
        f"--dhcp-leasefile={run_dir}/leases",
        f"--interface={bridge}",
        "--except-interface=lo",
        "--bind-interfaces",
        "--dhcp-authoritative",
        "--no-ping",
        f"--dhcp-range={first_last[0]},{first_last[1]},{address.netmask},12h",
        "--domain=guests",
        "--expand-hosts",
    ]
    argv += [f"--dhcp-host={mac},{given}" for mac, given in (hosts or {}).items()]
    argv += ["--no-resolv", *(f"--server={server}" for server in servers)] if servers else []
    argv += [f"--user={user}", f"--group={user}"] if user else []
    return Step(do=tuple(argv), undo=((KILL, pidfile),), holds=("process", pidfile))
