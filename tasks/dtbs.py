"""The device tree blobs, for machines that boot with one.

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
from tasks.toolchains import record


def blob(project: Project, name: str) -> Path:
    """Return the path of a compiled device tree in images/."""
    return project.layout.images / f"{name}.dtb"


def booted(project: Project) -> Path | None:
    """Return the path of the device tree that the machine boots with; None if it has none."""
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
            store=Kept(when=kernel_config.stored(project), folders=record.folders),
        )


def build(job: Job) -> dict[str, list[str]]:
    """Compile the device trees by Kbuild, and return their inputs from its records."""
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
    return {"discovered": Depfiles(obj, project.layout.kernel_src).inputs(job.started, commands)}


def source(project: Project, name: str) -> str:
    """Return the path of a device tree's .dtb in the object folder, relative to it.

    Since 6.5, ARM has a folder for each vendor.

    Args:
        project: Machine and layout.
        name: The device tree's name, without suffix.

    Raises:
        PiggyError: The kernel has no device tree of that name, or more than one.
    """
    folder = project.layout.kernel_src / "arch" / project.machine.arch / "boot" / "dts"
    sources = sorted(
        path.relative_to(project.layout.kernel_src) for path in folder.rglob(f"{name}.dts")
    )
    if not sources:
        known = [path.stem for path in folder.rglob("*.dts")]
        raise PiggyError(
            f"{folder} has no device tree '{name}'.{nearest(name, known)}",
            f"configs/machines/{project.settings.machine}.toml names it in [kernel] dtbs",
        )
    if len(sources) > 1:
        raise PiggyError(f"there are several device trees '{name}': {', '.join(map(str, sources))}")
    return str(sources[0].with_suffix(".dtb"))
