"""The chain from vmlinux to the image for a boot loader; configs/chains.toml has its links.

    x86:  vmlinux -> Image -> piggy.gz -> piggy.o -> compressed_vmlinux -> bzImage
    ARM:  vmlinux -> Image -> piggy.gz -> piggy.o -> compressed_vmlinux -> zImage

Each link is made by the rule of the kernel's own boot Makefile, so that any compressor and any
kernel version works. The result is copied to images/, under the task's name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tasks import kernel, kernel_config
from tasks.config.machine import LINKS, Link
from tasks.config.project import Project
from tasks.graph.task import Job, Kept, Makes, Needs, TaskDict, task
from tasks.kbuild import goal_state, make, records, seconds, trace
from tasks.kbuild.depfiles import PLACED, Depfiles
from tasks.kernel import COMPRESSED, file_of, resolved
from tasks.shortway import attempt
from tasks.shortway.conditions import Goal
from tasks.system.errors import PiggyError
from tasks.system.files import copy_whole
from tasks.toolchains import record

COMPRESSORS = ["gzip", "bzip2", "lzma", "xz", "lzop", "lz4", "zstd"]


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield a task for each link of the machine's chain."""
    for name, link in project.chain.items():
        yield task(
            project,
            name,
            LINKS[name],
            build,
            [name, link],
            inputs=Needs(
                files=[
                    *before(project, link).values(),
                    kernel.generated(project),
                    project.layout.config,
                    project.layout.toolchain_record,
                    *taken(project, link).values(),
                ],
                tools=[*kernel.TOOLS, *COMPRESSORS, *link.tools],
                settings={
                    "dir": link.dir,
                    "file": link.file,
                    "vars": link.vars,
                    **kernel.common_settings(project),
                },
            ),
            outputs=Makes(targets=[project.layout.images / name], place=project.layout.kernel_obj),
            store=Kept(when=kernel_config.stored(project), folders=record.folders),
        )


def before(project: Project, link: Link) -> dict[str, Path]:
    """Return the earlier images of the chain that a link is made from: name to path."""
    return {
        name: project.layout.images / name
        for name in [link.after, *(["System.map"] if link.symbols else [])]
    }


def taken(project: Project, link: Link) -> dict[str, Path]:
    """Return the root filesystem's images that a link includes: make variable to path."""
    images = {"initramfs": project.layout.initramfs, "rootfs": project.layout.rootfs}
    return {variable: images[image] for variable, image in link.takes.items()}


def build(job: Job, name: str, link: Link) -> dict[str, object]:
    """Build one link by Kbuild, copy it to images/NAME, and return its discovered inputs."""
    project = job.project
    obj = project.layout.kernel_obj
    kernel.put_config(job)
    file, inputs = file_of(obj, name), before(project, link)
    goal = Goal(
        name,
        file,
        [file],
        {file_of(obj, image): path for image, path in inputs.items()},
        beside(project, name),
    )
    # The architecture's Makefile computes what it hands over from vmlinux (MIPS's entry address).
    by_make_alone = link.takes or link.vars
    known = None if by_make_alone else attempt.taken(job, kernel.object_folder(job), goal)
    if known is None:
        by_make(job, name, link)
        file = file_of(obj, name)
    if not (obj / file).is_file():
        raise PiggyError(
            f"Kbuild made no {file} for the link '{name}'",
            f"see configs/chains.toml; log: {job.log}",
        )
    copy_whole(obj / file, project.layout.images / name)
    found = known or discovered(job, name, link.dir, file)
    goal_state.keep(obj, name, job.record(found), [file], project.stamps)
    way = "make" if known is None else "saved commands"
    work, placed = seconds.work_since(obj, job.started, way), map(str, obj.glob(PLACED))
    return {"discovered": found, "work": work, "holding": [*placed]}


def beside(project: Project, name: str) -> dict[str, str]:
    """Return the later links of which parts may be made beside the compressor: name to file.

    For any other link there are none: it does not take long.
    """
    if name != COMPRESSED:
        return {}
    found, last = dict[str, str](), name
    for other, link in project.chain.items():
        if link.after == last and not link.takes:
            last, found[other] = other, file_of(project.layout.kernel_obj, other)
    return {other: file for other, file in found.items() if file}


def by_make(job: Job, name: str, link: Link) -> None:
    """Bring one link up to date by make."""
    project, folder = job.project, kernel.object_folder(job)
    obj = folder.path
    # purge() may remove vmlinux, for which the boot folder has no rule.
    kernel.catch_up(job, folder.purge())
    drop_others(project, link)
    if file_of(obj, name):
        folder.restore(
            {file_of(obj, name): project.layout.images / name},
            spoilt=kernel.spoilt(job),
        )
    others = taken(project, link)
    if others:
        for hidden in link.hidden:
            (obj / hidden).unlink(missing_ok=True)

    def earlier_in_place() -> None:
        # A link may read the symbols of vmlinux, too. An edit during the build may have removed it.
        for earlier in dict.fromkeys(["vmlinux", link.after]):
            hand_over(project, earlier)

    folder.make(
        ["piggyback-link"],
        said=name,
        variables={variable: str(path.absolute()) for variable, path in others.items()},
        env={
            "MAKEFILES": os.fspath(make.LINK_RULES),
            "PIGGYBACK_DIR": link.dir,
            "PIGGYBACK_FILE": os.path.normpath(f"{link.dir}/{link.file}"),
            "PIGGYBACK_VARS": link.vars,
            "PIGGYBACK_SAY": str(resolved(obj, name).absolute()),
        },
        ready=earlier_in_place,
    )


def discovered(job: Job, name: str, folder: str, file: str) -> list[str]:
    """Return the inputs of a link by Kbuild's records: sources and makefiles, no earlier links.

    Args:
        job: The link's task.
        name: The link.
        folder: The folder whose Makefile makes the link.
        file: Kbuild's name of the link.
    """
    project, obj = job.project, job.project.layout.kernel_obj
    ends = [file_of(obj, other) for other in project.chain if other != name]
    commands = records.closure(obj, file, ["vmlinux", "vmlinux.unstripped", *filter(None, ends)])
    unsaid: set[str] = set()
    if not commands:  # Kbuild saves no command for it (MIPS's vmlinuz), so its whole folder counts
        commands = set(records.below(obj / folder))
        unsaid = {
            str(path)
            for path in (project.layout.kernel_src.resolve() / folder).iterdir()
            if path.is_file()
        }
    unsaid.update(path for _, path in trace.prerequisites(obj, name))
    unsaid.update(trace.makefiles(obj, project.layout.kernel_src, name))
    known = Depfiles(obj, project.layout.kernel_src, commands)
    # Files that symbols name stay: of the links, none declares them.
    return known.inputs(job.started, unsaid=unsaid)


def drop_others(project: Project, link: Link) -> None:
    """Remove Kbuild's files of earlier links that differ from images/, so that make makes them.

    If the image came from the store, Kbuild's file may be of another state, and newer than its
    inputs.
    """
    name, digest = link.after, project.stamps.digest
    while name in project.chain:
        file = file_of(project.layout.kernel_obj, name)
        if file and digest(project.layout.kernel_obj / file) != digest(
            project.layout.images / name
        ):
            (project.layout.kernel_obj / file).unlink(missing_ok=True)
        name = project.chain[name].after


def hand_over(project: Project, link: str) -> None:
    """Copy an earlier link from images/ into the object folder, unless both are equal.

    The copy gets mtime 0, so that make never considers it newer than the objects: else make would
    not link again when they change.
    """
    image, file = project.layout.images / link, file_of(project.layout.kernel_obj, link)
    mine = project.layout.kernel_obj / file
    if file and project.stamps.digest(mine) != project.stamps.digest(image):
        copy_whole(image, mine)
        os.utime(mine, (0, 0))
