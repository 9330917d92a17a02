"""Is this a plan of ours?

What root does or undoes by a file or by standard input is held against
what net_up makes, step by step: the program, each of its words, what undoes it, and how its effect
is seen.

Most steps are made anew from the plan's names and compared. Of the routes and addresses that the
host had, of which a plan may hold any, each word must have its form (ip-route(8), ip-address(8)).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence

from tasks.network import grammar, nat
from tasks.network import plan as netplan
from tasks.network.routes import METRICS
from tasks.network.state import FORWARD, State
from tasks.network.steps import Plan, Step, Words, write
from tasks.system.errors import PiggyError
from tasks.system.terminal import printable

MOST_TAPS = 16  # as the setting `guests`
# Names of links: what the kernel takes (dev_valid_name in net/core/dev.c), less what is a mark of
# nft's or a terminal's.
_LINK = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.@+=~,%#][A-Za-z0-9_.@+=~,%#-]{0,14}")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_ADDRESS = re.compile(
    r"[0-9A-Fa-f:.]{2,45}(?:/[0-9]{1,3})?"
)  # a scope ("%eth0") has no place in a plan
_NUMBER = re.compile(r"[0-9]{1,10}")
_TOKEN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_LABEL = re.compile(r"[A-Za-z0-9_.@+=~,%#][A-Za-z0-9_.@+=~,%#:-]{0,14}")
_SWITCH = re.compile(r"/proc/sys/net/ipv4/conf/([^/]+)/forwarding")
_TYPES = ("local", "blackhole", "unreachable", "prohibit", "throw", "nat")
_HINT = "it is not carried out, for it may be somebody else's"
Form = Callable[[str], object]


def check(plan: Plan, folder: str) -> None:
    """Raise PiggyError unless `net_up` could have made the plan.

    folder: that of the record, where dnsmasq's files lie.
    """
    names = len(plan.taps)
    if (
        plan.mode not in ("nat", "bridged")
        or not 1 <= names <= MOST_TAPS
        or plan.taps != tuple(grammar.tap(plan.bridge, number) for number in range(names))
    ):
        raise PiggyError(
            "this is no plan of net_up's: its kind or its taps are none that it makes", _HINT
        )
    netplan.check_name(plan.bridge, names)
    if plan.uplink and not _LINK.fullmatch(plan.uplink):
        raise PiggyError(
            f"this is no plan of net_up's: '{printable(plan.uplink)[:40]}' is no name of a link",
            _HINT,
        )
    steps = list(plan.steps)
    for number, (step, wanted) in enumerate(_beside(plan, steps, folder)):
        if step is None or step != wanted:
            words = printable(" ".join(step.do)) if step else "it is missing"
            raise PiggyError(
                f"step {number + 1} of this plan is none that net_up makes: {words[:200]}", _HINT
            )
    if (plan.address, plan.leases) != (
        ("", "")
        if plan.mode == "bridged"
        else (str(netplan.interface(plan.address)), f"{folder}/leases")
    ):
        raise PiggyError(
            "this is no plan of net_up's: its address or its leases are elsewhere", _HINT
        )


def _beside(
    plan: Plan, steps: Sequence[Step], folder: str
) -> Iterator[tuple[Step | None, Step | None]]:
    """Yield each step that there is with the one that there should be.

    None where there is or should be none.
    """
    wanted = list(_nat(plan, steps, folder) if plan.mode == "nat" else _bridged(plan, steps))
    for number in range(max(len(steps), len(wanted))):
        yield (
            (steps[number] if number < len(steps) else None),
            (wanted[number] if number < len(wanted) else None),
        )


def _start(plan: Plan, steps: Sequence[Step], addresses: Sequence[Step] = ()) -> list[Step]:
    """Return the bridge and its taps as the plan has them.

    With hardware addresses, the owner and the size of frames.
    """
    made = steps[0].do if steps and steps[0].do[:3] == ("ip", "link", "add") else ()
    begin: list[Step] = []
    if made:
        mac = _value(made, "address", _MAC)
        size = int(_value(made, "mtu", _NUMBER)) if "mtu" in made else 0
        begin = [grammar.bridge(plan.bridge, mac, size), *addresses]
    first = steps[len(begin) : len(begin) + 2]
    if len(first) == 2:
        owner, high = _value(first[0].do, "user", _NUMBER), _value(first[1].do, "address", _MAC)
        begin += grammar.taps(plan.bridge, len(plan.taps), owner, high[6:])
    return [*begin, grammar.up(plan.bridge)] if made else begin


def _value(words: Words, name: str, form: re.Pattern[str]) -> str:
    """Return the word after `name`, "" if it has not that form.

    Then nothing is equal to what is made of it.
    """
    at = words.index(name) + 1 if name in words else len(words)
    return (
        words[at]
        if at < len(words) and form.fullmatch(words[at])
        else "0"
        if form is _NUMBER
        else ""
    )


def _nat(plan: Plan, steps: Sequence[Step], folder: str) -> Iterator[Step]:
    address = netplan.interface(plan.address)
    yield from (begin := _start(plan, steps, [grammar.address(plan.bridge, str(address))]))
    left = steps[len(begin) :]
    if left and left[0].do[:2] == write(FORWARD, "1")[:2]:
        first = (
            left[0].undo[:1]
            if left[0].undo and left[0].undo[0][:2] == write(FORWARD, "0")[:2]
            else ()
        )
        undo = tuple(words for words in (*first, *left[0].undo[1:]) if _switches(words))
        yield Step(
            do=write(FORWARD, "1"),
            undo=undo or (write(FORWARD, "0"),),
            holds=("file", FORWARD, "1"),
        )
        left = left[1:]
    tool = "nft" if left and left[0].do[:1] == ("nft",) else "iptables"
    yield from nat.translation(State(tools=(tool,)), plan.bridge, str(address.network), plan.uplink)
    yield nat.dnsmasq(plan.bridge, address, folder)


def _switches(words: Words) -> bool:
    """Does this write back ip_forward, or what it changes besides (see nat.forwarding)?"""
    if (
        len(words) != 3
        or not re.fullmatch("[0-9]{1,3}", words[2])
        or words != write(words[1], words[2])
    ):
        return False
    found = _SWITCH.fullmatch(words[1])
    return words[1] in (FORWARD, nat.REDIRECTS) or bool(found and _LINK.fullmatch(found[1]))


def _bridged(plan: Plan, steps: Sequence[Step]) -> Iterator[Step]:
    begin = _start(plan, steps)
    yield from begin
    if not steps or steps[0].do[:3] != ("ip", "link", "add"):
        return  # only taps, for a bridge that is there
    for step in steps[len(begin) :]:
        if step.do == ("ip", "link", "set", plan.uplink, "master", plan.bridge):
            yield grammar.port(plan.uplink, plan.bridge)
        elif step.do == ("ip", "link", "set", plan.uplink, "up"):
            yield grammar.up(plan.uplink)
        elif (made := _moved(step)) is not None:
            yield made
        else:
            return


def _moved(step: Step) -> Step | None:
    """Return the step, made anew, that moves an address or a route of the host's.

    None if this is none.
    """
    words = step.do
    if (
        words[:1] == ("ip",)
        and words[1:2] in (("-4",), ("-6",))
        and words[2:3] == ("route",)
        and is_route(words[4:])
    ):
        return (
            grammar.route_on(words[1], words[4:])
            if words[3] == "add"
            else grammar.route_off(words[1], words[4:])
        )
    if words[:3] == ("ip", "address", "add") and is_address(words[3:]):
        local = words[3] if "/" in words[3] else f"{words[3]}/{words[5].partition('/')[2]}"
        return grammar.address_on(words[3:], local)
    if words[:3] == ("ip", "address", "del") and len(words) == 6 and len(step.undo) == 1:
        back = step.undo[0][3:]
        if (
            is_address(back)
            and _interface(words[3])
            and words[3].partition("/")[0] == back[0].partition("/")[0]
        ):
            return grammar.address_off(back, words[3])
    return None


def _ip(text: str) -> bool:
    """Is this an address, of either family?"""
    return _interface(text) and "/" not in text


def _interface(text: str) -> bool:
    """Is this an address, with its prefix or without?"""
    try:
        return bool(_ADDRESS.fullmatch(text) and ipaddress.ip_interface(text))
    except ValueError:
        return False


def _pairs(words: Words, forms: dict[str, Form | None]) -> bool:
    """Are these names, each with a value of its form (None: without any)?"""
    left = list(words)
    while left:
        name = left.pop(0)
        if name not in forms:
            return False
        form = forms[name]
        if form is not None and not (left and form(left.pop(0))):
            return False
    return True


def is_address(words: Words) -> bool:
    """Are these words such as `netroute.address_words` makes?

    They end with "dev" and the device.
    """
    if len(words) < 3 or words[-2] != "dev" or not _LINK.fullmatch(words[-1]):
        return False
    rest = words[1:-2]
    if rest[:1] == ("peer",):
        if len(rest) < 2 or "/" not in rest[1] or not _interface(rest[1]) or not _ip(words[0]):
            return False
        rest = rest[2:]
    elif "/" not in words[0] or not _interface(words[0]):
        return False
    return _pairs(
        rest,
        {
            "broadcast": _ip,
            "scope": _TOKEN.fullmatch,
            "label": _LABEL.fullmatch,
            "metric": _NUMBER.fullmatch,
            "valid_lft": _NUMBER.fullmatch,
            "preferred_lft": _NUMBER.fullmatch,
            "nodad": None,
            "noprefixroute": None,
            "mngtmpaddr": None,
            "home": None,
        },
    )


def is_route(words: Words) -> bool:
    """Are these words such as `netroute.route_words` makes?"""
    rest = words[1:] if words[:1] and words[0] in _TYPES else words
    if not rest or not (rest[0] == "default" or _interface(rest[0])):
        return False
    # "via inet6 ADDRESS" is one of its own family; "nexthop" begins a group with the same words
    flat = [
        word
        for number, word in enumerate(rest[1:])
        if not (word in ("inet", "inet6") and rest[number] == "via")
    ]
    return _pairs(
        tuple(flat),
        {
            "via": _ip,
            "dev": _LINK.fullmatch,
            "table": _TOKEN.fullmatch,
            "proto": _TOKEN.fullmatch,
            "scope": _TOKEN.fullmatch,
            "src": _ip,
            "metric": _NUMBER.fullmatch,
            "pref": _TOKEN.fullmatch,
            "onlink": None,
            "nexthop": None,
            "weight": _NUMBER.fullmatch,
            **dict.fromkeys(METRICS, _TOKEN.fullmatch),
        },
    )
