from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.graph import explain
from tasks.graph.explain import Graph
from tasks.graph.inputs import Inputs


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
    assert explain.stale(graph, lambda name: {}) == {"it": ["never: not built yet"]}
    task = SimpleNamespace(value_savers=[], values={})
    inputs(task, {})
    values = task.value_savers[0]()
    assert explain.stale(graph, lambda name: values) == {}
    source.write_text("2")
    assert explain.stale(graph, lambda name: values) == {"it": [f"files: file {source} changed"]}


def test_the_last_run_that_did_anything(tmp_path: Path) -> None:
    lines = [
        {"task": "vmlinux", "run": 1, "why": ["never: not built yet"]},
        {
            "task": "kernel_config",
            "run": 2,
            "why": ["files: file base.config changed"],
            "notes": ["CONFIG_A n -> y"],
        },
        {"task": "vmlinux", "run": 2, "why": ["files: file config changed"]},
        {"task": "qemu_test", "run": 3, "why": []},
    ]
    history = tmp_path / "history.jsonl"
    history.write_text(
        "".join(json.dumps(line) + "\n" for line in lines[:3])
        + "cut off {\n"
        + json.dumps(lines[3])
        + "\n"
    )
    ran = explain.last_run(history)
    assert ran == {
        "kernel_config": ["files: file base.config changed", "note: CONFIG_A n -> y"],
        "vmlinux": ["files: file config changed"],
    }
    assert explain.last_run(tmp_path / "none") == {}


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "1",
        '"x"',
        "[]",
        "\0",
        "\x1b[2J",
        "[" * 100_000,
        '{"task": ' * 100_000,
        '{"why": []}',
        *(
            json.dumps({"task": "x", "why": ["y"], "result": "ok", "seconds": 1, "run": 9} | wrong)
            for wrong in (
                {"why": "text"},
                {"why": [1, 2]},
                {"why": [None]},
                {"why": {"a": "b"}},
                {"seconds": "x"},
                {"seconds": [1]},
                {"seconds": -1},
                {"seconds": float("nan")},
                {"seconds": float("inf")},
                {"seconds": 10**400},
                {"run": "x"},
                {"run": {}},
                {"notes": 5},
                {"notes": [5]},
                {"result": 5},
                {"task": ["x"]},
            )
        ),
    ],
    ids=lambda line: line[:60],
)
def test_a_line_of_another_shape_is_passed_over(tmp_path: Path, line: str) -> None:
    right = {
        "task": "vmlinux",
        "run": 1,
        "why": ["files: file a changed"],
        "result": "ok",
        "seconds": 2,
    }
    history = tmp_path / "history.jsonl"
    history.write_bytes(f"{json.dumps(right)}\n{line}\n".encode())
    assert explain.entries(history) == [right]
    assert explain.last_run(history) == {"vmlinux": ["files: file a changed"]}
    assert explain.durations(history, 5) == {"vmlinux": [2]}
    assert explain.brought_back(history) == []


def test_what_came_from_the_store(tmp_path: Path) -> None:
    """In the last run that made anything, and in no other."""
    lines = [
        {"task": "Image", "run": 1, "why": ["x"], "result": "restored"},
        {"task": "kernel_config", "run": 2, "why": ["x"], "result": "restored"},
        {"task": "vmlinux", "run": 2, "why": ["x"], "result": "ok"},
        {"task": "rootfs", "run": 2, "why": ["x"], "result": "restored"},
        {"task": "qemu_test", "run": 3, "why": [], "result": "ok"},
    ]
    history = tmp_path / "history.jsonl"
    history.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert explain.brought_back(history) == ["kernel_config", "rootfs"]
    assert explain.brought_back(tmp_path / "none") == []


def test_reasons_are_parted_into_causes_and_ones_own(graph: Graph) -> None:
    ran = {
        "kernel_config": ["files: file base.config changed"],
        "vmlinux": ["files: file config changed", "discovered: kernel/panic.c changed"],
        "Image": ["files: file vmlinux changed", "files: file config changed"],
    }
    assert explain.own(graph, "vmlinux", ran) == (
        ["kernel_config"],
        ["discovered: kernel/panic.c changed"],
    )
    assert explain.own(graph, "Image", ran) == (["vmlinux", "kernel_config"], [])
    assert explain.own(graph, "kernel_config", ran) == ([], ["files: file base.config changed"])
    del ran["kernel_config"]
    assert explain.own(graph, "vmlinux", ran)[1] == [
        "files: file config changed",
        "discovered: kernel/panic.c changed",
    ]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (["discovered: /t/kernel/panic.c changed"], "kernel/panic.c changed"),
        (["files: file a changed", "note: CONFIG_A n -> y (f:1)"], "CONFIG_A n -> y (f:1)"),
        (["settings: setting size 1 -> 2"], "setting size 1 -> 2"),
        (["outputs: output /t/x is gone"], "output x is gone"),
        (["tools: tool xz changed"], "tool xz changed"),
        (["discovered: /t/a\x1b[2J\udce9\0 is new"], "a\\x1b[2J\\udce9\\x00 is new"),
        (
            [f"discovered: /t/{name}.c changed" for name in "abcde"],
            "a.c changed, b.c changed, c.c changed and 2 more",
        ),
    ],
)
def test_reasons_in_one_line(found: list[str], said: str) -> None:
    assert explain.plain(found, lambda text: text.replace("/t/", "")) == said
