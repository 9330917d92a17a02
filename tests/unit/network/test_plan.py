"""Plans: what net_up would do in a given state, and what it refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tasks.network import nat
from tasks.network import plan as netplan
from tasks.network.plan import Request
from tasks.network.state import FORWARD, State
from tasks.network.steps import Plan, shown
from tasks.system.errors import PiggyError

REDIRECTS = "/proc/sys/net/ipv4/conf/all/accept_redirects"


def link(name: str, **more: Any) -> dict[str, Any]:
    return {
        "ifname": name,
        "link_type": "ether",
        "address": "52:54:00:aa:bb:cc",
        "mtu": 1500,
        "flags": ["BROADCAST", "UP"],
        **more,
    }


def state(**more: Any) -> State:
    """A host with one card, an address and a default route."""
    values: dict[str, Any] = {
        "links": [link("lo", link_type="loopback"), link("eth0")],
        "addresses": [
            {
                "ifname": "eth0",
                "addr_info": [
                    {
                        "family": "inet",
                        "local": "10.0.0.2",
                        "prefixlen": 24,
                        "scope": "global",
                        "broadcast": "10.0.0.255",
                    },
                    {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
                ],
            }
        ],
        "routes": [
            {
                "family": "-4",
                "dst": "default",
                "gateway": "10.0.0.1",
                "dev": "eth0",
                "protocol": "static",
            },
            {"family": "-4", "dst": "10.0.0.0/24", "dev": "eth0", "protocol": "kernel"},
        ],
        "sysctls": {FORWARD: "0", REDIRECTS: "1"},
        **more,
    }
    return State(**values)


def commands(plan: Plan) -> list[str]:
    return [shown(step.do) for step in plan.steps]


def refused(call: Any, *args: Any, **more: Any) -> PiggyError:
    with pytest.raises(PiggyError) as caught:
        call(*args, **more)
    return caught.value


def test_nat() -> None:
    plan = netplan.nat(state(), Request(owner=1000, mac="02:00:00:00:00:01"))
    assert commands(plan)[:9] == [
        "ip link add name piggy0 address 02:00:00:00:00:01 type bridge stp_state 0 forward_delay 0",
        "ip address add 192.168.135.251/24 broadcast + dev piggy0",
        "ip tuntap add dev piggy0-tap0 mode tap user 1000",
        "ip link set piggy0-tap0 address fe:00:00:00:00:01",
        "ip link set piggy0-tap0 master piggy0",
        "ip link set piggy0-tap0 up",
        "ip link set piggy0 up",
        f"echo 1 > {FORWARD}",
        "nft -f -",
    ]
    assert commands(plan)[9].startswith(
        "dnsmasq --conf-file=/dev/null --pid-file=/run/piggyback/dnsmasq.pid "
    )
    assert len(plan.steps) == 10
    assert not plan.warnings


def test_every_step_says_how_it_is_undone_and_seen() -> None:
    for plan in (
        netplan.nat(state(), Request(guests=3)),
        netplan.bridged(state(), Request(uplink="eth0", consent=True)),
        netplan.nat(state(tools=("iptables", "dnsmasq")), Request()),
    ):
        assert all(step.holds and (step.undo or "address" in step.do) for step in plan.steps)
        assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def test_several_guests_have_a_tap_each() -> None:
    plan = netplan.nat(state(), Request(guests=2))
    assert plan.taps == ("piggy0-tap0", "piggy0-tap1")
    assert "ip link set piggy0-tap1 master piggy0" in commands(plan)


def test_a_router_stays_one() -> None:
    assert nat.forwarding(state(sysctls={FORWARD: "1"})) == []


def test_ip_forward_takes_its_side_effects_back() -> None:
    conf = "/proc/sys/net/ipv4/conf"
    (step,) = nat.forwarding(
        state(
            sysctls={
                FORWARD: "0",
                REDIRECTS: "0",
                f"{conf}/eth1/forwarding": "1",
                f"{conf}/eth0/forwarding": "0",
                f"{conf}/default/forwarding": "0",
            }
        )
    )
    assert [shown(words) for words in step.undo] == [
        f"echo 0 > {FORWARD}",
        f"echo 0 > {REDIRECTS}",
        f"echo 1 > {conf}/eth1/forwarding",
    ]


def test_the_rules_name_network_and_way_out() -> None:
    rules = nat.nft_rules("piggy0", "192.168.135.0/24", "")
    assert rules.startswith(
        "create table ip piggyback\n"
    )  # create fails if the table exists: it would be another program's
    assert (
        'ip saddr 192.168.135.0/24 ip daddr != 192.168.135.0/24 oifname != "piggy0" counter'
        " masquerade" in rules
    )
    assert 'oifname "ppp0" counter masquerade' in nat.nft_rules(
        "piggy0", "192.168.135.0/24", "ppp0"
    )


def test_iptables_only_where_nft_is_missing() -> None:
    plan = netplan.nat(state(tools=("iptables", "dnsmasq")), Request())
    made = [step for step in plan.steps if step.do[0] == "iptables"]
    assert len(made) == 4
    for step in made:
        assert step.undo == (tuple("-D" if word == "-I" else word for word in step.do),)
        assert step.holds == ("iptables", *("-C" if word == "-I" else word for word in step.do))
    assert "neither" in refused(netplan.nat, state(tools=("dnsmasq",)), Request()).message
    assert "dnsmasq" in refused(netplan.nat, state(tools=("nft",)), Request()).message


@pytest.mark.parametrize(
    ("address", "first", "last"),
    [
        ("192.168.135.251/24", "192.168.135.64", "192.168.135.191"),
        ("192.168.135.1/24", "192.168.135.64", "192.168.135.191"),
        ("192.168.135.100/24", "192.168.135.101", "192.168.135.254"),
        ("192.168.135.150/24", "192.168.135.1", "192.168.135.149"),
        ("10.9.8.1/29", "10.9.8.2", "10.9.8.5"),
        ("10.0.0.1/8", "10.64.0.0", "10.191.255.255"),
    ],
)
def test_leases_never_hold_the_bridges_own_address(address: str, first: str, last: str) -> None:
    assert nat.leases(netplan.interface(address)) == (first, last)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("192.168.135.251", "prefix"),
        ("192.168.135.0/24", "network as a whole"),
        ("192.168.135.255/24", "as a whole"),
        ("10.0.0.1/30", "prefix"),
        ("10.0.0.1/7", "prefix"),
        ("127.0.0.1/8", "127.0.0.0/8 is for each host's loopback"),
        ("224.0.0.1/24", "224.0.0.0/4 is for multicast"),
        ("0.0.0.0/8", "0.0.0.0/8 is for"),
        ("0.1.2.3/24", "0.0.0.0/8 is for hosts that do not know"),
        ("255.255.255.255/24", "240.0.0.0/4 is for later use and broadcast"),
        ("250.0.0.1/24", "240.0.0.0/4 is for later use"),
        ("169.254.1.1/24", "169.254.0.0/16 is for link-local"),
        ("169.0.0.1/8", "169.254.0.0/16 is for link-local"),
        ("10.0.0.1/31", "prefix"),
        ("10.0.0.1/32", "prefix"),
        ("fe80::1/64", "no IPv4"),
        ("eth0", "no IPv4"),
        ("1.2.3.4/33", "no IPv4"),
    ],
)
def test_addresses_that_no_bridge_can_have(address: str, why: str) -> None:
    assert why in refused(netplan.interface, address).message


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a b", "br/0", "-x", "br:1", "averylongname", "piggy0;reboot"]
)
def test_names_that_no_bridge_can_have(name: str) -> None:
    refused(netplan.check_name, name, 1)


def test_a_long_name_is_one_that_its_last_tap_is_too_long_for() -> None:
    netplan.check_name("piggyback0", 10)
    assert "piggyback0-tap10" in refused(netplan.check_name, "piggyback0", 11).message


def test_clashes() -> None:
    bridge = link("piggy0", linkinfo={"info_kind": "bridge"})
    found = refused(netplan.nat, state(links=[link("eth0"), bridge]), Request())
    assert "a bridge called 'piggy0'" in found.message
    assert "net=bridged bridge=piggy0" in found.hint
    assert (
        "network card called 'eth0'"
        in refused(netplan.nat, state(), Request(bridge="eth0")).message
    )
    assert (
        "/dev/net/tun is missing"
        in refused(netplan.nat, state(tun="/dev/net/tun is missing"), Request()).message
    )
    assert (
        "piggy0-tap0" in refused(netplan.nat, state(links=[link("piggy0-tap0")]), Request()).message
    )
    taken = refused(netplan.nat, state(), Request(address="10.0.9.1/16"))
    assert "10.0.0.0/16 is taken: eth0 has 10.0.0.0/24" in taken.message
    assert "Did you mean 'eth0'?" in refused(netplan.nat, state(), Request(uplink="eth9")).message


def test_without_a_default_route_the_user_is_told() -> None:
    assert "no IPv4 default route" in netplan.nat(state(routes=[]), Request()).warnings[0]


def test_bridged_moves_what_is_the_cards() -> None:
    plan = netplan.bridged(state(), Request(uplink="eth0", consent=True))
    assert commands(plan) == [
        (
            "ip link add name piggy0 address 52:54:00:aa:bb:cc mtu 1500 type bridge stp_state 0"
            " forward_delay 0"
        ),
        "ip tuntap add dev piggy0-tap0 mode tap user 0",
        "ip link set piggy0-tap0 address fe:00:00:70:69:67",
        "ip link set piggy0-tap0 master piggy0",
        "ip link set piggy0-tap0 up",
        "ip link set piggy0 up",
        "ip -4 route del default via 10.0.0.1 dev eth0 proto static",
        "ip address del 10.0.0.2/24 dev eth0",
        "ip link set eth0 master piggy0",
        "ip address add 10.0.0.2/24 broadcast 10.0.0.255 dev piggy0",
        "ip -4 route add default via 10.0.0.1 dev piggy0 proto static",
    ]
    back = [shown(words) for step in reversed(plan.steps) for words in step.undo]
    assert back[:6] == [
        "ip -4 route del default via 10.0.0.1 dev piggy0 proto static",
        "ip address del 10.0.0.2/24 dev piggy0",
        "ip link set eth0 nomaster",
        "ip address add 10.0.0.2/24 broadcast 10.0.0.255 dev eth0",
        "ip -4 route add default via 10.0.0.1 dev eth0 proto static",
        "ip link set piggy0 down",
    ]


def test_bridged_does_not_saw_at_its_branch() -> None:
    found = refused(netplan.bridged, state(), Request(uplink="eth0", ssh="10.0.0.2"))
    assert (
        "eth0 carries the only default route and your SSH session comes in by eth0 (10.0.0.2)"
        in found.message
    )
    assert "--yes" in found.hint
    other = {
        "family": "-4",
        "dst": "default",
        "gateway": "10.5.0.1",
        "dev": "eth1",
        "protocol": "static",
    }
    two = state(routes=[*state().routes, other], links=[*state().links, link("eth1")])
    assert netplan.bridged(two, Request(uplink="eth0")).steps
    assert "SSH" in refused(netplan.bridged, two, Request(uplink="eth0", ssh="10.0.0.2")).message
    assert netplan.bridged(two, Request(uplink="eth0", ssh="10.5.0.2")).warnings == ()


def test_what_can_be_no_port() -> None:
    yes = {"uplink": "eth0", "consent": True}
    assert "uplink=eth0" in refused(netplan.bridged, state(), Request()).hint
    assert "wireless" in refused(netplan.bridged, state(), Request(**yes), wireless=True).message
    assert (
        "port of br7"
        in refused(
            netplan.bridged, state(links=[link("eth0", master="br7")]), Request(**yes)
        ).message
    )
    assert "no Ethernet" in refused(netplan.bridged, state(), Request(uplink="lo")).message
    bridge = state(links=[link("eth0", linkinfo={"info_kind": "bridge"})])
    assert "bridge=eth0" in refused(netplan.bridged, bridge, Request(**yes)).hint


def test_a_bridge_that_is_there_only_gets_taps() -> None:
    there = state(links=[link("eth0", master="br0"), link("br0", linkinfo={"info_kind": "bridge"})])
    for uplink in ("", "eth0"):
        plan = netplan.bridged(there, Request(bridge="br0", uplink=uplink))
        assert commands(plan) == [
            "ip tuntap add dev br0-tap0 mode tap user 0",
            "ip link set br0-tap0 address fe:00:00:70:69:67",
            "ip link set br0-tap0 master br0",
            "ip link set br0-tap0 up",
        ]


def test_leased_addresses_come_with_a_warning() -> None:
    leased = state(
        addresses=[
            {
                "ifname": "eth0",
                "addr_info": [
                    {
                        "family": "inet",
                        "local": "10.0.0.2",
                        "prefixlen": 24,
                        "valid_life_time": 3600,
                        "preferred_life_time": 3600,
                    }
                ],
            }
        ]
    )
    assert "leased" in netplan.bridged(leased, Request(uplink="eth0", consent=True)).warnings[-1]
