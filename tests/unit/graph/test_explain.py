from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.graph import explain
from tasks.graph.explain import Graph
from tasks.graph.inputs import Inputs
from tasks.graph.reason import NEVER, Reason


def one(name: str, files: list[str], targets: list[str], **more: Any) -> dict[str, Any]:
    return {
        "basename": name,
        "actions": [None],
        "file_dep": files,
        "targets": targets,
        "task_dep": [],
        "uptodate": [False],
        **more,
    }


@pytest.fixture
def graph() -> Graph:
    return Graph(
        [
            one("kernel_config", ["base.config"], ["config"]),
            one("vmlinux", ["config"], ["vmlinux", "System.map"]),
            one("Image", ["vmlinux", "config"], ["Image"]),
            one("zImage", ["Image", "config"], ["zImage"]),
            {"basename": "fetch", "name": None, "doc": "a group"},
            {**one("fetch", [], ["linux.json"]), "name": "linux"},
            one("rootfs", [], ["rootfs.ext2"], task_dep=["fetch:linux"]),
        ]
    )


def test_who_makes_what(graph: Graph) -> None:
    assert graph.producers("zImage") == ["Image", "kernel_config"]
    assert graph.producers("rootfs") == ["fetch:linux"]
    assert graph.owners["System.map"] == "vmlinux"


def test_the_longest_way_to_each_root(graph: Graph) -> None:
    ways = graph.paths("zImage", ["vmlinux", "kernel_config", "rootfs"], graph.producers)
    assert ways == [["zImage", "Image", "vmlinux"], ["zImage", "Image", "vmlinux", "kernel_config"]]
    assert graph.paths("zImage", ["zImage"], graph.producers) == [["zImage"]]
    assert graph.paths("zImage", [], graph.producers) == []


def test_what_is_stale_by_the_journal(tmp_path: Path) -> None:
    from tasks.cache.digests import Stamps

    source = tmp_path / "in"
    source.write_text("1")

    def action(job: object) -> None:
        pass

    inputs = Inputs(
        Stamps(tmp_path / "stamps"),
        action,
        settings={},
        files=[str(source)],
        trees={},
        tools=[],
        outputs=[],
    )
    graph = Graph([one("it", [str(source)], [], uptodate=[inputs]), one("always", [], [])])
    assert explain.stale(graph, lambda name: {}) == {"it": [NEVER]}
    task = SimpleNamespace(value_savers=[], values={})
    inputs(task, {})
    values = task.value_savers[0]()
    assert explain.stale(graph, lambda name: values) == {}
    source.write_text("2")
    (reason,) = explain.stale(graph, lambda name: values)["it"]
    assert (reason.part, reason.name, reason.changed) == ("files", str(source), True)


def changed(part: str, name: str) -> Reason:
    return Reason(part, name, "1", "2")


def test_reasons_are_parted_into_causes_and_ones_own(graph: Graph) -> None:
    config, panic = changed("files", "config"), changed("discovered", "kernel/panic.c")
    ran = {
        "kernel_config": [changed("files", "base.config")],
        "vmlinux": [config, panic],
        "Image": [changed("files", "vmlinux"), config],
    }
    assert explain.own(graph, "vmlinux", ran) == (["kernel_config"], [panic])
    assert explain.own(graph, "Image", ran) == (["vmlinux", "kernel_config"], [])
    assert explain.own(graph, "kernel_config", ran) == ([], ran["kernel_config"])
    del ran["kernel_config"]
    assert explain.own(graph, "vmlinux", ran)[1] == [config, panic]


@pytest.mark.parametrize(
    "reason",
    [
        Reason("tools", "config", "1", "2"),
        Reason("outputs", "config", "1", ""),
        Reason("settings", "config", "1", "2"),
        Reason("text", "file config changed"),
    ],
)
def test_only_an_input_file_comes_from_another_task(graph: Graph, reason: Reason) -> None:
    ran = {"kernel_config": [NEVER], "vmlinux": [reason]}
    assert explain.own(graph, "vmlinux", ran) == ([], [reason])


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([changed("discovered", "/t/kernel/panic.c")], "kernel/panic.c changed"),
        (
            [changed("files", "a"), Reason("note", "CONFIG_A", "n", "y", "f:1")],
            "CONFIG_A n -> y (f:1)",
        ),
        ([changed("files", "/t/my file")], "my file changed"),
        ([changed("settings", "size")], "setting size 1 -> 2"),
        ([Reason("outputs", "/t/x", "1", "")], "output x is gone"),
        ([changed("tools", "xz")], "tool xz changed"),
        ([Reason("discovered", "/t/a\x1b[2J\udce9\0", None, "1")], "a\\x1b[2J\\udce9\\x00 is new"),
        (
            [changed("discovered", f"/t/{name}.c") for name in "abcde"],
            "a.c changed, b.c changed, c.c changed and 2 more",
        ),
    ],
)
def test_reasons_in_one_line(found: list[Reason], said: str) -> None:
    assert explain.plain(found, lambda text: text.replace("/t/", "")) == said
