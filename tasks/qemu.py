"""QEMU: the images booted, by hand and by test.

images/BOOTED + rootfs.ext2, or initramfs -> qemu_boot   an interactive shell on the terminal
                                          -> qemu_test   boots, checks, powers off
images/floppy.img, with all of these      -> _run_qemu   images/run-qemu.sh, the same by hand
the same, made with display=NAME          -> qemu_screenshot -> images/screenshot.png
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import dtbs, rootfs
from tasks.config.machine import NO_DISPLAY
from tasks.config.project import EPOCH, Project
from tasks.graph.task import Command, Job, Makes, Needs, TaskDict, task
from tasks.guest import boot, qemu
from tasks.guest.qemu import Boot
from tasks.kconfig import dotconfig
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.files import write_whole
from tasks.system.process import child, foreground

if TYPE_CHECKING:
    from tasks.guest import checks, serial
    from tasks.network.cable import Cable

RACES = 5  # attempts at a boot while other programs take a port between its choice and its use


def boot_files(project: Project) -> list[Path]:
    """Return the files that a boot reads or is checked against."""
    return [
        project.layout.kernel_image,
        boot.root_image(project),
        project.layout.config,
        *filter(None, [boot.floppy(project), dtbs.booted(project)]),
    ]


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `qemu_boot`, `qemu_test` and `_run_qemu`; with a display also `qemu_screenshot`.

    A machine that QEMU does not emulate has none of them.
    """
    if project.machine.qemu is None:
        return
    files = boot_files(project)
    yield task(
        project,
        "qemu_boot",
        "boot it: an interactive shell; 'poweroff' or Ctrl-A X ends it",
        shell,
        inputs=Needs(files=files, after=["_run_qemu"]),
        command=Command(),
    )
    yield task(
        project,
        "qemu_test",
        "boot it, check it from inside, power it off",
        test,
        inputs=Needs(files=files, after=["_run_qemu"]),
        command=Command(),
    )
    yield task(
        project,
        "_run_qemu",
        "write run-qemu.sh beside the images",
        write_script,
        inputs=Needs(settings={"argv": " ".join(_command(project, "tcg", interactive=True))}),
        outputs=Makes(targets=[project.layout.run_script], quiet=True),
    )
    if project.machine.display:
        yield _screenshot(project)


def _screenshot(project: Project) -> TaskDict:
    doc = "boot it, wait for the prompt on its screen, and write the screen as PNG"
    # Without a display no files are named, so that nothing is built for the wrong configuration.
    if project.settings.display == NO_DISPLAY:
        return task(project, "qemu_screenshot", doc, elsewhere, command=Command())
    return task(
        project,
        "qemu_screenshot",
        doc,
        screenshot,
        inputs=Needs(files=boot_files(project)),
        command=Command(),
    )


def gathered(project: Project) -> Boot:
    """Return the boot of images, settings and machine, not yet checked."""
    return boot.gather(project, dtbs.booted(project))


def _command(project: Project, accel: str, interactive: bool) -> list[str]:
    return boot.command(project, gathered(project), accel, interactive)


def checked(project: Project) -> Boot:
    """Return the boot, checked (see guest/preflight.py).

    Raises:
        PiggyError: It can't work.
    """
    it = gathered(project)
    boot.check(
        project,
        it,
        dotconfig.read_config(project.layout.config),
        unpacked=0 if it.rootfs else rootfs.unpacked(project),
        attributes=it.rootfs is not None and rootfs.has_attributes(project),
    )
    return it


def shell(job: Job) -> None:
    """Give the guest's shell on the terminal; without a terminal, do what qemu_test does.

    Raises:
        PiggyError: The boot can't work, or QEMU fails.
    """
    project = job.project
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        terminal.line("qemu_boot", "no terminal here, so the guest is tested instead")
        test(job)
        return
    from tasks.guest import sockets

    it = checked(project)
    accel = boot.accelerator(project, it)
    with sockets.folder() as folder:
        shown = boot.window(project, folder)
        terminal.line("qemu_boot", "'poweroff' in the guest or Ctrl-A X here ends it")
        with project.lock.released():  # other runs may build while the guest is in use
            status = _interactive(project, it, accel, shown, folder)
    if status:
        raise PiggyError(
            f"QEMU ended with status {status}",
            f"its own message stands above; the command is in {project.layout.run_script}",
        )


def _interactive(project: Project, it: Boot, accel: str, shown: str, folder: Path) -> int:
    """Run the guests, the first one on the terminal, and return its QEMU's status.

    Another attempt is made if another program takes a forwarded port in between. `shown` is for
    -display, `folder` for the sockets of the other guests' consoles.
    """
    from tasks.network.cable import UNPLUGGED, cables

    for _ in range(RACES):
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(cables(project.settings)) if it.net else [UNPLUGGED]
            _others(project, it, accel, ours, stack, folder)
            status = foreground(
                boot.command(project, it, accel, interactive=True, window=shown, cable=ours[0])
            )
            if not status or not ours[0].conflict():
                break
            terminal.line("note", "somebody else has just taken a port; again, with another")
    return status


def _others(
    project: Project,
    it: Boot,
    accel: str,
    cables: Sequence[Cable],
    stack: contextlib.ExitStack,
    folder: Path,
) -> None:
    """Print notes on the network, and start all guests except the first.

    Their consoles are Unix sockets in `folder`, which only we can enter, and logs.
    """
    from tasks.guest import serial, sockets

    for number, cable in enumerate(cables):
        for note in cable.notes:
            terminal.line("network", note)
        if number:
            console = folder / f"console-{number + 1}"
            log = project.layout.logs / f"{console.name}.log"
            serial.opened(log).close()  # raises for a pipe or link, where QEMU would hang or write
            place = f"path={sockets.option(console)},server=on,wait=off"
            logfile = f"logfile={sockets.option(log.absolute())}"
            options = ["-chardev", f"socket,id=console,{place},{logfile}"]
            console.unlink(missing_ok=True)  # left by an earlier attempt
            argv = boot.command(
                project,
                it,
                accel,
                interactive=False,
                cable=cable,
                serial="chardev:console",
                extra=options,
            )
            stack.enter_context(child(argv, stdin=subprocess.DEVNULL))
            terminal.line(
                "network",
                f"guest {number + 1}'s console: socat -,raw,echo=0,escape=0x1d unix:{console} "
                f" (log: {log})",
            )


def test(job: Job) -> None:
    """Boot without a terminal, check the guest from inside, and power it off.

    Raises:
        PiggyError: The boot can't work, or a check fails.
    """
    from tasks.guest import checks

    project = job.project
    project.layout.boot_record.unlink(missing_ok=True)
    it = checked(project)
    accel = boot.accelerator(project, it)
    try:
        report = examined(project, it, accel=accel)
    except checks.CheckError as error:
        _keep_record(project, accel, error.report)
        raise
    _keep_record(project, accel, report)
    terminal.line(
        "qemu_test",
        f"passed: shell after {report.ready:.1f} s, checks {report.checked:.1f} s,"
        f" power-off {report.poweroff:.1f} s, {report.total:.1f} s in all ({accel})",
    )


def _keep_record(project: Project, accel: str, report: checks.Report) -> None:
    """Write what a boot test measured, and which of its checks failed."""
    record = {
        "accel": accel,
        "ready": round(report.ready, 2),
        "checked": round(report.checked, 2),
        "poweroff": round(report.poweroff, 2),
        "total": round(report.total, 2),
        "checks": {result.name: result.said for result in report.results},
        "failed": [result.name for result in report.results if result.status],
    }
    write_whole(project.layout.boot_record, json.dumps(record, indent=1) + "\n")


def examined(
    project: Project, it: Boot, more: Sequence[checks.Check] = (), accel: str = ""
) -> checks.Report:
    """Boot, run the standard checks and `more`, and power off (PiggyError: a check fails)."""
    from tasks.guest import checks

    machine = project.machine.qemu
    assert machine is not None
    accel = accel or boot.accelerator(project, it)
    limit = boot.limits(project, accel, dotconfig.read_known(project.layout.config))
    root = ("ext2",) if it.rootfs else ("rootfs", "tmpfs")
    epoch, memory = EPOCH if machine.rtc else 0, it.memory or machine.memory
    written = bool(it.floppy) and any(one.name == "floppy" for one in project.overlays)
    standard = checks.standard(release(project), root, epoch, bool(it.net), written, memory)
    return tested(project, it, accel, (*standard, *more), limit)


def tested(
    project: Project,
    it: Boot,
    accel: str,
    standard: Sequence[checks.Check],
    limit: serial.Limits,
) -> checks.Report:
    """Boot with a network, and run the standard checks and those of the network.

    Another attempt is made if another program takes a forwarded port in between. In a lab the other
    guests run as well, and the first one reaches them.
    """
    from tasks.guest import checks, console, network_checks, serial
    from tasks.network.cable import cables

    log = project.layout.logs / "console.log"
    overlays = [folder.name for folder in project.overlays]
    if not it.net:
        argv = boot.command(project, it, accel, interactive=False)
        return checks.boot_test(argv, standard, log, limit)
    for left in reversed(range(RACES)):
        token = f"piggyback {os.urandom(8).hex()}"
        with contextlib.ExitStack() as stack:
            first, *others = stack.enter_context(cables(project.settings, token))
            for note in first.notes:
                terminal.line("network", note)
            page = stack.enter_context(network_checks.served(first, token))
            for number, cable in enumerate(others):
                stack.enter_context(
                    console.session(
                        boot.command(project, it, accel, interactive=False, cable=cable),
                        project.layout.logs / f"console-{number + 2}.log",
                        limit,
                    )
                ).ready()
            try:
                return checks.boot_test(
                    boot.command(project, it, accel, interactive=False, cable=first),
                    (
                        *standard,
                        *network_checks.checks(
                            first, overlays, page, [cable.address for cable in others]
                        ),
                    ),
                    log,
                    limit,
                )
            except serial.GuestError:
                if not left or not first.conflict():
                    raise
                terminal.line("note", "somebody else has just taken a port; again, with another")
    raise AssertionError("the last turn returns or raises")


def release(project: Project) -> str:
    """Return the kernel release of the build, which the guest's `uname -r` must equal."""
    record = project.layout.kernel_obj / "include" / "config" / "kernel.release"
    return record.read_text().strip() if record.exists() else ""


def write_script(job: Job) -> None:
    """Write run-qemu.sh."""
    argv = _command(job.project, "tcg", interactive=True)
    text = qemu.script(argv, job.project.layout.images.absolute())
    write_whole(job.project.layout.run_script, re.sub(r"\n+$", "\n", text), mode=0o755)


def elsewhere(job: Job) -> None:
    """Make the screenshot with the machine's only display, as display= names none.

    A doit of its own runs the same task with display=NAME, and builds what that needs.

    Raises:
        PiggyError: The machine has several displays, or the run fails.
    """
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
    with project.lock.released():  # for the child, which takes it
        status = nested.run(project.top, command)
    if status:
        raise PiggyError(
            f"it failed with display={names[0]}, as is said above",
            f"command: {shlex.join(command)}",
        )


def screenshot(job: Job) -> None:
    """Boot without a window, wait for a prompt on the screen, and write images/screenshot.png.

    Raises:
        PiggyError: The boot can't work, or no prompt appears.
    """
    from tasks.guest import screen, serial

    project = job.project
    target = project.layout.screenshot
    target.unlink(missing_ok=True)
    it = checked(project)
    accel = boot.accelerator(project, it)
    width, height = screen.capture(
        lambda extra: boot.command(
            project, it, accel, interactive=False, window="none", extra=extra
        ),
        target,
        project.layout.logs / "console.log",
        serial.limits(accel),
    )
    terminal.line(
        "qemu_screenshot", f"{target}  ({width} x {height} pixels, {os.path.getsize(target):,} B)"
    )
