"""Turn configurations back into fragments: the choices made in an editor, or a whole result.

kconfiglib's model proposes the lines, and Kconfig itself proves them. `config_from` is a function
that takes the text of a fragment and returns the configuration that the real tool makes of it.
Lines are added until that is the wanted configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from tasks.kconfig import symbols
from tasks.kconfig.dotconfig import differences
from tasks.kconfig.fragments import config_line, same
from tasks.system.errors import PiggyError

ROUNDS = 8  # a round can add symbols that only the round before made visible

ConfigFrom = Callable[[str], Mapping[str, str]]


def choices(
    before: Mapping[str, str],
    after: Mapping[str, str],
    kconf: Any = None,
    requested: Collection[str] | None = None,
) -> list[str]:
    """Return the lines that turn one configuration into another, in the order of the latter.

    Args:
        before: The configuration to start from.
        after: The configuration to arrive at.
        kconf: The model, with which only symbols count that a user can set in the state `after`.
            Without it every difference counts.
        requested: The symbols that fragments request. Their lines are kept even where nobody can
            set the symbol any more, as what it depends on was switched off; the request would fail
            otherwise. None stands for all symbols.
    """
    if kconf:
        symbols.assume(kconf, after)
    lines = []
    for symbol in differences(after, before):
        value = after.get(symbol, "n")
        asked = requested is None or symbol in requested
        if (
            kconf is None
            or _settable(kconf, symbol, value)
            or (asked and (requested or _has_prompt(kconf, symbol)))
        ):
            lines.append(config_line(symbol, value))
    return lines


def smallest(
    config: Mapping[str, str],
    kconf: Any,
    config_from: ConfigFrom,
    under: Mapping[str, str] | None = None,
) -> str:
    """Return the smallest fragment from which allnoconfig makes a configuration.

    A symbol needs a line if it would have another value without one, all other symbols being as
    they are. That depends on the result alone, not on the other lines. So one pass finds exactly
    the lines needed.

    Args:
        config: The configuration.
        kconf: The model; without it the fragment is complete, not small.
        config_from: See above.
        under: The symbols of a base configuration below the fragment.

    Raises:
        PiggyError: See `proved`.
    """
    under = under or {}
    if kconf is None:
        lines = [
            config_line(name, value)
            for name, value in config.items()
            if not same(value, under.get(name, "n"))
        ]
    else:
        needed = _needed(kconf, config, under)
        lines = [config_line(name, value) for name, value in config.items() if name in needed]
    return "".join(f"{line}\n" for line in proved(lines, config, config_from, kconf))


def proved(
    lines: list[str], wanted: Mapping[str, str], config_from: ConfigFrom, kconf: Any = None
) -> list[str]:
    """Return lines from which Kconfig makes exactly the wanted configuration.

    Args:
        lines: The lines to start from.
        wanted: The configuration.
        config_from: See above.
        kconf: The model, with which only symbols with a prompt are added; the others follow from
            them.

    Raises:
        PiggyError: A symbol keeps another value.
    """
    fragment = {_symbol(line): line for line in lines}
    for _ in range(ROUNDS):
        got = config_from("".join(f"{line}\n" for line in fragment.values()))
        lacking = [
            name for name in differences(wanted, got) if kconf is None or _has_prompt(kconf, name)
        ]
        added = {name: config_line(name, wanted.get(name, "n")) for name in lacking}
        if added.items() <= fragment.items():
            break
        fragment = {name: line for name, line in fragment.items() if name not in added} | added
    if lacking:
        raise PiggyError(
            f"no fragment gives this configuration: {', '.join(lacking[:6])} would not take",
            f"{len(fragment)} lines were tried; a .config edited by hand may hold what Kconfig"
            " never gives",
        )
    return list(fragment.values())


def _needed(kconf: Any, config: Mapping[str, str], under: Mapping[str, str]) -> set[str]:
    """Return the symbols that need a line, by taking each one's line away in turn."""
    import kconfiglib as kc

    symbols.assume(kconf, config)
    needed: set[str] = set()
    for choice in kconf.unique_choices:
        chosen = [sym for sym in choice.syms if sym.tri_value]
        choice.unset_value()
        for sym in choice.syms:
            sym.unset_value()
        symbols.assign(
            kconf,
            {sym.name: under[sym.name] for sym in choice.syms if under.get(sym.name) in ("y", "m")},
        )
        if [sym for sym in choice.syms if sym.tri_value] != chosen:
            symbols.assign(kconf, {sym.name: config[sym.name] for sym in chosen})
            needed.update(sym.name for sym in chosen)
    for sym in kconf.unique_defined_syms:
        if sym.choice or not sym.visibility or sym.name not in config:
            continue
        sym.unset_value()
        if sym.name in under:
            symbols.assign(kconf, {sym.name: under[sym.name]})
        elif sym.orig_type in (kc.BOOL, kc.TRISTATE):
            sym.set_value(2 if sym.is_allnoconfig_y else 0)
        if not same(config[sym.name], symbols.value(sym)):
            symbols.assign(kconf, {sym.name: config[sym.name]})
            needed.add(sym.name)
    return needed


def _settable(kconf: Any, symbol: str, value: str) -> bool:
    """Tell whether a line for the symbol has an effect.

    It has if the symbol's prompt is visible, and the symbol is not the loser of a choice.
    """
    sym = kconf.syms.get(symbol)
    return bool(sym and sym.nodes and sym.visibility and not (sym.choice and value == "n"))


def _has_prompt(kconf: Any, symbol: str) -> bool:
    sym = kconf.syms.get(symbol)
    return bool(sym) and symbols.has_prompt(sym)


def _symbol(line: str) -> str:
    return line.removeprefix("# ").removeprefix("CONFIG_").partition("=")[0].partition(" ")[0]
