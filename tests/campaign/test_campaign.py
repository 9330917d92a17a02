"""The campaigns of tests/bench themselves: a short one finds nothing, and one over a graph that is
broken finds that."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import crash
import pytest
import world
from campaign import Campaign, Step
from edits import KINDS

needs_git = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")


def begun(base: Path, triple: str, own: bool = False) -> Campaign:
    """A campaign over a fresh fake project, built for the first time."""
    campaign = Campaign(world.fake(base / "fake", triple, own=own))
    first = Step("nothing", "first")
    campaign.judge(first)
    assert first.missed == []
    return campaign


def break_it(campaign: Campaign, new: str, old: str = "not self.reasons") -> None:
    """Have the project's own code decide otherwise what is up to date."""
    campaign.world.play.edit("tasks/graph/inputs.py", f"return {old}\n", f"return {new}\n")


def steps(campaign: Campaign, *kinds: str) -> list[Step]:
    """One edit of each kind, of those that found something to edit."""
    made = [campaign.step(Step(kind, f"test/{number}")) for number, kind in enumerate(kinds)]
    return [step for step in made if step]


FEW = ["code", "kill -9", "git switch", "spoilt object", "nothing"]


@needs_git
@pytest.mark.parametrize(
    "kinds",
    [
        FEW,
        pytest.param(
            [*FEW, "overlay", "initramfs folder", "size", "nothing"], marks=pytest.mark.long
        ),
    ],
)
def test_a_short_campaign_finds_nothing(tmp_path: Path, triple: str, kinds: list[str]) -> None:
    campaign = begun(tmp_path, triple, own=True)
    made = steps(campaign, *kinds)
    assert [
        (step.kind, step.said, step.missed, step.needless)
        for step in made
        if step.missed or step.needless
    ] == []
    assert len(made) == len(kinds)
    campaign.keep(tmp_path / "steps.json")
    assert [step["kind"] for step in json.loads((tmp_path / "steps.json").read_text())["steps"]][
        0
    ] == "code"
    assert f"| all                      | {len(kinds):5} |      0 |        0 |" in campaign.table()


@needs_git
def test_a_graph_that_is_broken_is_found_out(tmp_path: Path, triple: str) -> None:
    """One that builds a link each time, then one that takes everything for good that was ever
    built."""
    campaign = begun(tmp_path, triple)
    campaign.world.play.store_size = "0"  # a link that is there already would be brought back
    break_it(campaign, "not self.reasons and 'bzImage' not in self.outputs[0]")
    steps(campaign, "nothing")  # with the code of before
    (step,) = steps(campaign, "nothing")
    assert step.missed == []
    assert [what.partition(":")[0] for what in step.needless] == ["bzImage"]
    break_it(campaign, "bool(old)", "not self.reasons and 'bzImage' not in self.outputs[0]")
    (step,) = steps(campaign, "new object")
    assert "vmlinux differs" in step.missed
    assert "bzImage differs" in step.missed


@needs_git
@pytest.mark.long
def test_a_size_of_before_in_a_saved_command_is_found_out(tmp_path: Path, triple: str) -> None:
    """The short way runs the command as it was saved, though make would compute another size."""
    campaign = begun(tmp_path, triple)
    play = campaign.world.play
    play.edit("tasks/shortway/computed.py", "if not in_loader(", "if command or not in_loader(")
    fragment = play.top / "configs" / "kernel" / f"{world.FRAGMENT}.config"
    fragment.write_text("CONFIG_KERNEL_XZ=y\n# CONFIG_KERNEL_GZIP is not set\n")
    assert [step.missed for step in steps(campaign, "nothing")] == [[]]  # the configuration's own
    (play.linux / "kernel" / "panic.c").open("a").write("char campaign_size[5000] = {1};\n")
    (step,) = steps(campaign, "nothing")
    assert "bzImage differs" in step.missed
    assert any("make still did  XZKERN" in what for what in step.missed)


def test_every_kind_is_named_and_told_apart() -> None:
    assert len(KINDS) > 35
    assert all(callable(kind) for kind in KINDS.values())


@needs_git
def test_crashes(tmp_path: Path, triple: str) -> None:
    crashes = crash.Crashes(world.fake(tmp_path / "fake", triple, own=False), tmp_path)
    assert [
        crashes.crash(fault, True, random.Random(f"test/{fault}")) for fault in ("all", "eio")
    ] == ["", ""]
