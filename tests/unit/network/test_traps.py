"""Each trap is found in a state that has it, and none in a state that has none."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.network import traps
from tasks.network.state import FORWARD, State
from tasks.network.steps import Plan, Step

BRIDGE = {"ifname": "piggy0", "linkinfo": {"info_kind": "bridge"}, "flags": ["UP"]}
TAP = {
    "ifname": "piggy0-tap0",
    "master": "piggy0",
    "linkinfo": {"info_kind": "tun"},
    "flags": ["UP"],
}
TABLE = {"table": {"family": "ip", "name": "piggyback"}}
PLAN = Plan(
    mode="nat",
    bridge="piggy0",
    taps=("piggy0-tap0",),
    address="192.168.135.251/24",
    steps=(Step(do=("nft", "-f", "-")),),
)
CALL = "/proc/sys/net/bridge/bridge-nf-call-iptables"


def found(plan: Plan | None = PLAN, **more: Any) -> list[traps.Trap]:
    values: dict[str, Any] = {
        "links": [BRIDGE, TAP],
        "sysctls": {FORWARD: "1", CALL: "0"},
        "nft": [TABLE],
        **more,
    }
    return traps.traps(State(**values), plan, "piggy0", "192.168.135.251/24")


def chain(**more: Any) -> dict[str, Any]:
    return {
        "chain": {
            "family": "ip",
            "table": "filter",
            "name": "FORWARD",
            "hook": "forward",
            "policy": "drop",
            **more,
        }
    }


def rule(right: str, verdict: str) -> dict[str, Any]:
    return {
        "rule": {
            "family": "ip",
            "table": "filter",
            "chain": "FORWARD",
            "expr": [
                {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": right}},
                {"counter": {}},
                {verdict: None},
            ],
        }
    }


def test_none() -> None:
    assert found() == []
    assert found(plan=None) == []


@pytest.mark.parametrize(
    ("more", "message", "remedy"),
    [
        ({"tun": "/dev/net/tun is missing"}, "/dev/net/tun is missing", "modprobe tun"),
        ({"tun": "/dev/net/tun can't be opened by you"}, "can't be opened", "chmod 0666"),
        (
            {"nft": [TABLE, chain()]},
            "'ip filter FORWARD' drops",
            "iptables -I FORWARD -i piggy0 -j ACCEPT",
        ),
        (
            {
                "nft": [
                    TABLE,
                    chain(),
                    {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}},
                ]
            },
            "drops",
            "iptables -I DOCKER-USER -i piggy0 -j ACCEPT",
        ),
        (
            {"nft": [TABLE, chain(family="inet", table="firewalld", name="filter_FORWARD")]},
            "'inet firewalld filter_FORWARD'",
            "nft insert rule inet firewalld filter_FORWARD iifname piggy0 accept",
        ),
        ({"nft": [TABLE, chain(), rule("br9", "accept")]}, "drops", "iptables"),
        ({"nft": [TABLE, chain(), rule("piggy0", "drop")]}, "drops", "iptables"),
        (
            {"nft": [TABLE, chain(name="INPUT", hook="input")]},
            "'ip filter INPUT' drops what comes in",
            "iptables -I INPUT -i piggy0 -j ACCEPT",
        ),
        (
            {"nft": [TABLE, chain(name="INPUT", hook="input"), rule("piggy0", "accept")]},
            "INPUT' drops",
            "INPUT",
        ),
        (
            {
                "nft": None,
                "iptables": ("-P INPUT ACCEPT", "-P FORWARD DROP", "-A FORWARD -i br9 -j ACCEPT"),
            },
            "iptables' chain FORWARD drops",
            "iptables -I FORWARD -i piggy0 -j ACCEPT; iptables -I FORWARD -o piggy0 -j ACCEPT",
        ),
        (
            {"sysctls": {FORWARD: "1", CALL: "1"}},
            "br_netfilter",
            "net.bridge.bridge-nf-call-iptables=0",
        ),
        ({"sysctls": {FORWARD: "0"}}, "the host forwards nothing", "doit net_up"),
        ({"nft": []}, "table 'piggyback' is gone", "doit net_up"),
        (
            {"links": [BRIDGE, {**TAP, "master": "br9"}]},
            "piggy0-tap0 is no port of piggy0",
            "doit net_up",
        ),
        ({"links": []}, "the bridge piggy0 is gone", "doit net_down net_up"),
        (
            {
                "links": [BRIDGE, TAP, {"ifname": "virbr0", "linkinfo": {"info_kind": "bridge"}}],
                "addresses": [
                    {
                        "ifname": "virbr0",
                        "addr_info": [
                            {"family": "inet", "local": "192.168.135.1", "prefixlen": 24}
                        ],
                    }
                ],
            },
            "another bridge, virbr0, has 192.168.135.0/24",
            "bridge_address=",
        ),
    ],
)
def test_each(more: dict[str, Any], message: str, remedy: str) -> None:
    (trap,) = found(**more)
    assert message in trap.message
    assert remedy in trap.remedy


def test_a_rule_that_lets_the_bridge_pass_is_no_trap() -> None:
    assert found(nft=[TABLE, chain(), rule("piggy0", "accept")]) == []
    assert (
        found(
            iptables=(
                "-P FORWARD DROP",
                "-A FORWARD -i piggy0 -m comment --comment piggyback -j ACCEPT",
            )
        )
        == []
    )


def test_chains_that_do_not_concern_forwarding() -> None:
    others = (
        chain(policy="accept"),
        chain(hook="output"),
        chain(family="ip6"),
        chain(table="piggyback"),
    )
    assert found(nft=[TABLE, *others]) == []


def test_a_dhcp_client_on_a_port() -> None:
    plan = Plan(mode="bridged", bridge="piggy0", taps=(), uplink="eth0")
    eth0 = {"ifname": "eth0", "master": "piggy0", "flags": ["UP"]}
    (trap,) = found(
        plan=plan,
        links=[BRIDGE, eth0],
        addresses=[
            {
                "ifname": "eth0",
                "addr_info": [{"family": "inet", "local": "10.0.0.2", "prefixlen": 24}],
            }
        ],
    )
    assert "DHCP client" in trap.message
