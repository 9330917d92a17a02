"""The smallest addition to the fragments that makes a request take.

Found in the Kconfig model, and tried there.

What `kways` finds is only a candidate: every one is put into the model, and counts if the request
then takes and no other request that had taken is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from tasks.kconfig import search as kways
from tasks.kconfig import symbols
from tasks.kconfig.fragments import Request, config_line, same
from tasks.kconfig.search import NOTHING, OutOfTime, Way

ROUNDS = (
    3  # a line may bring new conditions with it (EXPERT=y makes prompts visible, which then are n)
)


class Remedy(msgspec.Struct, frozen=True):
    """Lines that make a request take.

    lines:      in .config form.
    overrides:  requests of the user's own that they contradict (then it is no proposal, but the
        reason why there is none).
    turned_off: symbols that nobody asked for, were on by default, and would be off with these
        lines.
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
    """Return the best additions under which all `targets` take.

    At most two with equally many lines; [] if none is found.

    requests: all that the user asks for (the targets too).
    base:     see kmodel.assume; under: the lines of a base configuration, which the requests lie
        over.
    deadline: of time.monotonic().
    free:     lines that will be added anyway, for other requests: what can use them is preferred.
    When only something that contradicts another request would do, that is returned, with
    `overrides` set. Raises OutOfTime.
    """
    asked = {name: request.value for name, request in requests.items()}
    state = symbols.layered(under, asked)
    symbols.assume(kconf, state, base)
    before = symbols.values(kconf)
    if all(same(one.value, before.get(one.symbol, "")) for one in targets):
        # the model and the real result disagree, so what it would propose is worth nothing
        return []
    kept = [one for one in requests.values() if same(one.value, before.get(one.symbol, ""))]

    def lacking(way: Way, wanted: Iterable[Request]) -> list[Request]:
        """Put the model into the state that the way leads to; return what has not taken."""
        nonlocal state
        if time.monotonic() > deadline:
            raise OutOfTime
        new = symbols.layered(under, asked, dict(way))
        symbols.revise(kconf, state, new, base)
        state = new
        return [one for one in wanted if not same(one.value, _now(kconf, one.symbol))]

    def remedy(way: Way) -> Remedy:
        lost = lacking(way, kept)
        return _remedy(kconf, way, requests, lost, before, symbols.values(kconf))

    if not all(one.symbol in kconf.syms for one in targets):
        return []
    for start, bound in ((free, True), (NOTHING, True), (NOTHING, False)):
        missing = partial(lacking, wanted=[*targets, *kept] if bound else targets)
        ways = {
            _reduced(way, missing)
            for way in _candidates(kconf, asked, start, missing, bound, deadline)
        }
        if ways:
            new = min(len(way - free) for way in ways)
            shortest = [way for way in kways.best(ways) if len(way - free) == new]
            ranked = [(len(lacking(way, requests.values())), remedy(way)) for way in shortest]
            # of equally short ones: that which helps most of the other requests, and takes least
            # away
            ranked.sort(key=lambda one: (one[0], len(one[1].turned_off), len(one[1].lines)))
            return [one for _, one in ranked[:2]]
    return []


def _candidates(
    kconf: Any,
    asked: Mapping[str, str],
    free: Way,
    lacking: Callable[[Way], list[Request]],
    bound: bool,
    deadline: float,
) -> list[Way]:
    """Return ways after which nothing is lacking.

    Those that leave something are searched on from where they lead.
    """
    if not lacking(free):
        return [free]
    pending = [free]
    for _ in range(ROUNDS):
        reached = []
        for start in pending:
            goals = lacking(start)
            search = kways.Search(
                kconf, {**asked, **dict(start)} if bound else asked, bound, deadline
            )
            ways = [start]
            for target in goals:
                ways = kways.both(search, ways, kways.goal(search, target))
            reached += ways
        reached = kways.best(reached)
        if found := [way for way in reached if not lacking(way)]:
            return found
        pending = [way for way in reached if way not in pending]
    return []


def _reduced(way: Way, lacking: Callable[[Way], list[Request]]) -> Way:
    """Leave out every line that the rest does without."""
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


def _now(kconf: Any, symbol: str) -> str:
    sym = kconf.syms.get(symbol)
    return symbols.value(sym) if sym and sym.nodes else ""
