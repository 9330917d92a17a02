from __future__ import annotations

import pytest

from tasks.graph.explain import Graph
from tasks.reports import plan
from tests.unit.graph.test_explain import one


@pytest.fixture
def graph() -> Graph:
    return Graph(
        [
            one("kernel_config", [], ["config"]),
            one("vmlinux", ["config"], ["vmlinux"]),
            one("Image", ["vmlinux"], ["Image"]),
            one("busybox", [], ["busybox"]),
            one("rootfs", ["busybox"], ["img"]),
        ]
    )


def test_what_would_run_comes_in_its_order(graph: Graph) -> None:
    order = plan.in_order(graph, ["rootfs", "Image"])
    assert order == ["busybox", "rootfs", "kernel_config", "vmlinux", "Image"]
    assert plan.downstream(graph, order, {"vmlinux": []}) == ["vmlinux", "Image"]
    assert plan.downstream(graph, order, {"kernel_config": [], "rootfs": []}) == [
        "rootfs",
        "kernel_config",
        "vmlinux",
        "Image",
    ]
    assert plan.downstream(graph, order, {}) == []
