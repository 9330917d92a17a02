"""A boot in bars: from events to phases, initcalls and programs; comparison and trace."""

from __future__ import annotations

import json
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.guest.marks import Marks
from tasks.tuning import boot, boot_points, boot_run
from tasks.tuning.boot import Bar, Event, Profile
from tasks.tuning.boot_points import Point, Points
from tasks.tuning.elf import Elf, Section, Symbol

EVENTS = [
    Event("part", "setup code", 500),
    Event("part", "start_kernel", 1_000, 700, 0),
    Event("initcall", "first", 2_000, 700, 10, "core"),
    Event("back", "", 2_500, 700, 12),
    Event("initcall", "disk_init", 3_000, 700, 12, "device"),
    Event("probe", "disk 0:1", 3_100, 700, 12),
    Event("probe", "disk 0:2", 3_200, 720, 15),
    Event("back", "", 3_900, 720, 20),
    Event("part", "init", 5_000, 720, 20),
    Event("program", "init", 5_100, 720, 20, task=1),
    Event("program", "rcS", 6_000, 720, 20, task=2),
    Event("program", "mount", 6_200, 720, 20, task=3),
    Event("exit", "", 6_900, 720, 20, task=3),
    Event("exit", "", 7_000, 721, 25, task=2),
    Event("program", "sh", 7_100, 721, 25, task=4),
    Event("end", "answer", 8_000, 722, 30),
]
FOUND = boot.bars(EVENTS, 100)


def named(name: str) -> Bar:
    return next(bar for bar in FOUND if bar.name == name)


def profile(bars: list[Bar], total: int = 8_000) -> Profile:
    return Profile(
        machine="pc",
        state="s",
        instructions=total,
        milliseconds=0,
        bytes=30,
        bars=tuple(bars),
    )


def test_the_phases_cover_the_boot_without_a_gap() -> None:
    phases = [bar for bar in FOUND if not bar.depth]
    assert [bar.name for bar in phases] == [
        "firmware",
        "setup code",
        "start_kernel",
        "initcalls: core",
        "initcalls: device",
        "init",
        "start scripts",
        "shell",
    ]
    assert phases[0].start == 0
    assert all(
        one.start + one.instructions == after.start
        for one, after in zip(phases, phases[1:], strict=False)
    )
    assert sum(bar.instructions for bar in phases) == 8_000
    assert sum(bar.bytes for bar in phases) == 30


def test_what_comes_before_the_kernel_is_one_phase_where_no_loader_is_told() -> None:
    assert boot.bars(EVENTS[1:], 100)[0].name == "before start_kernel"
    assert boot.bars(EVENTS[1:], 100)[0].instructions == 1_000


def test_an_initcall_ends_where_its_caller_goes_on() -> None:
    assert (named("first").start, named("first").instructions) == (2_000, 500)
    assert (named("disk_init").instructions, named("disk_init").bytes) == (900, 8)
    assert named("disk_init").level == "device"


def test_probes_are_inside_their_initcall_and_end_with_the_next_or_with_it() -> None:
    assert (named("disk 0:1").depth, named("disk 0:1").instructions) == (2, 100)
    assert (named("disk 0:2").depth, named("disk 0:2").instructions) == (2, 700)


def test_a_program_ends_when_its_own_process_does() -> None:
    assert named("mount").instructions == 700
    assert named("rcS").instructions == 1_000
    assert named("sh").instructions == 900  # it is still there at the end


def test_time_that_no_instruction_took_was_slept() -> None:
    """20 ticks of 10 ms passed, and 100 instructions take no time to speak of."""
    assert (named("disk 0:1").milliseconds, named("disk 0:1").slept) == (200, 200)
    assert named("disk 0:2").slept == 0


def test_before_the_first_tick_an_instruction_takes_a_nanosecond() -> None:
    found = boot.bars(
        [Event("part", "start_kernel", 300_000_000, 700), Event("end", "", 300_000_001, 700)], 100
    )
    assert (found[0].name, found[0].milliseconds, found[0].slept) == ("before start_kernel", 300, 0)


def test_a_process_that_runs_another_program_has_two_bars() -> None:
    events = [
        *EVENTS[:-2],
        Event("program", "a", 7_100, task=9),
        Event("program", "b", 7_300, task=9),
    ]
    found = {bar.name: bar for bar in boot.bars([*events, EVENTS[-1]], 100)}
    assert (found["a"].instructions, found["b"].instructions) == (200, 700)


def test_equal_boots_do_not_differ() -> None:
    assert boot.compare(profile(FOUND), profile(FOUND)) == []


def test_a_comparison_names_what_came_went_and_grew_with_its_reason() -> None:
    old = [Bar("phase", "shell", 0, 0, 100), Bar("initcall", "gone", 1, 0, 7)]
    new = [
        Bar("phase", "shell", 0, 0, 150),
        Bar("initcall", "new", 1, 0, 9, object="a.o", symbol="A", reason="a.config:3"),
    ]
    found = boot.compare(profile(old), profile(new))
    assert [(one.name, one.old, one.new, one.by) for one in found] == [
        ("shell", 100, 150, 50),
        ("new", None, 9, 9),
        ("gone", 7, None, -7),
    ]
    assert found[1].reason == "a.o, CONFIG_A, a.config:3"


def test_a_trace_has_an_event_for_each_bar_in_microseconds() -> None:
    told = json.loads(boot.trace(profile(FOUND)))["traceEvents"]
    drawn = [one for one in told if one["ph"] == "X"]
    assert len(drawn) == len(FOUND)
    first = next(one for one in drawn if one["name"] == "first")
    assert (first["ts"], first["dur"]) == (2.0, 0.5)


def test_a_trace_of_two_boots_has_a_process_for_each() -> None:
    told = json.loads(boot.trace(profile(FOUND), profile(FOUND[:2])))["traceEvents"]
    names = {one["pid"]: one["args"]["name"] for one in told if one["ph"] == "M"}
    assert names == {1: "boot of pc", 2: "boot of pc, before"}
    drawn = [one["pid"] for one in told if one["ph"] == "X"]
    assert (drawn.count(1), drawn.count(2)) == (len(FOUND), 2)


def test_programs_that_run_at_once_are_in_rows_of_their_own() -> None:
    bars = [Bar("program", str(number), 1, at, 10) for number, at in enumerate((0, 5, 10, 12))]
    told = json.loads(boot.trace(profile(bars)))["traceEvents"]
    assert [one["tid"] for one in told if one["ph"] == "X"] == [10, 11, 10, 12]


def kernel(content: bytes, wide: int) -> Elf:
    """A kernel whose table of initcalls lies at 0x2000, with two levels of one call each."""
    size = len(content) // 2
    return Elf(
        data=b"\x7fELF" + bytes([wide // 4, 1]) + content,
        sections=[Section("", 0, 0, 0, 0, False, False, False, True)]
        + [Section(".init.data", 0x2000, 0x2000, 6, len(content), True, True, False, False)],
        symbols=[Symbol("one", 0x1000, 16, 1, True), Symbol("two", 0x1100, 16, 1, True)]
        + [Symbol("do_one_initcall", 0x1200, 64, 1, False)],
        addresses={
            "__initcall_start": 0x2000,
            "__initcall0_start": 0x2000,
            "__initcall6_start": 0x2000 + size,
            "__initcall7_start": 0x2000 + 2 * size,
            "__initcall_end": 0x2000 + 2 * size,
            "do_one_initcall": 0x1200,
            "n_tty_poll": 0x1300,
        },
        headers=[],
        layout=0,
    )


@pytest.mark.parametrize(
    ("content", "wide", "config"),
    [
        (
            struct.pack("<ii", 0x1000 - 0x2000, 0x1100 - 0x2004),
            4,
            {"HAVE_ARCH_PREL32_RELOCATIONS": "y"},
        ),
        (
            struct.pack("<ii", 0x1000 - 0x2000, 0x1100 - 0x2004),
            8,
            {"HAVE_ARCH_PREL32_RELOCATIONS": "y"},
        ),
        (struct.pack("<II", 0x1000, 0x1100), 4, {}),
        (struct.pack("<QQ", 0x1000, 0x1100), 8, {}),
    ],
)
def test_the_table_of_initcalls_is_read_as_the_kernel_reads_it(
    content: bytes, wide: int, config: dict[str, str]
) -> None:
    found = boot_points.points(kernel(content, wide), config, "arm", "zImage")
    assert found.at[0x1000] == Point("initcall", "one", "pure")
    assert found.at[0x1100] == Point("initcall", "two", "device")
    assert found.marks.enter == (0x1000, 0x1100)
    assert found.at[0x1200] == Point("caller", "do_one_initcall")
    assert found.marks.back == (0x1201, 0x1240)
    assert found.at[0x1300].what == "tty"
    assert found.wide == wide


@pytest.mark.parametrize("wide", [4, 8])
def test_the_guests_clock_goes_on_when_its_count_of_ticks_begins_anew(wide: int) -> None:
    """A kernel of 32 bits counts from 300 seconds before the end of its range."""
    start = (1 << 32) - 300 * 100
    ticks = [start, start + 29_999, (start + 30_000) % (1 << 8 * wide), None, start + 30_500]
    left = iter(ticks)

    def memory(address: int, size: int) -> bytes:
        tick = next(left)
        return b"" if tick is None else (tick % (1 << 8 * size)).to_bytes(size, "little")

    guest: Any = SimpleNamespace(count=0, console=b"", memory=memory)
    teller = boot_run._Teller(Points({}, Marks(()), wide, "<", 0xC0), "i386")
    for number in range(len(ticks)):
        teller.tell(guest, Point("part", str(number)))
    end = start + 30_000
    assert [one.tick for one in teller.events] == [start, end - 1, end, end, end + 500]
    found = boot.bars(teller.events, 100)
    assert [bar.milliseconds for bar in found] == [0, 299_990, 10, 0, 5_000]
