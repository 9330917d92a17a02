"""How every task is made: one plain dict for doit, and one edge where errors end.

A stage module says what a task needs and makes; `task` turns that into the dict, with all inputs of
the action in it. The action gets a Job and returns None, or a dict with

- "discovered": input files that it learned of while it ran,
- "made": outputs beyond the targets,
- "holding": files in which paths of folders count as they do in targets: what these were made from
  by stripping, which has debug information, and what tells that they depend on where a folder lies,
- "unsure": true, where it was made from more than its inputs, so that the store must not have it,
- "notes": what it says of its inputs, as reasons of the part "note",
- "work": what it compiled, for estimates (see history.Work),

and other values to keep.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from doit.exceptions import TaskFailed

from tasks.config.layout import places
from tasks.config.project import Project
from tasks.graph import aside
from tasks.graph.inputs import Inputs
from tasks.graph.reason import Reason, Record
from tasks.graph.stored import States, Stored
from tasks.graph.verdict import Exceeded
from tasks.system import errors, stdio, terminal
from tasks.system.errors import PiggyError

TaskDict = dict[str, Any]
News = Callable[[Project], Callable[[], list[Reason]]]


class Job(msgspec.Struct, frozen=True):
    """What an action knows of its own run.

    Attributes:
        project: The project.
        name: The task's name.
        log: The file for what its programs say.
        previous: The values of its last success.
        reasons: Why it runs.
        record: Returns the record of its inputs as it began, with the given names of discovered
            ones (see Inputs.record).
        started: When it began, ns since 1970.
    """

    project: Project
    name: str
    log: Path
    previous: Mapping[str, Any] = msgspec.field(default_factory=dict)
    reasons: Sequence[Reason] = ()
    record: Callable[[Iterable[str]], Record] = lambda discovered: {}
    started: int = msgspec.field(default_factory=time.time_ns)


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a task is made from, and what goes before it.

    Attributes:
        files: Input files; doit orders tasks by them.
        settings: Everything else that decides the output, by name; a Path, if it is one.
        trees: By label, functions that list a folder's state as `{path: state}`.
        tools: Programs whose binaries are inputs.
        config: The .config file of which single symbols may be discovered as inputs.
        after: Tasks that go first without a file between them.
    """

    files: Sequence[Path] = ()
    settings: Mapping[str, Any] = {}
    trees: Mapping[str, Callable[[], Mapping[str, str]]] = {}
    tools: Sequence[str] = ()
    config: Path | None = None
    after: Sequence[str] = ()


class Makes(msgspec.Struct, frozen=True, kw_only=True):
    """What a task makes, and where.

    Attributes:
        targets: Its output files.
        place: The folder that it works in, for tasks of which no two may do that at the same time
            (Kbuild's O=).
        quiet: Print no line when they are made.
        written: A guest may write to them: what it wrote is kept aside before they are made anew.
        goes_on: What it wrote is no reason to make them anew.
    """

    targets: Sequence[Path] = ()
    place: Path | None = None
    quiet: bool = False
    written: bool = False
    goes_on: bool = False


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """That the targets are kept in the store, and brought back where the inputs are as they were.

    Only for a task whose targets are all that others need of it.

    Attributes:
        when: Whether they are.
        gone: Files that are removed before anything is brought back: signs that some folder has the
            state of the last run.
        folders: Gives the folders of the toolchain, by words, once there is one (see
            cache/places.py).
        states: Gives what makes of the name and the state of a part of a tree what counts of it;
            see rootfs.py.
        news: Called before anything is brought back; what it returns is called after that, and
            gives the notes.
    """

    when: bool = True
    gone: Sequence[Path] = ()
    folders: Callable[[Project], Mapping[str, str]] = lambda project: {}
    states: Callable[[Project], States] = lambda project: lambda name, state: state
    news: News | None = None


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """That a task runs whenever it is asked for (a boot, an editor, a report).

    It says what it does by itself.

    Attributes:
        names: It takes the words that follow it on the command line: action(job, *args, names).
        params: Options of its own, as doit describes them: action(job, *args, name=value).
        reads: It changes nothing of what is built, so that it need not wait for a run that builds.
        check: Called as check(name=value) with the options, and with `names` if it takes them,
            before anything is built; raises PiggyError for what the action would refuse after that.
    """

    names: bool = False
    params: Sequence[Mapping[str, Any]] = ()
    reads: bool = False
    check: Callable[..., object] | None = None


def task(
    project: Project,
    name: str,
    doc: str,
    action: Callable[..., Any],
    args: Sequence[Any] = (),
    *,
    inputs: Needs = Needs(),  # noqa: B008
    outputs: Makes = Makes(),  # noqa: B008
    store: Kept = Kept(when=False),  # noqa: B008
    command: Command | None = None,
) -> TaskDict:
    """Return the doit dict of one task.

    Args:
        project: The project.
        name: As `doit list` shows it; one with a leading underscore is not listed.
        doc: The line that `doit list` shows.
        action: A module-level function, called as action(job, *args).
        args: Its further arguments.
        inputs: What it is made from.
        outputs: What it makes.
        store: Whether and how the store has it.
        command: For a task that runs whenever it is asked for.
    """
    asked = command or Command()
    judge = Inputs(
        project.stamps,
        action,
        settings={k: str(v) for k, v in inputs.settings.items()},
        files=[os.fspath(path) for path in inputs.files],
        trees=inputs.trees,
        tools=inputs.tools,
        outputs=[os.fspath(path) for path in outputs.targets],
        config=os.fspath(inputs.config or ""),
        store=_stored(project, inputs, store) if store.when else None,
        gone=[os.fspath(path) for path in store.gone],
        within=os.fspath(project.layout.build),
        goes_on=outputs.goes_on,
        identify=project.codes.of,
    )
    work = Work(
        project,
        action,
        tuple(args),
        judge,
        quiet=outputs.quiet or command is not None,
        news=store.news,
        reads=asked.reads,
        check=asked.check,
        written=outputs.written,
    )
    return {
        "basename": name,
        "doc": doc,
        "actions": [(perform, [], {"work": work})],
        "file_dep": [*judge.files],
        "targets": [*judge.outputs],
        "task_dep": list(inputs.after),
        "uptodate": [False] if command else [judge],
        "verbosity": 2,
        "io": {"capture": False},
        "clean": True,  # a stage may say [] of what clean is to leave alone
        "meta": {"place": os.fspath(outputs.place or ""), "reads": asked.reads},
        **({"pos_arg": "names"} if asked.names else {}),
        **({"params": [*asked.params]} if asked.params else {}),
    }


def _stored(project: Project, inputs: Needs, store: Kept) -> Stored:
    """Return the store, as the results of a task are kept in it."""
    layout = project.layout
    return Stored(
        store=project.store,
        places=lambda: places(project.top, layout, store.folders(project)),
        located=frozenset(k for k, value in inputs.settings.items() if isinstance(value, Path)),
        records=frozenset(map(os.fspath, (layout.toolchain_record, layout.userspace_record))),
        states=lambda: store.states(project),
        relative=not layout.build.is_absolute(),
    )


class Work(msgspec.Struct, frozen=True):
    """What doit is given to run for one task.

    Attributes:
        project: The project.
        action: Called as action(job, *args, ...).
        args: Its further arguments.
        inputs: What judges the task.
        quiet: Print no line when done.
        news: See Kept.
        reads: See Command.
        check: See Command.
        written: See Makes.
    """

    project: Project
    action: Callable[..., Any]
    args: tuple[Any, ...]
    inputs: Inputs
    quiet: bool = False
    news: News | None = None
    reads: bool = False
    check: Callable[..., object] | None = None
    written: bool = False


def check_options(task: Any) -> None:
    """Check the options of one of doit's tasks before anything is made for it.

    Args:
        task: doit's task.

    Raises:
        PiggyError: One of them is refused.
    """
    for action in task.actions:
        work = getattr(action, "kwargs", {}).get("work")
        if isinstance(work, Work) and work.check:
            task.init_options()
            words = {} if task.pos_arg is None else {task.pos_arg: tuple(task.pos_arg_val or ())}
            work.check(**words, **task.options)


def perform(task: Any, work: Work, names: Sequence[str] | None = None, **options: Any) -> Any:
    """Run one action.

    This is the edge at which a PiggyError, or a full disk, becomes a failed task with a message.

    Args:
        task: doit's task.
        work: What is to be run.
        names: The words that followed on the command line, None if it takes none.
        options: The options that were given, by name.

    Returns:
        What the action returned, or its failure.
    """
    project, inputs = work.project, work.inputs
    log = project.layout.logs / f"{task.name.lstrip('_').replace(':', '-')}.log"
    started = time.monotonic()
    words = [] if names is None else [tuple(names)]
    known = inputs.previous.get("record", {}).get("outputs", {})
    written = inputs.outputs if work.written else ()
    try:
        with aside.kept(written, known, inputs.stamps):
            kept = brought_back(task, work)
            if kept is not None:
                return kept
            if not work.reads:
                log.parent.mkdir(parents=True, exist_ok=True)
                log.unlink(missing_ok=True)
            values = work.action(
                Job(
                    project,
                    task.name,
                    log,
                    inputs.previous,
                    tuple(inputs.reasons),
                    inputs.record,
                ),
                *work.args,
                *words,
                **options,
            )
        if isinstance(values, dict):
            inputs.notes, inputs.work = values.pop("notes", []), values.pop("work", None)
    except PiggyError as error:
        return failed(error)
    except OSError as error:
        return failed(errors.in_words(error))
    if not work.quiet:
        with stdio.afterwards():
            terminal.made(
                task.name.lstrip("_"),
                task.targets[0] if task.targets else "",
                time.monotonic() - started,
            )
    return values


def brought_back(task: Any, work: Work) -> dict[str, Any] | None:
    """Have what the task makes from the store, and say so.

    Args:
        task: doit's task.
        work: What would be run.

    Returns:
        The task's values, None where it has to run.
    """
    started = time.monotonic()
    inputs = work.inputs
    told = work.news(work.project) if work.news and inputs.store else list
    found = inputs.bring_back(task.name)
    if found is None:
        return None
    values, when = found
    said = f"from {terminal.ago(time.time() - when)}, {terminal.took(time.monotonic() - started)}"
    with stdio.afterwards():
        terminal.line("store", f"{task.name.lstrip('_')}  {task.targets[0]}  ({said})")
        inputs.notes = told()
        return values


def failed(error: PiggyError) -> TaskFailed:
    """Return doit's own kind of failure, with the exit status for the reporter to end with."""
    result = TaskFailed(str(error))
    result.status = error.status
    result.exceeded = isinstance(error, Exceeded)
    return result
