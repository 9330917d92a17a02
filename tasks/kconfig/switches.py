"""What can be switched in a configuration: to which value, and why a symbol that is on can't be.

It is told by kconfiglib's model of the tree; Kconfig itself has the last word when the change is
made.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tasks.kconfig import reasons, symbols
from tasks.kconfig.dotconfig import Unmet
from tasks.kconfig.fragments import PREFIX, Request


class Switches(msgspec.Struct, frozen=True):
    """The symbols of a configuration.

    Attributes:
        to: Each symbol that can be switched, to the value that it gets: what is on goes off, what
            is off becomes y, or m if that is all that it can be.
        fixed: Each symbol that is on and can't be switched off, to the reason.
        choosable: Those of `fixed` that a user can set at all: they have a prompt.
    """

    to: dict[str, str]
    fixed: dict[str, str]
    choosable: list[str]


def find(kconf: Any, config: Mapping[str, str]) -> Switches:
    """Return what can be switched.

    Args:
        kconf: The model (see symbols.load), which is brought into the state of the configuration.
        config: The configuration; what it lacks is off.
    """
    _assume(kconf, config)
    found = Switches({}, {}, [])
    for sym in kconf.unique_defined_syms:
        value = symbols.value(sym)
        if not _tristate(sym) or value != config.get(sym.name, "n"):  # the model errs in it
            continue
        on = value != "n"
        if on and 0 in sym.assignable:
            found.to[sym.name] = "n"
        elif not on and sym.visibility and (levels := [one for one in sym.assignable if one]):
            found.to[sym.name] = "y" if 2 in levels else "m"
        elif on:
            found.fixed[sym.name] = _why_on(sym)
            if symbols.has_prompt(sym):
                found.choosable.append(sym.name)
    return found


def why_not(kconf: Any, config: Mapping[str, str], name: str, root: Path) -> str:
    """Return why a symbol can't be switched that is off, or is no switch; "" if it is not defined.

    Args:
        kconf: The model, which is brought into the state of the configuration.
        config: The configuration.
        name: The symbol.
        root: The source tree.
    """
    sym = kconf.syms.get(name)
    if not sym or not sym.nodes:
        return ""
    _assume(kconf, config)
    if not _tristate(sym):
        return f"it is no switch: its value is {symbols.value(sym) or 'nothing'}"
    missed = Unmet(Request(name, "y", False, root, 0), "n")
    return " ".join(line.strip() for line in reasons.reasons(kconf, missed, {}, root))


def names(kconf: Any) -> list[str]:
    """Return the names of all symbols that the tree defines."""
    return [sym.name for sym in kconf.unique_defined_syms]


def _assume(kconf: Any, config: Mapping[str, str]) -> None:
    """Bring the model into the state of a configuration, of which what is off may be left out."""
    off = {sym.name: "n" for sym in kconf.unique_defined_syms if _tristate(sym)}
    symbols.assume(kconf, {**off, **config})


def _tristate(sym: Any) -> bool:
    import kconfiglib

    return sym.orig_type in (kconfiglib.BOOL, kconfiglib.TRISTATE)


def _why_on(sym: Any) -> str:
    """Return why a symbol that is on can't be switched off."""
    for one in reasons.on_by(sym):
        if one.how == reasons.SELECTED:
            return f"{one.how} by {reasons.some([by.partition('=')[0] for by in one.shown])}"
    if sym.choice:
        title = reasons.title(sym.choice)
        others = [one.name for one in sym.choice.syms if one is not sym and one.visibility]
        instead = f": switch {reasons.some([PREFIX + one for one in others])}" if others else ""
        return f'of the choice "{title}" one has to be on{instead}'
    if not symbols.has_prompt(sym):
        return "it has no prompt: its default holds"
    return "its prompt is hidden: its default holds"
