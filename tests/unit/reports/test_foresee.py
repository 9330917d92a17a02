"""What a run would do, with targets that the store has for it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.cache.digests import Stamps
from tasks.cache.places import Places
from tasks.cache.store import Store
from tasks.graph.explain import Graph
from tasks.graph.inputs import Inputs
from tasks.graph.stored import Stored
from tasks.reports import foresee
from tasks.system.files import RACY_NS
from tests.unit.graph.test_explain import one


def action(job: object) -> None:
    """Stand for what makes a target."""


class Chain:
    """fragment -> config -> vmlinux -> Image, and rootfs; each target is its input in brackets."""

    LINKS = (("kernel_config", "fragment", "config"), ("vmlinux", "config", "vmlinux"))
    MORE = (("Image", "vmlinux", "Image"), ("rootfs", "busybox", "rootfs"))

    def __init__(self, top: Path) -> None:
        self.top, self.stamps = top, Stamps(top / "stamps")
        self.store = Store(top / "store", 1 << 20)
        self.values: dict[str, dict[str, Any]] = {}
        for name in ("fragment", "busybox"):
            self.write(name, "one")

    def write(self, name: str, text: str) -> None:
        path = self.top / name
        path.write_text(text)
        time.sleep(2 * RACY_NS / 1e9)

    def graph(self) -> Graph:
        return Graph(
            one(name, [self.at(file)], [self.at(target)], uptodate=[self.inputs(file, target)])
            for name, file, target in (*self.LINKS, *self.MORE)
        )

    def at(self, name: str) -> str:
        return os.fspath(self.top / name)

    def inputs(self, file: str, target: str) -> Inputs:
        return Inputs(
            self.stamps,
            action,
            settings={},
            files=[self.at(file)],
            trees={},
            tools=[],
            outputs=[self.at(target)],
            store=Stored(store=self.store, places=lambda: Places({}), relative=False),
            within=str(self.top),
        )

    def build(self) -> None:
        for name, file, target in (*self.LINKS, *self.MORE):
            inputs = self.inputs(file, target)
            task = SimpleNamespace(name=name, value_savers=[], values={})
            if not inputs(task, self.values.get(name, {})):
                self.write(target, f"({(self.top / file).read_text()})")
                self.values[name] = task.value_savers[0]()

    def steps(self, told: Mapping[str, str] | None = None) -> dict[str, str]:
        graph = self.graph()
        found = foresee.steps(
            graph,
            list(graph.nodes),
            lambda name: self.values.get(name, {}),
            lambda name: (told or {}) if name == "kernel_config" else {},
        )
        return {
            step.name: "store" if step.result else "make" if step.reasons else "perhaps"
            for step in found
        }


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    chain = Chain(tmp_path)
    chain.build()
    return chain


def test_nothing_is_to_be_done(chain: Chain) -> None:
    assert chain.steps() == {}


def test_what_is_new_is_made_and_perhaps_what_is_made_from_it(chain: Chain) -> None:
    chain.write("fragment", "two")
    assert chain.steps() == {"kernel_config": "make", "vmlinux": "perhaps", "Image": "perhaps"}


def test_the_way_back_comes_from_the_store_to_the_end(chain: Chain) -> None:
    chain.write("fragment", "two")
    chain.build()
    chain.write("fragment", "one")
    assert chain.steps() == {"kernel_config": "store", "vmlinux": "store", "Image": "store"}


def test_a_configuration_that_is_told_decides_of_what_comes_after_it(chain: Chain) -> None:
    old = chain.stamps.digest(chain.at("config"))
    chain.write("fragment", "two")
    assert chain.steps({chain.at("config"): old}) == {"kernel_config": "make"}
    chain.build()
    chain.write("fragment", "three")
    assert chain.steps({chain.at("config"): old}) == {
        "kernel_config": "make",
        "vmlinux": "store",
        "Image": "store",
    }
    assert chain.steps({chain.at("config"): "another"}) == {
        "kernel_config": "make",
        "vmlinux": "make",
        "Image": "perhaps",
    }
