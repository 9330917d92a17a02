"""Boots in seconds of this host: two builds in turns, and whether they differ at all.

Load comes and goes, so the builds take turns, a pair at a time, and what counts is the difference
within each pair. The interval of the median is that of order statistics, which assumes nothing of
how the times are distributed (Conover, Practical Nonparametric Statistics, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

LEAST = 30  # boots of each build
WARM = 2  # boots of each build before, which fill the host's caches
_SURE = 0.95


class Interval(msgspec.Struct, frozen=True):
    """A median with the interval in which it lies, with a confidence of at least 95 %."""

    median: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Tell whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        accel: "kvm" or "tcg".
        new: Seconds of each boot of this build.
        old: Those of the other build, in pairs with `new`; empty without one.
        load: The host's load average over a minute, before and after.
    """

    accel: str
    new: tuple[float, ...]
    old: tuple[float, ...]
    load: tuple[float, float]

    @property
    def difference(self) -> Interval:
        """The median of the differences of pairs, new minus old."""
        return interval([one - other for one, other in zip(self.new, self.old, strict=True)])


def told(times: Times) -> dict[str, object]:
    """Return what was measured, and the median of each build and of the difference, for programs.

    Args:
        times: The boots.
    """
    old = times.old
    return {
        **msgspec.structs.asdict(times),
        "this": interval(times.new),
        "other": interval(old) if old else None,
        "difference": times.difference if old else None,
    }


def interval(values: Sequence[float]) -> Interval:
    """Return the median of values and its interval; of fewer than six values, all of them.

    Raises:
        ValueError: There are none.
    """
    if not values:
        raise ValueError("no values")
    ordered, count = sorted(values), len(values)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    # The median lies outside of [ordered[k], ordered[count - 1 - k]] if at most k values are on
    # one of its sides: twice the binomial distribution's tail.
    outside, rank, tail = (1 - _SURE) / 2 * 2**count, 0, 0
    while rank <= count // 2 and (tail := tail + math.comb(count, rank)) <= outside:
        rank += 1
    low = max(rank - 1, 0)
    return Interval(middle, ordered[low], ordered[count - 1 - low])


def measure(
    boots: Sequence[Callable[[], float]],
    accel: str,
    load: Callable[[], float],
    pairs: int = LEAST,
    step: Callable[[], None] = lambda: None,
) -> Times:
    """Boot one or two builds in turns.

    The one that begins changes from pair to pair, so that a load that grows favours neither.

    Args:
        boots: Boots this build, and the other one, and returns the seconds.
        accel: The accelerator.
        load: Returns the host's load average.
        pairs: How many boots of each count.
        step: Is called after each boot.
    """
    before = load()
    times: list[list[float]] = [[] for _ in boots]
    for turn in range(WARM + pairs):
        order = list(enumerate(boots))
        for number, boot in order if turn % 2 else reversed(order):
            seconds = boot()
            step()
            if turn >= WARM:
                times[number].append(seconds)
    other = tuple(times[1]) if len(times) > 1 else ()
    return Times(accel=accel, new=tuple(times[0]), old=other, load=(before, load()))
