"""What was made earlier and is kept for the day when somebody goes back.

every stored task's inputs -> store -> its outputs, as they were

store          shows what is kept, by task, and how often something was found in it
store --json   the same for programs
store clear    throws all of it out
store push     sends all of it to the shared store
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from tasks.cache import store_tag
from tasks.cache.store_files import Place
from tasks.config.project import Project
from tasks.graph import history
from tasks.graph.history import Line
from tasks.graph.inputs import RESTORED
from tasks.graph.task import Command, Job, TaskDict, task
from tasks.system import terminal
from tasks.system.errors import PiggyError

_JSON = {
    "name": "json",
    "long": "json",
    "type": bool,
    "default": False,
    "help": "print one object of JSON",
}


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `store`."""
    yield task(
        project,
        "store",
        "show what the store keeps of earlier results; 'store clear' throws it out",
        store,
        command=Command(names=True, reads=True, params=[_JSON]),
    )


class Kept(msgspec.Struct, frozen=True):
    """The results of one task: their number, the last use and the oldest (seconds since 1970)."""

    results: int
    used: float
    oldest: float


class Rate(msgspec.Struct, frozen=True):
    """How often something that was looked for was in the store."""

    hits: int
    looked: int

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.hits:,} of {self.looked:,} ({self.hits / max(self.looked, 1):.0%})"


class Told(msgspec.Struct, frozen=True):
    """What `store` shows.

    Attributes:
        folder: The store's folder.
        bytes: What it takes.
        limit: What it may take; 0 if it is off.
        tasks: The results by task.
        results: How often the result of a task was found.
        objects: How often a compiled object was found.
        runs: The number of runs in which that was counted.
    """

    folder: str
    bytes: int
    limit: int
    tasks: dict[str, Kept]
    results: Rate
    objects: Rate
    runs: int


def rates(lines: Iterable[Line]) -> tuple[Rate, Rate, int]:
    """Return how often results and objects were found in the store, and in how many runs.

    Args:
        lines: The history, which has the last runs of the machine.
    """
    found = [line for line in lines if line.missed or line.result == RESTORED]
    hits = sum(line.result == RESTORED for line in found)
    work = [line.work for line in found if line.work.copying]  # else objects were not looked up
    copied = sum(one.copied for one in work)
    objects = Rate(copied, copied + sum(one.compiled for one in work))
    return Rate(hits, len(found)), objects, len({line.run for line in found})


def store(job: Job, names: Sequence[str] = (), json: bool = False) -> None:
    """Print a line for each task with results; clear the store, or send it to the shared one.

    Args:
        job: The job.
        names: The words after "store".
        json: Print one object of JSON.

    Raises:
        PiggyError: There is any other word.
    """
    kept = job.project.store
    if names not in ((), ("clear",), ("push",)):
        raise PiggyError(
            f"'store' does not know '{' '.join(names)}'",
            "'doit store' shows, 'doit store clear' throws out, 'doit store push' sends",
        )
    if names == ("push",) and not (job.project.settings.store_push and kept.remote):
        raise PiggyError(
            "'store push' needs store_push=yes, store_remote= and store_key=, and not offline=yes",
            "docs/sharedstore.md says how results are shared",
        )
    why = store_tag.opened(kept.folder)
    if why:
        raise PiggyError(
            f"the store {kept.folder} is not used: {why}",
            f"'chmod -R go-w {kept.folder}', if all that is in it is yours; or name another with"
            " 'store='",
        )
    if names == ("clear",):
        kept.clear()
    elif names == ("push",):
        for _, path, result in kept.results():
            kept.remote.push(kept, Place(*path.parts[-3:]), result.task)
    told = _told(job.project)
    if json:
        print(msgspec.json.encode(told).decode())
        return
    for name, one in told.tasks.items():
        last, oldest = (terminal.ago(time.time() - when) for when in (one.used, one.oldest))
        terminal.line(
            terminal.printable(name),
            f"{one.results} result{'s' * (one.results != 1)}, the last used {last}, "
            f"the oldest made {oldest}",
        )
    if told.runs:
        terminal.line(
            "found",
            f"results {told.results}, objects {told.objects}, in the last {told.runs:,}"
            f" run{'s' * (told.runs != 1)} here",
        )
    limit = f"of {terminal.size(told.limit)}" if told.limit else "(off: store_size=0)"
    terminal.line("store", f"{told.folder}: {terminal.size(told.bytes)} {limit}")
    if kept.remote:
        terminal.line("", kept.remote.described())


def _told(project: Project) -> Told:
    """Return what there is to show."""
    kept = project.store
    found: dict[str, list[tuple[float, float]]] = {}
    for used, _, result in kept.results():
        found.setdefault(result.task, []).append((used, result.time))
    tasks_ = {
        name: Kept(len(times), times[0][0], min(made for _, made in times))
        for name, times in found.items()
    }
    results, objects, runs = rates(history.read(project.layout.history))
    return Told(str(kept.folder), kept.size(), kept.limit, tasks_, results, objects, runs)
