"""The parts of doit that are used though they are not documented, each with what it is for: a doit
that has changed one of them fails here first. See docs/doit.md."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doit import cmd_run, doit_cmd
from doit.cmd_base import Command, DoitCmdBase, ModuleTaskLoader
from doit.cmd_clean import Clean
from doit.cmd_forget import Forget
from doit.cmd_help import Help
from doit.cmd_ignore import Ignore
from doit.cmd_info import Info
from doit.cmd_list import List
from doit.cmd_resetdep import ResetDep
from doit.cmd_run import Run
from doit.cmd_strace import Strace
from doit.cmdparse import DefaultUpdate
from doit.control import TaskControl
from doit.dependency import Dependency, SqliteDB
from doit.exceptions import InvalidCommand
from doit.globals import Globals
from doit.reporter import ConsoleReporter
from doit.runner import Runner
from doit.task import Task

from tasks.graph import journal, startup

PINNED = "0.37"
TOP = Path(__file__).parents[3]
MODULES = [TOP / "dodo.py", *TOP.glob("tasks/graph/*.py"), *TOP.glob("tasks/reports/*.py")]


def named(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.fixture
def manager(tmp_path: Path) -> Dependency:
    return Dependency(SqliteDB, str(tmp_path / "journal"), journal.Present, journal.Codec)


def test_the_release_that_this_is_true_of() -> None:
    assert ".".join(map(str, doit_cmd.VERSION)).startswith(PINNED)


def test_all_words_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """get_var is public, and what it knows is settled before dodo.py is loaded: each word with a
    "=" that is no option."""
    monkeypatch.setattr(doit_cmd, "_CMDLINE_VARS", None)
    words = ["a=1", "list", "b=2=3", "-x=4", "--long=5", "c="]
    monkeypatch.setattr(sys, "argv", ["doit", *words])
    assert startup.given() == {}
    main = doit_cmd.DoitMain(config_filenames=[])
    assert main.process_args(words) == ["list", "-x=4", "--long=5"]
    assert startup.given() == {"a": "1", "b": "2=3", "c": ""}


def test_the_database_while_it_is_open(manager: Dependency) -> None:
    """_dirty, _cache, _conn and codec of SqliteDB: to write each result at once, as dump does, which
    closes the database."""
    manager.backend.set("one", "_values_:", {"n": 1})
    assert manager.backend._dirty == {"one"}
    assert manager.backend._cache == {"one": {"_values_:": {"n": 1}}}
    assert isinstance(manager.backend.codec, journal.Codec)
    journal.commit(manager.backend)
    (row,) = manager.backend._conn.execute("select * from doit").fetchall()
    assert (row["task_id"], row["task_data"]) == ("one", {"_values_:": {"n": 1}})


def test_a_record_that_is_kept_as_unfinished(manager: Dependency) -> None:
    """Dependency._set and the name of the values in a record, `_values_:`; remove_success drops all
    of it."""
    manager._set("one", "_values_:", {"n": 1})
    assert manager.get_values("one") == {"n": 1}
    manager.remove_success(SimpleNamespace(name="one"))
    assert manager.get_values("one") == {}


def test_a_task_that_is_ignored_keeps_its_record(manager: Dependency) -> None:
    """get_values reads a record into _cache, so that `ignore` does not begin a new one; and
    status_is_ignore asks for no more than a name."""
    one: Any = SimpleNamespace(name="one")
    manager._set("one", "_values_:", {"n": 1})
    journal.commit(manager.backend)
    manager.backend._cache.clear()
    manager.get_values("one")
    manager.ignore(one)
    assert manager.get_values("one") == {"n": 1}
    assert manager.status_is_ignore(one)


def test_the_runners_are_looked_up_by_name() -> None:
    """Run._execute takes Runner, MRunner and MThreadRunner out of doit.cmd_run: ours are put
    there."""
    assert {"Runner", "MRunner", "MThreadRunner"} <= {*Run._execute.__code__.co_names} | {
        *inspect.unwrap(Run._execute).__code__.co_names
    }
    assert all(hasattr(cmd_run, name) for name in ("Runner", "MRunner", "MThreadRunner"))


def test_what_a_runner_is_made_of() -> None:
    """The parts of Runner that graph.runner is built from, and the word by which the dispatcher asks
    to wait."""
    runner = Runner(None, None, always_execute=True)
    assert (runner.always_execute, runner._stop_running, runner.teardown_list) == (True, False, [])
    assert hasattr(runner, "stream")
    assert named(Runner.__init__)[1:] == [
        "dep_manager",
        "reporter",
        "continue_",
        "always_execute",
        "stream",
    ]
    assert named(Runner.select_task) == ["self", "node", "tasks_dict"]
    assert named(Runner.process_task_result) == ["self", "node", "base_fail"]
    assert named(Runner._handle_task_error) == ["self", "node", "base_fail"]
    assert "dep_manager" in Runner._handle_task_error.__code__.co_names
    control = TaskControl([Task("one", None, task_dep=["two"]), Task("two", None)])
    control.process(["one"])
    given = control.task_dispatcher().generator
    assert next(given).task.name == "two"
    assert given.send(None) == "hold on"


def test_the_records_outside_of_an_action() -> None:
    """Globals.dep_manager: set by doit before a command does its work."""
    assert hasattr(Globals, "dep_manager")
    assert "Globals" in DoitCmdBase.execute.__code__.co_names


def test_the_stream_of_a_command() -> None:
    """outstream is set for each command before dodo.py is loaded; system.stdio puts a property in
    its place."""
    assert "outstream" in DoitCmdBase.__init__.__code__.co_names


def test_what_is_saved_on_success_only() -> None:
    """Task.value_savers: where graph.inputs puts the new record."""
    task = Task("one", None)
    task.value_savers.append(lambda: {"n": 1})
    task.save_extra_values()
    assert task.values == {"n": 1}


def test_what_failed() -> None:
    """failures and runtime_errors of ConsoleReporter: the exit status, and what is said at the
    end."""
    reporter = ConsoleReporter(None, {})
    assert (reporter.failures, reporter.runtime_errors) == ([], [])


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (Forget, ["forget_sub", "forget_disable_default", "forget_all"]),
        (Ignore, ["pos_args"]),
        (Clean, ["dryrun", "cleandep", "cleanall", "cleanforget", "pos_args"]),
        (Info, ["pos_args", "hide_status"]),
        (Help, ["pos_args"]),
        (ResetDep, ["pos_args"]),
        (Strace, ["show_all"]),
    ],
)
def test_what_a_command_is_called_with(command: type[Command], options: list[str]) -> None:
    """_execute of each command: replaced by graph.commands, since the object of the command is there
    before dodo.py is loaded. doit calls it with the options that it names."""
    assert named(command._execute) == ["self", *options]
    assert "_execute" in DoitCmdBase.execute.__code__.co_names


def test_what_is_known_before_the_first_task() -> None:
    """run_all, with selected_tasks, whose options are parsed by then: where they are checked."""
    assert named(Runner.run_all) == ["self", "task_dispatcher"]
    assert "selected_tasks" in Runner.run_all.__code__.co_names
    assert named(Task.init_options) == ["self", "args"]


def test_other_methods_of_commands() -> None:
    """clean_tasks, which removes; sel_tasks and sel_default_tasks, task_list and loader.cmd_names:
    what was asked for, and what there is."""
    assert named(Clean.clean_tasks) == ["self", "tasks", "dryrun", "cleanforget"]
    assert {"sel_tasks", "sel_default_tasks", "task_list"} <= {
        *DoitCmdBase.execute.__code__.co_names
    }
    assert ModuleTaskLoader({}).cmd_names == []
    assert "pos_args" in named(List._execute)
    assert InvalidCommand(not_found="x").not_found == "x"


def test_which_options_were_given() -> None:
    """_non_default_keys, and update_defaults as the first thing that is called with what dodo.py
    says: where options that do harm are refused before anything is opened."""
    params = DefaultUpdate()
    params.set_default("backend", "dbm")
    params["dep_file"] = "x"
    assert params._non_default_keys == {"dep_file"}
    names = DoitCmdBase.execute.__code__.co_names
    assert names.index("update_defaults") < names.index("Dependency")


@pytest.mark.parametrize(("clean", "removed"), [(True, True), ([], False)])
def test_a_task_says_whether_clean_removes_its_outputs(clean: Any, removed: bool) -> None:
    """`clean` asks for it: an unpacked tree may hold the user's edits."""
    assert Task("name", [], clean=clean)._remove_targets is removed


def private(path: Path) -> set[str]:
    """The private attributes that a module uses and that nothing in it defines: those of doit."""
    tree = ast.parse(path.read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and re.fullmatch(r"_[a-zA-Z]\w*", node.attr)
    }
    own = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)
    } | {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    return used - own


def test_every_private_part_is_tested_here_and_listed() -> None:
    """What is not must be taken from doit in some public way, or get its test and its line."""
    used = {name for path in MODULES for name in private(path)}
    assert {"_dirty", "_conn", "_cache", "_set", "_stop_running", "_execute"} <= used
    tests = Path(__file__).read_text().partition("def private")[0]
    listed = (TOP / "docs" / "doit.md").read_text()
    for name in used:
        assert re.search(rf"\b{name}\b", tests), f"{name} has no test"
        assert re.search(rf"\b{name}`", listed), f"{name} is not in docs/doit.md"
