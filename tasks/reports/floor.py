"""The least memory= with which the guest still passes qemu_test.

images/* -> floor: one boot after another with other memory, nothing is built
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from tasks import qemu
from tasks.config.project import Project
from tasks.graph.task import Command, Job, Needs, TaskDict, task
from tasks.guest.qemu import Boot
from tasks.reports import options
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.files import read_regular
from tasks.tuning import floor as tuning
from tasks.tuning.floor import Trial

STEPS = (4, 1 << 20)  # KiB
PARAMS: list[dict[str, Any]] = [
    {
        "name": "step",
        "long": "step",
        "type": options.Natural("step"),
        "default": 256,
        "help": "how exactly, in KiB",
    },
    {"name": "as_json", "long": "json", "type": bool, "default": False, "help": "print JSON"},
]


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `floor`; a machine that QEMU does not emulate has none."""
    if project.machine.qemu:
        yield task(
            project,
            "floor",
            "find the least memory= that still passes qemu_test, and who uses it",
            find,
            inputs=Needs(files=qemu.boot_files(project)),
            command=Command(params=PARAMS, check=check),
        )


def find(job: Job, step: int = 256, as_json: bool = False) -> None:
    """Boot with less and less memory, and print the least that passes.

    Args:
        job: The run of the task.
        step: The granularity, in KiB.
        as_json: Whether to print nothing but JSON on standard output.

    Raises:
        PiggyError: The guest fails with the memory that it has by the settings, or the host fails:
            no QEMU, one that is killed, an image that another QEMU has, a port that is taken.
    """
    project = job.project
    assert project.machine.qemu is not None
    most = (project.settings.memory or project.machine.qemu.memory) << 10
    with (
        contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout),
        terminal.bar("floor", tuning.boots(most, step) + 2, "boots") as progress,
    ):
        bench = _Bench(job, progress)
        if not bench.passes(most):
            raise PiggyError(
                f"it fails with {most:,} K, which it has by the settings: {bench.trials[-1].why}",
                "'doit qemu_test' says more, and a larger memory= starts from there",
            )
        least = tuning.least(most, step, bench.passes)
        while least < most and not bench.passes(least, look=True):  # once more
            least = min(most, least + step)
        if least >= most:
            bench.passes(most, look=True)
    users = tuning.users(least, bench.meminfo, bench.console)
    if as_json:
        print(json.dumps(_json(project, least, step, bench.trials, users)))
    else:
        print("\n".join(_lines(least, step, bench.trials, users)))


def check(step: int, **_: Any) -> None:
    """Check the options.

    Raises:
        PiggyError: The granularity is none.
    """
    if not STEPS[0] <= step <= STEPS[1]:
        raise PiggyError(
            f"--step={step}: it takes KiB, from {STEPS[0]} to {STEPS[1]}",
            "a smaller step takes more boots; without it the step is 256",
        )


class _Bench:
    """The boots.

    Attributes:
        trials: Those that were made.
        meminfo: The guest's /proc/meminfo, of the last boot that was looked into.
        console: What it said.
    """

    def __init__(self, job: Job, progress: terminal.Progress) -> None:
        self.project, self._progress = job.project, progress
        self.trials: list[Trial] = []
        self.meminfo = self.console = ""
        self._boot: Boot = qemu.checked(job.project)

    def passes(self, memory: int, look: bool = False) -> bool:
        """Tell whether all checks pass with so much memory (KiB), in one of two boots.

        A guest may fail for want of time, on a busy host, where it has memory enough.

        Args:
            memory: The memory.
            look: Whether to take what the guest says of its memory.
        """
        return self._boots(memory, look) or self._boots(memory, look)

    def _boots(self, memory: int, look: bool) -> bool:
        from tasks.guest.checks import Check, CheckError
        from tasks.guest.serial import EmulatorError, GuestError

        words = (*self._boot.extra, "-m", f"{memory}K")  # of two -m QEMU takes the last
        # The checks go by the memory in MB, too: with little of it they do not run at once.
        it = msgspec.structs.replace(self._boot, extra=words, memory=max(1, memory >> 10))
        more = [Check("meminfo", "cat /proc/meminfo", self._keep)] if look else []
        began, why = time.monotonic(), ""
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # the same notes each time
                qemu.examined(self.project, it, more)
        except EmulatorError:  # it says nothing of the guest's memory
            raise
        except (GuestError, CheckError) as error:
            why = terminal.printable(error.message)
        if look:
            log = self.project.layout.logs / "console.log"
            self.console = read_regular(log, 1 << 24).decode(errors="replace")
        trial = Trial(memory, not why, round(time.monotonic() - began, 2), why)
        self.trials.append(trial)
        self._progress.step()
        terminal.line(f"{memory:,} K", why or f"passes  ({terminal.took(trial.seconds)})")
        return trial.passed

    def _keep(self, output: str) -> str:
        self.meminfo = output
        return ""


def _lines(least: int, step: int, trials: Sequence[Trial], users: dict[str, int]) -> Iterator[str]:
    """Yield the lines of the answer."""
    failed = max((trial.memory for trial in trials if trial.memory < least), default=0)
    below = f", and fails with {failed:,} K" if failed else ""
    yield f"it passes with {least:,} K{below}; found to {step:,} K in {len(trials)} boots"
    if users:
        yield "who has it, after the checks:"
    for name, size in users.items():
        yield f"  {size:>9,} K  {name}"
    if users:
        yield f"  {sum(users.values()):>9,} K"


def _json(
    project: Project,
    least: int,
    step: int,
    trials: Sequence[Trial],
    users: dict[str, int],
) -> dict[str, Any]:
    """Return all that is known, for programs."""
    return {
        "machine": project.settings.machine,
        "floor_kib": least,
        "step_kib": step,
        "trials": [msgspec.structs.asdict(trial) for trial in trials],
        "users_kib": users,
    }
