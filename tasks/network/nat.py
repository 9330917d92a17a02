"""What turns a bridge into a network with a way out: forwarding, NAT, and DHCP and DNS by dnsmasq.

Pure: plans only.
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

    To write ip_forward also writes the switch of every link, that of links to come, and
    accept_redirects (inet_forward_change in net/ipv4/devinet.c), so they all go back.
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
    """Return our table for nftables.

    Guests go out under the host's address, and come in only with answers.

    uplink: the link they go out by ("": whichever the host's routes say).
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
    """Return the same as rules for iptables: table, chain, and the rule's words.

    Those of FORWARD go in at its top, in reverse, so that they come before a policy or a rule that
    drops.
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

    Foreign tables and rules stay as they are.
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

    The middle half of the network, or what is beside the bridge's own address where that lies in
    it.
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

    No file of the host's configuration is read, nothing of it listens elsewhere. It does not ping
    an address before it gives it out, for which a guest's boot would wait three seconds.

    run_dir: where its pidfile and leases lie.  hosts: addresses by hardware address, given out to
        these alone.
    servers: DNS servers to ask (none: those of /etc/resolv.conf).  user: that it becomes ("": its
        own).
    """
    pidfile, first_last = f"{run_dir}/dnsmasq.pid", leases(address)
    words = ["dnsmasq", "--conf-file=/dev/null"]
    words += [
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
    words += [f"--dhcp-host={mac},{given}" for mac, given in (hosts or {}).items()]
    words += ["--no-resolv", *(f"--server={server}" for server in servers)] if servers else []
    words += [f"--user={user}", f"--group={user}"] if user else []
    return Step(do=tuple(words), undo=((KILL, pidfile),), holds=("process", pidfile))
