"""The forms that a plan's steps can have.

Steps are made here and in nat.py only, so that trust.py can compare a plan from elsewhere with
them.
"""

from __future__ import annotations

from tasks.network.steps import Arguments, Step


def tap(bridge: str, number: int) -> str:
    """Return the name of a guest's tap; guests count from 0."""
    return f"{bridge}-tap{number}"


def bridge(name: str, mac: str, mtu: int = 0) -> Step:
    """Return the step that makes a bridge.

    STP is off, so that a port forwards at once. The hardware address is set, so that it stays the
    same when ports come and go.

    Args:
        name: The bridge.
        mac: Its hardware address.
        mtu: Its MTU in bytes; 0 for the kernel's default.
    """
    size = ("mtu", str(mtu)) if mtu else ()
    return Step(
        do=(
            "ip",
            "link",
            "add",
            "name",
            name,
            "address",
            mac,
            *size,
            "type",
            "bridge",
            "stp_state",
            "0",
            "forward_delay",
            "0",
        ),
        undo=(("ip", "link", "del", name),),
        holds=("link", name, mac),
    )


def address(device: str, text: str) -> Step:
    """Return the step that gives a device an address, such as "192.168.135.251/24"."""
    return Step(
        do=("ip", "address", "add", text, "broadcast", "+", "dev", device),
        undo=(("ip", "address", "del", text, "dev", device),),
        holds=("address", device, text),
    )


def taps(name: str, guests: int, owner: str, tail: str) -> list[Step]:
    """Return the steps that make a bridge's taps.

    A bridge whose address nobody set takes the lowest of its ports'
    (br_stp_recalculate_bridge_id()). On somebody else's bridge a tap could thus change the host's
    own hardware address, and cut its connections. So a tap gets a high address.

    Args:
        name: The bridge.
        guests: The number of taps.
        owner: The number of the user who may open them.
        tail: The last four bytes of their hardware addresses.
    """
    steps = []
    for number in range(guests):
        device = tap(name, number)
        high = f"fe:{number:02x}:{tail}"
        steps += [
            Step(
                do=("ip", "tuntap", "add", "dev", device, "mode", "tap", "user", owner),
                undo=(("ip", "link", "del", device),),
                holds=("tun", device),
            ),
            Step(do=("ip", "link", "set", device, "address", high), holds=("link", device, high)),
            port(device, name),
            up(device),
        ]
    return steps


def port(name: str, master: str) -> Step:
    """Return the step that makes a link a port of a bridge."""
    return Step(
        do=("ip", "link", "set", name, "master", master),
        undo=(("ip", "link", "set", name, "nomaster"),),
        holds=("master", name, master),
    )


def up(name: str) -> Step:
    """Return the step that sets a link up."""
    return Step(
        do=("ip", "link", "set", name, "up"),
        undo=(("ip", "link", "set", name, "down"),),
        holds=("up", name),
    )


def address_off(arguments: Arguments, local: str) -> Step:
    """Return the step that takes an address from a device.

    Args:
        arguments: The arguments of routes.address_arguments that restore it; the device's name is
            last.
        local: The address with its prefix, such as "10.0.0.2/24".
    """
    return Step(
        do=("ip", "address", "del", local, "dev", arguments[-1]),
        undo=(("ip", "address", "add", *arguments),),
        holds=("not", "address", arguments[-1], local),
    )


def address_on(arguments: Arguments, local: str) -> Step:
    """Return the step that gives a device an address; for the arguments see `address_off`."""
    return Step(
        do=("ip", "address", "add", *arguments),
        undo=(("ip", "address", "del", local, "dev", arguments[-1]),),
        holds=("address", arguments[-1], local),
    )


def route_off(family: str, arguments: Arguments) -> Step:
    """Return the step that removes a route.

    Args:
        family: "-4" or "-6".
        arguments: The arguments of routes.route_arguments.
    """
    return Step(
        do=("ip", family, "route", "del", *arguments),
        undo=(("ip", family, "route", "add", *arguments),),
        holds=("not", "route", family, *arguments),
        patience=5,
    )


def route_on(family: str, arguments: Arguments) -> Step:
    """Return the step that adds a route; for the arguments see `route_off`."""
    return Step(
        do=("ip", family, "route", "add", *arguments),
        undo=(("ip", family, "route", "del", *arguments),),
        holds=("route", family, *arguments),
        patience=5,
    )
