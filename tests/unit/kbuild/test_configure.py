"""The tasks that the kernel, busybox and Buildroot have alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks import busybox, kernel_config
from tasks.buildroot import stage
from tasks.config import project
from tasks.kbuild import configure

TOP = Path(__file__).parents[3]


def made(which: Any, **settings: str) -> dict[str, dict[str, Any]]:
    return {one["basename"]: one for one in which.tasks(project.load(TOP, {}, settings))}


@pytest.mark.parametrize(
    ("which", "names"),
    [
        (kernel_config, ["kernel_config", "menuconfig", "savedefconfig"]),
        (busybox, ["busybox_config", "busybox_menuconfig"]),
        (stage, ["buildroot_config", "buildroot_menuconfig", "buildroot_savedefconfig"]),
    ],
)
def test_the_names_and_that_the_editor_works_on_the_result(which: Any, names: list[str]) -> None:
    tasks = made(which, toolchain="buildroot")
    assert [name for name in tasks if name.endswith("config")] == names
    for name in names[1:]:
        assert tasks[name]["file_dep"] == tasks[names[0]]["targets"][:1]
        assert tasks[name]["uptodate"] == [False]


def test_the_list_of_fragments_is_an_input_and_marks_those_that_may_fail(tmp_path: Path) -> None:
    must, may = tmp_path / "must.config", tmp_path / "may.config"
    for path in (must, may):
        path.write_text("CONFIG_A=y\n")
    task = made(kernel_config, fragments=f"{must},{may}?")["kernel_config"]
    (inputs,) = task["uptodate"]
    assert {str(must), f"{may}?"} <= set(inputs.settings["fragments"].split())
    assert {str(must), str(may)} <= set(task["file_dep"])


def test_strings_have_their_defaults_over_an_empty_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Busybox's allnoconfig writes each string as an empty one, also those that are hidden yet."""
    tree = configure.Kconfig(
        "busybox",
        tmp_path,
        tmp_path,
        "allnoconfig",
        (),
        tmp_path / "own",
        {},
        tmp_path / "full",
        tmp_path / "mini",
        takes_miniconfig=False,
    )
    live, given = tmp_path / ".config", []

    def run_goal(job: Any, tree: configure.Kconfig, goal: str, **rest: Any) -> None:
        if goal == "allnoconfig":
            live.write_text('# CONFIG_A is not set\nCONFIG_N=7\nCONFIG_SCRIPT=""\n')
        else:
            given.append(live.read_text())

    monkeypatch.setattr(configure, "run_goal", run_goal)
    configure.solve(None, tree, {"A": "y", "EMPTY": '""'})  # type: ignore[arg-type]
    assert given == ['CONFIG_N=7\nCONFIG_A=y\nCONFIG_EMPTY=""\n']
