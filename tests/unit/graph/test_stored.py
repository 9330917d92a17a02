"""Results of tasks without paths: found again where the content is the same, and nowhere else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.cache.digests import Stamps
from tasks.cache.places import Places
from tasks.cache.store import Store
from tasks.graph.inputs import RESTORED, Inputs
from tasks.graph.stored import Stored


def action(job: object) -> None:
    """Do nothing."""


class Checkout:
    """A checkout with a source tree beside it, and one task, with a store that others have, too."""

    def __init__(self, top: Path, tree: Path, store: Path, build: str = "build") -> None:
        self.top, self.tree, self.build = top, tree, top / build
        self.store = Store(store, 1 << 30)
        self.bin = top / "bin"
        self.places = Places(
            {
                "tree": [str(tree)],
                "libc": [str(self.build / "libc")],
                "build": [str(self.build)],
                "top": [str(top)],
            },
            base=str(top),
        )
        self.values: dict[str, Any] = {}
        self.more: Callable[[], dict[str, Any]] = dict
        self.settings: dict[str, str] = {"arch": "arm", "tree": str(tree)}
        self.trees: dict[str, dict[str, str]] = {
            "": {f"{tree}/localversion": "d1"},
            "overlays/base": {"etc/rc": "file 755  d2"},
        }
        self.relative = True
        for path, text in {
            self.build / "record.json": json.dumps({"id": "1", "cc": f"{self.build}/libc/bin/cc"}),
            self.build / "config": "CONFIG_A=y",
            self.build / "libc" / "stdio.h": "int puts();",
            tree / "a.c": "int a;",
            self.bin / "gcc": "#!gcc",
        }.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            os.utime(path, (1, 1))
        (self.bin / "gcc").chmod(0o755)
        time.sleep(0.012)

    def inputs(self) -> Inputs:
        stored = Stored(
            store=self.store,
            places=lambda: self.places,
            located=frozenset({"tree"}),
            records=frozenset({str(self.build / "record.json")}),
            states=lambda: lambda name, state: state.replace(" 755", "").replace(" 700", ""),
            relative=self.relative,
        )
        return Inputs(
            Stamps(self.top / "stamps"),
            action,
            settings=self.settings,
            files=[str(self.build / "record.json"), str(self.build / "config")],
            trees={label: lambda part=part: part for label, part in self.trees.items()},
            tools=["gcc"],
            outputs=[str(self.build / "out")],
            within=str(self.build),
            store=stored,
        )

    def run(self, monkeypatch: pytest.MonkeyPatch, content: str = "made", kept: bool = True) -> str:
        """Do what doit does; return "restored" or "made"."""
        monkeypatch.setenv("PATH", f"{self.bin}:/usr/bin")
        monkeypatch.chdir(self.top)
        inputs = self.inputs()
        task = SimpleNamespace(name="task", values={}, value_savers=[])
        inputs(task, json.loads(json.dumps(self.values)))
        found = inputs.bring_back("task")
        if found:
            task.values.update(found[0])
        else:
            (self.build / "out").write_text(content)
            discovered = [self.tree / "a.c", self.build / "libc" / "stdio.h", "/bin/sh"]
            task.values.update({"discovered": [*map(str, discovered)], **self.more()})
        for saver in task.value_savers:
            task.values.update(saver())
        self.values = task.values
        return "restored" if found else "made"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Checkout, Checkout]:
    store = tmp_path / "store"
    return (
        Checkout(tmp_path / "one", tmp_path / "one" / "build" / "src" / "linux", store),
        Checkout(tmp_path / "two" / "deeper", tmp_path / "linux", store, "out"),
    )


def test_another_checkout_has_it(
    pair: tuple[Checkout, Checkout], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    assert one.run(monkeypatch) == "made"
    assert two.run(monkeypatch) == "restored"
    assert (two.build / "out").read_text() == "made"
    same = {"/bin/sh": "/bin/sh"}
    same |= {f"{one.tree}/a.c": f"{two.tree}/a.c"}
    same |= {f"{one.build}/libc/stdio.h": f"{two.build}/libc/stdio.h"}
    assert two.values["record"]["discovered"] == {
        same[path]: digest for path, digest in one.values["record"]["discovered"].items()
    }


EDITS: dict[str, Callable[[Checkout], object]] = {
    "setting": lambda it: it.settings.update(arch="x86"),
    "declared file": lambda it: (it.build / "config").write_text("CONFIG_A=n"),
    "record": lambda it: (it.build / "record.json").write_text(
        json.dumps({"id": "2", "cc": f"{it.build}/libc/bin/cc"})
    ),
    "a folder of the record": lambda it: (it.build / "record.json").write_text(
        json.dumps({"id": "1", "cc": "/opt/libc/bin/cc"})
    ),
    "damaged record": lambda it: (it.build / "record.json").write_text("{"),
    "source": lambda it: (it.tree / "a.c").write_text("int b;"),
    "source gone": lambda it: (it.tree / "a.c").unlink(),
    "header of the toolchain": lambda it: (it.build / "libc" / "stdio.h").write_text("no"),
    "tool": lambda it: (it.bin / "gcc").write_text("#!other"),
    "file of a tree": lambda it: it.trees[""].update({f"{it.tree}/localversion": "d3"}),
    "new file of a tree": lambda it: it.trees[""].update({f"{it.tree}/localversion-x": "d3"}),
    "overlay": lambda it: it.trees["overlays/base"].update({"etc/rc": "file 755  d3"}),
    "setting that is a path": lambda it: it.settings.update(tree="/elsewhere"),
}


@pytest.mark.parametrize("what", EDITS)
def test_other_content_is_not_found(
    pair: tuple[Checkout, Checkout], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    one, two = pair
    one.run(monkeypatch)
    EDITS[what](two)
    time.sleep(0.012)
    assert two.run(monkeypatch, "other") == "made"
    assert (two.build / "out").read_text() == "other"


def test_what_decides_nothing(
    pair: tuple[Checkout, Checkout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a tool, the umask."""
    one, two = pair
    one.run(monkeypatch)
    (two.top / "bin").rename(two.top / "programs")
    two.bin = two.top / "programs"
    two.trees["overlays/base"] = {"etc/rc": "file 700  d2"}
    assert two.run(monkeypatch) == "restored"


def test_a_file_that_holds_a_path_stays(
    pair: tuple[Checkout, Checkout], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    one.run(monkeypatch, f"debug: {one.tree}/a.c")
    assert two.run(monkeypatch, f"debug: {two.tree}/a.c") == "made"
    for each in (one, two):
        each.values = {}
        assert each.run(monkeypatch) == "restored"
        assert (each.build / "out").read_text() == f"debug: {each.tree}/a.c"


def unstripped(it: Checkout, content: bytes) -> dict[str, Any]:
    (it.build / "unstripped").write_bytes(content)
    return {"holding": [str(it.build / "unstripped")]}


VALUES: dict[str, tuple[Callable[[Checkout], dict[str, Any]], bool]] = {
    "number": (lambda it: {"n": 5, "flag": True, "none": None}, True),
    "text": (lambda it: {"word": "text"}, True),
    "path": (lambda it: {"paths": [f"{it.tree}/a.c", {f"{it.build}/x": "y"}]}, True),
    "path elsewhere": (lambda it: {"path": "/bin/sh"}, False),
    "relative path": (lambda it: {"path": "build/x"}, False),
    "path in a text": (lambda it: {"text": f"{it.tree}/a.c from {it.build}"}, False),
    "a word of ours": (lambda it: {"text": "<tree>"}, False),
    "stripped": (lambda it: unstripped(it, b"\x7fELF"), True),
    "stripped of a path": (lambda it: unstripped(it, b"\x7fELF.debug_info"), False),
    "unstripped is gone": (lambda it: {"holding": [str(it.build / "no")]}, False),
}


@pytest.mark.parametrize("what", VALUES)
def test_values(
    pair: tuple[Checkout, Checkout], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    one, two = pair
    one.more, portable = (lambda: VALUES[what][0](one)), VALUES[what][1]
    one.run(monkeypatch)
    two.more = lambda: VALUES[what][0](two)
    assert two.run(monkeypatch) == ("restored" if portable else "made")
    made = {name: it for name, it in two.values.items() if name not in ("record", RESTORED)}
    assert made == {name: it for name, it in two.more().items() if name != "holding"}
    again = "made" if what == "unstripped is gone" else "restored"
    two.values = {}
    assert two.run(monkeypatch) == again
    assert made == {name: it for name, it in two.values.items() if name not in ("record", RESTORED)}


@pytest.mark.parametrize("relative", [True, False])
def test_what_is_made_beside_the_targets(
    pair: tuple[Checkout, Checkout], monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    """It is named as the task names it, and stays if it is the same."""
    names = {}
    for each in pair:
        each.relative = relative
        (each.build / "x.ko").write_text("module")
        path = each.build / "x.ko"
        names[each] = os.path.relpath(path, each.top) if relative else str(path)
        each.more = lambda name=names[each]: {"made": [name]}
    one, two = pair
    assert (one.run(monkeypatch), two.run(monkeypatch)) == ("made", "restored")
    assert (two.build / "x.ko").exists()
    assert names[two] in two.values["record"]["outputs"]
    assert len(two.values["record"]["outputs"]) == 2


def test_what_is_made_elsewhere_stays_here(
    pair: tuple[Checkout, Checkout], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_text("x")
    for each in pair:
        each.more = lambda: {"made": [str(tmp_path / "elsewhere")]}
    one, two = pair
    assert (one.run(monkeypatch), two.run(monkeypatch)) == ("made", "made")
    assert (tmp_path / "elsewhere").exists()


def test_names_that_become_the_same(
    pair: tuple[Checkout, Checkout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file under two names, one of them through a link, is one input."""
    one, two = pair
    (one.top / "link").symlink_to(one.tree)
    one.places = Places(
        {
            "tree": [str(one.tree), str(one.top / "link")],
            "libc": [str(one.build / "libc")],
            "build": [str(one.build)],
            "top": [str(one.top)],
        },
        base=str(one.top),
    )
    found = [str(one.top / "link" / "a.c"), str(one.tree / "a.c")]
    one.more = lambda: {"discovered": [*found, str(one.build / "libc" / "stdio.h")]}
    one.run(monkeypatch)
    assert two.run(monkeypatch) == "restored"
    (two.tree / "a.c").write_text("int b;")
    two.values = {}
    time.sleep(0.012)
    assert two.run(monkeypatch) == "made"
