"""The forms of a plan's steps.

Each is made here, or in `netnat`, and nowhere else, so that `nettrust` can hold a plan that
somebody hands us against them.
"""

from __future__ import annotations

from tasks.network.steps import Step, Words


def tap(bridge: str, number: int) -> str:
    """Return the name of a guest's tap, counted from 0."""
    return f"{bridge}-tap{number}"


def bridge(name: str, mac: str, mtu: int = 0) -> Step:
    """Return the step that makes a bridge (mtu 0: the kernel's choice).

    STP is off, so that a port forwards at once; the address is set, so that ports that come and go
    do not change it.
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
    """Return the step that gives a bridge its address, "192.168.135.251/24"."""
    return Step(
        do=("ip", "address", "add", text, "broadcast", "+", "dev", device),
        undo=(("ip", "address", "del", text, "dev", device),),
        holds=("address", device, text),
    )


def taps(name: str, guests: int, owner: str, tail: str) -> list[Step]:
    """Return the steps that make a bridge's taps.

    owner: the number of the user who may open them.  tail: the last four bytes of their hardware
    addresses. A bridge whose address nobody set takes the lowest of its ports'
    (br_stp_recalculate_bridge_id), so a tap gets a high
    one: on somebody else's bridge it would change the host's own address, and whoever knows that
        would lose it.
    """
    steps = []
    for number in range(guests):
        one = tap(name, number)
        high = f"fe:{number:02x}:{tail}"
        steps += [
            Step(
                do=("ip", "tuntap", "add", "dev", one, "mode", "tap", "user", owner),
                undo=(("ip", "link", "del", one),),
                holds=("tun", one),
            ),
            Step(do=("ip", "link", "set", one, "address", high), holds=("link", one, high)),
            port(one, name),
            up(one),
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
    """Return the step that switches a link on."""
    return Step(
        do=("ip", "link", "set", name, "up"),
        undo=(("ip", "link", "set", name, "down"),),
        holds=("up", name),
    )


def address_off(words: Words, local: str) -> Step:
    """Return the step that takes the address `local` ("10.0.0.2/24") from a device.

    `words`, of `netroute.address_words`, give it back, and end with the device's name.
    """
    return Step(
        do=("ip", "address", "del", local, "dev", words[-1]),
        undo=(("ip", "address", "add", *words),),
        holds=("not", "address", words[-1], local),
    )


def address_on(words: Words, local: str) -> Step:
    """Return the step that gives a device an address (see `address_off`)."""
    return Step(
        do=("ip", "address", "add", *words),
        undo=(("ip", "address", "del", local, "dev", words[-1]),),
        holds=("address", words[-1], local),
    )


def route_off(family: str, words: Words) -> Step:
    """Return the step that removes a route.

    Its family, and its words as `netroute.route_words` has them.
    """
    return Step(
        do=("ip", family, "route", "del", *words),
        undo=(("ip", family, "route", "add", *words),),
        holds=("not", "route", family, *words),
        patience=5,
    )


def route_on(family: str, words: Words) -> Step:
    """Return the step that makes a route (see `route_off`)."""
    return Step(
        do=("ip", family, "route", "add", *words),
        undo=(("ip", family, "route", "del", *words),),
        holds=("route", family, *words),
        patience=5,
    )
