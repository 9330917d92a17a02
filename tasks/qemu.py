"""QEMU: the images booted, by hand and by test.

images/BOOTED + rootfs.ext2 (or initramfs) -> qemu_boot   an interactive shell on the terminal
                                           -> qemu_test   boots, checks, powers off; the exit status says it all
                                           -> _run_qemu   images/run-qemu.sh, the same by hand
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import dtbs, rootfs
from tasks.config.machine import NO_DISPLAY
from tasks.config.project import EPOCH, Project
from tasks.graph.task import Job, TaskDict, task
from tasks.guest import qemu
from tasks.kconfig import dotconfig
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.files import write_whole
from tasks.system.process import child, foreground

if TYPE_CHECKING:
    from tasks.guest import checks
    from tasks.guest import console as guest
    from tasks.network.cable import Cable

RACES = 5  # how often a boot is tried when somebody else takes a forwarded port in the same moment


def from_disk(project: Project) -> bool:
    """Does the machine boot from its disk, rather than from the initramfs alone?"""
    assert project.machine.qemu is not None
    if project.settings.boot == "disk" and project.machine.qemu.disk is None:
        raise PiggyError(
            f"{project.origins['boot']}: boot=disk, but the machine '{project.settings.machine}'"
            " has no disk",
            "boot=initramfs, or add a [qemu.disk] table to the machine file",
        )
    return project.machine.qemu.disk is not None and project.settings.boot != "initramfs"


def root_image(project: Project) -> Path:
    """What holds the root filesystem at boot."""
    return project.layout.rootfs if from_disk(project) else project.layout.initramfs


def boot_files(project: Project) -> list[Path]:
    """What a boot reads, or is checked against."""
    return [
        project.layout.kernel_image,
        root_image(project),
        project.layout.config,
        *filter(None, [dtbs.booted(project)]),
    ]


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `qemu_boot`, `qemu_test` and the task that writes run-qemu.sh, for machines that QEMU
    has."""
    if project.machine.qemu is None:
        return
    files = boot_files(project)
    yield task(
        project,
        "qemu_boot",
        "boot it: an interactive shell; 'poweroff' or Ctrl-A X ends it",
        boot,
        files=files,
        after=["_run_qemu"],
        always=True,
        quiet=True,
    )
    yield task(
        project,
        "qemu_test",
        "boot it, check it from inside, power it off",
        test,
        files=files,
        after=["_run_qemu"],
        always=True,
        quiet=True,
    )
    yield task(
        project,
        "_run_qemu",
        "write run-qemu.sh beside the images",
        write_script,
        targets=[project.layout.run_script],
        settings={"argv": " ".join(plan(project, "tcg", interactive=True))},
        quiet=True,
    )


def networked(project: Project) -> bool:
    """Does the guest have a network card? Raises PiggyError where one is asked for that the machine
    lacks."""
    assert project.machine.qemu is not None
    card = bool(project.nic or project.machine.qemu.nic)
    if not card and project.settings.net not in ("user", "none"):
        raise PiggyError(
            f"{project.origins['net']}: net={project.settings.net}, but the machine "
            f"'{project.settings.machine}' has no network card",
            "add 'nic' to its [qemu] table",
        )
    return card and project.settings.net != "none"


def plan(
    project: Project,
    accel: str,
    interactive: bool,
    trial: bool = False,
    window: str = "",
    extra: Sequence[str] = (),
    cable: Cable | None = None,
    serial: str = "",
) -> list[str]:
    """QEMU's argument vector for the machine and the settings; the images by their absolute paths.
    A trial, which is killed when it has said a word, never writes to the disk image. window: for
    -display; extra: more words for QEMU;
    cable: of its network card (none: QEMU's user network, no port forwarded); serial: for
        -serial."""
    assert project.machine.qemu is not None
    settings = project.settings
    root = root_image(project).absolute()
    disk, tree = from_disk(project), dtbs.booted(project)
    net, mac, word, prefix = (
        (cable.net, cable.mac, cable.append, cable.prefix) if cable else ("user", qemu.MAC, "", ())
    )
    several = settings.net == "lab" and settings.guests > 1  # they share one disk image
    return [
        *prefix,
        *qemu.argv(
            project.machine.qemu,
            qemu.Boot(
                kernel=project.layout.kernel_image.absolute(),
                rootfs=root if disk else None,
                initrd=None if disk else root,
                dtb=tree.absolute() if tree else None,
                memory=settings.memory,
                accel=accel,
                append=" ".join(filter(None, (project.display.append, word, settings.append))),
                console=project.display.console,
                window=window,
                snapshot=settings.snapshot or trial or several,
                interactive=interactive,
                net=net if networked(project) else "",
                mac=mac,
                nic=project.nic.args if project.nic else (),
                serial=serial,
                extra=(*project.display.args, *extra),
            ),
        ),
    ]


def inspect(project: Project) -> None:
    """Hold configuration, command line and machine against each other. Raises PiggyError for a pair
    that can't boot; says what would merely be missed."""
    from tasks.guest import preflight

    assert project.machine.qemu is not None
    disk = from_disk(project)
    boot = qemu.Boot(
        kernel=project.layout.kernel_image,
        rootfs=project.layout.rootfs if disk else None,
        initrd=None if disk else project.layout.initramfs,
        console=project.display.console,
        append=f"{project.display.append} {project.settings.append}",
    )
    with project.layout.kernel_image.open("rb") as stream:
        head = stream.read(preflight.HEAD)
    initrd_head = b"" if disk else project.layout.initramfs.read_bytes()[:16]
    payload = os.path.getsize(project.layout.kernel_image) + (
        0 if disk else os.path.getsize(project.layout.initramfs)
    )
    problems = preflight.check(
        dotconfig.read_config(project.layout.config),
        qemu.command_line(project.machine.qemu, boot),
        project.machine.qemu,
        has_disk=disk,
        has_initrd=not disk,
        arch=project.machine.arch,
        memory=project.settings.memory,
        kernel_head=head,
        payload=payload,
        initrd_head=initrd_head,
        static_dev=True,
        has_nic=networked(project) and not project.nic,
        unpacked=0 if disk else rootfs.unpacked(project),
        attributes=disk and rootfs.has_attributes(project),
    )
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise PiggyError(
            "this would not boot: " + "; ".join(problem.message for problem in fatal),
            "\n  ".join(dict.fromkeys(problem.hint for problem in fatal)),
        )
    check_network(project)
    for problem in problems:
        terminal.line("note", f"{problem.message} ({problem.hint})")


def check_network(project: Project) -> None:
    """Raise PiggyError for a kernel that has no driver for the network card, or no IPv4, before
    anything is booted."""
    from tasks.network import card as netguest

    assert project.machine.qemu is not None
    if not networked(project) or project.settings.address in ("off", "none"):
        return
    card = project.nic.args if project.nic else project.machine.qemu.nic
    missing = netguest.unmet(
        dotconfig.read_config(project.layout.config),
        card,
        (),
        dhcp=project.settings.address == "dhcp",
        modules=not from_disk(project),
    )
    if missing:
        raise PiggyError(
            "the guest would have no network: "
            + "; ".join(
                f"{whose} needs CONFIG_{symbol.replace('|', ' or CONFIG_')} in the kernel"
                for whose, symbol in missing
            ),
            "add to a fragment: "
            + " ".join(f"CONFIG_{symbol.split('|')[0]}=y" for _, symbol in missing)
            + "; or net=none boots without a card",
        )


def accelerator(project: Project) -> str:
    """Choose between KVM and TCG (see guest/kvm.py), and say which when KVM was wanted in vain."""
    from tasks.guest import kvm

    machine = project.machine.qemu
    assert machine is not None
    answer = kvm.choose(
        project.settings.accel,
        project.machine.arch,
        machine.binary,
        project.layout.build / "host" / "kvm.json",
        project.layout.kernel_image.absolute(),
        plan(project, "kvm", interactive=False, trial=True),
    )
    if answer.accel == "tcg" and not answer.remembered and project.settings.accel == "auto":
        terminal.line("note", f"KVM is not used: {answer.reason}")
    return answer.accel


def window(project: Project, folder: Path) -> str:
    """What qemu_boot shows the screen in, for -display; tells the user. folder: for its socket."""
    from tasks.guest import screen

    if project.settings.display == NO_DISPLAY:
        return ""
    assert project.machine.qemu is not None
    word, said = screen.window(
        project.machine.qemu.binary, project.settings.window, os.environ, folder
    )
    for line in said.splitlines():
        terminal.line("display", line)
    return word


def boot(job: Job) -> None:
    """Give the guest's shell on the terminal; without a terminal, do what qemu_test does."""
    project = job.project
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        terminal.line("qemu_boot", "no terminal here, so the guest is tested instead")
        test(job)
        return
    from tasks.guest import sockets

    inspect(project)
    accel = accelerator(project)
    with sockets.folder() as folder:
        shown = window(project, folder)
        terminal.line("qemu_boot", "'poweroff' in the guest or Ctrl-A X here ends it")
        with project.lock.released():  # others may build while somebody sits at the guest
            status = _sat_at(project, accel, shown, folder)
    if status:
        raise PiggyError(
            f"QEMU ended with status {status}",
            f"its own message stands above; the command is in {project.layout.run_script}",
        )


def _sat_at(project: Project, accel: str, shown: str, folder: Path) -> int:
    """Run the guests, the first on the terminal; return its QEMU's status. Where somebody else
    takes a port in the same moment, again. shown: for -display;  folder: for the others'
    consoles."""
    from tasks.network import cable as netattach

    for _ in range(RACES):
        with contextlib.ExitStack() as stack:
            cables = (
                stack.enter_context(netattach.cables(project.settings))
                if networked(project)
                else [netattach.UNPLUGGED]
            )
            _others(project, accel, cables, stack, folder)
            status = foreground(
                plan(project, accel, interactive=True, window=shown, cable=cables[0])
            )
            if not status or not cables[0].conflict():
                break
            terminal.line("note", "somebody else has just taken a port; again, with another")
    return status


def _others(
    project: Project, accel: str, cables: Sequence[Cable], stack: contextlib.ExitStack, folder: Path
) -> None:
    """Say what leads to the guests, and start all but the first; their consoles are Unix sockets in
    `folder`, which only we can enter, and in the logs."""
    from tasks.guest import console as guest
    from tasks.guest import sockets

    for number, cable in enumerate(cables):
        for said in cable.said:
            terminal.line("network", said)
        if number:
            console, log = (
                folder / f"console-{number + 1}",
                project.layout.logs / f"console-{number + 1}.log",
            )
            guest.opened(log).close()  # QEMU would wait at a pipe, and write where a link leads
            words = f"path={sockets.option(console)},server=on,wait=off,logfile={sockets.option(log.absolute())}"
            options = ["-chardev", f"socket,id=console,{words}"]
            console.unlink(missing_ok=True)  # of a turn before this one
            stack.enter_context(
                child(
                    plan(
                        project,
                        accel,
                        interactive=False,
                        cable=cable,
                        serial="chardev:console",
                        extra=options,
                    ),
                    stdin=subprocess.DEVNULL,
                )
            )
            terminal.line(
                "network",
                f"guest {number + 1}'s console: socat -,raw,echo=0,escape=0x1d unix:{console} "
                f" (log: {log})",
            )


def test(job: Job) -> None:
    """Boot without a terminal, check the guest from inside, power it off."""
    from tasks.guest import checks
    from tasks.guest import console as guest

    project = job.project
    machine = project.machine.qemu
    assert machine is not None
    project.layout.boot_record.unlink(missing_ok=True)
    inspect(project)
    accel = accelerator(project)
    limit = guest.limits(accel)
    limit = guest.Limits(
        limit.boot,
        limit.silence,
        limit.command,
        min(limit.total, project.settings.timeout),
        limit.again,
    )
    standard = checks.standard(
        release=release(project),
        root=("ext2",) if from_disk(project) else ("rootfs", "tmpfs"),
        epoch=EPOCH if machine.rtc else 0,
        nic=networked(project),
    )
    report = tested(project, accel, standard, limit)
    write_whole(
        project.layout.boot_record,
        json.dumps(
            {
                "accel": accel,
                "ready": round(report.ready, 2),
                "total": round(report.total, 2),
                "checks": {result.name: result.said for result in report.results},
            },
            indent=1,
        )
        + "\n",
    )
    terminal.line(
        "qemu_test",
        f"passed: shell after {report.ready:.1f} s, off after {report.total:.1f} s ({accel})",
    )


def tested(
    project: Project, accel: str, standard: Sequence[checks.Check], limit: guest.Limits
) -> checks.Report:
    """Boot with a network, and run the standard checks and those of the network; again where QEMU
    lost a race for a port. In a lab the other guests run meanwhile, and are reached from the
    first."""
    from tasks.guest import checks, network_checks
    from tasks.guest import console as guest
    from tasks.network import cable as netattach

    log, overlays = (
        project.layout.logs / "console.log",
        [folder.name for folder in project.overlays],
    )
    if not networked(project):
        return checks.boot_test(plan(project, accel, interactive=False), standard, log, limit)
    for left in reversed(range(RACES)):
        token = f"piggyback {os.urandom(8).hex()}"
        with contextlib.ExitStack() as stack:
            first, *others = stack.enter_context(netattach.cables(project.settings, token))
            for said in first.said:
                terminal.line("network", said)
            page = stack.enter_context(network_checks.served(first, token))
            for number, cable in enumerate(others):
                stack.enter_context(
                    guest.session(
                        plan(project, accel, interactive=False, cable=cable),
                        project.layout.logs / f"console-{number + 2}.log",
                        limit,
                    )
                ).ready()
            try:
                return checks.boot_test(
                    plan(project, accel, interactive=False, cable=first),
                    (
                        *standard,
                        *network_checks.checks(
                            first, overlays, page, [cable.address for cable in others]
                        ),
                    ),
                    log,
                    limit,
                )
            except guest.GuestError:
                if not left or not first.conflict():
                    raise
                terminal.line("note", "somebody else has just taken a port; again, with another")
    raise AssertionError("the last turn returns or raises")


def release(project: Project) -> str:
    """The kernel release that the build says it has, to be compared with the guest's `uname -r`."""
    record = project.layout.kernel_obj / "include" / "config" / "kernel.release"
    return record.read_text().strip() if record.exists() else ""


def write_script(job: Job) -> None:
    """Write run-qemu.sh."""
    argv = plan(job.project, "tcg", interactive=True)
    text = qemu.script(argv, job.project.layout.images.absolute())
    write_whole(job.project.layout.run_script, re.sub(r"\n+$", "\n", text), mode=0o755)
