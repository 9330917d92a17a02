from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks.cache.digests import Stamps
from tasks.graph.inputs import CHANGING, Inputs
from tasks.graph.journal import UNFINISHED
from tasks.graph.reason import Reason, compare
from tasks.system.errors import PiggyError
from tasks.system.files import RACY_NS


class Task:
    """As much of doit's Task as an `uptodate` callable sees."""

    def __init__(self) -> None:
        self.value_savers: list[Callable[[], dict[str, Any]]] = [
            lambda: {"stale": "of an earlier call"}
        ]
        self.values: dict[str, Any] = {}


def action_one(job: object) -> int:
    return 1


def action_two(job: object) -> int:
    return 2


class World:
    """A task with inputs and outputs in a folder, and doit's journal: values through JSON, as on
    disk."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.journal = "{}"
        self.settings: dict[str, str] = {"level": "9", "order": "a b"}
        self.files, self.outputs, self.tools = ["in1", "in2"], ["out"], ["gcc"]
        self.tree: dict[str, str] = {"etc/passwd": "file 644 x", "etc/rc": "link init"}
        self.action: Any = action_one
        self.config, self.goes_on = "", False
        self.bin = top / "bin"
        self.bin.mkdir()
        self.write("in1", "in2", "out", "src.c", "hdr.h")
        self.tool("gcc", "one")

    def write(self, *names: str, text: str = "") -> None:
        for name in names:
            (self.top / name).write_text(text or name)

    def tool(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def listing(self) -> Mapping[str, str]:
        return self.tree

    def check(self) -> tuple[Inputs, Task]:
        inputs = Inputs(
            Stamps(self.top / "stamps"),
            self.action,
            settings=self.settings,
            files=[str(self.top / name) for name in self.files],
            trees={"overlay": self.listing},
            tools=self.tools,
            outputs=[str(self.top / name) for name in self.outputs],
            config=self.config,
            goes_on=self.goes_on,
        )
        task = Task()
        assert inputs(task, json.loads(self.journal)) is not bool(inputs.reasons)
        return inputs, task

    def reasons(self) -> list[str]:
        return [
            f"{reason.part}: {reason}".replace(f"{self.top}/", "")
            for reason in self.check()[0].reasons
        ]

    def run(
        self,
        during: Callable[[], None] = lambda: None,
        discovered: tuple[str, ...] = ("src.c", "hdr.h"),
        made: tuple[str, ...] = (),
        **values: Any,
    ) -> None:
        """Do what doit does: check, run the action, save the values."""
        _, task = self.check()
        during()
        found = [
            name if name.startswith("CONFIG_") else str(self.top / name) for name in discovered
        ]
        task.values.update(
            {"discovered": found, "made": [str(self.top / name) for name in made], **values}
        )
        for saver in task.value_savers:
            task.values.update(saver())
        self.journal = json.dumps(task.values)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:/usr/bin:/bin")
    time.sleep(RACY_NS / 1e9)
    return made


def test_never_built(world: World) -> None:
    assert world.reasons() == ["never: not built yet"]


def test_an_output_that_goes_on_is_made_anew_only_for_its_inputs_or_where_it_is_gone(
    world: World,
) -> None:
    world.run()
    world.write("out", text="written by a guest")
    assert world.reasons() == ["outputs: output out changed"]
    world.goes_on = True
    assert world.reasons() == []
    world.write("in1", text="other")
    assert world.reasons()[0] == "files: file in1 changed"
    world.write("in1")
    (world.top / "out").unlink()
    assert world.reasons() == ["outputs: output out is gone"]


def test_what_a_run_that_failed_left_alone_goes_on(world: World) -> None:
    """And what a killed one made does not, whatever was put back meanwhile."""
    world.goes_on = True
    world.run()
    world.write("out", text="written by a guest")
    assert world.reasons() == []
    values = json.loads(world.journal)
    world.journal = json.dumps({**values, UNFINISHED: world.check()[0].mark})
    assert world.reasons() == []
    world.write("out", text="half of another one")
    assert world.reasons() == ["unfinished: its last run did not end well"]
    world.journal = json.dumps({**values, UNFINISHED: world.check()[0].mark})
    assert world.reasons() == ["unfinished: its last run did not end well"]
    world.write("out", text="written by a guest")
    assert world.reasons() == []
    world.goes_on = False
    assert world.reasons() == ["outputs: output out changed"]


def test_one_run_settles_it(world: World) -> None:
    world.run()
    assert world.reasons() == []
    assert world.reasons() == []
    world.run()
    assert world.reasons() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.settings.update(level="1"), ["settings: setting level 9 -> 1"]),
        (lambda w: w.settings.update(order="b a"), ["settings: setting order a b -> b a"]),
        (lambda w: w.settings.update(order=""), ["settings: setting order a b -> (empty)"]),
        (lambda w: w.settings.update(order="x" * 200), ["settings: setting order changed"]),
        (lambda w: w.settings.update(more="1"), ["settings: setting more is new"]),
        (lambda w: w.settings.pop("level"), ["settings: setting level is gone"]),
        (
            lambda w: setattr(w, "action", action_two),
            ["code: code of action_one is gone", "code: code of action_two is new"],
        ),
        (lambda w: w.tool("gcc", "two"), ["tools: tool gcc changed"]),
        (
            lambda w: (w.bin / "gcc").unlink(),
            ["tools: tool gcc changed"],
        ),  # now the host's own is found
        (lambda w: w.tools.append("no-such-tool"), ["tools: tool no-such-tool is new"]),
        (lambda w: w.write("in1", text="other"), ["files: file in1 changed"]),
        (lambda w: (w.top / "in2").unlink(), ["files: file in2 is gone"]),
        (lambda w: w.files.append("src.c"), ["files: file src.c is new"]),
        (lambda w: w.files.remove("in1"), ["files: file in1 is gone"]),
        (
            lambda w: w.tree.update({"etc/passwd": "file 600 x"}),
            ["trees: overlay etc/passwd changed"],
        ),
        (lambda w: w.tree.update({"etc/new": "file"}), ["trees: overlay etc/new is new"]),
        (lambda w: w.tree.pop("etc/rc"), ["trees: overlay etc/rc is gone"]),
        (lambda w: w.write("src.c", text="int x;"), ["discovered: src.c changed"]),
        (lambda w: (w.top / "hdr.h").unlink(), ["discovered: hdr.h is gone"]),
        (lambda w: w.write("out", text="damaged"), ["outputs: output out changed"]),
        (lambda w: (w.top / "out").unlink(), ["outputs: output out is gone"]),
        (lambda w: w.outputs.append("in1"), ["outputs: output in1 is new"]),
    ],
)
def test_each_change_gives_its_sentence_and_settles(
    world: World, change: Callable[[World], object], said: list[str]
) -> None:
    world.run()
    assert world.reasons() == []
    change(world)
    assert world.reasons() == said
    if not (world.top / "hdr.h").exists():
        world.run(discovered=("src.c",))
    else:
        world.run()
    assert world.reasons() == []


def test_single_symbols_of_a_configuration(world: World) -> None:
    world.config = str(world.top / "config")
    world.write("config", text="CONFIG_A=y\nCONFIG_B=5\n")
    world.run(discovered=("CONFIG_A", "CONFIG_B", "CONFIG_GONE"))
    assert world.reasons() == []
    world.write("config", text="CONFIG_A=y\nCONFIG_B=5\nCONFIG_OTHER=y\n")
    assert world.reasons() == []
    world.write("config", text="# CONFIG_A is not set\nCONFIG_B=6\nCONFIG_GONE=m\n")
    assert world.reasons() == [
        "discovered: CONFIG_A y -> n",
        "discovered: CONFIG_B 5 -> 6",
        "discovered: CONFIG_GONE n -> m",
    ]


@pytest.mark.parametrize("how", ["missing", "cut short"])
def test_a_configuration_that_can_not_be_read_is_a_reason_each_time(world: World, how: str) -> None:
    world.config = str(world.top / "config")
    world.write("config", text="CONFIG_A=y\n")
    world.run(discovered=("CONFIG_A", "CONFIG_B"))
    if how == "missing":
        (world.top / "config").unlink()
    else:
        world.write("config", text="CONFIG_A=y\nCONF")
    said = ["discovered: CONFIG_A can't be read", "discovered: CONFIG_B can't be read"]
    assert world.reasons() == said
    world.run(discovered=("CONFIG_A", "CONFIG_B"))
    assert world.reasons() == said


def test_the_code_of_the_action_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    monkeypatch.setattr(world, "action", action_two)
    monkeypatch.setattr(action_two, "__name__", "action_one")
    assert world.reasons() == ["code: code of action_one changed"]


def test_several_reasons_keep_the_order_of_the_record(world: World) -> None:
    world.run()
    world.write("src.c", "in2", "in1", text="x")
    world.settings["level"] = "1"
    assert world.reasons() == [
        "settings: setting level 9 -> 1",
        "files: file in1 changed",
        "files: file in2 changed",
        "discovered: src.c changed",
    ]


def test_touching_everything_changes_nothing(world: World) -> None:
    world.run()
    for name in ("in1", "in2", "out", "src.c", "hdr.h", "bin/gcc"):
        (world.top / name).touch()
    assert world.reasons() == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("in1", "files: file in1 changed"),
        ("src.c", "discovered: src.c changed"),
        ("bin/gcc", "tools: tool gcc changed"),
    ],
)
def test_an_edit_while_the_action_ran_is_not_lost(world: World, name: str, said: str) -> None:
    world.run()
    world.write("in2", text="something to do")

    def edit() -> None:
        time.sleep(0.02)
        (world.top / name).write_text("edited meanwhile")

    world.run(edit)
    assert world.reasons() == [said]
    world.run()
    assert world.reasons() == []


def test_an_edit_of_what_is_discovered_only_now_is_not_lost(world: World) -> None:
    def edit() -> None:
        time.sleep(0.02)
        world.write("src.c", text="edited after the compiler had read it")

    world.run(edit)
    assert world.reasons() == ["discovered: src.c changed"]
    assert CHANGING in world.journal
    world.run()
    assert world.reasons() == []


def test_an_edit_with_the_old_time_put_back_while_the_action_ran(world: World) -> None:
    def edit() -> None:
        time.sleep(0.02)
        info = (world.top / "src.c").stat()
        world.write("src.c", text="SRC.C")
        os.utime(world.top / "src.c", ns=(info.st_atime_ns, info.st_mtime_ns))

    world.run(edit)
    assert world.reasons() == ["discovered: src.c changed"]


def test_a_discovered_file_deleted_while_the_action_ran(world: World) -> None:
    world.run((world.top / "hdr.h").unlink)
    assert (
        world.reasons() == []
    )  # it was gone before anybody could look; when it comes back it counts
    world.write("hdr.h")
    assert world.reasons() == ["discovered: hdr.h is new"]


def test_outputs_beyond_the_targets(world: World) -> None:
    world.run(lambda: world.write("extra"), made=("extra",))
    assert world.reasons() == []
    world.write("extra", text="damaged")
    assert world.reasons() == ["outputs: output extra changed"]
    (world.top / "extra").unlink()
    assert world.reasons() == ["outputs: output extra is gone"]
    world.run()  # it makes it no more
    assert world.reasons() == []


def test_other_values_of_the_action_are_kept_and_its_lists_are_not(world: World) -> None:
    world.run(commands=7)
    values = json.loads(world.journal)
    assert set(values) == {"commands", "record"}
    assert set(values["record"]) == {
        "settings",
        "code",
        "tools",
        "files",
        "trees",
        "discovered",
        "outputs",
    }
    inputs, _ = world.check()
    assert inputs.previous["commands"] == 7


def test_an_action_that_says_nothing(world: World) -> None:
    _, task = world.check()
    task.values.update(task.value_savers[0]())
    world.journal = json.dumps(task.values)
    assert world.reasons() == []


def test_a_listing_that_fails_makes_the_task_stale_and_breaks_nothing(world: World) -> None:
    world.run()

    def fail() -> Mapping[str, str]:
        raise PiggyError("overlays/x/pipe is a pipe", "remove it")

    world.listing = fail  # type: ignore[method-assign]
    said = "trees: overlay can't be read: overlays/x/pipe is a pipe\n  hint: remove it"
    assert {said, "trees: overlay etc/passwd is gone"} <= {*world.reasons()}
    world.run()  # it made something of the rest
    assert world.reasons() == [said]


def test_a_tool_is_looked_for_where_it_will_be_run_from(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's PATH without the sbin folders must not make mke2fs look missing, nor a relative
    entry count."""
    relative = world.top / "rel"
    relative.mkdir()
    (relative / "gcc").write_text("another")
    (relative / "gcc").chmod(0o755)
    world.run()
    monkeypatch.chdir(world.top)
    monkeypatch.setenv("PATH", f"rel:{os.environ['PATH']}")
    assert world.reasons() == []


def test_what_doit_info_shows(world: World) -> None:
    world.run()
    world.write("src.c", text="x")
    inputs, _ = world.check()
    assert "src.c changed" in repr(inputs)


def test_compare_by_itself() -> None:
    same = {"files": {"a": "1"}}
    assert compare(same, {"files": {"a": "1"}}) == []
    assert compare({"files": {}}, {"files": {}, "tools": {"ld": "x"}}) == [
        Reason("tools", "ld", None, "x")
    ]
    assert compare({"trees": {" a": "1"}}, {"trees": {}}) == [Reason("trees", "a", "1", None)]
