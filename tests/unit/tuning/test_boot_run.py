"""From the halts of a boot to its events."""

from __future__ import annotations

from tasks.guest.marks import Marks
from tasks.tuning import boot_run
from tasks.tuning.boot import Event
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


class Execing(Guest):
    """A guest that starts programs: their command line is a word, at 0x1000."""

    task = 0x7000

    def registers(self) -> dict[str, int]:
        return {"RDI": self.task, "RSI": 0x3000, "RDX": 0x1001}

    def memory(self, address: int, many: int) -> bytes:
        found = {0x500: self.task, 0x1001: 1, 0x1009: 0x2000}[address]
        return found.to_bytes(many, "little")

    def text(self, address: int) -> str:
        return {0x2000: "/bin/sh", 0x3000: "sh"}[address]


NAMED, ARGUMENTS = Point("program", "__set_task_comm"), Point("arguments", "start_thread")


def programs(current: int, *points: Point) -> list[tuple[str, int]]:
    known = Points({}, Marks(()), wide=8, order="<", ticks=0, current=current)
    teller, guest = boot_run._Teller(known, "x86_64"), Execing()
    for point in (Point("part", "init"), *points):
        teller.tell(guest, point)  # type: ignore[arg-type]
    return [(event.name, event.task) for event in teller.events if event.what == "program"]


def test_a_program_is_told_also_where_the_compiler_left_no_call_that_names_it() -> None:
    """gcc -O2 puts __set_task_comm() into begin_new_exec()."""
    assert programs(0x500, ARGUMENTS, ARGUMENTS) == [("/bin/sh", 0x7000)] * 2
    assert programs(0, ARGUMENTS) == []  # whose program it is, is not known


def test_a_program_that_was_named_is_told_once() -> None:
    assert programs(0x500, NAMED, ARGUMENTS, NAMED, ARGUMENTS) == [("/bin/sh", 0x7000)] * 2
    assert programs(0x500, NAMED, Point("exit", ""), ARGUMENTS) == [("sh", 0x7000)]


def test_a_boot_without_a_program_says_so() -> None:
    known = Points({1: NAMED}, Marks(()), wide=8, order="<", ticks=0)
    (note,) = boot_run.unseen([Event("part", "init", 1)], known)
    assert note.startswith("no program was told: ")
    assert boot_run.unseen([Event("program", "sh", 1)], known) == []
    assert boot_run.unseen([], POINTS) == []  # `incomplete` says so


def test_a_probe_has_the_variable_that_holds_its_driver() -> None:
    """The second argument of really_probe() lies in it: the driver is static, and part of a larger
    struct."""
    data = ((0x2000, 0x2F00, "other_driver"), (0x2F80, 0x3100, "disk_driver"))
    known = Points({}, Marks(()), wide=8, order="<", ticks=0, data=data)
    teller = boot_run._Teller(known, "x86_64")
    guest = Execing()
    guest.memory = lambda address, many: (0x3000).to_bytes(many, "little")  # type: ignore[method-assign]
    teller.tell(guest, Point("probe", "really_probe"))  # type: ignore[arg-type]
    assert [(one.name, one.holder) for one in teller.events] == [("sh sh", "disk_driver")]
    assert [known.variable(one) for one in (0, 0x2F40, 0x2F80, 0x3100)] == [
        "",
        "",
        "disk_driver",
        "",
    ]
