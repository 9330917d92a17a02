"""Check that net_up could have made a plan, before root acts on it.

A plan comes from a file or from standard input. Each step is compared with what net_up makes: the
program, its arguments, the undoing and the probe.

Most steps are made again from the plan's names, and must be equal. A plan may also hold any address
or route that the host had. Of these each argument must have the right form (ip-route(8),
ip-address(8)).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence

from tasks.network import grammar, nat
from tasks.network.plan import check_name, interface
from tasks.network.routes import METRICS
from tasks.network.state import FORWARD, State
from tasks.network.steps import Arguments, Plan, Step, write
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern
from tasks.system.terminal import printable

MOST_TAPS = 16  # the upper limit of the setting `guests`
# Names of links: those that the kernel takes (dev_valid_name() in net/core/dev.c), without
# characters that mean something to nft or a terminal.
_LINK = pattern(r"(?!\.{1,2}$)[A-Za-z0-9_.@+=~,%#][A-Za-z0-9_.@+=~,%#-]{0,14}")
_MAC = pattern(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_ADDRESS = pattern(r"[0-9A-Fa-f:.]{2,45}(?:/[0-9]{1,3})?")  # without a scope such as %eth0
_NUMBER = pattern(r"[0-9]{1,10}")
_TOKEN = pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_LABEL = pattern(r"[A-Za-z0-9_.@+=~,%#][A-Za-z0-9_.@+=~,%#:-]{0,14}")
_SWITCH = pattern(r"/proc/sys/net/ipv4/conf/([^/]+)/forwarding")
_TYPES = ("local", "blackhole", "unreachable", "prohibit", "throw", "nat")
_HINT = "it is not carried out, for it may be somebody else's"
Form = Callable[[str], object]


def check(plan: Plan, folder: str) -> None:
    """Check that `net_up` could have made a plan.

    Args:
        plan: The plan.
        folder: The folder of the record, which also has dnsmasq's files.

    Raises:
        PiggyError: It could not.
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
    check_name(plan.bridge, names)
    if plan.uplink and not _LINK.fullmatch(plan.uplink):
        raise PiggyError(
            f"this is no plan of net_up's: '{printable(plan.uplink)[:40]}' is no name of a link",
            _HINT,
        )
    steps = list(plan.steps)
    for number, (step, expected) in enumerate(_beside(plan, steps, folder)):
        if step is None or step != expected:
            arguments = printable(" ".join(step.do)) if step else "it is missing"
            raise PiggyError(
                f"step {number + 1} of this plan is none that net_up makes: {arguments[:200]}",
                _HINT,
            )
    if (plan.address, plan.leases) != (
        ("", "") if plan.mode == "bridged" else (str(interface(plan.address)), f"{folder}/leases")
    ):
        raise PiggyError(
            "this is no plan of net_up's: its address or its leases are elsewhere", _HINT
        )


def _beside(
    plan: Plan, steps: Sequence[Step], folder: str
) -> Iterator[tuple[Step | None, Step | None]]:
    """Yield each step of the plan with the step that it should be; None where one is missing."""
    expected = list(_nat(plan, steps, folder) if plan.mode == "nat" else _bridged(plan, steps))
    for number in range(max(len(steps), len(expected))):
        yield (
            (steps[number] if number < len(steps) else None),
            (expected[number] if number < len(expected) else None),
        )


def _start(plan: Plan, steps: Sequence[Step], addresses: Sequence[Step] = ()) -> list[Step]:
    """Return the steps for the bridge and its taps, with the plan's addresses, owner and MTU."""
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


def _value(arguments: Arguments, name: str, form: re.Pattern[str]) -> str:
    """Return the argument after `name`, or "" ("0" for a number) if it does not have the form.

    With that, the step that is made from it differs from the plan's.
    """
    at = arguments.index(name) + 1 if name in arguments else len(arguments)
    return (
        arguments[at]
        if at < len(arguments) and form.fullmatch(arguments[at])
        else "0"
        if form is _NUMBER
        else ""
    )


def _nat(plan: Plan, steps: Sequence[Step], folder: str) -> Iterator[Step]:
    address = interface(plan.address)
    yield from (begin := _start(plan, steps, [grammar.address(plan.bridge, str(address))]))
    left = steps[len(begin) :]
    if left and left[0].do[:2] == write(FORWARD, "1")[:2]:
        first = (
            left[0].undo[:1]
            if left[0].undo and left[0].undo[0][:2] == write(FORWARD, "0")[:2]
            else ()
        )
        undo = tuple(arguments for arguments in (*first, *left[0].undo[1:]) if _switches(arguments))
        yield Step(
            do=write(FORWARD, "1"),
            undo=undo or (write(FORWARD, "0"),),
            holds=("file", FORWARD, "1"),
        )
        left = left[1:]
    tool = "nft" if left and left[0].do[:1] == ("nft",) else "iptables"
    yield from nat.translation(State(tools=(tool,)), plan.bridge, str(address.network), plan.uplink)
    yield nat.dnsmasq(plan.bridge, address, folder)


def _switches(arguments: Arguments) -> bool:
    """Tell whether arguments restore ip_forward or a switch that it sets (see nat.forwarding)."""
    if (
        len(arguments) != 3
        or not re.fullmatch("[0-9]{1,3}", arguments[2])
        or arguments != write(arguments[1], arguments[2])
    ):
        return False
    found = _SWITCH.fullmatch(arguments[1])
    return arguments[1] in (FORWARD, nat.REDIRECTS) or bool(found and _LINK.fullmatch(found[1]))


def _bridged(plan: Plan, steps: Sequence[Step]) -> Iterator[Step]:
    begin = _start(plan, steps)
    yield from begin
    if not steps or steps[0].do[:3] != ("ip", "link", "add"):
        return  # the bridge existed before: the plan only adds taps
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
    """Return a step that moves an address or a route, made again; None for another step."""
    arguments = step.do
    if (
        arguments[:1] == ("ip",)
        and arguments[1:2] in (("-4",), ("-6",))
        and arguments[2:3] == ("route",)
        and is_route(arguments[4:])
    ):
        return (
            grammar.route_on(arguments[1], arguments[4:])
            if arguments[3] == "add"
            else grammar.route_off(arguments[1], arguments[4:])
        )
    if arguments[:3] == ("ip", "address", "add") and is_address(arguments[3:]):
        local = (
            arguments[3]
            if "/" in arguments[3]
            else f"{arguments[3]}/{arguments[5].partition('/')[2]}"
        )
        return grammar.address_on(arguments[3:], local)
    if arguments[:3] == ("ip", "address", "del") and len(arguments) == 6 and len(step.undo) == 1:
        back = step.undo[0][3:]
        if (
            is_address(back)
            and _interface(arguments[3])
            and arguments[3].partition("/")[0] == back[0].partition("/")[0]
        ):
            return grammar.address_off(back, arguments[3])
    return None


def _ip(text: str) -> bool:
    """Tell whether a text is an address, of either family."""
    return _interface(text) and "/" not in text


def _interface(text: str) -> bool:
    """Tell whether a text is an address, with a prefix or without."""
    try:
        return bool(_ADDRESS.fullmatch(text) and ipaddress.ip_interface(text))
    except ValueError:
        return False


def _pairs(arguments: Arguments, forms: dict[str, Form | None]) -> bool:
    """Tell whether arguments are names, each with a value of its form (None: without a value)."""
    left = list(arguments)
    while left:
        name = left.pop(0)
        if name not in forms:
            return False
        form = forms[name]
        if form is not None and not (left and form(left.pop(0))):
            return False
    return True


def is_address(arguments: Arguments) -> bool:
    """Tell whether arguments have the form of routes.address_arguments, the device being last."""
    if len(arguments) < 3 or arguments[-2] != "dev" or not _LINK.fullmatch(arguments[-1]):
        return False
    rest = arguments[1:-2]
    if rest[:1] == ("peer",):
        if len(rest) < 2 or "/" not in rest[1] or not _interface(rest[1]) or not _ip(arguments[0]):
            return False
        rest = rest[2:]
    elif "/" not in arguments[0] or not _interface(arguments[0]):
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


def is_route(arguments: Arguments) -> bool:
    """Tell whether arguments have the form of routes.route_arguments."""
    rest = arguments[1:] if arguments[:1] and arguments[0] in _TYPES else arguments
    if not rest or not (rest[0] == "default" or _interface(rest[0])):
        return False
    # "via inet6 ADDRESS" names the gateway's family. "nexthop" begins a group with the
    # same arguments.
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
