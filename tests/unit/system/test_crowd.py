"""How crowded the host is, as a process meets it."""

from __future__ import annotations

import time

import pytest

from tasks.system import crowd


@pytest.mark.parametrize(
    ("passed", "used", "value"),
    [(6.0, 2.0, 3.0), (1.0, 1.0, 1.0), (1.0, 1.7, 1.0), (500.0, 1.0, crowd.MOST), (5.0, 0.01, 1.0)],
)
def test_the_clock_for_each_second_of_processor_time(
    monkeypatch: pytest.MonkeyPatch, passed: float, used: float, value: float
) -> None:
    began, before = crowd._CLOCK.began, crowd._CLOCK.used
    monkeypatch.setattr(time, "monotonic", lambda: began + passed)
    monkeypatch.setattr(crowd, "_used", lambda: before + used)
    assert crowd.crowd() == pytest.approx(value)


def test_processor_time_is_what_is_used() -> None:
    before, until = crowd._used(), time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert crowd._used() - before > 0.09


def test_it_is_taken_once_at_the_start() -> None:
    assert crowd.at_start() == crowd.at_start()
    assert 1.0 <= crowd.at_start() <= crowd.MOST
