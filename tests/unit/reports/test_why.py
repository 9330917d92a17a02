from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.graph.explain import Graph
from tasks.graph.reason import NEVER, Reason
from tasks.reports import answers, why
from tasks.system.errors import PiggyError
from tests.unit.graph.test_explain import one

PANIC = Reason("discovered", "/src/kernel/panic.c", "1", "2")


@pytest.fixture
def graph() -> Graph:
    chain = [one(f"link{number}", [f"f{number}"], [f"f{number + 1}"]) for number in range(12)]
    return Graph([*chain, one("other", [], ["f0"])])


@pytest.fixture
def project(tmp_path: Path) -> Any:
    (tmp_path / "configs").mkdir()
    (tmp_path / "base.config").write_text("CONFIG_A=y\nCONFIG_B=5\n")
    (tmp_path / "miniconfig").write_text("CONFIG_A=y\nCONFIG_B=4\nCONFIG_OLD=y\n")
    layout = SimpleNamespace(
        kernel_src=Path("/src"), busybox_src=Path("/box"), miniconfig=tmp_path / "miniconfig"
    )
    return SimpleNamespace(
        layout=layout, fragments=(), optional_fragments=frozenset(), chain={}, top=tmp_path
    )


@pytest.fixture
def asked(project: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = project.top / "base.config"
    monkeypatch.setattr(why.kernel_config, "present_paths", lambda project: [path])
    return path


def test_only_sources_count_for_objects() -> None:
    found = [
        PANIC,
        Reason("discovered", "CONFIG_A", "n", "y"),
        Reason("files", "images/config", "1", "2"),
        Reason("note", "CONFIG_B", "n", "y"),
        Reason("text", "file a.c changed"),
    ]
    assert why.files_of(found) == {"/src/kernel/panic.c"}


def test_nothing_is_built_yet(project: Any, graph: Graph) -> None:
    stale = dict.fromkeys(graph.nodes, [NEVER])
    assert why.would(project, graph, "link11", stale) == ["link11 <- nothing is built yet"]
    assert why.would(project, graph, "link1", stale) == [
        "link1 <- not built yet",
        "link1 <- link0 <- not built yet",
        "link1 <- link0 <- other <- not built yet",
    ]
    lines = why.would(project, graph, "link11", {**stale, "other": [PANIC]})
    assert lines[-1].endswith(" <- link0 <- other <- kernel/panic.c changed")


def test_from_a_task_back_to_what_changed(project: Any, graph: Graph) -> None:
    given, own = Reason("files", "f0", "1", "2"), Reason("settings", "level", "1", "9")
    ran = {"other": [PANIC], "link0": [given, own]}
    assert why.did(project, graph, "link0", ran) == [
        "link0 <- setting level 1 -> 9",
        "link0 <- other <- kernel/panic.c changed",
    ]
    assert why.did(project, graph, "link1", ran) == []


def test_symbols_that_are_asked_for_otherwise(project: Any, asked: Path) -> None:
    changed = Reason("files", str(asked), "1", "2")
    found = why.with_symbols(project, "kernel_config", [changed])
    assert found == [
        changed,
        Reason("note", "CONFIG_B", "4", "5", f"{asked}:2"),
        Reason("note", "CONFIG_OLD", "y", None),
    ]
    assert why.reason(project, "kernel_config", [changed]) == (
        f"CONFIG_B 4 -> 5 ({asked}:2), CONFIG_OLD y -> not asked for"
    )
    assert why.with_symbols(project, "kernel_config", found) == found  # they are known already
    assert why.with_symbols(project, "vmlinux", [changed]) == [changed]


def test_symbols_that_can_not_be_told_are_no_silence(project: Any, asked: Path) -> None:
    changed = Reason("files", str(asked), "1", "2")
    project.layout.miniconfig.write_text("CONFIG_A=y\nCONF")
    said = why.reason(project, "kernel_config", [changed])
    assert "base.config changed, which symbols can't be told: " in said
    project.layout.miniconfig.unlink()  # nothing was built yet
    assert why.with_symbols(project, "kernel_config", [NEVER]) == [NEVER]


def test_what_runs_whenever_it_is_asked_for_has_no_reason(graph: Graph) -> None:
    for name in why.OF_ALL:
        with pytest.raises(PiggyError, match=f"'{name}' runs whenever it is asked for"):
            why.named(SimpleNamespace(), graph, [name])  # type: ignore[arg-type]
    assert {module.__name__.rpartition(".")[2] for module in answers._OF_ALL} == {*why.OF_ALL}
