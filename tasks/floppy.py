"""The floppy: kernel, root filesystem and a boot loader on one disk of 1,474,560 bytes.

initramfs -> vmlinux -> ... -> bzImage -+
the machine's command line -------------+-> floppy -> images/floppy.img -> qemu_boot, qemu_test
tasks/filesystem/floppy.S --------------+
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tasks.config.project import EPOCH, Project
from tasks.filesystem import floppy
from tasks.graph.task import Job, Kept, Makes, Needs, TaskDict, task
from tasks.guest import boot, qemu
from tasks.system import terminal
from tasks.toolchains import record

UUID = "70696767-7962-4163-8b00-000000000002"


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `floppy` for a machine that boots from one."""
    if project.machine.qemu is None or not project.machine.qemu.floppy:
        return
    yield task(
        project,
        "floppy",
        "a floppy that boots: kernel with the root filesystem inside, and room to write",
        build,
        inputs=Needs(
            files=[
                project.layout.kernel_image,
                project.layout.userspace_record,
                Path(os.path.relpath(floppy.SOURCE, project.top)),
            ],
            tools=["mke2fs", "debugfs"],
            settings={"words": words(project)},
        ),
        outputs=Makes(
            targets=[project.layout.floppy], written=True, goes_on=not project.settings.snapshot
        ),
        store=Kept(folders=record.folders),
    )


def words(project: Project) -> str:
    """Return the kernel's command line on the floppy."""
    assert project.machine.qemu is not None
    return qemu.command_line(project.machine.qemu, boot.gather(project, None))


def build(job: Job) -> None:
    """Write floppy.img.

    Raises:
        PiggyError: The kernel does not fit.
    """
    project = job.project
    with tempfile.TemporaryDirectory() as folder:
        loader = floppy.assemble(record.read_user(project).cc, Path(folder), job.log)
    stats = floppy.build(
        loader,
        project.layout.kernel_image,
        words(project),
        project.layout.floppy,
        uuid=UUID,
        epoch=EPOCH,
        log=job.log,
    )
    terminal.line("", f"{stats.bytes_free:,} bytes of it are free")
