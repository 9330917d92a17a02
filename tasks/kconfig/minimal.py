"""Configurations turned back into fragments.

What somebody chose in menuconfig, and the smallest fragment for a result.

Both are first guesses by kconfiglib's model, then proved by Kconfig itself: `config_from` is called
with the text of the fragment and returns the configuration that the real tool makes of it; what
differs is added until nothing does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from tasks.kconfig import symbols
from tasks.kconfig.dotconfig import differences
from tasks.kconfig.fragments import config_line, same
from tasks.system.errors import PiggyError

ROUNDS = 8  # each one can bring in symbols that only the one before made visible

ConfigFrom = Callable[[str], Mapping[str, str]]


def choices(
    before: Mapping[str, str],
    after: Mapping[str, str],
    kconf: Any = None,
    requested: Collection[str] | None = None,
) -> list[str]:
    """Return the lines that turn configuration `before` into `after`, in the order of `after`.

    kconf:     with it, only what a user can set in the state `after` counts; without it all that
        differs does.
    requested: symbols that fragments ask for. Their lines are kept even where nobody can set them
               any more (somebody switched off what they depend on), because the request would fail
               otherwise. None: that of any symbol.
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
    """Return the text of the smallest fragment F such that allnoconfig with F gives `config`.

    under: lines that lie below F already (a base configuration). Without a model (kconf None) F is
        complete, not small.

    A symbol's line is needed if the symbol would have another value without it, all others being as
    they are. That depends on the result alone, not on what else is in F; so one pass finds all that
    is needed, and nothing more.
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
    """Return `lines` with what it takes added, such that config_from(their text) equals `wanted`.

    kconf: with it, only symbols that have a prompt are added; those without follow from them.
    Raises PiggyError when a symbol keeps another value all the same.
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
    """Return the symbols whose values come from a line of their own.

    Each line is taken away in turn.
    """
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
    """Tell whether a line for the symbol says something.

    Its prompt is visible, and it is no loser of a choice.
    """
    sym = kconf.syms.get(symbol)
    return bool(sym and sym.nodes and sym.visibility and not (sym.choice and value == "n"))


def _has_prompt(kconf: Any, symbol: str) -> bool:
    sym = kconf.syms.get(symbol)
    return bool(sym) and symbols.has_prompt(sym)


def _symbol(line: str) -> str:
    return line.removeprefix("# ").removeprefix("CONFIG_").partition("=")[0].partition(" ")[0]
