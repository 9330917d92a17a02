"""From the halts of a boot to its events."""

from __future__ import annotations

from tasks.guest.marks import Marks
from tasks.tuning import boot_run
from tasks.tuning.boot_points import Point, Points

POINTS = Points({}, Marks(()), wide=8, order="<", ticks=0)
CALLER, BACK = Point("caller", "do_one_initcall"), Point("back", "")


class Guest:
    """A guest whose count is how often it was halted."""

    address = count = 0
    console = b""


def told(*points: Point) -> list[tuple[str, str, int]]:
    teller, guest = boot_run._Teller(POINTS, "none"), Guest()
    for number, point in enumerate(points):
        guest.count = number
        teller.tell(guest, point)  # type: ignore[arg-type]
    return [(event.what, event.name, event.count) for event in teller.events]


def test_an_initcall_is_told_only_where_the_kernel_calls_it_as_one() -> None:
    """The x86_64 kernel calls static_call_init() in setup_arch(), long before; the first return to
    do_one_initcall() is none from there."""
    both = Point("initcall", "static_call_init", "early")
    other = Point("initcall", "other_init", "core")
    started = Point("part", "start_kernel")
    assert told(started, both, BACK, CALLER, both, BACK, CALLER, other, both, BACK) == [
        ("part", "start_kernel", 0),
        ("initcall", "static_call_init", 4),
        ("back", "", 5),
        ("initcall", "other_init", 7),
        ("back", "", 9),
    ]
