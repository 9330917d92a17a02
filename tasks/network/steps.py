"""One step of a change to the host's network.

What to do, what undoes it, and how to see whether it holds. Data alone.

A plan is a list of steps. A step is in a plan only if its effect does not hold yet, so that undoing
it takes away nothing that was there before; undoing looks first whether the effect still holds, so
that it may be done twice, or halfway.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import msgspec

Words = tuple[str, ...]
WRITE, KILL = (
    "write",
    "kill",
)  # words of our own in place of a program: write PATH VALUE, kill PIDFILE


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One step of a plan, and what takes it back.

    do:       an argument vector (or `write PATH VALUE`).
    undo:     several of them, in order.
    holds:    what is true when it was done and not undone; see `netstate.holds` for the words.
    stdin:    what `do` reads.
    patience: seconds for which a failing command of it is tried again (an IPv6 address takes a
        while to become valid).
    """

    do: Words
    undo: tuple[Words, ...] = ()
    holds: Words = ()
    stdin: str = ""
    patience: float = 0


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `net_up` does, and what it was asked for.

    mode: "nat", "bridged" or "lab";  bridge, taps: names of links;  address: of the bridge, with
        its prefix ("": none).
    leases: dnsmasq's file of leases ("": no DHCP of ours).  steps: in order.
    warnings: what the user should know before.
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
        """What two plans must agree in to be for the same thing."""
        return self.mode, self.bridge, self.taps, self.address, self.uplink


def shown(words: Sequence[str], stdin: str = "") -> str:
    """Return a command as one would type it."""
    if words[0] == WRITE:
        return f"echo {shlex.quote(words[2])} > {words[1]}"
    if words[0] == KILL:
        return f"kill $(cat {words[1]})"
    line = shlex.join(words)
    return f"{line} <<'EOF'\n{stdin}EOF" if stdin else line


def write(path: str, value: str) -> Words:
    """Return the words that write a value into a file of /proc/sys."""
    return WRITE, path, value
