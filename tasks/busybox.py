"""Busybox: one static program for all of user space.

    configs/busybox/*.config -+
    toolchain ----------------+-> busybox_config -> images/{busybox.miniconfig,busybox.config}
    _unpack:busybox ----------+
                                  busybox_config -> busybox -> images/{busybox,busybox.links}
                                  (its inputs include the sources in Kbuild's depfiles)

busybox_menuconfig edits the configuration in force, and keeps the changes in
configs/busybox/local/MACHINE.config.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tasks.config.project import Project
from tasks.fetch import unpack
from tasks.graph.task import Job, Kept, Makes, Needs, TaskDict, task
from tasks.kbuild import configure as configuration
from tasks.kbuild.configure import Kconfig, by_contract, fresh, put
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.object_folder import ObjectFolder
from tasks.kconfig import fragments
from tasks.system.files import copy_whole
from tasks.toolchains import record

TOOLS = ["make", "gcc", "sed", "awk"]


def fragment_paths(project: Project) -> tuple[Path, ...]:
    """Return the fragments in order: those of the setting, or else the machine's.

    Before each come those that it includes.
    """
    own = (
        Path("configs") / "busybox" / f"{name}.config" for name in project.machine.busybox.fragments
    )
    return fragments.with_included(project.busybox_fragments or own)


def base(project: Project) -> str:
    """Return the configuration target to start from; the setting's fragments start from nothing."""
    return "allnoconfig" if project.busybox_fragments else project.machine.busybox.base


def source_files(project: Project) -> list[Path]:
    """Return the file that stands for the busybox tree as an input; none for one of the user's."""
    return unpack.standing_for(project.layout.busybox_src, project.settings.busybox_src)


def tree(project: Project) -> Kconfig:
    """Return busybox as a tree to configure."""
    tool = record.read_user(project)
    return Kconfig(
        "busybox",
        project.layout.busybox_src,
        project.layout.busybox_obj,
        base(project),
        fragment_paths(project),
        project.layout.busybox_fragment,
        {"CROSS_COMPILE": tool.prefix, "CC": tool.cc, "ARCH": project.machine.arch},
        project.layout.busybox_config,
        project.layout.busybox_miniconfig,
        top="Config.in",
        generated=True,
        takes_miniconfig=False,
        tools=tool.id,
    )


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `busybox_config`, `busybox_menuconfig` and `busybox` for a machine with user space."""
    if not project.machine.userspace:
        return
    tree_settings = {
        "arch": project.machine.arch,
        "cflags": project.machine.cflags,
        "tree": Path(project.layout.busybox_place),
    }
    yield from configuration.tasks(
        project,
        "busybox",
        {"config": configure, "menuconfig": menuconfig},
        paths=fragments.present(fragment_paths(project), project.layout.busybox_fragment),
        inputs=Needs(
            files=[*source_files(project), project.layout.userspace_record],
            settings={"base": base(project), **tree_settings},
            tools=TOOLS,
        ),
        outputs=Makes(
            targets=[project.layout.busybox_config, project.layout.busybox_miniconfig],
            place=project.layout.busybox_obj,
        ),
        store=Kept(folders=record.folders),
    )
    yield task(
        project,
        "busybox",
        "busybox, static and stripped, with the list of its links",
        build,
        inputs=Needs(
            files=[
                project.layout.busybox_config,
                project.layout.userspace_record,
                *source_files(project),
            ],
            tools=TOOLS,
            settings=tree_settings,
        ),
        outputs=Makes(
            targets=[project.layout.images / "busybox", project.layout.images / "busybox.links"],
            place=project.layout.busybox_obj,
        ),
        store=Kept(folders=record.folders),
    )


def configure(job: Job) -> dict[str, list[str]]:
    """Configure by contract (see kbuild/configure.py).

    Returns:
        What the task learned: the tree's Config files.

    Raises:
        PiggyError: A request did not take.
    """
    project = job.project
    by_contract(job, tree(project))
    return {
        "discovered": sorted(
            str(path) for path in project.layout.busybox_src.resolve().rglob("Config.*")
        )
    }


def menuconfig(job: Job) -> None:
    """Edit the configuration in force (see kbuild/menuconfig.py)."""
    from tasks.kbuild.menuconfig import edit

    edit(job, tree(job.project))


def build(job: Job) -> dict[str, object]:
    """Build busybox out of tree, and take its sources from Kbuild's records.

    Returns:
        What the task learned: the sources, and the number of commands for the next progress bar.
    """
    project, box = job.project, tree(job.project)
    flags = ["-static", *project.machine.cflags.split()]
    folder = ObjectFolder(
        box.source,
        box.obj,
        {
            **box.variables,
            "EXTRA_CFLAGS": project.machine.cflags,
            "LDFLAGS": " ".join(flags),
            "KCONFIG_NOTIMESTAMP": "1",
        },
        project.jobs,
        project.stamps,
        job.log,
    )
    outputs = {name: project.layout.images / name for name in ("busybox", "busybox.links")}
    fresh(box)
    put(project.layout.busybox_config, box.obj / ".config")
    folder.purge()
    folder.restore(outputs, spoilt=any(reason.part == "outputs" for reason in job.reasons))
    count = folder.make(
        [*outputs],
        apart=True,  # with O= each goal is a make of its own, and two at once would collide
        label="busybox",
        expected=int(job.previous.get("commands", 0)),
    )
    for name, image in outputs.items():
        copy_whole(box.obj / name, image)
    known = Depfiles(box.obj, box.source)
    return {
        "commands": max(count, int(job.previous.get("commands", 0))),
        "discovered": known.inputs(job.started),
        "holding": [str(box.obj / "busybox_unstripped")],
    }
