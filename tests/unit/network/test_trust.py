"""Every plan that net_up makes is accepted, and none that differs from one in a single argument."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tasks.network import plan as netplan
from tasks.network import trust
from tasks.network.nat import REDIRECTS
from tasks.network.plan import Request
from tasks.network.state import FORWARD, State
from tasks.network.steps import KILL, Plan, Step, write
from tasks.system.errors import PiggyError

FOLDER = "/run/piggyback/1"
CONF = "/proc/sys/net/ipv4/conf"
CARD = {
    "ifname": "eth0",
    "link_type": "ether",
    "address": "52:54:00:aa:bb:cc",
    "mtu": 1400,
    "flags": ["UP"],
}
HOST = State(
    links=[CARD],
    sysctls={FORWARD: "0", REDIRECTS: "0", f"{CONF}/eth0.7/forwarding": "1"},
    addresses=[
        {
            "ifname": "eth0",
            "addr_info": [
                {
                    "family": "inet",
                    "local": "10.0.0.2",
                    "prefixlen": 24,
                    "broadcast": "10.0.0.255",
                    "label": "eth0:1",
                    "scope": "global",
                    "valid_life_time": 3600,
                    "preferred_life_time": 1800,
                    "metric": 100,
                },
                {
                    "family": "inet",
                    "local": "10.9.9.1",
                    "address": "10.9.9.2",
                    "prefixlen": 32,
                    "scope": "link",
                },
                {"family": "inet6", "local": "2001:db8::2", "prefixlen": 64, "nodad": True},
            ],
        }
    ],
    routes=[
        {
            "family": "-4",
            "dst": "default",
            "gateway": "10.0.0.1",
            "dev": "eth0",
            "protocol": "static",
            "prefsrc": "10.0.0.2",
            "metric": 100,
            "metrics": [{"mtu": 1400}],
            "flags": ["onlink"],
        },
        {
            "family": "-4",
            "dst": "192.0.2.0/24",
            "via": {"family": "inet6", "host": "2001:db8::1"},
            "dev": "eth0",
            "table": "77",
        },
        {
            "family": "-6",
            "dst": "default",
            "protocol": "ra",
            "pref": "high",
            "nexthops": [
                {"gateway": "2001:db8::1", "dev": "eth0", "weight": 1, "flags": []},
                {"gateway": "2001:db8::9", "dev": "eth0", "weight": 2, "flags": ["onlink"]},
            ],
        },
    ],
)


def plans() -> Iterator[Plan]:
    request = Request(owner=1000, mac="02:00:00:00:00:01", run_dir=FOLDER)
    card = msgspec.structs.replace(request, uplink="eth0", consent=True)
    yield netplan.nat(HOST, request)
    yield netplan.nat(
        State(sysctls={FORWARD: "2"}),
        msgspec.structs.replace(card, uplink="", guests=16, bridge="pig"),
    )
    yield netplan.nat(
        State(links=[CARD], sysctls={FORWARD: "1"}, tools=("iptables", "dnsmasq")), card
    )
    yield netplan.bridged(HOST, card)
    yield netplan.bridged(msgspec.structs.replace(HOST, links=[{**CARD, "flags": []}]), card)
    yield netplan.bridged(
        State(links=[{"ifname": "piggy0", "linkinfo": {"info_kind": "bridge"}}]), request
    )


@pytest.mark.parametrize("number", range(6))
def test_what_net_up_makes_passes_and_nothing_that_differs_in_a_word(number: int) -> None:
    plan = list(plans())[number]
    trust.check(plan, FOLDER)
    data = msgspec.json.decode(msgspec.json.encode(plan))
    for path, word in words(data["steps"], ()):
        for other in (f"{word} x", f"-{word}", f"{word};reboot", "/etc/passwd", "", "\x1b[2J"):
            refused({**data, "steps": changed(data["steps"], path, other)})


def words(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(value, str) and value:
        yield path, value
    elif isinstance(value, (list, dict)):
        for key in range(len(value)) if isinstance(value, list) else value:
            yield from words(value[key], (*path, key))


def changed(value: Any, path: tuple[Any, ...], word: str) -> Any:
    if not path:
        return word
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], word)
    return copy


def refused(data: Any) -> PiggyError:
    with pytest.raises(PiggyError) as caught:
        trust.check(msgspec.convert(data, Plan), FOLDER)
    return caught.value


@pytest.mark.parametrize(
    "step",
    [
        Step(do=("sh", "-c", "id")),
        Step(do=write("/etc/passwd", "x")),
        Step(do=()),
        Step(do=("ip", "netns", "exec", "x", "sh")),
        Step(do=write(f"{CONF}/../../../../../etc/passwd", "1")),
        Step(do=("nft", "-f", "/etc/shadow")),
        Step(do=("write",)),
        Step(do=("ip", "link", "del", "eth0")),
        Step(do=("dnsmasq", "--dhcp-script=/tmp/x")),
        Step(do=(KILL, "/run/x.pid")),
    ],
)
def test_a_step_more_is_refused_wherever_it_stands(step: Step) -> None:
    for plan in plans():
        for at in range(len(plan.steps) + 1):
            steps = (*plan.steps[:at], step, *plan.steps[at:])
            refused(msgspec.to_builtins(msgspec.structs.replace(plan, steps=steps)))


def test_a_step_less_is_refused_in_a_net_of_ones_own() -> None:
    plan = next(plans())
    for at in range(len(plan.steps)):
        if (
            plan.steps[at].do[:2] != write(FORWARD, "1")[:2]
        ):  # a host that forwards already has no such step
            refused(
                msgspec.to_builtins(
                    msgspec.structs.replace(plan, steps=plan.steps[:at] + plan.steps[at + 1 :])
                )
            )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "lab"),
        ("mode", "x"),
        ("bridge", "../x"),
        ("bridge", "piggy1"),
        ("taps", ["piggy0-tap1"]),
        ("taps", []),
        ("taps", [f"piggy0-tap{number}" for number in range(17)]),
        ("address", "127.0.0.1/8"),
        ("address", "10.0.0.1/24"),
        ("address", ""),
        ("leases", "/etc/passwd"),
        ("leases", ""),
        ("uplink", 'x" accept; #'),
    ],
)
def test_a_plan_whose_names_are_not_those_of_its_steps(field: str, value: Any) -> None:
    refused({**msgspec.to_builtins(next(plans())), field: value})


def test_another_folder_is_refused() -> None:
    with pytest.raises(PiggyError, match="step 10 of this plan is none that net_up makes: dnsmasq"):
        trust.check(next(plans()), "/run/piggyback/2")


def test_undoing_writes_only_switches_of_links() -> None:
    plan = next(plans())
    at = next(number for number, step in enumerate(plan.steps) if step.do == write(FORWARD, "1"))
    for words in (
        write("/etc/passwd", "1"),
        write(f"{CONF}/../forwarding", "1"),
        write(FORWARD, "1\n2"),
        ("sh", "-c", "id"),
        write(f"{CONF}/a/b/forwarding", "1"),
        ("write", FORWARD),
        (KILL, FORWARD),
    ):
        step = msgspec.structs.replace(plan.steps[at], undo=(*plan.steps[at].undo, words))
        bad = msgspec.structs.replace(plan, steps=(*plan.steps[:at], step, *plan.steps[at + 1 :]))
        refused(msgspec.to_builtins(bad))


@pytest.mark.parametrize(
    ("words", "good"),
    [
        ("default via 10.0.0.1 dev eth0", True),
        ("unreachable 10.0.0.0/8 metric 5", True),
        ("10.0.0.1", True),
        ("default", True),
        ("default via inet6 fe80::1 dev eth0", True),
        ("default nexthop via 10.0.0.1 dev a weight 1 nexthop dev b weight 2", True),
        ("", False),
        ("default via", False),
        ("default via x", False),
        ("default dev a/b", False),
        ("default -force x", False),
        ("default via fe80::1%eth0", False),
        ("default encap ip", False),
        ("-batch /etc/passwd", False),
        ("throw", False),
        ("default table \x1b", False),
        ("default inet6 fe80::1", False),
    ],
)
def test_routes(words: str, good: bool) -> None:
    assert trust.is_route(tuple(words.split(" ")) if words else ()) == good


@pytest.mark.parametrize(
    ("words", "good"),
    [
        ("10.0.0.2/24 dev eth0", True),
        ("10.0.0.2 peer 10.0.0.3/32 scope link dev eth0", True),
        ("fe80::1/64 nodad dev a", True),
        ("10.0.0.2 dev eth0", False),
        ("10.0.0.2/24 peer 10.0.0.3 dev eth0", False),
        ("dev eth0", False),
        ("", False),
        ("10.0.0.2/24 dev ..", False),
        ("10.0.0.2/24 label a/b dev eth0", False),
        ("10.0.0.2/24 broadcast dev eth0", False),
        ("10.0.0.2/24", False),
        ("eth0/24 dev eth0", False),
        ("10.0.0.2/99 dev eth0", False),
    ],
)
def test_addresses(words: str, good: bool) -> None:
    assert trust.is_address(tuple(words.split(" ")) if words else ()) == good
