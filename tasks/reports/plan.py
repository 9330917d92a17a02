"""What a run would do, and how long that should take, before anything is done.

every task's inputs + the journal ----------+
logs/history.jsonl (how long each took) ----+-> plan [TASK]
Kbuild's records (objects of a file, symbol) +
measured seconds of objects, the store ------+
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

from tasks import kernel, kernel_config, sources
from tasks.config.project import Project
from tasks.graph import history
from tasks.graph.explain import Graph
from tasks.graph.reason import Reason
from tasks.graph.task import Command, Job, TaskDict, task
from tasks.kbuild import configure, goal_state, ledger, make, seconds
from tasks.kbuild.pending import Pending
from tasks.kbuild.saved import Unfamiliar
from tasks.kconfig import dotconfig
from tasks.reports import foresee, why
from tasks.reports.estimate import MAKE, SAVED, Past
from tasks.reports.foresee import Step
from tasks.shortway import folders
from tasks.shortway.conditions import SUFFIXES
from tasks.system import crowd, terminal
from tasks.system.errors import PiggyError

SHOWN = 3  # symbols that are named
STORED = "the store should have it"
PERHAPS = "if what it is made from changes"


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
    order = [name for name in in_order(graph, wanted) if name not in alone]
    config = Configuration(job)
    found = foresee.steps(graph, order, manager.get_values, config.told)
    if not found:
        terminal.line("plan", f"nothing to do for {', '.join(wanted)}")
        return
    crowded = crowd.crowd()
    past = Past(history.read(project.layout.history), crowded)
    forecast = Forecast(job, past, config, found, crowded)
    total, unknown = past.around(), 0
    for step in found:
        took, text = forecast.of(step)
        own = why.reason(project, step.name, step.reasons) if step.reasons else PERHAPS
        said = f"{text}; {own}" if text and step.reasons else text or own
        total += took or 0
        unknown += took is None
        shown = f"about {terminal.took(took)}" if took is not None else "not known yet"
        print(f"  {step.name:<18} {shown:<18} {said}")
    print(
        f"about {terminal.took(total)} at most"
        + (f", and {unknown} that never ran here" if unknown else "")
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
    """Return those of the tasks in `order` that are stale, or made from something that is."""
    runs: list[str] = []
    for name in order:
        if name in stale or any(other in runs for other in graph.producers(name)):
            runs.append(name)
    return runs


class Configuration:
    """The kernel's configuration, and its tree, as they will be.

    Attributes:
        values: Symbol to value, of a configuration that Kconfig solved; {} if it was not asked.
        files: The digests that files of patched trees will have.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.values: dict[str, str] = {}
        self.files: dict[str, str] = {}

    def told(self, name: str) -> Mapping[str, str]:
        """Return the digests of what a task would make; {} if they can't be told.

        Patches are applied to copies of files. Kconfig solves the fragments as they stand; nothing
        is put in force.
        """
        project = self.job.project
        if name.startswith("_patch:"):
            with contextlib.suppress(PiggyError):  # the run says why they can't be applied
                self.files.update(sources.foretold(project, name.partition(":")[2]))
            return self.files
        if name != "kernel_config" or not project.layout.toolchain_record.exists():
            return {}
        if not project.layout.config.exists():
            return {}
        if not (project.layout.kernel_src / "Kconfig").exists():
            return {}  # it is unpacked, or copied for patches, before Kconfig can be asked
        if not project.lock.taken:  # Kconfig works in the kernel's object folder
            terminal.line(
                "note",
                "another run is at work, so what the new configuration changes can't be told",
            )
            return {}
        kernel_tree = kernel_config.tree(project)
        try:
            requests = kernel_tree.asked().requests
            draft = configure.solve(
                self.job, kernel_tree, {name: one.value for name, one in requests.items()}
            )
            self.values = dotconfig.read_config(draft)
        except PiggyError as error:
            terminal.line("note", f"the new configuration can't be told: {error.message}")
            return {}
        digest = project.stamps.digest(draft)
        draft.unlink()
        return {str(project.layout.config): digest}

    def wanted(self, found: Sequence[Step]) -> dict[str, str]:
        """Return the configuration after the steps that would run; {} if it can't be read."""
        project = self.job.project
        path = project.layout.config
        for step in found:
            if step.name == "kernel_config" and step.result:
                path = project.store.blob(step.result.outputs[0].digest)
        try:
            return self.values or dotconfig.read_config(path)
        except PiggyError:
            return {}


class Forecast:
    """The estimates for the steps of one run."""

    def __init__(
        self,
        job: Job,
        past: Past,
        config: Configuration,
        found: Sequence[Step],
        crowded: float,
    ) -> None:
        self.job, self.past, self.found = job, past, found
        self.project: Project = job.project
        self._config, self._crowd = config, crowded
        self._pending: Pending | None = None
        self._done: set[str] = set()

    def of(self, step: Step) -> tuple[float | None, str]:
        """Return the seconds that a step should take, None if that is not known, and its text."""
        if step.result:
            return self.past.restored(step.name), STORED
        if step.name in ("vmlinux", "modules", *self.project.chain):
            return self._by_objects(step)
        return self.past.ordinary(step.name), ""

    def _by_objects(self, step: Step) -> tuple[float | None, str]:
        """Return the estimate for a step that compiles objects of the kernel."""
        pending = self.pending()
        if pending is None or step.name not in ("vmlinux", *pending.traces.goals):
            return self.past.ordinary(step.name), ""
        way = self.way(step, pending) if step.name in pending.traces.goals else MAKE
        targets = [name for name in pending.of(step.name) if name not in self._done]
        self._done.update(targets)
        compiled = pending.compiled(targets)
        copied = len(targets) - len(compiled)
        fixed = self.past.fixed(step.name, way, len(targets))
        if fixed is None:
            return self.past.ordinary(step.name), self._text(pending, targets, copied)
        took = seconds.schedule(map(pending.cost, compiled), self.project.jobs.size)
        pace = pending.seconds.pace * self._crowd
        total = fixed + took * pace + copied * self.past.copying()
        return total, self._text(pending, targets, copied)

    def _text(self, pending: Pending, targets: Sequence[str], copied: int) -> str:
        """Return how many objects are concerned, and why."""
        if not targets:
            return ""
        because, symbols = [], sorted(pending.switched)
        if symbols:
            more = f" and {len(symbols) - SHOWN} more" if len(symbols) > SHOWN else ""
            because.append("CONFIG_" + ", CONFIG_".join(symbols[:SHOWN]) + more)
        if pending.edited:
            count = len(pending.edited)
            because.append(f"{count} file{'s' * (count != 1)}")
        everything = sum(record.endswith(".o.cmd") for record in pending.known.records)
        text = f"{len(targets):,} of {everything:,} objects"
        text += f", because of {' and '.join(because)}" if because else ""
        return f"{text}, {copied:,} of them from the store" if copied else text

    def pending(self) -> Pending | None:
        """Return what is known of the object folder; None if there is nothing."""
        project = self.project
        if self._pending is None and project.layout.toolchain_record.exists():
            values = self._config.wanted(self.found)
            if not values or not project.layout.kernel_obj.exists():
                return None
            layout, store = project.layout, kernel.object_folder(self.job).objects()
            self._pending = Pending(
                layout.kernel_src,
                layout.kernel_obj,
                foresee.Foreseen(project.stamps, self._config.files),  # type: ignore[arg-type]
                values,
                store,
            )
        return self._pending

    def way(self, step: Step, pending: Pending) -> str:
        """Return how a link would be made: by make, or by saved commands (see shortway/)."""
        layout, folder = self.project.layout, kernel.object_folder(self.job)
        links = ("vmlinux", "System.map", *self.project.chain)
        images = {str(layout.config), *(str(layout.images / name) for name in links)}
        state = goal_state.read(folder.path, step.name)
        made = any(one.name == "vmlinux" and not one.result for one in self.found)
        if (
            step.name == "modules"
            or state is None
            or not all(one.file in images or _edit(one) for one in step.reasons)
            or not all(name.endswith(SUFFIXES) for name in pending.edited)
            or (folder.path / make.RUNNING).exists()
            or not ledger.trusted(folder.path)
            or (step.name != "vmlinux" and not made and not folder.present)
        ):
            return MAKE
        before, after = state.symbols, pending.values
        symbols = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        if any("m" in (before.get(name), after.get(name)) for name in symbols):
            return MAKE
        said, tree = pending.traces.goals[step.name], os.path.realpath(folder.tree)
        try:
            folders.concerned(tree, symbols, state.record.get("discovered", {}), said)
        except Unfamiliar:
            return MAKE
        return SAVED


def _edit(reason: Reason) -> bool:
    """Tell whether a reason is an edit after which saved commands are run."""
    return (
        reason.part == "discovered"
        and reason.changed
        and reason.file.endswith(SUFFIXES)
        and not reason.file.endswith(".lds.S")
    )
