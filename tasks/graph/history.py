"""The history of runs: a line of JSON for each task that ran, in logs/history.jsonl.

It is for people and for estimates: nothing is built or left out because of it. So writing it never
fails a run, and what is not a line of ours is passed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tasks.graph.inputs import RESTORED
from tasks.graph.reason import SHOWN, Reason
from tasks.system.crowd import MOST as MOST_CROWDED
from tasks.system.files import open_regular

MOST = 20  # reasons of a task that are kept
NOTES = 2000  # notes of a task that are kept: another preset changes hundreds of symbols
_LAST_RUNS = 4_000_000  # bytes of the end that are read
_Number = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]


class Work(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a task compiled, for estimates.

    Attributes:
        way: How: "make", or "saved commands" (without make); "" if nothing is known.
        compiled: The number of objects that it compiled.
        compiling: How long that took on all processors (seconds).
        copied: The number of objects that it copied from the store.
        copying: How long that took (seconds).
    """

    way: str = ""
    compiled: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    compiling: _Number = 0
    copied: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    copying: _Number = 0


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one task.

    Attributes:
        time: When it ended (seconds since 1970).
        task: Its name.
        result: "ok", "failed", or "restored" if it was brought back from the store.
        seconds: How long it took.
        why: Why it ran; earlier versions wrote sentences, which are read as the part "text".
        run: When its run began (seconds since 1970), by which the lines of a run belong together.
        notes: What the task says of its reasons, such as the symbols that changed.
        work: What it compiled.
        missed: Whether the store was asked for its result first, and had none.
        crowd: How crowded the host was when its run began (see system/crowd.py).
        bytes: The size of its first target; 0 if it has none.
    """

    time: _Number = 0
    task: str
    result: str = ""
    seconds: _Number | None = None
    why: list[Reason]
    run: _Number = 0
    notes: list[Reason] = []
    work: Work = Work()
    missed: bool = False
    crowd: Annotated[float, msgspec.Meta(ge=1, le=MOST_CROWDED)] = 1
    bytes: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0


def append(path: Path, line: Line) -> None:
    """Add a line; a disk that is full or a file of another kind costs the line alone.

    Args:
        path: The history.
        line: The line; of long values and long lists the beginning is kept.
    """
    short = msgspec.structs.replace(
        line,
        time=round(line.time, 3),
        seconds=None if line.seconds is None else round(line.seconds, 3),
        run=round(line.run, 3),
        crowd=round(line.crowd, 2),
        why=_shortened(line.why[:MOST]),
        notes=_shortened(line.notes[:NOTES]),
    )
    text = json.dumps(msgspec.to_builtins(short))  # names that are no UTF-8 stay what they are
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, f"{text}\n".encode())
        finally:
            os.close(fd)
    except OSError:
        pass


def _shortened(reasons: Sequence[Reason]) -> list[Reason]:
    """Return reasons, with no more of their values than decides how they are printed."""
    return [
        reason
        if reason.part == "note"
        else msgspec.structs.replace(
            reason,
            before=reason.before and reason.before[:SHOWN],
            after=reason.after and reason.after[:SHOWN],
        )
        for reason in reasons
    ]


def end(path: Path) -> int:
    """Return how many bytes the history has; 0 without one."""
    try:
        with open(open_regular(path), "rb") as stream:
            return stream.seek(0, os.SEEK_END)
    except OSError:
        return 0


def read(path: Path, start: int | None = None) -> list[Line]:
    """Return lines of the history, oldest first; what is no line of ours is left out.

    Args:
        path: The history.
        start: The byte from which on it is read (see end); None for the last ones.
    """
    try:
        with open(open_regular(path), "rb") as stream:
            last = max(0, stream.seek(0, os.SEEK_END) - _LAST_RUNS)
            stream.seek(last if start is None else start)
            lines = stream.read().splitlines()
    except OSError:
        return []
    return [line for line in map(_line, lines) if line is not None]


def _line(text: bytes) -> Line | None:
    """Return the line that a text holds, None for what was cut off, or is not ours."""
    try:
        found = json.loads(text)
        if isinstance(found, dict):
            for name, part in (("why", "text"), ("notes", "note")):
                if isinstance(found.get(name), list):
                    found[name] = [_reason(one, part) for one in found[name]]
        return msgspec.convert(found, Line)
    except (ValueError, OverflowError, RecursionError):  # ValueError: of json, and of msgspec
        return None


def _reason(found: Any, part: str) -> Any:
    """Have a sentence of an earlier version, which begins with the part of the record, as a reason.

    Anything else stays as it is.
    """
    if not isinstance(found, str):
        return found
    return {"part": part, "name": found if part == "note" else found.partition(": ")[2] or found}


def last_run(path: Path) -> dict[str, list[Reason]]:
    """Return the tasks of the last run that made anything, each with its reasons and notes.

    They are in their order; {} without such a run.
    """
    return {line.task: [*line.why, *line.notes] for line in _last(path)}


def brought_back(path: Path) -> list[str]:
    """Return the tasks that the last run that made anything had from the store, in their order."""
    return [line.task for line in _last(path) if line.result == RESTORED]


def _last(path: Path) -> list[Line]:
    made = [line for line in read(path) if line.why]
    return [line for line in made if line.run == made[-1].run]


def durations(path: Path, recent: int) -> dict[str, list[float]]:
    """Return for each task how many seconds its last successes took, newest last.

    Args:
        path: The history.
        recent: How many of them at most.
    """
    found: dict[str, list[float]] = {}
    for line in read(path):
        if line.result == "ok" and line.seconds is not None:
            found.setdefault(line.task, []).append(line.seconds)
    return {task: seconds[-recent:] for task, seconds in found.items()}
