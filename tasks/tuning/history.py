"""The sizes of the images over the builds of a machine, each with what changed in between.

logs/history.jsonl (what each run made, how large) + store -> a list of builds, the oldest first

A line of the history has the size of what its task made. A line that was written before that was
recorded gets the size of the store's result that was kept while its task ran: results of the store
do not say for which machine they are, but the history is the machine's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from tasks.cache.store_files import Result
from tasks.config.project import Project
from tasks.graph.history import Line, read
from tasks.graph.inputs import RESTORED
from tasks.graph.reason import NEVER, Reason
from tasks.tuning.builds import IMAGES, Build

MOST = 200  # builds that are returned, the last ones
_LATER = 1.0  # seconds from when a result is kept to when its line is written
_PREFIX = "CONFIG_"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One build.

    Attributes:
        time: When it ended (seconds since 1970).
        sizes: The size of each image then, by name; one that it did not make is as it was before.
        changes: How the configuration differs from that of the build before, symbol by symbol.
        reasons: Why it made the images otherwise, in words: sources that changed, and so on.
    """

    time: float
    sizes: dict[str, int]
    changes: list[Reason] = []
    reasons: list[str] = []


def of(project: Project, build: Build) -> list[Point]:
    """Return the builds of the selected machine, the present one last.

    Args:
        project: The project.
        build: What is there now.
    """
    lines = read(project.layout.history)
    unknown = any(line.task in build.files and not line.bytes for line in lines)
    image = build.files[build.image].stat()
    return points(
        lines,
        list(build.files),
        [result for _, _, result in project.store.results()] if unknown else (),
        (image.st_mtime, {name: path.stat().st_size for name, path in build.files.items()}),
    )


def points(
    lines: Iterable[Line],
    names: Sequence[str],
    stored: Iterable[Result] = (),
    present: tuple[float, Mapping[str, int]] = (0, {}),
) -> list[Point]:
    """Return the builds of which the size of an image is known, the oldest first.

    One that made nothing of another size from the same configuration is left out.

    Args:
        lines: The history, the oldest line first.
        names: The images, which are named as the tasks that make them.
        stored: The results of the store.
        present: When the images that are there now were made, and their sizes. They are a build of
            their own if the history does not end with them.
    """
    kept: dict[str, list[Result]] = {}
    for result in stored:
        kept.setdefault(result.task, []).append(result)
    found: list[Point] = []
    changes: list[Reason] = []
    sizes: dict[str, int] = {}
    for run in _runs(lines):
        changes += [note for line in run for note in line.notes if note.name.startswith(_PREFIX)]
        made = {
            line.task: size
            for line in run
            if line.task in names and (size := _size(line, kept.get(line.task, ())))
        }
        if not made:
            continue
        net, before = _net(changes), sizes
        sizes = {**sizes, **made}
        changes = []
        if net or sizes != before:
            reasons = [why.brief for line in run if line.task in made for why in _own(line)]
            point = Point(
                time=run[-1].time,
                sizes=_in_order(sizes, names),
                changes=net,
                reasons=list(dict.fromkeys(reasons)),
            )
            found.append(point)
    when, now = present
    now = {name: size for name, size in now.items() if name in names}
    if now and any(sizes.get(name) != size for name, size in now.items()):
        found.append(
            Point(time=when, sizes=_in_order({**sizes, **now}, names), changes=_net(changes))
        )
    return found[-MOST:]


def _runs(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield the lines of each run that made something, in order."""
    run: list[Line] = []
    for line in lines:
        if line.result not in ("ok", RESTORED):
            continue
        if run and line.run != run[0].run:
            yield run
            run = []
        run.append(line)
    if run:
        yield run


def _size(line: Line, kept: Iterable[Result]) -> int:
    """Return the size of what a task made, 0 if it is not known."""
    if line.bytes or line.result == RESTORED:
        return line.bytes
    begin = line.time - (line.seconds or 0)
    return next(
        (
            one.outputs[0].size
            for one in kept
            if one.outputs and begin - _LATER <= one.time <= line.time + _LATER
        ),
        0,
    )


def _net(notes: Iterable[Reason]) -> list[Reason]:
    """Return changes one a symbol, without those that were taken back; those asked for first."""
    found: dict[str, Reason] = {}
    for note in notes:
        first = found.get(note.name, note)
        found[note.name] = msgspec.structs.replace(note, before=first.before)
    left = [
        note
        for note in found.values()
        if (note.before or "n") != (note.after or "n") or (note.before is note.after is None)
    ]
    return sorted(left, key=lambda note: not note.where)


def _own(line: Line) -> Iterator[Reason]:
    """Yield the reasons of a task that are neither a file of images/ nor a symbol.

    An older history has them as sentences.
    """
    for why in line.why:
        if str(why) != str(NEVER) and not why.symbol and f"/{IMAGES}/" not in why.name:
            yield why


def _in_order(sizes: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    return {name: sizes[name] for name in names if name in sizes}
