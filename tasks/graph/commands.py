"""What doit's own commands and options mean here.

Some of them wait for a run that builds, some are refused in a sentence.

doit makes the object of a command before it loads dodo.py, so it is the methods of its classes that
are replaced. Its `help` and `tabcompletion` end before that.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.cmd_clean import Clean
from doit.cmd_forget import Forget
from doit.cmd_help import Help
from doit.cmd_ignore import Ignore
from doit.cmd_info import Info
from doit.cmd_list import List
from doit.cmd_resetdep import ResetDep
from doit.cmd_run import Run
from doit.cmd_strace import Strace
from doit.cmdparse import CmdParseError, DefaultUpdate
from doit.exceptions import InvalidCommand

from tasks.config.project import Project
from tasks.graph import journal, reporter, runner, verdict
from tasks.graph.inputs import inputs_of
from tasks.system import terminal
from tasks.system.errors import PiggyError, in_a_sentence, nearest

_OPTIONS = {  # by doit's name, the option, and why it can't be given
    "reporter": ("-r", "only our own reporter locks the machine's folder and records what is done"),
    "outfile": ("-o", "tasks write to the terminal themselves; redirect doit's output instead"),
    "dep_file": ("--db-file", "the journal of a machine lies in its own folder; see 'build='"),
    "backend": ("--backend", "the journal is an SQLite database"),
    "check_file_uptodate": (
        "--check_file_uptodate",
        "the contents of files are compared by Piggyback itself",
    ),
}
_EMULATED = "QEMU does not emulate this machine; 'doit matrix' shows those that it does"
_ELSEWHERE = {  # tasks that not all machines have, and where they are
    "floppy": "machine=floppy has it",
    **dict.fromkeys(("qemu_boot", "qemu_test", "boot_profile", "floor"), _EMULATED),
}
_FORGET, _IGNORE, _CLEAN = Forget._execute, Ignore._execute, Clean._execute
_INFO, _LIST, _HELP, _RUN = Info._execute, List._execute, Help._execute, Run._execute
_MERGE = DefaultUpdate.update_defaults


def install(project: Project) -> None:
    """Give doit's commands their meaning for a project, and have `run` use our runners.

    Args:
        project: The project.
    """
    runner.install()
    DefaultUpdate.update_defaults = _merge
    for command, plain in ((Forget, _forget), (Ignore, _ignore), (Clean, _clean)):
        command._execute = _alone(project, command, plain)
    Clean.clean_tasks = _clean_tasks
    Info._execute, List._execute, Help._execute, Run._execute = _info, _list, _help, _run
    ResetDep._execute = _refused(
        "reset-dep",
        "a task is up to date only if it was made from what is there",
        "'doit why TASK' says what changed",
    )
    Strace._execute = _refused(
        "strace",
        "doit traces shell commands only, and actions here are Python functions",
        "'doit why TASK' knows what a task was made from",
    )
    DoitCmdBase._execute = _refused(  # see pyproject.toml
        "dumpdb",
        "it reads another kind of database",
        f"sqlite3 {project.layout.journal} 'select * from doit'",
    )


def only(made: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether the command line asks for some of these tasks and for nothing else.

    Where it has an option, one of doit's commands or a target, the answer is no. The tasks of a
    plain `doit` are among those that are given.
    """
    words = [word for word in sys.argv[1:] if word.startswith("-") or "=" not in word]
    return {one["basename"] for one in made}.issuperset(words)


def config(project: Project) -> dict[str, Any]:
    """Return DOIT_CONFIG: what doit is told of a project once, for all of its commands.

    Args:
        project: The project.
    """
    return {
        "minversion": "0.37.0",
        "backend": "sqlite3",
        "codec_cls": journal.Codec,
        "check_file_uptodate": journal.Present,
        "dep_file": str(project.layout.journal),
        "reporter": reporter.reporter_for(project),
        "default_tasks": project.goals,
        "sort": "definition",
        "verbosity": 2,
    }


def _refused(name: str, why: str, instead: str) -> Any:
    def execute(self: DoitCmdBase) -> None:
        raise _error(f"'doit {name}' has no meaning here: {why}", instead)

    return execute


def _error(message: str, hint: str) -> InvalidCommand:
    return InvalidCommand(str(PiggyError(message, hint)))


def _merge(params: DefaultUpdate, config: Any) -> None:
    """Merge DOIT_CONFIG into the options of the command line, unless one is refused.

    This is the first thing that a command does once dodo.py is loaded, before it opens or makes any
    file.

    Raises:
        InvalidCommand: An option was given that can't be used here.
    """
    if config.get("codec_cls") is journal.Codec:
        for name in params._non_default_keys & _OPTIONS.keys():
            option, why = _OPTIONS[name]
            raise _error(f"the option {option} can't be used here: {why}", "leave it out")
    _MERGE(params, config)


def _alone(project: Project, command: type[DoitCmdBase], plain: Any) -> Any:
    """Have a command that changes records or outputs wait for a run that builds.

    A second run does so, too.

    Args:
        project: The project.
        command: The command's class.
        plain: What it does then, called with the command and its options.

    Returns:
        The method in place of its own.
    """

    @functools.wraps(command._execute)
    def execute(self: DoitCmdBase, **given: Any) -> Any:
        if given.get("dryrun"):
            return plain(self, **given)
        reporter.unwind_on_signals()
        with in_a_sentence(InvalidCommand), project.lock.held(), _journal_in_words(project):
            return plain(self, **given)

    return execute


@contextlib.contextmanager
def _journal_in_words(project: Project) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if journal.locked(error):
            raise PiggyError(
                f"{project.layout.journal} is held by another program", journal.HELD
            ) from error
        if getattr(error, "sqlite_errorname", ""):
            raise PiggyError(
                f"{project.layout.journal} can't be written: {error}",
                "is the disk full, or the folder not writable?",
            ) from error
        raise


def _chosen(command: DoitCmdBase, words: Sequence[str]) -> list[str]:
    """Return the tasks that words name: by their names, by patterns, or by files that they make.

    Raises:
        InvalidCommand: A word names none.
    """
    names = [task.name for task in command.task_list]
    owners = {target: task.name for task in command.task_list for target in task.targets}
    found: list[str] = []
    for word in words:
        here = fnmatch.filter(names, word) if "*" in word else [word] if word in names else []
        here = here or ([owners[word]] if word in owners else [])
        if not here:
            raise _unknown("task", word, names)
        found += here
    return list(dict.fromkeys(found))


def _unknown(what: str, word: str, names: Iterable[str]) -> InvalidCommand:
    near = nearest(word, [name for name in names if not name.startswith("_")])
    return _error(
        f"there is no {what} '{word}'.{near}",
        _ELSEWHERE.get(word, "'doit list' shows the tasks, 'doit help' the commands"),
    )


def _forget(self: Forget, **given: Any) -> None:
    forgotten, plain = set[str](), self.dep_manager.remove

    def remove(name: str) -> None:
        forgotten.add(name)
        plain(name)

    if not self.sel_default_tasks:
        self.sel_tasks = _chosen(self, self.sel_tasks)
    if given["forget_all"]:
        forgotten.update(task.name for task in self.task_list)
    self.dep_manager.remove = remove
    _FORGET(self, **given)
    kept = [
        task.name
        for task in self.task_list
        if task.name in forgotten and (inputs := inputs_of(task)) and inputs.kept(task.name)
    ]
    if kept:
        terminal.line(
            "store",
            f"has what is made by {', '.join(kept)}: the next run brings it back; 'doit -a TASK'"
            " makes it in any case",
        )


def _ignore(self: Ignore, **given: Any) -> None:
    names = _chosen(self, given["pos_args"])
    if not names:
        raise _error("no task is named to be ignored", "doit ignore TASK")
    for task in self.task_list:
        self.dep_manager.get_values(task.name)  # or its record would be lost: doit starts a new one
    _IGNORE(self, pos_args=names)
    terminal.line(
        "ignore",
        f"what is made from {', '.join(names)} is left alone, too; 'doit forget TASK' ends that",
    )


def _clean(self: Clean, **given: Any) -> int:
    self.failed = False
    _CLEAN(self, **{**given, "pos_args": _chosen(self, given["pos_args"])})
    return int(self.failed)


def _clean_tasks(self: Clean, tasks: Iterable[Any], dryrun: bool, cleanforget: bool) -> None:
    """Remove the outputs of tasks, and nothing else: called by doit."""
    done = False
    for task in {task.name: task for task in tasks}.values():
        for target in task.targets if task._remove_targets else ():
            if os.path.lexists(target):
                done = True
                print(f"{'would remove' if dryrun else 'remove'} {target}")
                try:
                    if not dryrun:
                        os.remove(target)
                except OSError as error:
                    self.failed = True
                    print(f"{target} can't be removed: {error.strerror}", file=sys.stderr)
        if cleanforget and not dryrun:
            self.dep_manager.remove(task.name)
    if not done:
        print("nothing to remove")
    self.dep_manager.close()


@functools.wraps(_INFO)
def _info(self: Info, **given: Any) -> Any:
    if len(given["pos_args"]) == 1:
        given["pos_args"] = _chosen(self, given["pos_args"])[:1]
    return _INFO(self, **given)


@functools.wraps(_LIST)
def _list(self: List, **given: Any) -> Any:
    try:
        (given["template"] or "").format(name="", doc="", status="")
    except (LookupError, ValueError, AttributeError, TypeError, MemoryError) as error:
        raise _error(
            f"the template '{given['template']}' can't be filled in: {error}",
            "it has {name}, {doc} and, with -s, {status}; see Python's str.format",
        ) from None
    if "{status" in (given["template"] or "") and not given["status"]:
        raise _error("a template with {status} needs the option -s", "doit list -s --template=...")
    return _LIST(self, **{**given, "pos_args": _chosen(self, given["pos_args"])})


@functools.wraps(_HELP)
def _help(self: Help, **given: Any) -> Any:
    word = given["pos_args"][0]
    if word not in [task.name for task in self.task_list]:
        raise _unknown("command or task", word, [*_names(self), *self.cmds])
    return _HELP(self, **given)


@functools.wraps(_RUN)
def _run(self: Run, **given: Any) -> Any:
    with verdict.or_none(self.sel_tasks or ()):
        return _run_in_words(self, **given)


def _run_in_words(self: Run, **given: Any) -> Any:
    self.sel_tasks = _without_patterns(self.sel_tasks or (), self.task_list)
    try:
        return _RUN(self, **given)
    except InvalidCommand as error:
        if error.not_found is None:
            raise
        if error.not_found in self.loader.cmd_names:
            raise _error(
                f"the command '{error.not_found}' stands before everything else",
                f"doit {error.not_found} ...",
            ) from None
        names = [*_names(self), *self.loader.cmd_names]
        raise _unknown("command, task or output", error.not_found, names) from None
    except PiggyError as error:  # of an option
        raise InvalidCommand(str(error)) from None
    except CmdParseError as error:
        raise InvalidCommand(_of_option(str(error))) from None


def _of_option(said: str) -> str:
    """Return what doit says of an option of a task without the options' description in Python."""
    if wrong := re.match(r"Error parsing Task: (.*?) \(parsing options: ", said, re.DOTALL):
        said = wrong[1]
    elif wrong := re.match(
        r"Error parsing parameter '(\w+)' <class 'int'>\..*: '(.*)'\n", said, re.DOTALL
    ):
        said = f"the option '{wrong[1]}' takes a whole number, not '{wrong[2]}'"
    return str(PiggyError(said.strip(), "'doit help TASK' shows the options of a task"))


def _without_patterns(words: Sequence[str], tasks: Sequence[Any]) -> list[str]:
    """Return the words of `run` with the tasks that each pattern among them names in its place.

    A pattern names what is made. What runs whenever it is asked for (a boot, `setup`) has to be
    named itself.

    Args:
        words: Tasks, outputs, options of tasks and patterns.
        tasks: doit's tasks.

    Raises:
        InvalidCommand: A pattern names none; doit would run nothing for it.
    """
    known = {task.name: task for task in tasks}
    made = [task.name for task in tasks if inputs_of(task)]
    found: list[str] = []
    for number, word in enumerate(words):
        if word in known and known[word].pos_arg:
            return [*found, *words[number:]]  # the rest are its own words
        here = fnmatch.filter(made, word) if "*" in word else [word]
        if not here and (asked := fnmatch.filter(known, word)):
            raise _error(
                f"the pattern '{word}' names nothing that is made",
                f"what runs whenever it is asked for is named itself: {', '.join(asked)}",
            )
        if not here:
            raise _unknown("task", word, known)
        found += here
    return found


def _names(command: DoitCmdBase) -> list[str]:
    return [task.name for task in command.task_list]
