"""How often something was found in the store."""

from __future__ import annotations

from tasks.graph.history import Line, Work
from tasks.reports.store import Rate, rates


def line(result: str, run: float, missed: bool = False, **work: float) -> Line:
    return Line(task="x", result=result, why=[], run=run, missed=missed, work=Work("make", **work))


def test_nothing_was_looked_for() -> None:
    assert rates([]) == (Rate(0, 0), Rate(0, 0), 0)
    assert rates([line("ok", 1.0), line("failed", 2.0)]) == (Rate(0, 0), Rate(0, 0), 0)
    assert str(Rate(0, 0)) == "0 of 0 (0%)"


def test_results_and_objects() -> None:
    lines = [
        line("restored", 1.0),
        line("restored", 1.0),
        line("ok", 2.0, missed=True, copied=90, copying=1.0, compiled=10),
        line("ok", 3.0, missed=True, compiled=1),  # by saved commands: no object was looked up
        line("ok", 4.0, compiled=1000, copying=0.1),  # by force
    ]
    results, objects, runs = rates(lines)
    assert (results, objects, runs) == (Rate(2, 4), Rate(90, 100), 3)
    assert str(objects) == "90 of 100 (90%)"
