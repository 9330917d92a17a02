"""Answers about the graph itself: why something is stale, or why it ran.

every task's inputs + the journal + logs/history.jsonl -> why [TASK]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from tasks import kernel_config
from tasks.config.project import Project
from tasks.graph import explain, history, verdict
from tasks.graph.explain import ARROW, Graph
from tasks.graph.reason import NEVER, Reason
from tasks.graph.task import Command, Job, TaskDict, task
from tasks.kbuild.depfiles import Depfiles
from tasks.kconfig import dotconfig, fragments
from tasks.system import terminal
from tasks.system.errors import PiggyError, nearest

MOST = 8  # lines of an answer
OF_ALL = ("why", "plan", "size", "report")  # tasks that are told of all others, not of each other


def tasks(project: Project, others: Sequence[TaskDict]) -> Iterator[TaskDict]:
    """Yield `why`, which looks at all other tasks."""
    yield task(
        project,
        "why",
        "say why TASK (default: all) would run now, or why it ran last: why [TASK]",
        why,
        [[dict(one) for one in others]],  # copies: doit empties its own
        command=Command(names=True, reads=True),
    )


def why(job: Job, others: Sequence[TaskDict], names: Sequence[str] = ()) -> None:
    """Print a line for each cause: the tasks from the one asked for back to what changed."""
    from doit.globals import Globals

    project, graph = job.project, Graph(others)
    wanted = named(project, graph, names)
    manager = Globals.dep_manager
    alone = ignored(graph, wanted, manager.status_is_ignore)
    stale = explain.stale(graph, manager.get_values)
    stale = {name: reasons for name, reasons in stale.items() if name not in alone}
    lines = [line for name in wanted for line in would(project, graph, name, stale)]
    if lines:
        _show("would run now:", lines)
        return
    fresh = [name for name in wanted if name not in alone]
    if not fresh:
        return
    always = [name for name in fresh if graph.nodes[name].inputs is None]
    for names, what in (
        ([name for name in fresh if name not in always], "up to date"),
        (always, "runs whenever it is asked for; what it is made from is up to date"),
    ):
        if names:
            print(f"  {', '.join(names)}: {what}")
    ran = history.last_run(project.layout.history)
    lines = [line for name in fresh for line in did(project, graph, name, ran)]
    if lines:
        _show("the last run did:", lines)
        kept = history.brought_back(project.layout.history)
        if kept:
            print(
                "from the store, as made earlier from the same:"
                f" {', '.join(name.lstrip('_') for name in kept)}"
            )


def ignored(
    graph: Graph, wanted: Sequence[str], is_ignored: Callable[[explain.Node], object]
) -> set[str]:
    """Return the tasks that a run leaves alone because of `doit ignore`.

    Where one of `wanted` is among them, that is said.
    """
    told, alone = explain.left_alone(graph, is_ignored)
    if not alone.isdisjoint(wanted):
        here = ", ".join(name for name in wanted if name in alone)
        terminal.line(
            "ignored",
            f"{here}: left alone, as 'doit ignore' was told {', '.join(told)};"
            " 'doit forget TASK' ends that",
        )
    return alone


class Misnamed(PiggyError):
    """A name is that of no task; doit has the same status for it."""

    status = verdict.REFUSED


def named(project: Project, graph: Graph, names: Sequence[str]) -> list[str]:
    """Return the tasks that were asked for, or those that a plain `doit` does.

    Raises:
        Misnamed: A name is none.
        PiggyError: It is that of a task from which nothing is made.
    """
    for name in names:
        if name in OF_ALL:
            raise PiggyError(
                f"'{name}' runs whenever it is asked for, and nothing is made from it",
                f"'doit help {name}' says what it does",
            )
        if name not in graph.nodes:
            known = [one for one in graph.nodes if not one.startswith("_")]
            raise Misnamed(
                f"there is no task '{name}'.{nearest(name, known)}", "'doit list' shows them"
            )
    return list(names) or project.goals


def would(
    project: Project, graph: Graph, name: str, stale: Mapping[str, Sequence[Reason]]
) -> list[str]:
    """Return a line for each stale task that `name` is made from (itself included)."""
    ways = graph.paths(name, stale, graph.producers)
    if len(ways) > MOST and all(stale[way[-1]] == [NEVER] for way in ways):
        return [f"{name}{ARROW}nothing is built yet"]
    return [_line(project, way, stale[way[-1]]) for way in ways]


def did(
    project: Project, graph: Graph, name: str, ran: Mapping[str, Sequence[Reason]]
) -> list[str]:
    """Return a line for each first cause why `name` ran in a run.

    `ran` has the run's tasks and their reasons.
    """
    if name not in ran:
        return []
    parted = {one: explain.own(graph, one, ran) for one in ran if one in graph.nodes}
    roots = [one for one, (_, rest) in parted.items() if rest]
    ways = graph.paths(name, roots, lambda one: parted[one][0] if one in parted else ())
    return [_line(project, way, parted[way[-1]][1]) for way in ways]


def _show(head: str, lines: Sequence[str]) -> None:
    unique = list(dict.fromkeys(lines))
    shown = [
        line
        for line in unique
        if not any(other != line and other.endswith(ARROW + line) for other in unique)
    ]
    print("\n".join([head, *(f"  {line}" for line in shown[:MOST])]))
    if len(shown) > MOST:
        print(f"  and {len(shown) - MOST} more; name a task: doit why TASK")


def _line(project: Project, way: Sequence[str], found: Sequence[Reason]) -> str:
    """One line: the tasks, how many objects are concerned, and what changed."""
    name = way[-1]
    asked = with_symbols(project, name, found)
    words = list(way)
    if name == "kernel_config" and "vmlinux" in way:
        symbols = [one.symbol for one in asked if one.part == "note" and one.symbol]
        count = objects(project, "vmlinux", symbols=symbols)
        words.insert(way.index("vmlinux") + 1, f"{count} object{'s' * (count != 1)}")
    else:
        count = objects(project, name, files_of(found))
        words += [f"{count} object{'s' * (count != 1)}"] if count else []
    return ARROW.join([*words, explain.plain(asked, lambda text: short(project, text))])


def files_of(found: Sequence[Reason]) -> set[str]:
    """Return the source files among the reasons."""
    return {one.file for one in found if one.part == "discovered" and one.file}


def reason(project: Project, name: str, found: Sequence[Reason]) -> str:
    """Return a task's reasons in one line; of a configuration, the symbols."""
    return explain.plain(with_symbols(project, name, found), lambda text: short(project, text))


def with_symbols(project: Project, name: str, found: Sequence[Reason]) -> list[Reason]:
    """Return a task's reasons, for the configuration with the symbols asked for otherwise."""
    if name != "kernel_config" or any(one.part == "note" for one in found):
        return list(found)
    return [*found, *asked_otherwise(project)]


def short(project: Project, text: str) -> str:
    """Name files of the source trees from their top, as kernel people do."""
    for tree in (project.layout.kernel_src, project.layout.busybox_src):
        text = text.replace(os.path.realpath(tree) + "/", "").replace(f"{tree}/", "")
    return text.replace(os.getcwd() + "/", "")


def objects(
    project: Project, name: str, files: Collection[str] = (), symbols: Collection[str] = ()
) -> int:
    """How many objects were compiled from one of these files, or ask for one of these symbols.

    Kbuild's records say so; symbols are without CONFIG_.
    """
    box = name == "busybox"
    if not (files or symbols) or not (box or name in ("vmlinux", "modules", *project.chain)):
        return 0
    obj, tree = (
        (project.layout.busybox_obj, project.layout.busybox_src)
        if box
        else (project.layout.kernel_obj, project.layout.kernel_src)
    )
    known, wanted = Depfiles(obj, tree), set(symbols)
    concerned = set(known.naming(files))
    if wanted:
        concerned |= known.asking(wanted)
    return sum(record.endswith(".o.cmd") for record in concerned)


def asked_otherwise(project: Project) -> list[Reason]:
    """Return the symbols that the fragments ask for otherwise than at the last success, and where.

    None before the first one.
    """
    if not project.layout.miniconfig.exists():
        return []
    try:
        now = fragments.merge(
            kernel_config.present_paths(project), kernel_config.optional_paths(project)
        ).requests
        before = dotconfig.read_config(project.layout.miniconfig)
    except PiggyError as error:
        return [Reason("text", f"which symbols can't be told: {error.message}")]
    notes = [
        Reason("note", f"CONFIG_{symbol}", before.get(symbol), request.value, request.where)
        for symbol, request in now.items()
        if before.get(symbol) != request.value
    ]
    return notes + [
        Reason("note", f"CONFIG_{symbol}", value)
        for symbol, value in before.items()
        if symbol not in now
    ]
