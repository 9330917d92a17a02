"""A boot in bars: what each part of it took, in instructions.

A profile is made of events, each with the count of instructions before it. The bars of depth 0, the
phases, follow each other without a gap, from reset to the shell's answer, so that their sum is the
whole. Bars below them are inside: initcalls, probes in these, programs.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import msgspec

from tasks.tuning.boot_points import PARTS

FORMAT = 1
_PROGRAMS = 10  # the first row of programs in a trace
BEFORE = "before start_kernel"  # where firmware and decompression can't be told apart
FIRMWARE, SCRIPTS, SHELL = "firmware", "start scripts", "shell"


Kind = Literal["phase", "initcall", "probe", "program"]


class Event(msgspec.Struct, frozen=True):
    """Something that happened.

    Attributes:
        what: "part", "initcall", "back", "probe", "program" or "exit".
        name: Its name.
        count: Instructions executed before.
        tick: The kernel's ticks before.
        bytes: Characters on the serial line before.
        level: Of an initcall.
        task: The process, by the address of its task_struct.
        holder: The variable that holds a probe's driver.
    """

    what: str
    name: str
    count: int
    tick: int = 0
    bytes: int = 0
    level: str = ""
    task: int = 0
    holder: str = ""


class Bar(msgspec.Struct, frozen=True):
    """A part of the boot.

    Attributes:
        kind: "phase", "initcall", "probe" or "program".
        name: The phase, the function, driver and device, the command.
        depth: How many bars it is inside of: 0 for a phase.
        start: Instructions executed before it.
        instructions: Those executed during it, in whatever process.
        milliseconds: The guest's time: a nanosecond for each instruction, and what it slept.
        slept: Milliseconds in which no instruction was executed, by the kernel's ticks: none are
            told before it counts them.
        bytes: Characters on the serial line.
        level: Of an initcall.
        holder: The variable that holds a probe's driver: its struct device_driver is inside.
        object: The object that an initcall's function, or a probe's driver, is in.
        symbol: The Kconfig symbol that brought the object in, without CONFIG_.
        reason: The fragment and line that ask for the symbol, or why it is on without one; of a
            program, the line of the start script.
    """

    kind: Kind
    name: str
    depth: int
    start: int
    instructions: int
    milliseconds: int = 0
    slept: int = 0
    bytes: int = 0
    level: str = ""
    holder: str = ""
    object: str = ""
    symbol: str = ""
    reason: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A counted boot.

    Attributes:
        format: FORMAT.
        machine: The machine.
        state: A digest of images and command.
        instructions: From reset to the shell's answer.
        milliseconds: The guest's time, as that of a bar.
        bytes: Characters on the serial line.
        bars: In the order of their start, each before those inside it.
        notes: What could not be told.
        commits: The commits at which it was made, of project and kernel tree.
    """

    format: int = FORMAT
    machine: str
    state: str
    instructions: int
    milliseconds: int
    bytes: int
    bars: tuple[Bar, ...]
    notes: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()


def bars(events: Sequence[Event], hertz: int) -> list[Bar]:
    """Return the bars of a boot.

    Args:
        events: In order; the last one is the end.
        hertz: Ticks a second.
    """
    end = events[-1]

    def bar(kind: Kind, depth: int, first: Event, last: Event, name: str = "") -> Bar:
        count = last.count - first.count
        passed = (last.tick - first.tick) * 1000 // hertz if first.tick else 0
        slept = max(passed - count // 1_000_000, 0)
        slept = slept if slept * hertz >= 1000 else 0  # less than a tick is none
        return Bar(
            kind=kind,
            name=name or first.name,
            depth=depth,
            start=first.count,
            instructions=count,
            milliseconds=count // 1_000_000 + slept,
            slept=slept,
            bytes=last.bytes - first.bytes,
            level=first.level,
            holder=first.holder,
        )

    phases = [*_phases(events), end]
    found = [bar("phase", 0, first, last) for first, last in zip(phases, phases[1:], strict=False)]
    inside = False  # of an initcall
    for number, first in enumerate(events[:-1]):
        rest = itertools.islice(events, number + 1, None)
        if first.what in ("initcall", "back"):
            inside = first.what == "initcall"
        if first.what == "initcall":
            found.append(bar("initcall", 1, first, _next(rest, ("back", "initcall"), end)))
        elif first.what == "probe":
            last = _next(rest, ("probe", "back", "part"), end)
            found.append(bar("probe", 1 + inside, first, last))
        elif first.what == "program":
            last = next(
                (one for one in rest if one.what in ("exit", "program") and one.task == first.task),
                end,
            )
            found.append(bar("program", 1, first, last))
    return sorted(found, key=lambda one: (one.start, one.depth, -one.instructions))


def _next(events: Iterable[Event], what: tuple[str, ...], end: Event) -> Event:
    return next((one for one in events if one.what in what), end)


def _phases(events: Sequence[Event]) -> list[Event]:
    """Return an event for the start of each phase."""
    part = next((one.name for one in events if one.what == "part"), "")
    found = [Event("part", BEFORE if part == PARTS["start_kernel"] else FIRMWARE, 0)]
    levels: set[str] = set()
    programs: list[int] = []  # processes in the order of their first program
    scripts = 0
    for event in events[:-1]:
        if event.what == "part" and event.name not in {one.name for one in found}:
            found.append(event)
        elif event.what == "initcall" and event.level not in levels:
            levels.add(event.level)
            found.append(_renamed(event, f"initcalls: {event.level}"))
        elif event.what == "program" and event.task not in programs:
            programs.append(event.task)
            if len(programs) == 2:  # what init starts first
                scripts = event.task
                found.append(_renamed(event, SCRIPTS))
        elif event.what == "exit" and scripts and event.task == scripts:
            found.append(_renamed(event, SHELL))
            scripts = 0
    return found


def _renamed(event: Event, name: str) -> Event:
    return Event("part", name, event.count, event.tick, event.bytes)


def trace(profile: Profile, old: Profile | None = None) -> str:
    """Return a profile in Chrome's trace format, a microsecond for 1000 instructions.

    Source: the "Trace Event Format", which Perfetto reads.

    Args:
        profile: The profile.
        old: An earlier one, which is a process of its own there; None for none.
    """
    events = _traced(profile, 1, f"boot of {profile.machine}")
    if old:
        events += _traced(old, 2, f"boot of {old.machine}, before")
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"})


def _traced(profile: Profile, process: int, title: str) -> list[dict[str, Any]]:
    """Return the events of a trace.

    Args:
        profile: The profile.
        process: The number under which they stand.
        title: What they are called.
    """
    events: list[dict[str, Any]] = []
    lanes: list[int] = []  # where the last program of each lane ends
    for one in profile.bars:
        row = one.depth + 1
        if one.kind == "program":
            row = _PROGRAMS + _lane(lanes, one)
        told = {"instructions": one.instructions, "bytes": one.bytes, "slept ms": one.slept}
        words = {"object": one.object, "symbol": one.symbol, "reason": one.reason}
        events.append(
            {
                "name": one.name,
                "cat": one.kind,
                "ph": "X",
                "ts": one.start / 1000,
                "dur": one.instructions / 1000,
                "pid": process,
                "tid": row,
                "args": told | {name: word for name, word in words.items() if word},
            }
        )
    name = {"name": "process_name", "ph": "M", "pid": process, "args": {"name": title}}
    return [*events, name]


def _lane(lanes: list[int], bar: Bar) -> int:
    """Return the first lane that is free when a program starts: those of a pipe overlap."""
    free = next((lane for lane, end in enumerate(lanes) if end <= bar.start), len(lanes))
    lanes[free:] = [bar.start + bar.instructions, *lanes[free + 1 :]]
    return free


class Change(msgspec.Struct, frozen=True):
    """A bar in two boots.

    Attributes:
        kind: As in `Bar`.
        name: As in `Bar`.
        old: Instructions before; None if it was not there.
        new: Instructions now; None if it is not there.
        reason: Which symbol brought it in, and where that is asked for.
    """

    kind: str
    name: str
    old: int | None
    new: int | None
    reason: str = ""

    @property
    def by(self) -> int:
        """How many instructions more there are."""
        return (self.new or 0) - (self.old or 0)


def compare(old: Profile, new: Profile) -> list[Change]:
    """Return what differs between two boots, bar by bar, the largest difference of a kind first.

    Of bars with one name, the sums are compared.
    """
    sums: dict[tuple[str, str], list[int | None]] = {}
    reasons: dict[tuple[str, str], str] = {}
    for side, profile in enumerate((old, new)):
        for one in profile.bars:
            key = one.kind, one.name
            pair = sums.setdefault(key, [None, None])
            pair[side] = (pair[side] or 0) + one.instructions
            if words := because(one):
                reasons[key] = words
    found = [
        Change(kind, name, pair[0], pair[1], reasons.get((kind, name), ""))
        for (kind, name), pair in sums.items()
        if pair[0] != pair[1]
    ]
    order = get_args(Kind)
    return sorted(found, key=lambda one: (order.index(one.kind), -abs(one.by), one.name))


def because(bar: Bar) -> str:
    """Return in words what brought a bar in; "" if that is not known."""
    symbol = f"CONFIG_{bar.symbol}" if bar.symbol else ""
    return ", ".join(filter(None, [bar.object, symbol, bar.reason]))
