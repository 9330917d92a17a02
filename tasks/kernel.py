"""The kernel proper.

images/config -+
toolchain -----+-> vmlinux -> images/{vmlinux,System.map}
sources -------+   (and what Kbuild's depfiles say it was really made from, and what symbols name:
                    firmware, keys, ...)
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tasks import kernel_config
from tasks.config.project import EPOCH, Project
from tasks.graph.task import Job, Kept, Makes, Needs, TaskDict, task
from tasks.kbuild import (
    configure,
    goal_state,
    make,
    manifest,
    named_files,
    seconds,
    trace,
    unrecorded,
)
from tasks.kbuild.depfiles import PLACED, Depfiles
from tasks.kbuild.object_folder import PRESENT, ObjectFolder
from tasks.kconfig import dotconfig, fragments
from tasks.shortway import attempt
from tasks.shortway.conditions import Goal
from tasks.shortway.refresh import refresh_others
from tasks.system.errors import PiggyError
from tasks.system.files import changed, copy_whole, write_whole
from tasks.toolchains import record

COMPRESSED = "piggy.gz"  # the link that the compressor makes
TOOLS = [*kernel_config.TOOLS, "ld", "bc", "perl", "sed", "awk"]
# Measured on small configurations of 6.1; used for the first progress bar only.
COMMANDS_PER_SYMBOL = 2.6


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield the task `vmlinux`."""
    yield task(
        project,
        "vmlinux",
        "the kernel proper, an ELF file, and its System.map",
        build,
        inputs=Needs(
            files=[
                project.layout.config,
                project.layout.toolchain_record,
                *kernel_config.source_files(project),
                *inside(project),
            ],
            tools=TOOLS,
            settings=common_settings(project),
            trees={"": lambda: {**version_files(project), **files_named(project).states()}},
        ),
        outputs=Makes(
            targets=[
                project.layout.images / "vmlinux",
                project.layout.images / "System.map",
                generated(project),
                *module_facts(project),
            ],
            place=project.layout.kernel_obj,
        ),
        store=Kept(
            when=kernel_config.stored(project),
            gone=[project.layout.kernel_obj / PRESENT],
            folders=record.folders,
        ),
    )


def inside(project: Project) -> list[Path]:
    """Return the initramfs if it is built into the kernel.

    Raises:
        PiggyError: It is packed, and the kernel's configuration names one that is not.
    """
    if not project.machine.kernel.initramfs:
        return []
    if project.settings.initramfs != "none":
        raise PiggyError(
            f"{project.origins['initramfs']}: initramfs={project.settings.initramfs}, and the"
            f" machine '{project.settings.machine}' builds it into the kernel, which packs it",
            "initramfs=none",
        )
    return [project.layout.initramfs]


def generated(project: Project) -> Path:
    """Return the file with the digests of the headers that are generated on the way to vmlinux.

    Links and modules include them, too, and no .cmd file says what they are made from. Such a
    header may change, and vmlinux stay as it is: x86's asm-offsets.h has offsets for the loader.
    """
    return project.layout.images / "vmlinux.generated"


def module_facts(project: Project) -> list[Path]:
    """Return the files about vmlinux that modules need; none if the kernel takes no modules.

    They have the exported symbols, and the names and parameters of built-in modules.
    """
    names = ("vmlinux.symvers", "modules.builtin", "modules.builtin.modinfo")
    return (
        [project.layout.images / name for name in names] if kernel_config.modular(project) else []
    )


def common_settings(project: Project) -> dict[str, object]:
    """Return the inputs of each call to the kernel's Makefile that are no files."""
    return {
        "pins": kernel_config.flat(make.pins(EPOCH)),
        "arch": project.machine.arch,
        "tree": Path(project.layout.kernel_place),
        "variables": kernel_config.flat(project.machine.kernel.variables),
    }


def build(job: Job) -> dict[str, object]:
    """Bring vmlinux up to date by Kbuild, and return its inputs from Kbuild's records."""
    project, obj = job.project, job.project.layout.kernel_obj
    put_config(job)
    refuse_missing(project)
    images = {name: project.layout.images / name for name in ("vmlinux", "System.map")}
    facts = module_facts(project)
    folder = object_folder(job)
    named = files_named(project).states()
    goal = Goal("vmlinux", "vmlinux", outputs(project), then=to_compressed(project), named=named)
    count, known = 0, attempt.taken(job, folder, goal)
    if known is None:
        count = by_make(job, images, facts)
    else:
        folder.set_present(True)
    for name, image in images.items():
        copy_whole(obj / name, image)
    write_whole(generated(project), unrecorded.generated(obj, project.stamps.digest))
    for image in facts:
        write_whole(image, (obj / image.name).read_bytes() if (obj / image.name).exists() else b"")
    inputs = known or discovered(job)
    goal_state.keep(obj, "vmlinux", job.record(inputs), outputs(project), project.stamps)
    return {
        "commands": max(count, int(job.previous.get("commands", 0))),
        "unsure": unsure(project),
        "made": files_named(project).made,
        "holding": [str(one) for x in ("vmlinux.unstripped", PLACED) for one in obj.glob(x)],
        "work": seconds.work_since(obj, job.started, "make" if known is None else "saved commands"),
        "discovered": inputs,
    }


def to_compressed(project: Project) -> list[tuple[str, str]]:
    """Return the links from vmlinux to the compressed kernel, each with Kbuild's name of its file.

    There are none if the image that is booted is not made from it, or a link takes more than what
    the link before it made.
    """
    names = [*project.chain]
    if COMPRESSED not in names or project.image not in names[names.index(COMPRESSED) :]:
        return []
    names = names[: names.index(COMPRESSED) + 1]
    if any(project.chain[name].takes or project.chain[name].vars for name in names):
        return []
    return [(name, file_of(project.layout.kernel_obj, name)) for name in names]


def resolved(obj: Path, link: str) -> Path:
    """Return the path of the file that has Kbuild's name of a link."""
    return obj / f"piggyback.{link}"


def file_of(obj: Path, link: str) -> str:
    """Return Kbuild's name of a link's file, as of its last run; "" before the first one.

    One that was cut short has no end of the line, and counts as none.
    """
    if link in ("vmlinux", "System.map"):
        return link
    try:
        name, end, _ = resolved(obj, link).read_text(errors="replace").partition("\n")
    except FileNotFoundError:
        return ""
    return name.strip() if end else ""


def outputs(project: Project) -> list[str]:
    """Return Kbuild's names of what is made with vmlinux."""
    facts = (image.name for image in module_facts(project))
    there = [name for name in facts if (project.layout.kernel_obj / name).exists()]
    return ["vmlinux", "System.map", *there]


def object_folder(job: Job) -> ObjectFolder:
    """Return the kernel's object folder."""
    project = job.project
    return ObjectFolder(
        project.layout.kernel_src,
        project.layout.kernel_obj,
        kernel_config.variables(project),
        project.jobs,
        project.stamps,
        job.log,
        project.store,
        record.read(project).id,
    )


def by_make(job: Job, images: Mapping[str, Path], facts: Sequence[Path]) -> int:
    """Bring vmlinux up to date by make, and return the number of commands."""
    project, folder = job.project, object_folder(job)
    folder.purge()
    # One command makes System.map and vmlinux, or vmlinux.unstripped since 7.3.
    folder.restore(images, spoilt=spoilt(job), also=("vmlinux", "vmlinux.unstripped"))
    folder.restore({image.name: image for image in facts}, spoilt=spoilt(job))
    named_files.forget(folder.path)
    vmlinux, before = folder.path / "vmlinux", changed(folder.path / "vmlinux")
    digest = project.stamps.digest(vmlinux)
    count = folder.make(
        ["vmlinux", trace.GOAL],
        said="vmlinux",
        prepares=True,
        named=files_named(project).digests(),
        label="vmlinux",
        expected=int(job.previous.get("commands", 0)) or first_guess(project.layout.config),
    )
    folder.set_present(True)
    if before > 0 and changed(vmlinux) != before and project.stamps.digest(vmlinux) == digest:
        renew_links(folder, before)
    return count


def renew_links(folder: ObjectFolder, before: int) -> None:
    """Give new times to the links, of which vmlinux was made again with the same content.

    Else plain make would make them again; a link that was stale before stays so.

    Args:
        folder: The object folder, after make.
        before: The mtime of the vmlinux before, ns since 1970. One that was put there (mtime 0)
            says nothing of the links.
    """
    obj, started = folder.path, time.time_ns()
    traces = trace.read(obj)
    renewed = refresh_others(obj, folder.tree, traces, "vmlinux", {"vmlinux": before})
    for name in renewed:
        trace.learn(obj, traces, name, folder.stamps)
    if renewed:
        manifest.update(obj, renewed, started)
        trace.write(obj, traces)


def catch_up(job: Job, lost: Iterable[str]) -> None:
    """Bring the object folder to the state of images/vmlinux by make, before a link is made.

    That is needed if vmlinux came from the store and the folder is missing or has another state, or
    if the folder lacks a file that is made only on the way to vmlinux: headers and programs that
    the links use, too.

    Args:
        job: The task's job.
        lost: Missing and removed files, relative to the folder.

    Raises:
        PiggyError: Make made another vmlinux.
    """
    project = job.project
    folder, image = object_folder(job), project.layout.images / "vmlinux"
    lost = [
        name
        for name in lost
        if not make.LOADER.search(f"/{name}") and name not in ("vmlinux", "System.map")
    ]
    if folder.present and not lost:
        return
    with job.log.open("a", encoding="utf-8") as log:
        log.write(
            f"# vmlinux first: {min(lost, default='the object folder')} is not as vmlinux was made"
            " with it\n"
        )
    by_make(job, {name: project.layout.images / name for name in ("vmlinux", "System.map")}, [])
    if project.stamps.digest(folder.path / "vmlinux") != project.stamps.digest(image):
        folder.set_present(False)
        project.store.refuse(project.stamps.digest(image))
        image.unlink(missing_ok=True)
        raise PiggyError(
            "the vmlinux that was kept is not what make makes from the same files; it was"
            " thrown out",
            "run doit again, and please report it, with the edits before it",
        )


def unsure(project: Project) -> bool:
    """Tell whether the kernel has unrecorded inputs; it is then not put into the store."""
    return unrecorded.unrecorded(dotconfig.read_config(project.layout.config))


def files_named(project: Project) -> named_files.Named:
    """Return the files that symbols of the current configuration name, generated keys included."""
    return named_files.find(
        project.layout.config, project.layout.kernel_src, project.layout.kernel_obj, project.stamps
    )


def without_named(project: Project, found: Iterable[str]) -> list[str]:
    """Remove the files of `files_named` from discovered inputs, as they are declared inputs."""
    states = files_named(project).states()
    return [path for path in found if path not in states]


def refuse_missing(project: Project) -> None:
    """Check that the files exist that symbols name.

    Raises:
        PiggyError: A file is missing.
    """
    missing = files_named(project).missing
    if not missing:
        return
    requests = fragments.merge(kernel_config.tree(project).all_paths).requests
    lines = [file.text for file in missing]
    first = missing[0].symbol
    where = requests[first].where if first in requests else "the kernel's own default"
    raise PiggyError(
        "\n    ".join(lines),
        f"CONFIG_{first} comes from {where}; put the file there, or name another one",
    )


def version_files(project: Project) -> dict[str, str]:
    """Return the localversion* files, each with its digest.

    What only make can tell whether it changed, such as git's state with CONFIG_LOCALVERSION_AUTO,
    has an entry that differs each time.
    """
    paths = unrecorded.version_files(project.layout.kernel_src, project.layout.kernel_obj)
    states = {str(path): project.stamps.digest(path) for path in paths}
    try:
        config = project.layout.config.read_bytes()
    except FileNotFoundError:
        return states
    unknown = unrecorded.looked_at(config, project.layout.kernel_src)
    return {**states, **{what: str(time.time_ns()) for what in unknown}}


def discovered(job: Job) -> list[str]:
    """Return the inputs of vmlinux by Kbuild's records: sources, makefiles and scripts."""
    project = job.project
    known = Depfiles(project.layout.kernel_obj, project.layout.kernel_src)
    modules = set(known.of_modules())
    records = [
        path for path in known.records if path not in modules and in_vmlinux(path, known.records)
    ]
    obj, tree = project.layout.kernel_obj, project.layout.kernel_src
    unsaid = {path for _, path in trace.prerequisites(obj, "vmlinux")}
    unsaid |= trace.makefiles(obj, tree, "vmlinux")
    return without_named(project, known.inputs(job.started, records, unsaid))


def in_vmlinux(record: str, records: Collection[str]) -> bool:
    """Tell by its folder whether the target of a .cmd file is part of vmlinux.

    Below boot/ only a built-in device tree is: it has an object beside X.dtb (cmd_dt_S_dtb in
    scripts/Makefile.lib).

    Args:
        record: The .cmd file.
        records: All .cmd files.
    """
    if not make.LOADER.search(record):
        return True
    tree = re.fullmatch(r"(.+\.dtb)(\.S|\.o)?\.cmd", record)
    return tree is not None and f"{tree[1]}.o.cmd" in records


def put_config(job: Job) -> None:
    """Put the current configuration into the object folder; empty the folder of another tree."""
    tree = kernel_config.tree(job.project)
    configure.fresh(tree)
    if configure.put(tree.full, tree.obj / ".config"):
        configure.run_goal(job, tree, "syncconfig")


def first_guess(config: Path) -> int:
    """Estimate how many commands a first build takes, from the number of symbols that are set."""
    return int(
        COMMANDS_PER_SYMBOL * sum(value == "y" for value in dotconfig.read_config(config).values())
    )


def spoilt(job: Job) -> bool:
    """Tell whether Kbuild's own outputs are not to be trusted: make does not see what changed."""
    unseen = ("never", "outputs", "tools")
    return any(one.part in unseen or unrecorded.is_script(one.name) for one in job.reasons)
