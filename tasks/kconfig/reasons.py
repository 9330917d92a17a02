"""Say in lines of text why Kconfig gave a symbol another value than requested."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tasks.kconfig import symbols
from tasks.kconfig.dotconfig import Unmet
from tasks.kconfig.fragments import PREFIX, Request
from tasks.system.pattern import pattern

SELECTED, IMPLIED = "selected", "implied"
SHOWN = 6  # names listed before "and N more"
# It begins with a fixed word, which the search is three times as fast for; see `defined`.
_DEFINITION = pattern(rb"config[ \t]+(\w+)[ \t\r]*$", re.MULTILINE)


def reasons(kconf: Any, missed: Unmet, requests: Mapping[str, Request], root: Path) -> list[str]:
    """Return the reasons for an unmet request.

    Args:
        kconf: The model, in the state of the .config.
        missed: The request.
        requests: All requests, by symbol.
        root: The source tree.
    """
    import kconfiglib as kc

    asked, got = missed.request.value, missed.got
    sym = kconf.syms.get(missed.request.symbol)
    if not sym or not sym.nodes:
        return _unknown(kconf, missed.request.symbol, root, asked == "n")
    tristate = sym.orig_type in (kc.BOOL, kc.TRISTATE)
    kind = kc.TYPE_TO_STR[sym.orig_type]
    if (
        _shape(asked)
        != ("tristate" if tristate else "string" if sym.orig_type == kc.STRING else "number")
        and (asked != "n" or not tristate)
        or (asked == "m" and sym.orig_type == kc.BOOL)
    ):
        allowed = {
            "bool": "y or n",
            "tristate": "y, m or n",
            "string": 'a "string" in double quotes',
            "int": "a decimal number",
            "hex": "a number such as 0x1000",
        }.get(kind, "a value")
        return [f"it is of type {kind}, which takes {allowed} ({_place(sym)})"]
    if not symbols.has_prompt(sym):
        return _promptless(sym)
    if asked == "m" and got == "y" and not kconf.modules.tri_value:
        return ["without MODULES=y there is no m: it became y"]
    level = {"y": 2, "m": 1}.get(asked, 1) if sym.type == kc.TRISTATE else 1
    if tristate and sym.visibility >= level:
        if sym.choice and sym.choice.selection not in (None, sym):
            return _lost(sym, asked, requests)
        if selectors := active(sym.rev_dep):
            return [f"forced to {got} by 'select' of {some(selectors)}"]
    reasons = _out_of_range(sym, asked)
    if not (reasons and sym.visibility):
        reasons += _dependencies(sym, level)
    if selectors := active(sym.rev_dep):
        reasons.append(f"it is {got} by 'select' of {some(selectors)}")
    elif asked == "n" and got != "n":
        reasons.append(f"as long as its prompt is hidden, its default holds: {got}")
    return reasons


def definitions(root: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """Return the Kconfig files that define each symbol, for whichever architecture.

    It is a plain text search, 0.3 s for a kernel tree.

    Args:
        root: The source tree.
        names: The symbols.

    Returns:
        Paths below `root`, by symbol; [] for one that no file defines.
    """
    found: dict[str, list[str]] = {symbol: [] for symbol in names}
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (
            Path(folder, name) for name in sorted(files) if name.startswith(("Kconfig", "Config."))
        ):
            if path.is_file():
                for symbol in defined(path).intersection(found):
                    found[symbol].append(str(path.relative_to(root)))
    return found


def defined(path: str | Path) -> set[str]:
    """Return the symbols that a Kconfig file defines; a plain text search."""
    with open(path, "rb") as stream:
        text = stream.read()
    return {
        found[1].decode()
        for found in _DEFINITION.finditer(text)
        if text[text.rfind(b"\n", 0, found.start()) + 1 : found.start()].lstrip(b" \t")
        in (b"", b"menu")
    }


def _shape(value: str) -> str:
    return (
        "tristate" if value in ("y", "m", "n") else "string" if value.startswith('"') else "number"
    )


def _unknown(kconf: Any, name: str, root: Path, off: bool) -> list[str]:
    elsewhere = definitions(root, [name])[name]
    if elsewhere:
        arch = next(
            (
                name.split("/")[1]
                for name in kconf.kconfig_filenames
                if re.match(r"arch/[^/]+/Kconfig$", name)
            ),
            "",
        )
        return [
            f"no such symbol{f' on {arch}' if arch else ''}: it exists in {some(elsewhere)} only"
        ]
    near = difflib.get_close_matches(
        name, [sym.name for sym in kconf.unique_defined_syms], n=3, cutoff=0.75
    )
    return [
        "no such symbol in this tree"
        + (f"; the nearest: {', '.join(PREFIX + name for name in near)}" if near else ""),
        *(["if only other releases have it, end its line with '# optional'"] if off else []),
    ]


def _promptless(sym: Any) -> list[str]:
    reasons = [f"it has no prompt, so that nobody can set it ({_place(sym)})"]
    if names := _selectors(sym):
        reasons.append(f"it is selected by: {some(names)}")
    for default, condition in sym.defaults:
        on = "" if condition is sym.kconfig.y else f" if {_shown(condition)}"
        reasons.append(f"its default is {_shown(default)}{on}")
    return reasons[:SHOWN] + (["..."] if len(reasons) > SHOWN else [])


def _lost(sym: Any, asked: str, requests: Mapping[str, Request]) -> list[str]:
    winner = sym.choice.selection
    title = next((node.prompt[0] for node in sym.choice.nodes if node.prompt), "")
    rival = requests.get(winner.name)
    if rival and asked == "y":
        return [
            (
                f'of the choice "{title}" only one can be y: {rival.symbol} won, asked for at'
                f" {rival.where}"
            ),
            (
                f"drop one of the two, or write '# {PREFIX}{sym.name} is not set' into the later"
                " fragment"
            ),
        ]
    return [f'of the choice "{title}" only one can be y: {winner.name} won']


def _out_of_range(sym: Any, asked: str) -> list[str]:
    """Return a line if a number lies in none of the symbol's ranges."""
    import kconfiglib as kc

    base = 16 if sym.orig_type == kc.HEX else 10
    try:
        bounds = [
            (int(low.str_value, base), int(asked, base), int(high.str_value, base))
            for low, high, _ in sym.ranges
        ]
    except ValueError:
        return []
    if not bounds or any(low <= number <= high for low, number, high in bounds):
        return []
    ranges = [f"{low.str_value} to {high.str_value}" for low, high, _ in sym.ranges]
    return [f"its range is {' or '.join(dict.fromkeys(ranges))} ({_place(sym)})"]


def _dependencies(sym: Any, level: int) -> list[str]:
    """Return the conditions of the prompt that is nearest to being visible, unmet ones first."""
    import kconfiglib as kc

    def terms(node: Any, met: bool) -> list[str]:
        return list(
            dict.fromkeys(
                _shown(term)
                for term in kc.split_expr(node.prompt[1], kc.AND)
                if (kc.expr_value(term) >= level) == met and term is not node.kconfig.y
            )
        )

    node = min(
        (node for node in sym.nodes if node.prompt), key=lambda node: len(terms(node, False))
    )
    if not terms(node, False):
        place = f"{node.filename}:{node.linenr}"
        return [f"its prompt is visible, and nothing in the Kconfig files says why ({place})"]
    lines = [f"it depends on ({node.filename}:{node.linenr}):"]
    lines += [
        f"    {term}  <-- not met{_unsettable(node.kconfig, term)}" for term in terms(node, False)
    ]
    return lines + ([f"    met: {', '.join(terms(node, True))}"] if terms(node, True) else [])


def _selectors(sym: Any) -> list[str]:
    """Return every symbol that selects this one, on or off, with its value."""
    import kconfiglib as kc

    terms = [kc.split_expr(term, kc.AND)[0] for term in kc.split_expr(sym.rev_dep, kc.OR)]
    return list(dict.fromkeys(_shown(term) for term in terms if not term.is_constant))


def active(rev_dep: Any) -> list[str]:
    """Return the symbols whose `select` is in effect now, with their values."""
    return [_shown(one) for one in _in_effect(rev_dep)]


def _in_effect(rev_dep: Any) -> list[Any]:
    """Return the symbols whose `select` or `imply` is in effect now."""
    import kconfiglib as kc

    return [
        kc.split_expr(term, kc.AND)[0]
        for term in kc.split_expr(rev_dep, kc.OR)
        if kc.expr_value(term)
    ]


class OnBy(msgspec.Struct, frozen=True):
    """Other symbols by which a symbol is on.

    Attributes:
        how: SELECTED or IMPLIED.
        by: Their names; empty where it is a constant or an expression.
        shown: Each with its value.
    """

    how: str
    by: tuple[str, ...]
    shown: tuple[str, ...]


def on_by(sym: Any) -> list[OnBy]:
    """Return by which other symbols one is on, in the state that its model is in."""
    import kconfiglib as kc

    found = []
    for how, expression in ((SELECTED, sym.rev_dep), (IMPLIED, sym.weak_rev_dep)):
        if there := _in_effect(expression):
            by = [one for one in there if isinstance(one, kc.Symbol) and not one.is_constant]
            found.append(OnBy(how, tuple(one.name for one in by), tuple(map(_shown, there))))
    return found


def title(choice: Any) -> str:
    """Return the prompt of a choice; "" if it has none."""
    return next((node.prompt[0] for node in choice.nodes if node.prompt), "")


def origin(kconf: Any, name: str) -> tuple[str, list[str]]:
    """Return why a symbol is on, where no line asks for it, and the symbols that are to blame.

    Args:
        kconf: The model, in the state of the configuration.
        name: The symbol.
    """
    sym = kconf.syms.get(name)
    if sym is None or not sym.nodes:
        return "", []
    for one in on_by(sym):
        if one.by:
            return f"{one.how} by {some([f'CONFIG_{by}' for by in one.by])}", [*one.by]
    return f"on by default ({_place(sym)})", []


def _shown(expr: Any) -> str:
    """Return NAME=value for a symbol; for another expression its text and its symbols' values."""
    import kconfiglib as kc

    def name(item: Any) -> str:
        if isinstance(item, kc.Choice):
            return f'choice "{title(item) or item.name or ""}"'
        return str(kc.standard_sc_expr_str(item))

    if isinstance(expr, kc.Symbol):
        return (
            name(expr)
            if expr.is_constant or _is_number(expr)
            else f"{expr.name}={symbols.value(expr)}"
        )
    if isinstance(expr, kc.Choice):
        return f"{name(expr)} ({expr.str_value})"
    states = sorted(
        _shown(item)
        for item in kc.expr_items(expr)
        if not item.is_constant and not _is_number(item)
    )
    return f"{kc.expr_str(expr, name)} ({some(states)})"


def _is_number(item: Any) -> bool:
    """Tell whether an item is a number, which kconfiglib represents as an unknown symbol."""
    return not item.nodes and re.fullmatch(r"-?\d+|0[xX][0-9A-Fa-f]+", item.name or "") is not None


def _unsettable(kconf: Any, term: str) -> str:
    """Return a remark for a condition that is a symbol which nobody can set, "" for others."""
    sym = kconf.syms.get(term.partition("=")[0])
    if not sym or " " in term:
        return ""
    if not sym.nodes:
        return "; this tree does not have it"
    if symbols.has_prompt(sym):
        return ""
    selectors = _selectors(sym)
    how = f"is selected by {some(selectors)}" if selectors else "nothing selects it here"
    return f"; it has no prompt, and {how}"


def some(names: Sequence[str]) -> str:
    """Return the first few names, and the number of the others."""
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def _place(sym: Any) -> str:
    return f"{sym.nodes[0].filename}:{sym.nodes[0].linenr}"
