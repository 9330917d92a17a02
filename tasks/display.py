"""The screen of a machine that has one, as display= selects it.

images/BOOTED + root filesystem, both made with display=NAME -> qemu_screenshot -> images/screenshot.png
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from tasks import qemu
from tasks.config.machine import NO_DISPLAY
from tasks.config.project import Project
from tasks.graph.task import Job, TaskDict, task
from tasks.system import terminal
from tasks.system.errors import PiggyError


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `qemu_screenshot`, for machines that have a display in QEMU."""
    if project.machine.qemu is None or not project.machine.display:
        return
    doc = "boot it, wait for the prompt on its screen, and write the screen as PNG"
    if project.settings.display == NO_DISPLAY:  # nothing is built without the display, to no avail
        yield task(project, "qemu_screenshot", doc, elsewhere, always=True, quiet=True)
        return
    yield task(
        project,
        "qemu_screenshot",
        doc,
        screenshot,
        always=True,
        quiet=True,
        files=qemu.boot_files(project),
    )


def elsewhere(job: Job) -> None:
    """Without display=, take the machine's only one: the same task in a doit of its own, which
    builds what it needs."""
    from tasks.graph import nested

    project = job.project
    names = list(project.machine.display)
    if len(names) > 1:
        raise PiggyError(
            f"the machine '{project.settings.machine}' has several displays, and none is selected",
            " or ".join(f"display={name}" for name in names),
        )
    terminal.line(
        "qemu_screenshot",
        f"display={names[0]}, the machine's only one; to build without it again, leave it out",
    )
    command = nested.argv(
        nested.words(project, {"machine": project.settings.machine, "display": names[0]}), job.name
    )
    with project.lock.released():  # the child takes it
        status = nested.run(project.top, command)
    if status:
        raise PiggyError(
            f"it failed with display={names[0]}, as is said above",
            f"command: {shlex.join(command)}",
        )


def screenshot(job: Job) -> None:
    """Boot without a window, wait until a prompt is on the screen, and write the screen to
    images/screenshot.png."""
    from tasks.guest import console, screen

    project = job.project
    target = project.layout.screenshot
    target.unlink(missing_ok=True)
    qemu.inspect(project)
    accel = qemu.accelerator(project)
    width, height = screen.capture(
        lambda extra: qemu.plan(project, accel, interactive=False, window="none", extra=extra),
        target,
        project.layout.logs / "console.log",
        console.limits(accel),
    )
    terminal.line(
        "qemu_screenshot", f"{target}  ({width} x {height} pixels, {os.path.getsize(target):,} B)"
    )
