"""The device trees of machines that are described by one.

images/config -+
toolchain -----+-> dtbs -> images/NAME.dtb
sources -------+   (and the .dtsi files and headers that Kbuild's records name)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tasks import kernel, kernel_config
from tasks.config.project import Project
from tasks.graph.task import Job, Kept, Makes, Needs, TaskDict, task
from tasks.kbuild import records
from tasks.kbuild.depfiles import Depfiles
from tasks.system.errors import PiggyError, nearest
from tasks.system.files import copy_whole


def blob(project: Project, name: str) -> Path:
    """A compiled device tree."""
    return project.layout.images / f"{name}.dtb"


def booted(project: Project) -> Path | None:
    """The device tree that the machine boots with, if it has any."""
    return blob(project, project.machine.kernel.dtbs[0]) if project.machine.kernel.dtbs else None


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield the task `dtbs` for a machine that has device trees."""
    names = project.machine.kernel.dtbs
    if names:
        yield task(
            project,
            "dtbs",
            f"device trees: {', '.join(names)}",
            build,
            inputs=Needs(
                files=[
                    project.layout.config,
                    project.layout.toolchain_record,
                    *kernel_config.source_files(project),
                ],
                tools=kernel.TOOLS,
                settings=kernel.common_settings(project),
            ),
            outputs=Makes(
                targets=[blob(project, name) for name in names], place=project.layout.kernel_obj
            ),
            store=Kept(when=kernel_config.stored(project)),
        )


def build(job: Job) -> dict[str, list[str]]:
    """Let Kbuild compile the device trees, and learn from its records what they were made from."""
    project, folder = job.project, kernel.object_folder(job)
    obj = folder.path
    kernel.put_config(job)
    files = {name: source(project, name) for name in project.machine.kernel.dtbs}
    folder.purge()
    folder.restore(
        {file: blob(project, name) for name, file in files.items()}, spoilt=kernel.spoilt(job)
    )
    folder.make([file.partition("/boot/dts/")[2] for file in files.values()])
    commands: set[str] = set()
    for name, file in files.items():
        copy_whole(obj / file, blob(project, name))
        commands |= records.closure(obj, file, [])
    return {"discovered": Depfiles(obj, project.layout.kernel_src).inputs(commands)}


def source(project: Project, name: str) -> str:
    """Return Kbuild's name of the .dtb that is made from a device tree of the kernel's.

    Since 6.5 those of ARM lie in a folder for each vendor.

    Raises:
        PiggyError: There is none of that name, or more than one.
    """
    folder = project.layout.kernel_src / "arch" / project.machine.arch / "boot" / "dts"
    found = sorted(
        path.relative_to(project.layout.kernel_src) for path in folder.rglob(f"{name}.dts")
    )
    if not found:
        known = [path.stem for path in folder.rglob("*.dts")]
        raise PiggyError(
            f"{folder} has no device tree '{name}'.{nearest(name, known)}",
            f"configs/machines/{project.settings.machine}.toml names it in [kernel] dtbs",
        )
    if len(found) > 1:
        raise PiggyError(f"there are several device trees '{name}': {', '.join(map(str, found))}")
    return str(found[0].with_suffix(".dtb"))
