"""How every task is made: one plain dict for doit, with all inputs of the action in it, and one
edge where errors end.

A stage module says what a task needs and makes; `task` turns that into the dict. The action gets a
Job and returns None, or a dict with "discovered" (input files that it learned of while it ran),
"made" (outputs beyond the targets), "unsure" (true: it was made from more than its inputs, so that
the store must not have it), "notes" (reasons of the part "note": what it says of its inputs), and
other values to keep.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from doit.exceptions import TaskFailed

from tasks.config.project import Project
from tasks.graph.inputs import Inputs
from tasks.graph.reason import Reason
from tasks.system import stdio, terminal
from tasks.system.errors import PiggyError

TaskDict = dict[str, Any]


class Job(msgspec.Struct, frozen=True):
    """What an action knows of its own run: the project, its log, the values of its last success,
    and why it runs."""

    project: Project
    name: str
    log: Path
    previous: Mapping[str, Any] = msgspec.field(default_factory=dict)
    reasons: Sequence[Reason] = ()


def task(
    project: Project,
    name: str,
    doc: str,
    action: Callable[..., Any],
    args: Sequence[Any] = (),
    *,
    files: Sequence[Path] = (),
    targets: Sequence[Path] = (),
    settings: Mapping[str, Any] | None = None,
    trees: Mapping[str, Callable[[], Mapping[str, str]]] | None = None,
    tools: Sequence[str] = (),
    after: Sequence[str] = (),
    config: Path | None = None,
    always: bool = False,
    quiet: bool = False,
    names: bool = False,
    place: Path | None = None,
    stored: bool = False,
    gone: Sequence[Path] = (),
    news: Callable[[Project], Callable[[], list[Reason]]] | None = None,
    params: Sequence[Mapping[str, Any]] = (),
    reads: bool = False,
) -> TaskDict:
    """Return the doit dict of one task.

    name, doc: as `doit list` shows them; a name with a leading underscore is not listed.
    action:    a module-level function, called as action(job, *args).
    files, targets: input and output files; doit orders tasks by them.
    settings:  everything else that decides the output.
    trees:     folders whose listing is an input, as functions (see Inputs).
    tools:     programs whose binaries are inputs.
    after:     tasks that go first without a file between them.
    config:    the .config file of which single symbols may be discovered as inputs.
    always:    run whenever asked for (boots, editors, reports).
    quiet:     print no line when done.
    names:     takes the words that follow it on the command line: action(job, *args, names).
    place:     the folder that it works in, for tasks of which no two may do that at the same time
        (Kbuild's O=).
    stored:    what it makes is kept in the store, and brought back where it was made from the same
               inputs before. Only for a task whose targets are all that others need of it.
    gone:      files that are removed before anything is brought back: signs that some folder has
        the state of the last run.
    news:      called before anything is brought back; what it returns is called after that, and
        gives the notes for `why`.
    params:    takes options of its own, as doit describes them: action(job, *args, name=value).
    reads:     changes nothing of what is built, so that it need not wait for a run that builds.
    """
    inputs = Inputs(
        project.stamps,
        action,
        settings={k: str(v) for k, v in (settings or {}).items()},
        files=[os.fspath(path) for path in files],
        trees=trees or {},
        tools=tools,
        outputs=[os.fspath(path) for path in targets],
        config=os.fspath(config or ""),
        store=project.store if stored else None,
        place=os.fspath(project.top) if stored else "",
        gone=[os.fspath(path) for path in gone],
        within=os.fspath(project.layout.build),
        identify=project.codes.of,
    )
    todo = {
        "action": action,
        "project": project,
        "inputs": inputs,
        "args": tuple(args),
        "quiet": quiet,
        "news": news,
        "reads": reads,
    }
    return {
        "basename": name,
        "doc": doc,
        "actions": [(perform, [], todo)],
        "file_dep": [os.fspath(path) for path in files],
        "targets": [os.fspath(path) for path in targets],
        "task_dep": list(after),
        "uptodate": [False] if always else [inputs],
        "verbosity": 2,
        "io": {"capture": False},
        "clean": True,  # a stage may say [] of what clean is to leave alone
        "meta": {"place": os.fspath(place or ""), "reads": reads},
        **({"pos_arg": "names"} if names else {}),
        **({"params": [*params]} if params else {}),
    }


def perform(
    task: Any,
    action: Callable[..., Any],
    project: Project,
    inputs: Inputs,
    args: Sequence[Any],
    quiet: bool,
    news: Callable[[Project], Callable[[], list[Reason]]] | None = None,
    names: Sequence[str] | None = None,
    reads: bool = False,
    **options: Any,
) -> Any:
    """Run one action: the edge at which a PiggyError, or a full disk, becomes a failed task with a
    clear message."""
    log = project.layout.logs / f"{task.name.lstrip('_').replace(':', '-')}.log"
    started = time.monotonic()
    words = [] if names is None else [tuple(names)]
    try:
        kept = brought_back(task, project, inputs, news)
        if kept is not None:
            return kept
        if not reads:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.unlink(missing_ok=True)
        values = action(
            Job(project, task.name, log, inputs.previous, tuple(inputs.reasons)),
            *args,
            *words,
            **options,
        )
        if isinstance(values, dict):
            inputs.notes = values.pop("notes", [])
    except PiggyError as error:
        return failed(error)
    except OSError as error:
        return failed(_in_words(error))
    if not quiet:
        with stdio.afterwards():
            terminal.made(
                task.name.lstrip("_"),
                task.targets[0] if task.targets else "",
                time.monotonic() - started,
            )
    return values


def brought_back(
    task: Any,
    project: Project,
    inputs: Inputs,
    news: Callable[[Project], Callable[[], list[Reason]]] | None,
) -> dict[str, Any] | None:
    """Have what the task makes from the store, and say so. Returns the task's values, None where it
    has to run."""
    started = time.monotonic()
    told = news(project) if news and inputs.store else list
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
    return result


def _in_words(error: OSError) -> PiggyError:
    where = (
        os.fsdecode(error.filename)
        if isinstance(error.filename, bytes)
        else str(error.filename or "a file")
    )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PiggyError(
            f"no space left on the disk while writing {where}",
            "free some space and run doit again; what "
            "was finished is kept. 'build=' and 'dl=' can lie on another disk",
        )
    return PiggyError(
        f"{where}: {error.strerror or error}",
        "check the path and its permissions, then run doit again",
    )
