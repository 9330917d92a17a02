"""Reading the network's state, the lines of net_status, and the parameters of a lab."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.network import ip_json, lab, report
from tasks.network import state as netstate
from tasks.network.card import Forward
from tasks.network.plan import Request
from tasks.network.state import State
from tasks.network.steps import Plan
from tasks.system.errors import PiggyError
from tasks.system.process import clean_env


def test_default_routes_the_preferred_first() -> None:
    routes: list[dict[str, Any]] = [
        {"family": "-6", "dst": "default", "dev": "c"},
        {"family": "-4", "dst": "default", "dev": "b", "metric": 100},
        {"family": "-4", "dst": "default", "dev": "a"},
        {"family": "-4", "dst": "default", "dev": "x", "table": "77"},
        {"family": "-4", "dst": "default", "dev": "y", "type": "unreachable"},
        {"family": "-4", "dst": "10.0.0.0/8"},
    ]
    assert [route["dev"] for route in State(routes=routes).defaults()] == ["a", "b", "c"]


def test_nameservers_that_others_can_ask(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("# x\nnameserver 127.0.0.53\noptions edns0\nnameserver ::1\n")
    second.write_text("nameserver 9.9.9.9\nnameserver fe80::1%eth0\n")
    assert netstate.nameservers([first, second]) == ["9.9.9.9", "fe80::1%eth0"]
    assert netstate.nameservers([first, tmp_path / "none"]) == []


def test_what_is_wrong_with_tun(tmp_path: Path) -> None:
    assert "is missing" in netstate.tun_trouble(tmp_path / "tun")
    (tmp_path / "file").touch()
    assert netstate.tun_trouble(tmp_path / "file") == ""
    assert netstate.tun_trouble(tmp_path) != ""


@pytest.mark.skipif(
    not all(shutil.which(name, path=clean_env()["PATH"]) for name in ("ip", "nft")),
    reason="ip or nft is not installed",
)
def test_the_state_of_this_host_can_be_read() -> None:
    state = netstate.observe()
    assert state.link("lo")["link_type"] == "loopback"
    assert state.link("no-such") == {}
    assert "/proc/sys/net/ipv4/ip_forward" in state.sysctls
    assert netstate.holds(
        ("file", "/proc/sys/net/ipv4/ip_forward", state.sysctls["/proc/sys/net/ipv4/ip_forward"])
    )
    assert netstate.holds(("not", "link", "no-such", "02:00:00:00:00:01"))
    assert netstate.holds(("address", "lo", "127.0.0.1/8"))
    assert not netstate.holds(("tun", "lo"))
    assert not netstate.holds(("master", "lo", "br0"))
    assert not netstate.holds(("nft", "ip", "no-such-table"))


def test_a_table_of_nft_is_there_where_nft_lists_it(bin_folder: Path) -> None:
    (bin_folder / "nft").write_text('#!/bin/sh\n[ "$*" = "list table ip piggyback" ]\n')
    (bin_folder / "nft").chmod(0o755)
    assert netstate.holds(("nft", "ip", "piggyback"))
    assert not netstate.holds(("not", "nft", "ip", "piggyback"))
    assert not netstate.holds(("nft", "ip6", "piggyback"))


def test_the_report_of_a_bridge(tmp_path: Path) -> None:
    stats = {"stats64": {"rx": {"bytes": 1234, "dropped": 0}, "tx": {"bytes": 5, "dropped": 2}}}
    state = State(
        links=[
            {"ifname": "piggy0", "flags": ["UP"], "linkinfo": {"info_kind": "bridge"}, **stats},
            {
                "ifname": "piggy0-tap0",
                "master": "piggy0",
                "flags": ["UP", "LOWER_UP"],
                "linkinfo": {"info_kind": "tun"},
            },
            {"ifname": "eth0", "master": "piggy0", "flags": ["UP"]},
        ],
        addresses=[
            {
                "ifname": "piggy0",
                "addr_info": [{"family": "inet", "local": "10.0.0.1", "prefixlen": 24}],
            }
        ],
        nft=[
            {
                "rule": {
                    "table": "piggyback",
                    "chain": "forward",
                    "expr": [{"counter": {"packets": 7, "bytes": 700}}, {"accept": None}],
                }
            },
            {"rule": {"table": "other", "chain": "forward", "expr": []}},
        ],
    )
    assert list(report.of_bridge(state, "piggy0")) == [
        ("piggy0", "10.0.0.1/24, 1,234 B received, 5 B sent (2 dropped)"),
        ("  piggy0-tap0", "tap, a guest is plugged in, 0 B received, 0 B sent"),
        ("  eth0", "card, 0 B received, 0 B sent"),
    ]
    assert list(report.of_rules(state)) == [("rule", "forward accept: 7 packets, 700 B")]
    leases = tmp_path / "leases"
    leases.write_text("1800000000 52:54:00:00:00:01 10.0.0.64 piggyback 01:52\nduid x\n")
    plan = Plan(mode="nat", bridge="piggy0", taps=(), leases=str(leases))
    assert list(report.of_leases(plan)) == [
        ("lease", "10.0.0.64  52:54:00:00:00:01  piggyback  until 08:00 UTC")
    ]
    leases.unlink()
    assert list(report.of_leases(plan)) == []


@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
def test_leases_that_are_no_file_are_none(tmp_path: Path, kind: str) -> None:
    leases = tmp_path / "leases"
    (tmp_path / "other").write_text("1800000000 52:54:00:00:00:01 10.0.0.64 piggyback 01:52\n")
    {
        "fifo": lambda: os.mkfifo(leases),
        "folder": leases.mkdir,
        "link": lambda: leases.symlink_to("other"),
    }[kind]()
    assert list(report.of_leases(Plan(mode="nat", bridge="b", taps=(), leases=str(leases)))) == []


def test_leases_that_a_guest_chose_the_name_of(tmp_path: Path) -> None:
    (tmp_path / "leases").write_bytes(
        b"\xff\n99999999999999999 a b c d\n" + b"9" * 5000 + b" a b c d\n\xc2\xb2 a b c d\n"
        b"1800000000 m a \x1b[2J\x07 x\n1800000000 m a " + b"x" * 9999 + b" x\n"
    )
    (_, odd), (_, long) = report.of_leases(
        Plan(mode="nat", bridge="b", taps=(), leases=str(tmp_path / "leases"))
    )
    assert odd == "a  m  \\x1b[2J\\x07  until 08:00 UTC"
    assert len(long) == 200


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("Usage: ip ...", "link", "prints what is no list"),
        ('{"a": 1}', "link", "Expected `array`"),
        ("[" * 99999, "route", "no list"),
        ('[{"ifname": 7}]', "link", "Expected `str`"),
        (
            '[{"ifname": "a", "addr_info": [{"local": [], "prefixlen": 1}]}]',
            "address",
            "Expected `str`",
        ),
        ('[{"dst": "default", "metric": "x"}]', "route", "Expected `int`"),
    ],
)
def test_an_ip_that_prints_something_else_is_named(text: str, kind: str, said: str) -> None:
    with pytest.raises(PiggyError) as caught:
        ip_json.entries(text, kind, "ip -json x")
    assert caught.value.message.startswith("'ip -json x' prints what is no list of its kind: ")
    assert said in caught.value.message


def test_what_ip_filters_out_is_left_out() -> None:
    assert ip_json.entries("", "link", "ip") == []
    assert ip_json.entries(
        '[{}, {"ifname": "a", "addr_info": [{}, {"family": "inet", "local": "x", "prefixlen": 8}, '
        '{"family": "inet", "local": "10.0.0.1", "prefixlen": 8}]}]',
        "address",
        "ip",
    ) == [{"ifname": "a", "addr_info": [{"family": "inet", "local": "10.0.0.1", "prefixlen": 8}]}]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"nftables": 7}', '{"nftables": [7]}', "[" * 99999]
)
def test_rules_that_cannot_be_read_are_not_seen(text: str) -> None:
    assert ip_json.ruleset(text) is None


def test_the_guests_of_a_lab_have_addresses_and_names_of_their_own() -> None:
    one, two = lab.guests(Request(guests=2), "lab")
    assert (one.tap, one.address) == ("piggy0-tap0", "192.168.135.64")
    assert (two.tap, two.address) == ("piggy0-tap1", "192.168.135.65")
    assert one.mac != two.mac


def test_the_way_out_of_a_lab() -> None:
    assert lab.upstream(["slirp4netns", "pasta"]) == "pasta"
    assert lab.upstream(["nft", "slirp4netns"]) == "slirp4netns"
    assert lab.upstream([]) == ""
    assert "--no-map-gw" in lab.upstream_argv(
        "pasta", 7, root=False
    )  # not to the host's own loopback
    assert {"--runas", "/proc/7/ns/net"} <= set(lab.upstream_argv("pasta", 7, root=True))
    assert "--disable-host-loopback" in lab.upstream_argv("slirp4netns", 7, root=False)


def test_a_lab_listens_where_it_is_free() -> None:
    ((_, first),) = lab.listening([Forward("x", 40000)])
    with first:
        ((_, second),) = lab.listening([Forward("x", 40000)])
        with second:
            assert second.getsockname()[1] > first.getsockname()[1] >= 40000
        with pytest.raises(PiggyError):
            lab.listening([Forward("x", 80, first.getsockname()[1])])
    with pytest.raises(PiggyError):
        lab.listening([Forward("dns", 53, 0, "udp")])
