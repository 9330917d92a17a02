"""Say for each symbol of a configuration where its value comes from.

fragments + the Kconfig files + .config -> a list of origins

A symbol may have its value for several reasons: a fragment asks for it, and another symbol selects
it. All of them are named, the fragment first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tasks.kconfig import symbols
from tasks.kconfig.fragments import Request, same
from tasks.kconfig.reasons import on_by, some, title

ASKED, CHOSEN = "asked for", "chosen"
DEFAULT, BASE, NOT_ASKED, UNKNOWN = "default", "base", "not asked for", "not known"


class Origin(msgspec.Struct, frozen=True):
    """Where the value of one symbol comes from.

    Attributes:
        symbol: Without the prefix.
        value: As the .config has it; n for "is not set".
        kind: The first reason in a word, to sort and choose by.
        reason: All reasons in words.
        prompt: The text that menuconfig shows for it; "" for a symbol without a prompt.
        place: Where the Kconfig files define it first; "" if that is not known.
    """

    symbol: str
    value: str
    kind: str
    reason: str
    prompt: str = ""
    place: str = ""


def origins(
    config: Mapping[str, str],
    requests: Mapping[str, Request],
    kconf: Any = None,
    base: str = "allnoconfig",
) -> list[Origin]:
    """Return the origin of each symbol of a configuration, in its order.

    Args:
        config: The configuration.
        requests: What the fragments ask for, by symbol.
        kconf: kconfiglib's model of the tree; None if there is none, and fragments alone are known.
        base: The configuration target that the fragments are laid over.
    """
    if kconf is not None:
        symbols.assume(kconf, config)
    return [
        _origin(name, value, requests.get(name), kconf and kconf.syms.get(name), base)
        for name, value in config.items()
    ]


def _origin(name: str, value: str, request: Request | None, sym: Any, base: str) -> Origin:
    found: list[tuple[str, str]] = []
    if request is not None and same(request.value, value):
        found.append((ASKED, request.where))
    if sym is None or not sym.nodes:
        kind, reason = found[0] if found else (UNKNOWN, "")
        return Origin(name, value, kind, reason)
    found += _by_others(sym) if value != "n" else []
    if not found:
        found.append(_by_itself(sym, value, base))
    prompt = next((node.prompt[0] for node in sym.nodes if node.prompt), "")
    place = f"{sym.nodes[0].filename}:{sym.nodes[0].linenr}"
    words = [text if kind == ASKED else f"{kind} {text}".strip() for kind, text in found]
    return Origin(name, value, found[0][0], ", ".join(words), prompt, place)


def _by_others(sym: Any) -> list[tuple[str, str]]:
    """Return the reasons that lie in other symbols."""
    found = [(one.how, f"by {some(one.shown)}") for one in on_by(sym)]
    if sym.choice and sym.choice.selection is sym:
        found.append((CHOSEN, f'in "{title(sym.choice)}"' if title(sym.choice) else ""))
    return found


def _by_itself(sym: Any, value: str, base: str) -> tuple[str, str]:
    """Return the reason of a symbol that no fragment and no other symbol gives its value."""
    import kconfiglib as kc

    place = f"{sym.nodes[0].filename}:{sym.nodes[0].linenr}"
    if sym.orig_type not in (kc.BOOL, kc.TRISTATE) or not sym.visibility:
        return DEFAULT, f"of {place}"
    if base == "allnoconfig":
        if value == "n":
            return NOT_ASKED, ""
        return BASE, "allnoconfig_y" if sym.is_allnoconfig_y else base
    return BASE, base
