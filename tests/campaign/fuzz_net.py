"""What root acts by: records and plans of net_up; and what other programs say of the network: ip,
nft, dnsmasq's leases."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import re
from pathlib import Path
from typing import Any

import msgspec
from fuzz import Target, mutated

from tasks.guest import kvm
from tasks.network import apply, ip_json, report, traps, trust
from tasks.network import plan as netplan
from tasks.network import record as netrecord
from tasks.network.plan import Request
from tasks.network.record import Record
from tasks.network.state import FORWARD, State
from tasks.network.steps import Plan
from tasks.system.errors import PiggyError
from tasks.system.terminal import printable

RUN = "/RUN"  # where the folder of the record belongs
LINKS = [
    {"ifname": "lo", "link_type": "loopback", "flags": ["UP"], "mtu": 65536},
    {
        "ifname": "eth0",
        "link_type": "ether",
        "address": "52:54:00:aa:bb:cc",
        "mtu": 1500,
        "flags": ["UP"],
        "stats64": {"rx": {"bytes": 12, "dropped": 0}, "tx": {"bytes": 3}},
    },
    {
        "ifname": "br9",
        "link_type": "ether",
        "linkinfo": {"info_kind": "bridge"},
        "address": "52:54:00:00:00:09",
    },
    {"ifname": "tap9", "master": "br9", "linkinfo": {"info_kind": "tun"}, "flags": ["LOWER_UP"]},
]
ADDRESSES = [
    {
        "ifname": "eth0",
        "addr_info": [
            {
                "family": "inet",
                "local": "10.0.0.2",
                "prefixlen": 24,
                "broadcast": "10.0.0.255",
                "scope": "global",
                "label": "eth0",
                "valid_life_time": 3600,
                "preferred_life_time": 1800,
            },
            {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
        ],
    },
    {},
]
ROUTES = [
    {
        "dst": "default",
        "gateway": "10.0.0.1",
        "dev": "eth0",
        "protocol": "static",
        "metric": 100,
        "flags": [],
    },
    {
        "dst": "10.0.0.0/24",
        "dev": "eth0",
        "protocol": "kernel",
        "scope": "link",
        "prefsrc": "10.0.0.2",
    },
    {"type": "unreachable", "dst": "192.0.2.0/24", "metrics": [{"mtu": 1400}], "table": "77"},
    {
        "dst": "198.51.100.0/24",
        "nexthops": [{"gateway": "10.0.0.9", "dev": "eth0", "weight": 1, "flags": ["onlink"]}],
    },
]
RULES = {
    "nftables": [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "ip", "name": "piggyback", "handle": 1}},
        {
            "chain": {
                "family": "ip",
                "table": "filter",
                "name": "FORWARD",
                "hook": "forward",
                "policy": "drop",
            }
        },
        {
            "rule": {
                "family": "ip",
                "table": "filter",
                "chain": "FORWARD",
                "expr": [
                    {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "br9"}},
                    {"accept": None},
                ],
            }
        },
        {
            "rule": {
                "family": "ip",
                "table": "piggyback",
                "chain": "forward",
                "expr": [{"counter": {"packets": 7, "bytes": 700}}, {"accept": None}],
            }
        },
    ]
}
LEASES = b"""1800000000 52:54:00:00:00:01 10.0.0.64 piggyback 01:52
1800000000 52:54:00:00:00:02 10.0.0.65 * *
duid 00:01
"""
ODD: list[Any] = [
    "",
    "-x",
    "a b",
    "/etc/passwd",
    "../..",
    "\x1b[2J",
    "x" * 5000,
    "eth0;reboot",
    "\n",
    "\0",
    "127.0.0.1/8",
    "::1",
    "sh",
    "kill",
    "write",
    "ip",
    "10.0.0.1",
    "0",
    0,
    -1,
    2**70,
    1.5,
    True,
    None,
    [],
    {},
    ["sh", "-c", "id"],
    [[[]]],
    {"a": []},
]
TOKENS = [
    b'"',
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b"null",
    b"[" * 5000,
    b'"/etc/passwd"',
    b'"sh","-c","id"',
    b"\\u0000",
    b"\\ud800",
]


def state() -> State:
    """The host of the samples."""
    return State(
        links=LINKS,
        addresses=ADDRESSES,
        routes=[{**route, "family": "-4"} for route in ROUTES],
        sysctls={FORWARD: "0", "/proc/sys/net/ipv4/conf/eth0/forwarding": "1"},
    )


def plan(rng: random.Random) -> Plan:
    """One of the plans that net_up makes."""
    request = Request(run_dir=RUN, guests=rng.randint(1, 3), owner=1000, mac="02:00:00:00:00:01")
    if rng.random() < 0.5:
        return netplan.nat(state(), request)
    return netplan.bridged(state(), msgspec.structs.replace(request, uplink="eth0", consent=True))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the place of everything in a tree of lists and tables."""
    keys = (
        range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
    )
    return [path, *(place for key in keys for place in places(value[key], (*path, key)))]


def tampered(rng: random.Random, tree: Any) -> bytes:
    """Return a tree as JSON: as it is, with a few values exchanged, doubled or gone, or with bytes
    changed."""
    tree = json.loads(json.dumps(tree))
    kind = rng.randrange(8)
    for _ in range(0 if kind in (0, 7) else rng.randint(1, 3)):
        *front, last = rng.choice(places(tree)[1:] or [(None,)])
        if last is None:
            break
        parent = tree
        for key in front:
            parent = parent[key]
        if kind == 1 and isinstance(parent, list):
            parent.insert(last, copy.deepcopy(rng.choice(ODD)))
        elif kind == 2:
            del parent[last]
        elif kind == 3 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        else:
            parent[last] = copy.deepcopy(rng.choice(ODD))
    data = json.dumps(tree, indent=rng.choice([None, 1])).encode()
    return mutated(rng, data, TOKENS, 3) if kind == 7 else data


def make_plan(rng: random.Random) -> bytes:
    """A plan, perhaps tampered with."""
    return tampered(rng, msgspec.to_builtins(plan(rng)))


def make_record(rng: random.Random) -> bytes:
    """A record, perhaps tampered with."""
    made = plan(rng)
    begun = rng.randint(0, len(made.steps))
    return tampered(
        rng, msgspec.to_builtins(Record(boot=netrecord.boot_id(), plan=made, begun=begun))
    )


def harmless(found: Plan, folder: Path) -> None:
    """See, by rules that have nothing of `nettrust`, that nothing in a plan does more than change
    the network."""
    for step in found.steps:
        for words in (step.do, *step.undo):
            assert words[0] in ("ip", "nft", "iptables", "dnsmasq", "write", "kill"), words
            assert printable("".join(words)) == "".join(words)
            assert words[:3] not in (("ip", "netns", "exec"), ("ip", "vrf", "exec"))
            assert not any(
                word.startswith(("-b", "-f", "--dhcp-script", "--conf-dir"))
                for word in words
                if words[0] != "nft"
            )
            for word in words:
                name = word.partition("=")[2] if words[0] == "dnsmasq" else word
                assert (
                    not name.startswith("/")
                    or name == "/dev/null"
                    or "/.." not in name
                    and name.startswith(("/proc/sys/net/ipv4/", f"{folder}/"))
                ), words
        assert not step.stdin or step.do == ("nft", "-f", "-") and "include" not in step.stdin


def check_plan(data: bytes, folder: Path) -> None:
    """Hand it to the program that root runs, as far as it reads it."""
    harmless(
        apply.received(io.BytesIO(data.replace(RUN.encode(), str(folder).encode())), folder), folder
    )


def check_record(data: bytes, folder: Path) -> None:
    """Read it from where it lies."""
    place = folder / "run" / "1"
    place.mkdir(parents=True, mode=0o755)
    descriptor = os.open(place / "record.json", os.O_WRONLY | os.O_CREAT, 0o644)
    with open(descriptor, "wb") as stream:
        stream.write(data.replace(RUN.encode(), str(place).encode()))
    record = netrecord.read(place)
    assert record
    assert record.begun <= len(record.plan.steps)
    harmless(record.plan, place)


def make_ip(rng: random.Random) -> tuple[bytes, bytes, bytes]:
    """What the three commands print."""
    return tampered(rng, LINKS), tampered(rng, ADDRESSES), tampered(rng, ROUTES)


def check_ip(data: tuple[bytes, bytes, bytes], folder: Path) -> None:
    """Read all three, plan with them, look for traps, and report."""
    links, addresses, routes = (
        ip_json.entries(text.decode(errors="replace"), kind, "ip")
        for text, kind in zip(data, ("link", "address", "route"), strict=True)
    )
    host = State(
        links=links, addresses=addresses, routes=[{**route, "family": "-4"} for route in routes]
    )
    for bridge in ("br9", "piggy0"):
        list(report.of_bridge(host, bridge))
        traps.traps(host, None, bridge, "10.0.0.1/24")
    request = Request(run_dir=RUN, uplink="eth0", consent=True)
    for made in (netplan.nat(host, request), netplan.bridged(host, request)):
        trust.check(made, RUN)
        harmless(made, Path(RUN))
        traps.traps(host, made, made.bridge, made.address)


def make_nft(rng: random.Random) -> bytes:
    """What `nft -json list ruleset` prints."""
    return tampered(rng, RULES)


def check_nft(data: bytes, folder: Path) -> None:
    """Read it, look for traps, and report."""
    found = ip_json.ruleset(data.decode(errors="replace"))
    if found is None:
        raise PiggyError("that is no list of rules")
    host = State(links=LINKS, nft=found)
    traps.traps(host, None, "br9", "10.0.0.1/24")
    list(report.of_rules(host))


def make_leases(rng: random.Random) -> bytes:
    """A file of leases: guests choose their names."""
    return mutated(
        rng,
        LEASES,
        [b"\x1b[2J", b" ", b"\n", b"9" * 5000, b"\xc2\x9b", b"x" * 3000, b"\xe2\x80\xae", b"\x85"],
    )


def check_leases(data: bytes, folder: Path) -> None:
    """Report them."""
    (folder / "leases").write_bytes(data)
    lines = list(
        report.of_leases(Plan(mode="nat", bridge="b", taps=(), leases=str(folder / "leases")))
    )
    assert all(
        printable(text) == text and len(text) < 300 and re.match("lease$", word)
        for word, text in lines
    )
    if len(lines) != 2:
        raise PiggyError("there is not what there was")


def make_kvm(rng: random.Random) -> bytes:
    """The answers that are remembered of KVM's trials."""
    good, bad = {"works": True, "reason": ""}, {"works": False, "reason": "it hangs"}
    return tampered(rng, {"host / kernel": good, "host / 2": bad})


def check_kvm(data: bytes, folder: Path) -> None:
    """Read them; what is not ours counts as nothing."""
    (folder / "kvm.json").write_bytes(data)
    found = kvm._read(folder / "kvm.json")
    assert all(
        isinstance(one["works"], bool) and printable(one["reason"]) == one["reason"]
        for one in found.values()
    )
    if not found:
        raise PiggyError("nothing is remembered")


TARGETS = [
    Target("net-plan", make_plan, check_plan),
    Target("net-record", make_record, check_record),
    Target("ip-json", make_ip, check_ip),
    Target("nft-json", make_nft, check_nft),
    Target("leases", make_leases, check_leases),
    Target("kvm-answers", make_kvm, check_kvm),
]
