"""The sizes of images over builds, from the history and the store."""

from __future__ import annotations

from tasks.cache.store_files import Output, Result
from tasks.graph.history import Line
from tasks.graph.reason import NEVER, Reason
from tasks.reports import size_text
from tasks.tuning.history import MOST, points

NAMES = ["vmlinux", "bzImage"]


def line(task: str, run: float, size: int = 0, result: str = "ok", **more: object) -> Line:
    fields = {"why": [], "seconds": 2.0, "time": run + 5, **more}
    return Line(task=task, run=run, result=result, bytes=size, **fields)  # type: ignore[arg-type]


def flip(symbol: str, before: str, after: str, where: str = "") -> Reason:
    return Reason("note", f"CONFIG_{symbol}", before, after, where)


def test_an_image_that_a_run_did_not_make_is_as_it_was() -> None:
    found = points(
        [
            line("vmlinux", 1, 100, why=[NEVER]),
            line("bzImage", 1, 50, why=[NEVER]),
            line("vmlinux", 20, 110, why=[Reason("discovered", "kernel/panic.c", "1", "2")]),
            line("vmlinux", 30, 100, result="restored"),
        ],
        NAMES,
    )
    assert [one.sizes for one in found] == [
        {"vmlinux": 100, "bzImage": 50},
        {"vmlinux": 110, "bzImage": 50},
        {"vmlinux": 100, "bzImage": 50},
    ]
    assert [one.reasons for one in found] == [[], ["kernel/panic.c changed"], []]
    assert [one.time for one in found] == [6, 25, 35]


def test_changes_of_the_configuration_stand_at_the_build_that_they_went_into() -> None:
    found = points(
        [
            line("vmlinux", 1, 100),
            line("kernel_config", 2, notes=[flip("NET", "n", "y", "a.config:3")]),
            line("kernel_config", 3, notes=[flip("PCI", "y", "n"), flip("B", "n", "y")]),
            line("kernel_config", 4, notes=[flip("PCI", "n", "y"), flip("NET", "y", "m")]),
            line("vmlinux", 5, 100, why=[Reason("discovered", "CONFIG_NET", "n", "m")]),
            line("vmlinux", 6, 100),
        ],
        NAMES,
    )
    assert [one.changes for one in found] == [[], [flip("NET", "n", "m"), flip("B", "n", "y")]]
    assert found[1].reasons == []


def test_what_failed_made_nothing() -> None:
    assert points([line("vmlinux", 1, 100, result="failed")], NAMES) == []


def test_a_size_that_was_not_recorded_is_the_stores() -> None:
    kept = [
        Result("vmlinux", when, {}, [Output("0" * 32, size, 0o644)])
        for when, size in ((5.9, 100), (100, 7))
    ]
    lines = [line("vmlinux", 1), line("bzImage", 1), line("vmlinux", 50, result="restored")]
    assert [one.sizes for one in points(lines, NAMES, kept)] == [{"vmlinux": 100}]
    assert points(lines, NAMES) == []


def test_the_images_that_are_there_are_the_last_build() -> None:
    lines = [line("vmlinux", 1, 100)]
    there = {"vmlinux": 100, "bzImage": 60, "other": 5}
    found = points(lines, NAMES, present=(77.0, there))
    assert [(one.time, one.sizes) for one in found] == [
        (6, {"vmlinux": 100}),
        (77.0, {"vmlinux": 100, "bzImage": 60}),
    ]
    assert len(points(lines, NAMES, present=(77.0, {"vmlinux": 100}))) == 1


def test_the_last_builds_are_returned() -> None:
    lines = [line("vmlinux", number, 100 + number) for number in range(MOST + 5)]
    found = points(lines, NAMES)
    assert len(found) == MOST
    assert found[-1].sizes == {"vmlinux": 100 + MOST + 4}


def test_the_table_has_a_line_for_each_build_that_differs() -> None:
    found = points(
        [
            line("vmlinux", 1, 1000),
            line("bzImage", 1, 500),
            line("rootfs", 2, 9),
            line("kernel_config", 3, notes=[flip("NET", "n", "y", "a.config:3")]),
            line("vmlinux", 3, 1200),
        ],
        [*NAMES, "rootfs"],
    )
    head, first, last = size_text.history(found, "bzImage", str.upper)
    assert head.split() == ["built", "vmlinux", "delta", "bzImage", "delta", "changed"]
    assert first.split()[2:] == ["1,000", "500"]
    assert last.split()[2:] == [
        "1,200",
        "+200",
        "500",
        "CONFIG_NET",
        "N",
        "->",
        "Y",
        "(A.CONFIG:3)",
    ]
    assert list(size_text.history(found, "bzImage", most=1))[1:2] == ["(1 earlier)"]
