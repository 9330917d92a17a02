from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doit.exceptions import TaskFailed
from doit.task import dict_to_task

from tasks.cache.code_index import Codes
from tasks.cache.digests import Stamps
from tasks.graph import task as graph
from tasks.graph.reason import NEVER
from tasks.graph.runner import InTurn
from tasks.graph.task import Command, Job, Kept, Makes, Needs
from tasks.system.errors import PiggyError
from tasks.system.process import run


def action(job: Job, *args: Any) -> Any:
    """Do what the first argument says."""
    if isinstance(args[0], BaseException):
        raise args[0]
    return args[0](job) if callable(args[0]) else args[0]


@pytest.fixture
def project(tmp_path: Path) -> Any:
    stamps = Stamps(tmp_path / "stamps")
    return SimpleNamespace(
        layout=SimpleNamespace(
            build=tmp_path,
            logs=tmp_path / "new" / "logs",
            toolchain_record=Path("toolchain.json"),
            userspace_record=Path("userspace.json"),
        ),
        stamps=stamps,
        codes=Codes(tmp_path / "codes", stamps),
    )


def perform(project: Any, what: Any, name: str = "task", **named: Any) -> Any:
    made = graph.task(project, name, "doc", action, [what], **named)
    _, _, words = made["actions"][0]
    return graph.perform(SimpleNamespace(name=name, targets=made["targets"]), **words)


def test_the_dict_is_one_that_doit_takes(project: Any, tmp_path: Path) -> None:
    made = graph.task(
        project,
        "name",
        "what it is",
        action,
        [1],
        inputs=Needs(
            files=[tmp_path / "in"],
            settings={"size": 5, "none": None},
            after=["other"],
            tools=["gcc"],
        ),
        outputs=Makes(targets=[Path("out")]),
    )
    task = dict_to_task(
        {"name" if key == "basename" else key: value for key, value in made.items()}
    )
    assert (task.doc, task.targets, list(task.file_dep), list(task.task_dep)) == (
        "what it is",
        ["out"],
        [str(tmp_path / "in")],
        ["other"],
    )
    inputs = made["uptodate"][0]
    assert inputs.settings == {"size": "5", "none": "None"}
    assert json.dumps(inputs.settings)  # fit for the journal
    assert graph.task(project, "name", "doc", action, command=Command())["uptodate"] == [False]


def test_values_pass_through_and_the_line_is_printed(
    project: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert perform(
        project, {"commands": 3}, outputs=Makes(targets=[Path("images/x"), Path("images/y")])
    ) == {"commands": 3}
    out = capsys.readouterr().out
    assert out.startswith("  task               images/x  (0.0")
    assert perform(project, None, "_hidden") is None
    assert capsys.readouterr().out.startswith("  hidden             (0.0")
    perform(project, None, outputs=Makes(quiet=True))
    perform(project, None, command=Command())
    assert capsys.readouterr().out == ""


def test_the_job_knows_its_log_and_each_run_has_a_new_one(project: Any) -> None:
    for word in ("one", "two"):
        perform(
            project,
            lambda job, word=word: run(["echo", word], log=job.log) and None,
            "_fetch:linux-6.1",
        )
    log = project.layout.logs / "fetch-linux-6.1.log"
    assert log.read_text() == "$ echo two\ntwo\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PiggyError("broke", "mend"), "broke\n  hint: mend"),
        (
            OSError(errno.ENOSPC, "No space left on device", "build/x"),
            "no space left on the disk while writing build/x\n  hint: free",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            "no space left on the disk while writing a file\n  hint: free",
        ),
        (
            OSError(errno.EACCES, "Permission denied", "/x"),
            "/x: Permission denied\n  hint: check the path",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/x"),
            "/x: Read-only file system\n  hint: check the path",
        ),
        (OSError("without a number"), "a file: without a number\n  hint: check"),
    ],
)
def test_a_failure_becomes_a_failed_task_with_a_sentence(
    project: Any, error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = perform(project, error)
    assert isinstance(result, TaskFailed)
    assert result.get_msg().strip().startswith(said)
    assert result.status == 1
    assert capsys.readouterr().out == ""


def test_the_errors_status_is_kept(project: Any) -> None:
    error = PiggyError("the guest failed")
    error.status = 77
    assert perform(project, error).status == 77


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyError, SystemExit, KeyboardInterrupt])
def test_a_bug_of_ours_and_a_signal_pass_through(project: Any, error: type[BaseException]) -> None:
    with pytest.raises(error):
        perform(project, error("x"))


def test_a_log_folder_that_can_not_be_made(project: Any, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    result = perform(project, None)
    assert isinstance(result, TaskFailed)
    assert f"{tmp_path}/new" in result.get_msg()


def test_what_the_last_success_left_is_given_to_the_next_run(project: Any) -> None:
    made = graph.task(
        project,
        "task",
        "doc",
        action,
        [lambda job: {"n": job.previous.get("n", 0) + 1, "why": job.reasons}],
    )
    inputs = made["uptodate"][0]
    task = SimpleNamespace(name="task", targets=[], value_savers=[], values={})
    inputs(task, {"n": 41, "record": {}})
    assert graph.perform(task, **made["actions"][0][2]) == {
        "n": 42,
        "why": (NEVER,),
    }


def test_the_groups_of_the_spec(project: Any, tmp_path: Path) -> None:
    project.store, project.top = object(), tmp_path
    spec: dict[str, Any] = {
        "inputs": Needs(
            config=Path("config"),
            trees={"overlay": dict},
            settings={"tree": Path("/src"), "arch": "/arm"},
        ),
        "outputs": Makes(targets=[Path("out")], place=Path("obj")),
    }
    made = graph.task(
        project, "name", "doc", action, **spec, store=Kept(gone=[Path("sign")], news=news)
    )
    (inputs,) = made["uptodate"]
    assert (inputs.store.store, inputs.gone) == (project.store, ["sign"])
    assert inputs.store.located == {"tree"}
    assert inputs.settings == {"tree": "/src", "arch": "/arm"}
    assert (inputs.config, inputs.trees) == ("config", {"overlay": dict})
    assert made["meta"] == {"place": "obj", "reads": False}
    work = made["actions"][0][2]["work"]
    assert (work.news, work.quiet) == (news, False)
    for store in ({}, {"store": Kept(when=False, gone=[Path("sign")])}):
        (inputs,) = graph.task(project, "name", "doc", action, **spec, **store)["uptodate"]
        assert inputs.store is None


def news(project: Any) -> Any:
    """Only named."""


def test_a_command(project: Any) -> None:
    option = {"name": "dry", "long": "dry", "default": False}
    made = graph.task(
        project, "x", "doc", action, command=Command(names=True, params=[option], reads=True)
    )
    assert (made["uptodate"], made["pos_arg"], made["params"]) == ([False], "names", [option])
    assert made["meta"]["reads"] is made["actions"][0][2]["work"].reads is True
    plain = graph.task(project, "x", "doc", action, command=Command())
    assert not {"pos_arg", "params"} & {*plain}
    assert plain["meta"]["reads"] is False


def test_the_options_of_a_command_are_checked_before_anything_is_made(project: Any) -> None:
    def check(**given: object) -> None:
        if given["dry"]:
            raise PiggyError("--dry: not here")

    option = {"name": "dry", "long": "dry", "default": False, "type": bool}
    made = graph.task(project, "x", "doc", action, command=Command(params=[option], check=check))
    del made["basename"]
    plain, refused = (dict_to_task({"name": "x", **made}) for _ in range(2))
    graph.check_options(plain)
    refused.init_options(["--dry"])
    with pytest.raises(PiggyError, match="not here"):
        graph.check_options(refused)
    dispatcher = SimpleNamespace(tasks={"x": refused}, selected_tasks=["x"])
    with pytest.raises(PiggyError, match="not here"):
        InTurn.run_all(InTurn.__new__(InTurn), dispatcher)


@pytest.mark.parametrize("words", [None, ["a", "--dry"]])
def test_the_words_of_a_command_are_checked_with_its_options(
    project: Any, words: list[str] | None
) -> None:
    seen: dict[str, object] = {}
    option = {"name": "dry", "long": "dry", "default": False, "type": bool}
    made = graph.task(
        project,
        "x",
        "doc",
        action,
        command=Command(names=True, params=[option], check=lambda **given: seen.update(given)),
    )
    del made["basename"]
    asked = dict_to_task({"name": "x", **made})
    asked.pos_arg_val = words
    graph.check_options(asked)
    assert seen == {"names": tuple(words or ()), "dry": False}
