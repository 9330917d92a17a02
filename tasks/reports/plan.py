"""What a run would do, and how long that should take, before anything is done.

every task's inputs + the journal ----------+
logs/history.jsonl (how long each took) ----+-> plan [TASK]
Kbuild's records (objects of a file, symbol) +
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tasks import kernel_config
from tasks.config.project import Project
from tasks.graph import explain, history
from tasks.graph.explain import Graph
from tasks.graph.reason import Reason
from tasks.graph.task import Command, Job, TaskDict, task
from tasks.kbuild import configure
from tasks.kbuild.depfiles import Depfiles
from tasks.kconfig import dotconfig
from tasks.reports import why
from tasks.system import terminal
from tasks.system.errors import PiggyError

RECENT = 5  # runs of a task that an estimate is made from
SHOWN = 3  # symbols that are named


def tasks(project: Project, others: Sequence[TaskDict]) -> Iterator[TaskDict]:
    """Yield `plan`, which looks at all other tasks."""
    yield task(
        project,
        "plan",
        "say what would run for TASK (default: all), and how long that should take: plan [TASK]",
        plan,
        [[dict(one) for one in others]],
        command=Command(names=True, reads=True),
    )


def plan(job: Job, others: Sequence[TaskDict], names: Sequence[str] = ()) -> None:
    """Print the tasks that would run in their order, each with its reason and an estimate."""
    from doit.globals import Globals

    project, graph = job.project, Graph(others)
    wanted = why.named(project, graph, names)
    manager = Globals.dep_manager
    alone = why.ignored(graph, wanted, manager.status_is_ignore)
    stale = explain.stale(graph, manager.get_values)
    order = in_order(graph, wanted)
    runs = [name for name in downstream(graph, order, stale) if name not in alone]
    if not runs:
        terminal.line("plan", f"nothing to do for {', '.join(wanted)}")
        return
    past = history.durations(project.layout.history, RECENT)
    symbols = (
        changed_symbols(job)
        if "kernel_config" in stale and project.layout.toolchain_record.exists()
        else []
    )
    total, unknown = 0.0, []
    for name in runs:
        count, text = objects(project, name, stale.get(name, ()), symbols)
        seconds = estimate(past.get(name, ()), count)
        inputs = graph.nodes[name].inputs
        if name in stale and inputs is not None and inputs.kept(name):
            seconds, text = 0.0, "the store should have it"
        own = (
            why.reason(project, name, stale[name])
            if name in stale
            else "if what it is made from changes"
        )
        said = f"{text}; {own}" if text and name in stale else text or own
        total += seconds or 0
        unknown += [] if seconds is not None else [name]
        print(
            f"  {name:<18}"
            f" {'about ' + terminal.took(seconds) if seconds is not None else 'not known yet':<18}"
            f" {said}"
        )
    print(
        f"about {terminal.took(total)} at most"
        + (f", and {len(unknown)} that never ran here" if unknown else "")
    )


def in_order(graph: Graph, wanted: Sequence[str]) -> list[str]:
    """Return the wanted tasks and all that they are made from, each after its producers."""
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in order:
            for other in graph.producers(name):
                visit(other)
            order[name] = None

    for name in wanted:
        visit(name)
    return list(order)


def downstream(graph: Graph, order: Sequence[str], stale: Mapping[str, object]) -> list[str]:
    """Those of the tasks in `order` that are stale, or made from something that is."""
    runs: list[str] = []
    for name in order:
        if name in stale or any(other in runs for other in graph.producers(name)):
            runs.append(name)
    return runs


def estimate(past: Sequence[float], count: int | None) -> float | None:
    """Return how many seconds a task should take, None if it never ran.

    A run that compiles little takes as long as the shortest ones did.

    Args:
        past: How long it took before, newest last.
        count: How many objects it will compile, None where that says nothing.
    """
    if not past:
        return None
    import statistics  # only here: it is slow to load

    return statistics.median(past) if count is None or count > 50 else min(past)


def objects(
    project: Project, name: str, found: Sequence[Reason], symbols: Sequence[str]
) -> tuple[int | None, str]:
    """How many objects a task will compile for changed files and symbols, and that in words."""
    if name != "vmlinux":
        return None, ""
    files = why.files_of(found)
    if not files and not symbols:
        return None, ""
    concerned = why.objects(project, name, files, symbols)
    everything = sum(
        record.endswith(".o.cmd")
        for record in Depfiles(project.layout.kernel_obj, project.layout.kernel_src).records
    )
    because = []
    if symbols:
        more = f" and {len(symbols) - SHOWN} more" if len(symbols) > SHOWN else ""
        because.append("CONFIG_" + ", CONFIG_".join(symbols[:SHOWN]) + more)
    if files:
        because.append(f"{len(files)} file{'s' * (len(files) != 1)}")
    return concerned, f"{concerned:,} of {everything:,} objects, because of {' and '.join(because)}"


def changed_symbols(job: Job) -> list[str]:
    """Return the symbols to which the fragments, as they stand, would give another value.

    They have it in the configuration in force.

    Kconfig answers that; nothing is put in force.
    """
    project = job.project
    kernel = kernel_config.tree(project)
    full = project.layout.config
    if not full.exists():
        return []
    if not project.lock.taken:  # Kconfig works in the kernel's object folder
        terminal.line(
            "note", "another run is at work, so what the new configuration changes can't be told"
        )
        return []
    try:
        merged = kernel.asked()
        draft = configure.solve(
            job, kernel, {symbol: request.value for symbol, request in merged.requests.items()}
        )
        after = dotconfig.read_config(draft)
    except PiggyError as error:
        terminal.line("note", f"the new configuration can't be told: {error.message}")
        return []
    draft.unlink()
    return dotconfig.differences(dotconfig.read_config(full), after)
