"""What was made earlier and is kept for the day when somebody goes back.

every stored task's inputs -> store -> its outputs, as they were

store          shows what is kept, by task
store clear    throws all of it out
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from tasks.cache import store_tag
from tasks.config.project import Project
from tasks.graph.task import Command, Job, TaskDict, task
from tasks.system import terminal
from tasks.system.errors import PiggyError


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `store`."""
    yield task(
        project,
        "store",
        "show what the store keeps of earlier results; 'store clear' throws it out",
        store,
        command=Command(names=True, reads=True),
    )


def store(job: Job, names: Sequence[str] = ()) -> None:
    """Print a line for each task with results, or clear the store.

    Raises:
        PiggyError: There is any other word.
    """
    kept = job.project.store
    if names not in ((), ("clear",)):
        raise PiggyError(
            f"'store' does not know '{' '.join(names)}'",
            "'doit store' shows, 'doit store clear' throws out",
        )
    why = store_tag.opened(kept.folder)
    if why:
        raise PiggyError(
            f"the store {kept.folder} is not used: {why}",
            f"'chmod -R go-w {kept.folder}', if all that is in it is yours; or name another with"
            " 'store='",
        )
    if names:
        kept.clear()
    found: dict[str, list[tuple[float, float]]] = {}
    for used, _, result in kept.results():
        found.setdefault(result.task, []).append((used, result.time))
    for name, times in found.items():
        last, oldest = (
            terminal.ago(time.time() - when)
            for when in (times[0][0], min(made for _, made in times))
        )
        terminal.line(
            terminal.printable(name),
            f"{len(times)} result{'s' * (len(times) != 1)}, the last used {last}, "
            f"the oldest made {oldest}",
        )
    limit = f"of {terminal.size(kept.limit)}" if kept.limit else "(off: store_size=0)"
    terminal.line("store", f"{kept.folder}: {terminal.size(kept.size())} {limit}")
