"""The benchmarks' tools: what they are told fits to what they are given."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tasks import kernel_config

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(BENCH)  # it changes to the top, and this changes back
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])
    monkeypatch.setattr(kernel_config, "variables", lambda here: {"CROSS_COMPILE": "x-"})
    return importlib.import_module("edit_to_prompt")


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Put programs of these names on PATH, and no others."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def made(bench: ModuleType, **settings: str) -> Any:
    return bench.Bench({"image": "vmlinux", **settings})


def test_each_tool_is_given_the_configuration_that_its_command_names(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path / "bin", monkeypatch, "tuxmake", "tuxrun", "lava-run", "vng")
    found = made(bench, build=str(tmp_path / "build"))
    assert [tool.name for tool in found.others] == ["make", "tuxmake", "vng", "tuxrun"]
    config = found.here.layout.config
    config.parent.mkdir(parents=True)
    config.write_text("CONFIG_X=y\n")
    for tool in found.others:
        tool.obj.parent.mkdir(parents=True, exist_ok=True)
    bench.give_config(found.here, found.others)
    given = [
        Path(tool.argv[tool.argv.index("-k") + 1])
        for tool in found.others
        if tool.argv[0] == "tuxmake"
    ]
    assert [path.read_text() for path in given] == ["CONFIG_X=y\n"] * 2
    assert len(set(given)) == 2


@pytest.mark.parametrize(
    ("names", "machine", "why"),
    [
        (("tuxmake", "tuxrun"), "pc", "it needs lava-run on PATH"),
        (("tuxrun",), "pc", "it needs tuxmake and lava-run on PATH"),
        (("tuxmake", "tuxrun", "lava-run"), "powerpc", "it has no machine for powerpc"),
    ],
)
def test_tuxrun_is_left_out_with_a_reason(
    bench: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...],
    machine: str,
    why: str,
) -> None:
    installed(tmp_path / "bin", monkeypatch, *names)
    found = made(bench, build=str(tmp_path / "build"), machine=machine)
    assert "tuxrun" not in found.took
    assert found.left_out == {"tuxrun": why}


def test_the_prompt_is_what_lava_says_of_it(bench: ModuleType) -> None:
    said = "{'case': 'login-action', 'definition': 'lava', 'duration': '3.55', 'result': 'pass'}"
    assert bench.PROMPTED.search(f"2026-01-01T00:00:00 {said}")
    assert not bench.PROMPTED.search(said.replace("pass", "fail"))
