"""One step of a change to the host's network, as data: the command, its undoing, and a probe.

A plan is a list of steps. A step is planned only if its effect does not hold yet, so that undoing
it removes nothing that existed before. Undoing first probes whether the effect still holds, so it
can be repeated, and can start halfway.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import msgspec

Arguments = tuple[str, ...]
# Built-in commands, in place of a program: write PATH VALUE, and kill PIDFILE.
WRITE, KILL = "write", "kill"


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One step of a plan.

    Attributes:
        do: A program's argument vector, or `write PATH VALUE`.
        undo: The commands that undo it, in order.
        holds: A probe that tells whether the step is done and not undone (see state.holds).
        stdin: The standard input of `do`.
        patience: Seconds for which a failing command is tried again (an IPv6 address becomes valid
            only after a while).
    """

    do: Arguments
    undo: tuple[Arguments, ...] = ()
    holds: Arguments = ()
    stdin: str = ""
    patience: float = 0


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `net_up` does, and for which request.

    Attributes:
        mode: "nat", "bridged" or "lab".
        bridge: The name of the bridge.
        taps: The names of the taps.
        address: The bridge's address with its prefix; "" for none.
        leases: dnsmasq's file of leases; "" without DHCP of ours.
        uplink: The name of the host's card.
        steps: The steps in order.
        warnings: What the user should know before.
    """

    mode: str
    bridge: str
    taps: tuple[str, ...]
    address: str = ""
    leases: str = ""
    uplink: str = ""
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[object, ...]:
        """The properties in which two plans for the same request agree."""
        return self.mode, self.bridge, self.taps, self.address, self.uplink


def shown(arguments: Sequence[str], stdin: str = "") -> str:
    """Return a command as one would type it in a shell."""
    if arguments[0] == WRITE:
        return f"echo {shlex.quote(arguments[2])} > {arguments[1]}"
    if arguments[0] == KILL:
        return f"kill $(cat {arguments[1]})"
    line = shlex.join(arguments)
    return f"{line} <<'EOF'\n{stdin}EOF" if stdin else line


def write(path: str, value: str) -> Arguments:
    """Return the built-in command that writes a value to a file of /proc/sys."""
    return WRITE, path, value
