"""Edit at random, build with doit, hold the images against an independent build: is anything
missed, or done needlessly?

    python tests/campaign/campaign.py --edits 300 --seed 7
        the fake tree of the tests
    python tests/campaign/campaign.py --tree real --kernel-src DIR --dl DIR
        a kernel tree of the campaign's own, which it edits
    python tests/campaign/campaign.py --replay FILE
        the steps of a failure once more

Missed: an image differs from that of the independent build, or doit fails where that succeeds, or
the other way round. Needless: a task ran although the contents of all that it may depend on
(oracle.inputs) and of its outputs were as after its last success, and its outputs stayed so. That
vmlinux runs after a comment was edited is not: only compiling can tell. The steps of a failure are
kept in BASE/failed-SEED-STEP.json. One on the real tree goes on with the same --base.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import outside  # noqa: F401  (it and the next three register their kinds)
import sizes  # noqa: F401
import trees  # noqa: F401
import upsets  # noqa: F401
import world as worlds
from edits import BLIND, KINDS, Skip
from oracle import Oracle, digests, inputs, names
from world import Result, World

ONCE = ("fetch:", "_unpack:")  # what such tasks make nothing changes
OUTPUTS = {
    "vmlinux": ("vmlinux", "System.map"),
    "kernel_config": ("config",),
    "busybox": ("busybox", "busybox.links"),
    "busybox_config": ("busybox.config",),
    "rootfs": ("rootfs.ext2",),
    "initramfs": ("initramfs.cpio.*",),
}


@dataclass
class Step:
    """What is edited between two builds: the kinds, joined by " + ", the seed of their randomness,
    what they did, and what came of it."""

    kind: str
    seed: str
    said: str = ""
    missed: list[str] = field(default_factory=list)
    needless: list[str] = field(default_factory=list)
    seconds: float = 0

    @property
    def kinds(self) -> list[str]:
        """The kinds of its edits."""
        return self.kind.split(" + ")


class Campaign:
    """A world, its oracle, and the steps so far."""

    def __init__(self, world: World, every: int = 25) -> None:
        self.world, self.oracle, self.every = world, Oracle(world), every
        self.steps: list[Step] = []
        self.tasks = tuple(inputs(world, {}, {}))
        self.last: dict[str, dict[str, tuple[str, str]]] = defaultdict(
            dict
        )  # by machine and task: inputs and outputs

    def step(self, step: Step) -> Step | None:
        """Edit, build, and compare. A kind that finds nothing to edit is left out of the step.
        None: no kind found anything."""
        world, done = self.world, dict[str, str]()
        world.inner, world.flags = set(), []
        for kind in step.kinds:
            try:
                done[kind] = KINDS[kind](world, random.Random(f"{step.seed}/{kind}"))
            except Skip:
                continue
            except AssertionError as error:
                done[kind] = ""
                step.missed.append(f"in the middle: {str(error)[-2000:]}")
                break
        if not done:
            return None
        step.kind, step.said = " + ".join(done), "; ".join(done.values())
        self.steps.append(step)
        for task in world.inner:
            self.last[world.machine].pop(task, None)
        if not step.missed:
            self.judge(step)
        if step.missed:
            world.cure()
        return step

    def judge(self, step: Step) -> None:
        """Build, and compare with the oracle."""
        world = self.world
        before = self.outputs()
        try:
            result = world.play.doit(*world.flags, *world.settings, status=None, **world.env)
        except AssertionError as error:
            step.missed.append(str(error)[-2000:])
            return
        step.seconds = result.seconds
        clean = not BLIND.isdisjoint(step.kinds) or len(self.steps) % self.every == 0
        wanted, found = self.oracle.images(clean=clean), digests(world.play.images, names(world))
        if not clean and (wanted is None or wanted != found or result.status):
            self.oracle.forget()
            wanted = self.oracle.images(clean=True)
        if wanted is None:
            step.said += " (does not build)"
            if result.status == 0:
                step.missed.append("doit ended well, and the independent build failed")
            world.cure()
            return
        if result.status:
            step.missed.append(
                f"doit failed, and the independent build did not: {result.text[-2000:]}"
            )
            self.last[world.machine].clear()
            return
        step.missed += [f"{name} differs" for name in wanted if wanted[name] != found[name]]
        if {"vmlinux", "bzImage"} <= set(result.ran) and not result.restored:
            step.missed += self.oracle.left_to_make()
        self.count(step, result, before)

    def outputs(self) -> dict[str, str]:
        """What lies in images/ now, by task."""
        found = digests(self.world.play.images, names(self.world))
        return {task: str([found.get(name) for name in self.of(task)]) for task in self.tasks}

    def of(self, task: str) -> list[str]:
        """The images that a task makes."""
        if task == "initramfs":
            return [names(self.world)[-1]]
        return list(OUTPUTS.get(task, (task,)))

    def count(self, step: Step, result: Result, before: dict[str, str]) -> None:
        """Find what ran needlessly; what came from the store did not run."""
        last, images = (
            self.last[self.world.machine],
            digests(self.world.play.images, names(self.world)),
        )
        now, after = inputs(self.world, self.oracle.snap, images), self.outputs()
        for task in result.ran:
            same = task in now and last.get(task) == (now[task], before[task]) == (
                now[task],
                after[task],
            )
            if same or task.startswith(ONCE) and last:
                step.needless.append(f"{task}: {'; '.join(result.why[task][:3])}")
        renewed = {*result.ran, *result.restored}
        for task in (*renewed, *(task for task in now if task not in last)):
            if task in now and (task in renewed or task not in self.world.inner):
                last[task] = now[task], after[task]

    @property
    def edits(self) -> int:
        """How many edits were made so far."""
        return sum(len(step.kinds) for step in self.steps)

    def run(self, wanted: int, seed: str, kinds: list[str], keep: Path, together: int) -> None:
        """Go on until there are so many edits, up to `together` of them between two builds; keep
        the steps of each failure."""
        number = int(self.steps[-1].seed.rpartition("/")[2]) if self.steps else 0
        while self.edits < wanted:
            number += 1
            rng = random.Random(f"{seed}/{number}/kind")
            chosen = rng.sample(kinds, min(len(kinds), rng.randint(1, together)))
            step = self.step(Step(" + ".join(chosen), f"{seed}/{number}"))
            if step is None:
                continue
            print(
                f"{self.edits:5} {step.seconds:6.2f} s  {step.kind}: {step.said[:300]}",
                flush=True,
            )
            for what in step.missed:
                print(f"      MISSED {what}", flush=True)
            for what in step.needless:
                print(f"      needless {what}", flush=True)
            self.keep(keep / "steps.json")
            if step.missed:
                self.keep(keep / f"failed-{seed}-{len(self.steps)}.json")

    def keep(self, path: Path) -> None:
        """Write the steps so far."""
        path.write_text(
            json.dumps(
                {
                    "tree": self.world.kind,
                    "own": "KERNEL_SRC" in self.world.env,
                    "kernel": self.world.words.get("kernel"),
                    "steps": [vars(step) for step in self.steps],
                },
                indent=1,
            )
        )
        self.world.save()

    def table(self) -> str:
        """The counts, by kind; a step with several kinds counts for each."""
        rows = defaultdict(list)
        for step in self.steps:
            for kind in step.kinds:
                rows[kind].append(step)
        lines = [
            f"| {'kind':24} | edits | missed | needless | seconds |",
            f"| {'-' * 24} | ----: | -----: | -------: | ------: |",
        ]
        for name, steps in [*sorted(rows.items()), ("all", self.steps)]:
            edits = self.edits if steps is self.steps else len(steps)
            lines.append(
                f"| {name:24} | {edits:5} | {sum(bool(step.missed) for step in steps):6} | "
                f"{sum(bool(step.needless) for step in steps):8} | "
                f"{sum(step.seconds for step in steps) / max(1, len(steps)):7.2f} |"
            )
        why = Counter(what for step in self.steps for what in step.needless)
        return "\n".join(
            lines + [f"needless {count} x  {what}" for what, count in why.most_common(20)]
        )


def triple() -> str:
    """The host's own triple."""
    return subprocess.run(
        ["gcc", "-dumpmachine"], capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> int:
    """Parse the command line, play, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tree", choices=["fake", "real"], default="fake")
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument(
        "--together", type=int, default=1, help="up to so many edits between two builds"
    )
    parser.add_argument("--seed", default=str(int(time.time())))
    parser.add_argument(
        "--kinds", help="separated by commas; all of them: " + ", ".join(sorted(KINDS))
    )
    parser.add_argument(
        "--parts", help="whose sources are edited (default: vmlinux,vmlinux,vmlinux,boot,box)"
    )
    parser.add_argument(
        "--own",
        action="store_true",
        help="fake: the kernel is a tree of the user's own (kernel_src=)",
    )
    parser.add_argument(
        "--kernel", default="6.1", choices=["6.1", "6.2"], help="fake: which of the two"
    )
    parser.add_argument(
        "--base", type=Path, help="folder to play in; one that is there is played on in"
    )
    parser.add_argument("--kernel-src", type=Path, help="real: a kernel tree that may be edited")
    parser.add_argument(
        "--dl", type=Path, default=worlds.TOP / "dl", help="real: where the archives are"
    )
    parser.add_argument(
        "--ccache", default="", help="real: a folder of compilers that goes first on PATH"
    )
    parser.add_argument(
        "--every", type=int, default=25, help="real: from nothing at every so many edits"
    )
    parser.add_argument("--replay", type=Path, help="a file of steps")
    given = parser.parse_args()
    base = given.base or Path(tempfile.mkdtemp(prefix="campaign."))
    told = json.loads(given.replay.read_text()) if given.replay else {}
    base.mkdir(parents=True, exist_ok=True)
    base = base.resolve()
    if told.get("tree", given.tree) == "real":
        world = worlds.real(base, given.kernel_src.resolve(), given.dl.resolve(), given.ccache)
    else:
        world = worlds.fake(
            base / "fake",
            triple(),
            own=told.get("own", given.own),
            kernel=told.get("kernel", given.kernel),
        )
    world.parts = given.parts.split(",") if given.parts else world.parts
    campaign = Campaign(world, given.every)
    if (base / "steps.json").exists():
        world.load()
        campaign.steps = [
            Step(**step) for step in json.loads((base / "steps.json").read_text())["steps"]
        ]
    first = Step("nothing", "first")
    campaign.judge(first)
    assert not first.missed, first.missed
    print(
        f"seed {given.seed}, in {base}: built for the first time in {first.seconds:.1f} s",
        flush=True,
    )
    if told:
        for step in told["steps"]:
            again = campaign.step(Step(step["kind"], step["seed"]))
            print(
                step["kind"],
                *((again.said[:300], *again.missed) if again else ()),
                sep="\n   ",
                flush=True,
            )
    else:
        kinds = given.kinds.split(",") if given.kinds else sorted(KINDS)
        campaign.run(given.edits, given.seed, kinds, base, given.together)
    print(campaign.table())
    return int(any(step.missed for step in campaign.steps))


if __name__ == "__main__":
    sys.exit(main())
