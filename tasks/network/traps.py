"""Common causes of lost packets, each with its remedy: pure functions of a State."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import msgspec

from tasks.network.ip_json import dig
from tasks.network.nat import TABLE
from tasks.network.plan import networks
from tasks.network.state import FORWARD, State
from tasks.network.steps import Plan


class Trap(msgspec.Struct, frozen=True):
    """A cause of lost packets, and the commands that remove it."""

    message: str
    remedy: str


def traps(state: State, plan: Plan | None, bridge: str, address: str = "") -> list[Trap]:
    """Return the traps for guests on a bridge.

    Args:
        state: The host's network.
        plan: The plan of ours in force, if any.
        bridge: The bridge.
        address: The bridge's address with its prefix; "" if it has none of ours.
    """
    # A bridge with an address of ours also receives the guests' DHCP and DNS.
    hooks = ("forward", "input") if address else ("forward",)
    return [
        *_tun(state),
        *(trap for hook in hooks for trap in _policy(state, bridge, hook)),
        *_bridge_netfilter(state, bridge),
        *_same_network(state, bridge, address),
        *(_ours(state, plan) if plan else ()),
    ]


def _tun(state: State) -> Iterator[Trap]:
    if "missing" in state.tun:
        yield Trap(
            state.tun,
            "modprobe tun; in a container the device must be handed in (--device /dev/net/tun)",
        )
    elif state.tun:
        yield Trap(
            state.tun,
            "udev makes it open to all (mode 0666), since a tap has an owner of its own: "
            "chmod 0666 /dev/net/tun",
        )


def _policy(state: State, bridge: str, hook: str) -> Iterator[Trap]:
    """Yield base chains that drop the guests' packets.

    What one base chain drops no other one can save (nft(8), "verdict statement").
    """
    what = (
        "what is forwarded (policy drop), the guests' packets, too"
        if hook == "forward"
        else "what comes in (policy drop), the guests' DHCP and DNS, too"
    )
    old = hook.upper()
    rules = [line.split() for line in state.iptables]
    if ["-P", old, "DROP"] in rules and not any(
        arguments[:4] == ["-A", old, "-i", bridge] and arguments[-1] == "ACCEPT"
        for arguments in rules
    ):
        yield Trap(f"iptables' chain {old} drops {what}", _iptables(old, bridge, hook))
    for chain in _objects(state, "chain"):
        if (
            chain.get("hook") == hook
            and chain.get("policy") == "drop"
            and chain.get("table") != TABLE
            and chain.get("family") in ("ip", "inet")
            and not _lets_pass(state, chain, bridge)
        ):
            where = f"{chain['family']} {chain['table']} {chain['name']}"
            user = any(other.get("name") == "DOCKER-USER" for other in _objects(state, "chain"))
            target = "DOCKER-USER" if user and hook == "forward" else old
            out = f"; nft insert rule {where} oifname {bridge} accept" if hook == "forward" else ""
            yield Trap(
                f"the chain '{where}' drops {what}",
                (
                    _iptables(target, bridge, hook)
                    if (chain["name"], chain["table"]) == (old, "filter")
                    else f"nft insert rule {where} iifname {bridge} accept{out}"
                ),
            )


def _iptables(chain: str, bridge: str, hook: str) -> str:
    out = f"; iptables -I {chain} -o {bridge} -j ACCEPT" if hook == "forward" else ""
    return f"iptables -I {chain} -i {bridge} -j ACCEPT{out}"


def _lets_pass(state: State, chain: dict[str, Any], bridge: str) -> bool:
    """Tell whether a rule of the chain, or of one that it may jump to, accepts the bridge."""
    for rule in _objects(state, "rule"):
        if (
            [rule.get(key) for key in ("family", "table")]
            != [chain[key] for key in ("family", "table")]
            or rule.get("chain") in ("INPUT", "FORWARD", "OUTPUT")
            and rule.get("chain") != chain["name"]
        ):
            continue
        expressions = rule["expr"]
        named = any(
            dig(part, "match", "left", "meta", "key") == "iifname"
            and dig(part, "match", "right") == bridge
            and dig(part, "match", "op") == "=="
            for part in expressions
        )
        if named and any("accept" in part for part in expressions):
            return True
    return False


def _objects(state: State, kind: str) -> Iterator[dict[str, Any]]:
    for entry in state.nft or ():
        if kind in entry:
            yield entry[kind]


def _bridge_netfilter(state: State, bridge: str) -> Iterator[Trap]:
    for path in sorted(state.sysctls):
        if path.endswith("bridge-nf-call-iptables") and state.sysctls[path] == "1":
            yield Trap(
                "br_netfilter hands what one guest sends to another to the rules for forwarding, as"
                " if routed",
                f"sysctl -w net.bridge.{path.rpartition('/')[2]}=0, or a rule for this bridge's"
                f" frames: iptables -I FORWARD -i {bridge} -o {bridge} -j ACCEPT",
            )


def _same_network(state: State, bridge: str, address: str) -> Iterator[Trap]:
    if address:
        network = ipaddress.IPv4Interface(address).network
        for link, other in networks(state):
            if link != bridge and other.overlaps(network):
                kind = "another bridge" if state.kind(link) == "bridge" else "another link"
                yield Trap(
                    f"{kind}, {link}, has {other}: answers to the guests may go there",
                    f"ip address del from {link}, or doit net_down and bridge_address= in another"
                    " network",
                )


def _ours(state: State, plan: Plan) -> Iterator[Trap]:
    if not state.link(plan.bridge):
        yield Trap(f"the bridge {plan.bridge} is gone", "doit net_down net_up")
        return
    for name in plan.taps:
        if state.link(name).get("master") != plan.bridge:
            yield Trap(f"the tap {name} is no port of {plan.bridge} any more", "doit net_up")
    if (
        plan.uplink
        and plan.mode == "bridged"
        and state.link(plan.uplink).get("master") != plan.bridge
    ):
        yield Trap(
            f"{plan.uplink} is no port of {plan.bridge} any more", "doit net_up, or net_down"
        )
    if plan.mode == "nat" and state.sysctls.get(FORWARD) != "1":
        yield Trap(
            "the host forwards nothing (net.ipv4.ip_forward is 0)", "doit net_up sets it again"
        )
    if (
        plan.mode == "nat"
        and state.nft is not None
        and not any(table.get("name") == TABLE for table in _objects(state, "table"))
        and any("nft" in step.do for step in plan.steps)
    ):
        yield Trap(
            f"our nftables table '{TABLE}' is gone: something reloaded the rules",
            "doit net_up makes it again",
        )
    if (
        plan.mode == "bridged"
        and plan.uplink
        and any(
            info.get("family") == "inet" for info in state.address(plan.uplink).get("addr_info", ())
        )
    ):
        yield Trap(
            f"{plan.uplink} has an address again: a DHCP client runs on it",
            f"let it run on {plan.bridge}, or: nmcli device set {plan.uplink} managed no",
        )
