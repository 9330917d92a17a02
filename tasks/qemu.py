"""QEMU: the images booted, by hand and by test.

    images/BOOTED + rootfs.ext2 (or initramfs) -> qemu_boot   an interactive shell on the terminal
                                               -> qemu_test   boots, checks, powers off; the exit status says it all
                                               -> _run_qemu   images/run-qemu.sh, the same by hand
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks import dtbs, kernel_config, rootfs
from tasks.kit import kcontract, qemu, ui
from tasks.kit.errors import PiggyError
from tasks.kit.fs import write_whole
from tasks.kit.graph import Job, TaskDict, task
from tasks.kit.machine import NO_DISPLAY
from tasks.kit.project import EPOCH, Project
from tasks.kit.run import foreground


def from_disk(project: Project) -> bool:
    """Does the machine boot from its disk, rather than from the initramfs alone?"""
    assert project.machine.qemu is not None
    if project.settings.boot == "disk" and project.machine.qemu.disk is None:
        raise PiggyError(f"{project.origins['boot']}: boot=disk, but the machine '{project.settings.machine}' has no disk",
                         "boot=initramfs, or add a [qemu.disk] table to the machine file")
    return project.machine.qemu.disk is not None and project.settings.boot != "initramfs"


def kernel_image(project: Project) -> Path:
    """The link of the chain that this machine boots."""
    return project.images / project.image


def root_image(project: Project) -> Path:
    """What holds the root filesystem at boot."""
    return rootfs.disk(project) if from_disk(project) else rootfs.archive(project)


def script(project: Project) -> Path:
    """The recipe beside the images."""
    return project.images / "run-qemu.sh"


def boot_files(project: Project) -> list[Path]:
    """What a boot reads, or is checked against."""
    return [kernel_image(project), root_image(project), kernel_config.config(project),
            *filter(None, [dtbs.booted(project)])]


def boot_record(project: Project) -> Path:
    """What qemu_test measured when it last passed, as JSON: seconds from QEMU's start to the shell's first answer ("ready")
    and to QEMU's end ("total"), the accelerator, and what each check found."""
    return project.logs / "boot.json"


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `qemu_boot`, `qemu_test` and the task that writes run-qemu.sh, for machines that QEMU has."""
    if project.machine.qemu is None:
        return
    files = boot_files(project)
    yield task(project, "qemu_boot", "boot it: an interactive shell; 'poweroff' or Ctrl-A X ends it", boot,
               files=files, after=["_run_qemu"], always=True, quiet=True)
    yield task(project, "qemu_test", "boot it, check it from inside, power it off", test,
               files=files, after=["_run_qemu"], always=True, quiet=True)
    yield task(project, "_run_qemu", "write run-qemu.sh beside the images", write_script, targets=[script(project)],
               settings={"argv": " ".join(plan(project, "tcg", interactive=True))}, quiet=True)


def plan(project: Project, accel: str, interactive: bool, trial: bool = False, window: str = "",
         extra: Sequence[str] = ()) -> list[str]:
    """QEMU's argument vector for the machine and the settings; the images by their absolute paths. A trial, which is
    killed when it has said a word, never writes to the disk image. window: for -display; extra: more words for QEMU."""
    assert project.machine.qemu is not None
    settings = project.settings
    root = root_image(project).absolute()
    disk, tree = from_disk(project), dtbs.booted(project)
    return qemu.argv(project.machine.qemu, qemu.Boot(
        kernel=kernel_image(project).absolute(), rootfs=root if disk else None, initrd=None if disk else root,
        dtb=tree.absolute() if tree else None, memory=settings.memory, accel=accel,
        append=f"{project.display.append} {settings.append}", console=project.display.console, window=window,
        snapshot=settings.snapshot or trial, interactive=interactive, net="user" if project.machine.qemu.nic else "",
        extra=(*project.display.args, *extra)))


def inspect(project: Project) -> None:
    """Hold configuration, command line and machine against each other. Raises PiggyError for a pair that can't boot;
    says what would merely be missed."""
    from tasks.kit import bootcheck
    assert project.machine.qemu is not None
    disk = from_disk(project)
    boot = qemu.Boot(kernel=kernel_image(project), rootfs=rootfs.disk(project) if disk else None,
                     initrd=None if disk else rootfs.archive(project), console=project.display.console,
                     append=f"{project.display.append} {project.settings.append}")
    with kernel_image(project).open("rb") as stream:
        head = stream.read(bootcheck.HEAD)
    initrd_head = b"" if disk else rootfs.archive(project).read_bytes()[:16]
    payload = os.path.getsize(kernel_image(project)) + (0 if disk else os.path.getsize(rootfs.archive(project)))
    problems = bootcheck.check(
        kcontract.read_config(kernel_config.config(project)), qemu.command_line(project.machine.qemu, boot),
        project.machine.qemu, has_disk=disk, has_initrd=not disk, arch=project.machine.arch,
        memory=project.settings.memory, kernel_head=head, payload=payload, initrd_head=initrd_head, static_dev=True,
        has_nic=bool(project.machine.qemu.nic))
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise PiggyError("this would not boot: " + "; ".join(problem.message for problem in fatal),
                         "\n  ".join(dict.fromkeys(problem.hint for problem in fatal)))
    for problem in problems:
        ui.line("note", f"{problem.message} ({problem.hint})")


def accelerator(project: Project) -> str:
    """Choose between KVM and TCG (see kit/kvm.py), and say which when KVM was wanted in vain."""
    from tasks.kit import kvm
    machine = project.machine.qemu
    assert machine is not None
    answer = kvm.choose(project.settings.accel, project.machine.arch, machine.binary, project.build / "host" / "kvm.json",
                        kernel_image(project).absolute(), plan(project, "kvm", interactive=False, trial=True))
    if answer.accel == "tcg" and not answer.remembered and project.settings.accel == "auto":
        ui.line("note", f"KVM is not used: {answer.reason}")
    return answer.accel


def window(project: Project) -> str:
    """What qemu_boot shows the screen in, for -display; tells the user."""
    from tasks.kit import screen
    if project.settings.display == NO_DISPLAY:
        return ""
    assert project.machine.qemu is not None
    word, said = screen.window(project.machine.qemu.binary, project.settings.window, os.environ)
    ui.line("display", said)
    return word


def boot(job: Job) -> None:
    """Give the guest's shell on the terminal; without a terminal, do what qemu_test does."""
    project = job.project
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        ui.line("qemu_boot", "no terminal here, so the guest is tested instead")
        test(job)
        return
    inspect(project)
    argv = plan(project, accelerator(project), interactive=True, window=window(project))
    ui.line("qemu_boot", "'poweroff' in the guest or Ctrl-A X here ends it")
    project.lock.release()  # others may build while somebody sits at the guest
    try:
        status = foreground(argv)
    finally:
        project.lock.acquire()
    if status:
        raise PiggyError(f"QEMU ended with status {status}", "its own message stands above; the command is in "
                         f"{script(project)}")


def test(job: Job) -> None:
    """Boot without a terminal, check the guest from inside, power it off."""
    from tasks.kit import guest, guestcheck
    project = job.project
    machine = project.machine.qemu
    assert machine is not None
    boot_record(project).unlink(missing_ok=True)
    inspect(project)
    accel = accelerator(project)
    limit = guest.limits(accel)
    limit = guest.Limits(limit.boot, limit.silence, limit.command, min(limit.total, project.settings.timeout), limit.again)
    checks = guestcheck.standard(release=release(project), root=("ext2",) if from_disk(project) else ("rootfs", "tmpfs"),
                                 epoch=EPOCH if machine.rtc else 0, nic=bool(machine.nic))
    argv = plan(project, accel, interactive=False)
    report = guestcheck.boot_test(argv, checks, project.logs / "console.log", limit)
    write_whole(boot_record(project), json.dumps({
        "accel": accel, "ready": round(report.ready, 2), "total": round(report.total, 2),
        "checks": {result.name: result.said for result in report.results}}, indent=1) + "\n")
    ui.line("qemu_test", f"passed: shell after {report.ready:.1f} s, off after {report.total:.1f} s ({accel})")


def release(project: Project) -> str:
    """The kernel release that the build says it has, to be compared with the guest's `uname -r`."""
    record = project.kernel_obj / "include" / "config" / "kernel.release"
    return record.read_text().strip() if record.exists() else ""


def write_script(job: Job) -> None:
    """Write run-qemu.sh."""
    argv = plan(job.project, "tcg", interactive=True)
    text = qemu.script(argv, job.project.images.absolute())
    write_whole(script(job.project), re.sub(r"\n+$", "\n", text), mode=0o755)
