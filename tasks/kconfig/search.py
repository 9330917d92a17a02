"""Search for ways to make a Kconfig expression true, by walking the dependencies backwards.

A way is a set of lines. AND joins the ways of both sides, OR offers those of either side, NOT and
comparisons ask for the opposite or for a value. A symbol without a prompt is reached through the
symbols that select it, or through its defaults. The walk looks only at the model's present state;
whether a way really works is for the caller to test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from tasks.kconfig.fragments import Request, same

WIDTH = 5  # ways kept for each goal, those with the fewest lines
DEPTH = 40  # symbols on the path from the goal, each the condition of the one before

Way = frozenset[tuple[str, str]]
NOTHING: Way = frozenset()


class OutOfTime(Exception):
    """The search has used up its time."""


class Search(msgspec.Struct):
    """One walk over the model in its present state.

    Attributes:
        kconf: The model.
        asked: The values that the fragments request, by symbol.
        bound: Whether a way must agree with them.
        deadline: Of time.monotonic(), in seconds; then the walk ends with OutOfTime.
        known: The ways found so far.
        open: The goals between the root of the walk and here.
    """

    kconf: Any
    asked: Mapping[str, str]
    bound: bool
    deadline: float
    known: dict[tuple[str, str, int], list[Way]] = msgspec.field(default_factory=dict)
    open: set[tuple[str, str, int]] = msgspec.field(default_factory=set)


def best(ways: Iterable[Way]) -> list[Way]:
    """Return the few shortest ways, in a fixed order."""
    return sorted(set(ways), key=lambda way: (len(way), sorted(way)))[:WIDTH]


def both(search: Search, left: list[Way], right: list[Way]) -> list[Way]:
    """Return the ways to achieve both of two things."""
    return best(
        way
        for first in left
        for second in right
        if (way := join(search, first, second)) is not None
    )


def join(search: Search, left: Way, right: Way) -> Way | None:
    """Return two ways as one, or None if they contradict each other."""
    lines = dict(left)
    for name, value in right:
        if lines.setdefault(name, value) != value:
            if {lines[name], value} != {"m", "y"}:
                return None
            lines[name] = "y"
    choices = [search.kconf.syms[name].choice for name, value in lines.items() if value == "y"]
    taken = [id(choice) for choice in choices if choice]
    return frozenset(lines.items()) if len(taken) == len(set(taken)) else None


def goal(search: Search, target: Request) -> list[Way]:
    """Return ways to make a request take."""
    import kconfiglib

    sym = search.kconf.syms.get(target.symbol)
    if not sym or not sym.nodes:
        return []
    if sym.orig_type not in (kconfiglib.BOOL, kconfiglib.TRISTATE):
        text = target.value
        return _take(search, sym, kconfiglib.unescape(text[1:-1]) if text.startswith('"') else text)
    if target.value == "m":
        if sym.orig_type == kconfiglib.TRISTATE and not search.kconf.modules.tri_value:
            return meet(search, search.kconf.modules, 2)
        return fail(search, sym, 1) if sym.tri_value == 2 else meet(search, sym, 1)
    return meet(search, sym, 2) if target.value == "y" else fail(search, sym, 0)


def meet(search: Search, expr: Any, level: int) -> list[Way]:
    """Return ways to make an expression at least `level` (1: m, 2: y)."""
    import kconfiglib as kc

    if kc.expr_value(expr) >= level:
        return [NOTHING]
    if isinstance(expr, tuple):
        if expr[0] is kc.AND:
            left = meet(search, expr[1], level)
            return left and both(search, left, meet(search, expr[2], level))
        if expr[0] is kc.OR:
            return best(meet(search, expr[1], level) + meet(search, expr[2], level))
        return fail(search, expr[1], 2 - level) if expr[0] is kc.NOT else _relate(search, *expr)
    if isinstance(expr, kc.Choice):
        return best(
            way for node in expr.nodes if node.prompt for way in meet(search, node.prompt[1], level)
        )
    return _remembered(search, "meet", expr, level, _raise)


def fail(search: Search, expr: Any, level: int) -> list[Way]:
    """Return ways to make an expression at most `level` (0: n, 1: m)."""
    import kconfiglib as kc

    if kc.expr_value(expr) <= level:
        return [NOTHING]
    if isinstance(expr, tuple):
        if expr[0] is kc.AND:
            return best(fail(search, expr[1], level) + fail(search, expr[2], level))
        if expr[0] is kc.OR:
            left = fail(search, expr[1], level)
            return left and both(search, left, fail(search, expr[2], level))
        if expr[0] is kc.NOT:
            return meet(search, expr[1], 2 - level)
        opposite = {kc.EQUAL: kc.UNEQUAL, kc.LESS: kc.GREATER_EQUAL, kc.GREATER: kc.LESS_EQUAL}
        opposite |= {there: here for here, there in opposite.items()}
        return _relate(search, opposite[expr[0]], expr[1], expr[2])
    return [] if isinstance(expr, kc.Choice) else _remembered(search, "fail", expr, level, _lower)


def _remembered(
    search: Search, what: str, sym: Any, level: int, how: Callable[[Search, Any, int], list[Way]]
) -> list[Way]:
    """Return a symbol's ways, computed once.

    A symbol that is its own condition, or lies too deep, has none.
    """
    if sym.is_constant or not sym.nodes:
        return []
    if time.monotonic() > search.deadline:
        raise OutOfTime
    key = (what, sym.name, level)
    if key in search.open or len(search.open) > DEPTH:
        return []
    if key not in search.known:
        search.open.add(key)
        search.known[key] = best(how(search, sym, level))
        search.open.discard(key)
    return search.known[key]


def _assign(search: Search, sym: Any, value: str) -> list[Way]:
    """Return the way that consists of one line.

    The way is empty if the line is requested already. If another value
    is, and the walk is bound to it, there is no way.
    """
    asked = search.asked.get(sym.name)
    if asked is not None and same(asked, value):
        return [NOTHING]
    return [frozenset({(sym.name, value)})] if asked is None or not search.bound else []


def _prompted(search: Search, sym: Any, value: str, level: int) -> list[Way]:
    """Return ways to give a symbol a value by its prompt."""
    own = _assign(search, sym, value)
    return own and best(
        way
        for node in sym.nodes
        if node.prompt
        for way in both(search, own, meet(search, node.prompt[1], level))
    )


def _raise(search: Search, sym: Any, level: int) -> list[Way]:
    import kconfiglib as kc

    need = level if sym.type == kc.TRISTATE else 1  # Kconfig promotes m to y for a bool
    asked_for = search.asked.get(sym.name) == "y"
    ways = _prompted(
        search, sym, "m" if need == 1 and sym.type == kc.TRISTATE and not asked_for else "y", need
    )
    if ways or sym.choice:
        return ways
    ways = list(meet(search, sym.rev_dep, need))
    for default, condition in sym.defaults:
        ways += both(search, meet(search, default, need), meet(search, condition, need))
    return ways + both(
        search, meet(search, sym.weak_rev_dep, need), meet(search, sym.direct_dep, need)
    )


def _lower(search: Search, sym: Any, level: int) -> list[Way]:
    import kconfiglib as kc

    if sym.choice:
        return [
            way
            for other in sym.choice.syms
            if other is not sym
            for way in _prompted(search, other, "y", 1)
        ]
    if sym.type == kc.BOOL:
        level = 0
    own = _prompted(search, sym, "m" if level else "n", 1)
    if not sym.visibility:
        for default, condition in sym.defaults:
            if kc.expr_value(condition):
                own = own + fail(search, (kc.AND, default, condition), level)
                break
        else:
            own = own + [NOTHING]
    return both(search, own, fail(search, sym.rev_dep, level))


def _relate(search: Search, relation: Any, left: Any, right: Any) -> list[Way]:
    """Return ways to make the comparison of a symbol with a constant true."""
    import kconfiglib as kc

    mirrored = {
        kc.LESS: kc.GREATER,
        kc.GREATER: kc.LESS,
        kc.LESS_EQUAL: kc.GREATER_EQUAL,
        kc.GREATER_EQUAL: kc.LESS_EQUAL,
    }
    if left.is_constant or not left.nodes:
        left, right, relation = right, left, mirrored.get(relation, relation)
    if left.is_constant or not left.nodes or (right.nodes and not right.is_constant):
        return []
    text = right.str_value
    if left.orig_type in (kc.BOOL, kc.TRISTATE):
        if text not in ("n", "m", "y") or relation not in (kc.EQUAL, kc.UNEQUAL):
            return []
        if relation is kc.EQUAL:
            return {
                "y": lambda: meet(search, left, 2),
                "n": lambda: fail(search, left, 0),
                "m": lambda: _prompted(search, left, "m", 1),
            }[text]()
        return {
            "n": lambda: meet(search, left, 1),
            "m": lambda: meet(search, left, 2) + fail(search, left, 0),
            "y": lambda: fail(search, left, 1 if left.type == kc.TRISTATE else 0),
        }[text]()
    step = {kc.LESS: -1, kc.GREATER: 1}.get(relation, 0)
    if relation is kc.UNEQUAL:
        return []
    try:
        number = int(text, 16 if left.orig_type == kc.HEX else 10) + step
    except ValueError:
        return _take(search, left, text) if relation is kc.EQUAL else []
    return _take(search, left, hex(number) if left.orig_type == kc.HEX else str(number))


def _take(search: Search, sym: Any, text: str) -> list[Way]:
    """Return ways to give a string or number a value: by its prompt, or through a default."""
    import kconfiglib as kc

    quoted = f'"{kc.escape(text)}"' if sym.orig_type == kc.STRING else text
    ways = _prompted(search, sym, quoted, 1)
    if not ways:
        for default, condition in sym.defaults:
            if same(text, default.str_value):
                ways = ways + meet(search, condition, 1)
    return best(ways)
