"""Find the smallest addition to the fragments that makes a request take.

search.py only proposes candidates. Each is put into the model here, and counts if the request takes
then and no request that had taken is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from tasks.kconfig import symbols
from tasks.kconfig.fragments import Request, config_line, same
from tasks.kconfig.search import NOTHING, OutOfTime, Search, Way, best, both, goal

# Searches in a row: a line may bring new conditions (EXPERT=y makes prompts visible, and what they
# set is then n).
ROUNDS = 3


class Remedy(msgspec.Struct, frozen=True):
    """Lines that make a request take.

    Attributes:
        lines: In the form of a .config.
        overrides: The user's own requests that the lines contradict. If there are any, the remedy
            is not proposed, but explains why there is no other.
        turned_off: Symbols that nobody requested, that were on by default, and that would be off
            with these lines.
    """

    lines: tuple[str, ...]
    overrides: tuple[Request, ...]
    turned_off: tuple[str, ...]


def find(
    kconf: Any,
    requests: Mapping[str, Request],
    targets: Sequence[Request],
    *,
    base: str,
    under: Mapping[str, str],
    deadline: float,
    free: Way = NOTHING,
) -> list[Remedy]:
    """Return the best additions under which all targets take.

    Where every addition contradicts another request, one is returned with `overrides` set.

    Args:
        kconf: The model.
        requests: All requests by symbol, the targets included.
        targets: The requests that must take.
        base: See symbols.assume.
        under: The symbols of a base configuration below the requests.
        deadline: Of time.monotonic(), in seconds.
        free: Lines that will be added anyway, for other requests. Additions that use them are
            preferred.

    Returns:
        At most two additions with equally many lines; [] if none was found.

    Raises:
        OutOfTime: The deadline has passed.
    """
    asked = {name: request.value for name, request in requests.items()}
    state = symbols.layered(under, asked)
    symbols.assume(kconf, state, base)
    before = symbols.values(kconf)
    if all(same(request.value, before.get(request.symbol, "")) for request in targets):
        # By the model all targets take, and in the real .config they did not: its proposals would
        # be worth nothing.
        return []
    taken = [
        request
        for request in requests.values()
        if same(request.value, before.get(request.symbol, ""))
    ]

    def lacking(way: Way, wanted: Iterable[Request]) -> list[Request]:
        """Add a way's lines to the requests in the model; return the requests that do not take."""
        nonlocal state
        if time.monotonic() > deadline:
            raise OutOfTime
        new = symbols.layered(under, asked, dict(way))
        symbols.revise(kconf, state, new, base)
        state = new
        return [
            request for request in wanted if not same(request.value, _value(kconf, request.symbol))
        ]

    def remedy(way: Way) -> Remedy:
        lost = lacking(way, taken)
        return _remedy(kconf, way, requests, lost, before, symbols.values(kconf))

    if not all(request.symbol in kconf.syms for request in targets):
        return []
    for start, bound in ((free, True), (NOTHING, True), (NOTHING, False)):
        missing = partial(lacking, wanted=[*targets, *taken] if bound else targets)
        ways = {
            _reduced(way, missing)
            for way in _candidates(kconf, asked, start, missing, bound, deadline)
        }
        if ways:
            new = min(len(way - free) for way in ways)
            shortest = [way for way in best(ways) if len(way - free) == new]
            ranked = [(len(lacking(way, requests.values())), remedy(way)) for way in shortest]
            # Of equally short ones the best is the one under which most other requests take, then
            # the one that turns off least.
            ranked.sort(key=lambda pair: (pair[0], len(pair[1].turned_off), len(pair[1].lines)))
            return [pair for _, pair in ranked[:2]]
    return []


def _candidates(
    kconf: Any,
    asked: Mapping[str, str],
    free: Way,
    lacking: Callable[[Way], list[Request]],
    bound: bool,
    deadline: float,
) -> list[Way]:
    """Return ways after which no request is lacking.

    A way that leaves some lacking is the start of the next search.
    """
    if not lacking(free):
        return [free]
    pending = [free]
    for _ in range(ROUNDS):
        reached = []
        for start in pending:
            goals = lacking(start)
            search = Search(kconf, {**asked, **dict(start)} if bound else asked, bound, deadline)
            ways = [start]
            for target in goals:
                ways = both(search, ways, goal(search, target))
            reached += ways
        reached = best(reached)
        if found := [way for way in reached if not lacking(way)]:
            return found
        pending = [way for way in reached if way not in pending]
    return []


def _reduced(way: Way, lacking: Callable[[Way], list[Request]]) -> Way:
    """Drop every line that is not needed beside the others."""
    for line in sorted(way, reverse=True):
        if not lacking(way - {line}):
            way -= {line}
    return way


def _remedy(
    kconf: Any,
    way: Way,
    requests: Mapping[str, Request],
    lost: Sequence[Request],
    before: Mapping[str, str],
    after: Mapping[str, str],
) -> Remedy:
    names = [name for name, _ in way]
    off = [
        name
        for name, old in before.items()
        if old in ("y", "m")
        and after[name] == "n"
        and name not in names
        and name not in requests
        and symbols.has_prompt(kconf.syms[name])
        and not kconf.syms[name].choice
    ]
    contradicted = [requests[name] for name in sorted(names) if name in requests]
    return Remedy(
        tuple(config_line(*line) for line in sorted(way)),
        tuple(dict.fromkeys([*contradicted, *lost])),
        tuple(sorted(off)),
    )


def _value(kconf: Any, symbol: str) -> str:
    sym = kconf.syms.get(symbol)
    return symbols.value(sym) if sym and sym.nodes else ""
