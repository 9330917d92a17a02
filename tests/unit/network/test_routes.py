"""Addresses and routes: from iproute2's JSON to the arguments that make them again."""

from __future__ import annotations

import pytest

from tasks.network import routes as netroute

FOREVER = netroute.FOREVER


@pytest.mark.parametrize(
    ("info", "label", "words"),
    [
        ({"local": "10.0.0.2", "prefixlen": 24, "scope": "global"}, True, "10.0.0.2/24 dev eth0"),
        (
            {
                "local": "10.0.0.2",
                "prefixlen": 24,
                "broadcast": "10.0.0.255",
                "scope": "global",
                "label": "eth0",
                "metric": 50,
                "valid_life_time": FOREVER,
                "preferred_life_time": FOREVER,
            },
            True,
            "10.0.0.2/24 broadcast 10.0.0.255 metric 50 dev eth0",
        ),
        (
            {"local": "10.0.0.2", "prefixlen": 24, "scope": "global", "label": "eth0:1"},
            True,
            "10.0.0.2/24 label eth0:1 dev eth0",
        ),
        (
            {"local": "10.0.0.2", "prefixlen": 24, "scope": "global", "label": "eth0:1"},
            False,
            "10.0.0.2/24 dev eth0",
        ),
        (
            {"local": "10.0.0.1", "address": "10.9.0.1", "prefixlen": 32, "scope": "link"},
            True,
            "10.0.0.1 peer 10.9.0.1/32 scope link dev eth0",
        ),
        (
            {
                "local": "2001:db8::5",
                "prefixlen": 64,
                "scope": "global",
                "mngtmpaddr": True,
                "noprefixroute": True,
                "valid_life_time": 86000,
                "preferred_life_time": 14000,
            },
            True,
            "2001:db8::5/64 valid_lft 86000 preferred_lft 14000 noprefixroute mngtmpaddr dev eth0",
        ),
        (
            {"local": "2001:db8::5", "prefixlen": 64, "nodad": True},
            True,
            "2001:db8::5/64 nodad dev eth0",
        ),
    ],
)
def test_addresses(info: dict, label: bool, words: str) -> None:
    assert " ".join(netroute.address_arguments(info, "eth0", label)) == words


def test_link_local_addresses_stay() -> None:
    entry = {
        "addr_info": [
            {"family": "inet6", "local": "fe80::1", "scope": "link"},
            {"family": "inet", "local": "1.2.3.4"},
            {"family": "inet", "local": "169.254.1.1", "scope": "link"},
            {"family": "inet"},
        ]
    }
    assert [info["local"] for info in netroute.movable_addresses(entry)] == [
        "1.2.3.4",
        "169.254.1.1",
    ]


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (
            {
                "type": "unicast",
                "dst": "default",
                "gateway": "10.0.0.1",
                "dev": "eth0",
                "protocol": "dhcp",
                "scope": "global",
                "prefsrc": "10.0.0.2",
                "metric": 100,
                "flags": [],
            },
            "default via 10.0.0.1 dev piggy0 proto dhcp src 10.0.0.2 metric 100",
        ),
        (
            {
                "dst": "10.1.0.0/16",
                "dev": "eth0",
                "scope": "link",
                "table": "77",
                "flags": ["linkdown"],
            },
            "10.1.0.0/16 dev piggy0 table 77 scope link",
        ),
        (
            {
                "dst": "default",
                "via": {"family": "inet6", "host": "fe80::1"},
                "dev": "eth0",
                "flags": ["onlink"],
            },
            "default via inet6 fe80::1 dev piggy0 onlink",
        ),
        (
            {
                "dst": "10.2.0.0/16",
                "gateway": "10.0.0.1",
                "dev": "eth0",
                "metrics": [{"mtu": 1400, "advmss": 1300}],
            },
            "10.2.0.0/16 via 10.0.0.1 dev piggy0 mtu 1400 advmss 1300",
        ),
        ({"type": "blackhole", "dst": "10.3.0.0/16", "flags": []}, "blackhole 10.3.0.0/16"),
        (
            {
                "dst": "default",
                "flags": [],
                "metric": 1024,
                "pref": "high",
                "gateway": "fe80::1",
                "dev": "eth0",
            },
            "default via fe80::1 dev piggy0 metric 1024 pref high",
        ),
        (
            {
                "dst": "default",
                "flags": [],
                "nexthops": [
                    {"gateway": "10.0.0.1", "dev": "eth0", "weight": 1, "flags": []},
                    {"gateway": "10.5.0.1", "dev": "eth1", "weight": 3, "flags": ["onlink"]},
                ],
            },
            (
                "default nexthop via 10.0.0.1 dev piggy0 weight 1 nexthop via 10.5.0.1 dev eth1"
                " weight 3 onlink"
            ),
        ),
    ],
)
def test_routes(route: dict, words: str) -> None:
    assert " ".join(netroute.route_arguments(route, "eth0", "piggy0")) == words


def test_what_comes_and_goes_by_itself_is_not_moved_and_link_routes_come_first() -> None:
    routes = [
        {"dst": "default", "gateway": "10.0.0.1", "dev": "eth0", "protocol": "static"},
        {"dst": "10.0.0.0/24", "dev": "eth0", "protocol": "kernel"},
        {"dst": "10.0.0.2", "dev": "eth0", "table": "local", "type": "local", "protocol": "kernel"},
        {"dst": "10.7.0.0/24", "dev": "eth1", "protocol": "static"},
        {"dst": "192.0.2.9", "dev": "eth0", "protocol": "boot"},
        {
            "dst": "10.8.0.0/16",
            "protocol": "static",
            "nexthops": [{"dev": "eth1"}, {"dev": "eth0"}],
        },
    ]
    assert [route["dst"] for route in netroute.movable_routes(routes, "eth0")] == [
        "192.0.2.9",
        "default",
        "10.8.0.0/16",
    ]
