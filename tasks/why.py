"""Answers about the graph itself: why something is stale, or why it ran.

    every task's inputs + the journal + logs/history.jsonl -> why [TASK]
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from tasks import busybox, kernel_config
from tasks.kit import fragments, kcontract, reasons
from tasks.kit.depfiles import Depfiles
from tasks.kit.errors import PiggyError, nearest
from tasks.kit.graph import Job, TaskDict, task
from tasks.kit.project import Project
from tasks.kit.reasons import ARROW, Graph

MOST = 8  # lines of an answer


def tasks(project: Project, others: Sequence[TaskDict]) -> Iterator[TaskDict]:
    """Yield `why`, which looks at all other tasks."""
    yield task(project, "why", "say why TASK (default: all) would run now, or why it ran last: why [TASK]", why,
               [[dict(one) for one in others]], always=True, quiet=True, names=True)  # copies: doit empties its own


def why(job: Job, others: Sequence[TaskDict], names: Sequence[str] = ()) -> None:
    """Print a line for each cause: the tasks from the one asked for back to what changed."""
    from doit.globals import Globals
    project, graph = job.project, Graph(others)
    wanted = named(project, graph, names)
    stale = reasons.stale(graph, Globals.dep_manager.get_values)
    lines = [line for name in wanted for line in would(project, graph, name, stale)]
    if lines:
        _show("would run now:", lines)
        return
    print(f"  {', '.join(wanted)}: up to date")
    ran = reasons.last_run(project.logs / "history.jsonl")
    lines = [line for name in wanted for line in did(project, graph, name, ran)]
    if lines:
        _show("the last run did:", lines)


def named(project: Project, graph: Graph, names: Sequence[str]) -> list[str]:
    """The tasks that were asked for, or those that a plain `doit` does. Raises PiggyError for a name that is none."""
    for name in names:
        if name not in graph.nodes:
            known = [one for one in graph.nodes if not one.startswith("_")]
            raise PiggyError(f"there is no task '{name}'.{nearest(name, known)}", "'doit list' shows them")
    return list(names) or project.goals


def would(project: Project, graph: Graph, name: str, stale: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each stale task that `name` is made from (itself included)."""
    ways = graph.paths(name, stale, graph.producers)
    if len(ways) > MOST and all(stale[way[-1]] == ["never: not built yet"] for way in ways):
        return [f"{name}{ARROW}nothing is built yet"]
    return [ARROW.join([*way, *_root(project, way[-1], stale[way[-1]])]) for way in ways]


def did(project: Project, graph: Graph, name: str, ran: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each first cause why `name` ran in the run of which `ran` has the tasks and their reasons."""
    if name not in ran:
        return []
    parted = {one: reasons.own(graph, one, ran) for one in ran if one in graph.nodes}
    roots = [one for one, (_, rest) in parted.items() if rest]
    ways = graph.paths(name, roots, lambda one: parted[one][0] if one in parted else ())
    return [ARROW.join([*way, *_root(project, way[-1], parted[way[-1]][1])]) for way in ways]


def _show(head: str, lines: Sequence[str]) -> None:
    unique = list(dict.fromkeys(lines))
    shown = [line for line in unique if not any(other != line and other.endswith(ARROW + line) for other in unique)]
    print("\n".join([head, *(f"  {line}" for line in shown[:MOST])]))
    if len(shown) > MOST:
        print(f"  and {len(shown) - MOST} more; name a task: doit why TASK")


def _root(project: Project, name: str, found: Sequence[str]) -> list[str]:
    """The end of a line: how many objects are concerned, and what changed."""
    count = objects(project, name, files_of(found))
    return [*([f"{count} object{'s' * (count != 1)}"] if count else []), reason(project, name, found)]


def files_of(found: Sequence[str]) -> set[str]:
    """The source files among the reasons."""
    texts = [text.partition(": ")[2] for text in found if text.startswith("discovered: ")]
    return {text.rsplit(" ", 1)[0].removesuffix(" is") for text in texts}


def reason(project: Project, name: str, found: Sequence[str]) -> str:
    """A task's reasons in one line; of a configuration, the symbols."""
    if name == "kernel_config" and not any(text.startswith("note: ") for text in found):
        found = [*found, *(f"note: {note}" for note in asked_otherwise(project))]
    return reasons.plain(found, lambda text: short(project, text))


def short(project: Project, text: str) -> str:
    """Name files of the source trees from their top, as kernel people do."""
    for tree in (project.kernel_src, project.busybox_src):
        text = text.replace(os.path.realpath(tree) + "/", "").replace(f"{tree}/", "")
    return text.replace(os.getcwd() + "/", "")


def objects(project: Project, name: str, files: set[str]) -> int:
    """How many compiled objects Kbuild's records say were made from one of these files."""
    box = name == "busybox"
    if not files or not (box or name in ("vmlinux", "modules", *project.chain)):
        return 0
    obj, tree = (busybox.obj(project), project.busybox_src) if box else (project.kernel_obj, project.kernel_src)
    return sum(record.endswith(".o.cmd") for record in Depfiles(obj, tree).naming(files))


def asked_otherwise(project: Project) -> list[str]:
    """The symbols that the fragments ask for otherwise than at the last success, each with its place."""
    paths = [*kernel_config.fragment_paths(project), kernel_config.own_fragment(project)]
    try:
        now = fragments.merge([path for path in paths if path.exists()]).requests
        before = kcontract.read_config(project.images / "miniconfig")
    except PiggyError:
        return []
    notes = [f"CONFIG_{symbol} {before.get(symbol, 'not asked for')} -> {request.value} ({request.where})"
             for symbol, request in now.items() if before.get(symbol) != request.value]
    return notes + [f"CONFIG_{symbol} {value} -> not asked for" for symbol, value in before.items() if symbol not in now]


