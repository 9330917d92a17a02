"""Boots in seconds: medians, their intervals, and pairs in turns."""

from __future__ import annotations

import random

import pytest

from tasks.tuning import boot_wall
from tasks.tuning.boot_wall import Times


def test_the_interval_is_that_of_the_tables() -> None:
    """For 30 values it goes from the 10th to the 21st (Conover, table A3: 0.9572)."""
    found = boot_wall.interval(list(range(1, 31)))
    assert (found.median, found.low, found.high) == (15.5, 10, 21)
    found = boot_wall.interval([5.0, 1.0, 3.0])
    assert (found.median, found.low, found.high) == (3.0, 1.0, 5.0)
    with pytest.raises(ValueError):
        boot_wall.interval([])


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    noise = random.Random(1)
    hits = 0
    for _ in range(1000):
        found = boot_wall.interval([noise.expovariate(1) for _ in range(30)])
        hits += found.low <= 0.693147 <= found.high
    assert 935 <= hits <= 985


def paired(by: float) -> Times:
    """30 pairs under a load that doubles, with noise; one side is slower by some seconds."""
    noise = random.Random(2)
    old = [1 + turn / 30 for turn in range(30)]
    return Times(
        accel="tcg",
        new=tuple(one + by + noise.gauss(0, 0.02) for one in old),
        old=tuple(one + noise.gauss(0, 0.02) for one in old),
        load=(0.0, 0.0),
    )


def test_equal_builds_do_not_differ_and_others_do_under_a_load_that_grows() -> None:
    assert not paired(0).difference.differs
    assert paired(0.05).difference.differs
    assert paired(-0.05).difference.high < 0


def test_builds_take_turns_after_warming_up() -> None:
    order: list[str] = []
    clock = iter(range(1000))

    def boot(name: str) -> float:
        order.append(name)
        return float(next(clock))

    found = boot_wall.measure([lambda: boot("n"), lambda: boot("o")], "tcg", lambda: 1.0, pairs=4)
    assert "".join(order) == "onno" * 3
    assert found.new == (5.0, 6.0, 9.0, 10.0)
    assert found.old == (4.0, 7.0, 8.0, 11.0)
    alone = boot_wall.measure([lambda: boot("n")], "tcg", lambda: 1.0, pairs=3)
    assert (len(alone.new), alone.old) == (3, ())
