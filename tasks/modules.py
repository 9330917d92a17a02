"""Kernel modules: those of the tree, and an external one.

    vmlinux -> images/{vmlinux.symvers,modules.builtin,modules.builtin.modinfo} -+
    vmlinux -> images/vmlinux.generated (digests of generated headers) -----------+
    images/config ---------------------------------------------------------------+-> modules
    (sources that Kbuild's records name) ----------------------------------------+     v
                                                     images/{modules.tar,Module.symvers}
                                                                      |
    src=DIR ----------------------------------------------------------+-> module
    (headers, symbols, makefiles and programs it was made with) ------+     v
                                                            images/module.tar, *.ko

`modules` depends on the kernel's exported symbols, not on the kernel itself: an edit that changes
no exported symbol, no makefile and no header of a module does not run it. With src=, the root
filesystem has the external module in /lib/modules/*/extra.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks import kernel, kernel_config
from tasks.config.project import EPOCH, Project
from tasks.graph.task import Command, Job, Kept, Makes, Needs, TaskDict, task
from tasks.kbuild import module_inputs, module_source, trace
from tasks.kbuild.depfiles import PLACED
from tasks.kconfig import dotconfig
from tasks.system import owned, terminal
from tasks.system.errors import PiggyError
from tasks.system.files import copy_whole, write_whole
from tasks.system.pattern import pattern
from tasks.toolchains.record import folders as toolchain_folders

TOOLS = [*kernel.TOOLS, "depmod"]
HOST_LINKS = pattern(r"lib/modules/[^/]+/(build|source)")  # lead to folders of this host


def archive(project: Project) -> Path | None:
    """Return the archive of modules for the root filesystem; None if the kernel takes none."""
    if not kernel_config.modular(project):
        return None
    return project.layout.images / ("module.tar" if project.settings.src else "modules.tar")


def source(project: Project) -> Path:
    """Return the absolute path of the external module's folder."""
    return Path(os.path.abspath(project.top / Path(project.settings.src).expanduser()))


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `modules`, if the kernel takes modules, and `module`."""
    symvers = project.layout.images / "Module.symvers"
    if kernel_config.modular(project):
        yield task(
            project,
            "modules",
            "the kernel's modules, with modules.dep, as they go into the root filesystem",
            build,
            inputs=Needs(
                files=[
                    *kernel.module_facts(project),
                    kernel.generated(project),
                    project.layout.config,
                    project.layout.toolchain_record,
                ],
                tools=TOOLS,
                settings=kernel.common_settings(project),
                trees={"": lambda: {**kernel.version_files(project), **signed_with(project)}},
            ),
            outputs=Makes(
                targets=[project.layout.images / "modules.tar", symvers],
                place=project.layout.kernel_obj,
            ),
            store=Kept(when=kernel_config.stored(project), folders=toolchain_folders),
        )
    if kernel_config.modular(project) and project.settings.src:
        yield task(
            project,
            "module",
            f"the module in {project.settings.src}, against the current kernel",
            build_outside,
            inputs=Needs(
                files=[
                    project.layout.images / "modules.tar",
                    symvers,
                    project.layout.toolchain_record,
                ],
                tools=TOOLS,
                config=project.layout.config,
                trees={"module": lambda: sources_of(project), "": lambda: signed_with(project)},
                settings={"src": source(project), **kernel.common_settings(project)},
            ),
            outputs=Makes(
                targets=[project.layout.images / "module.tar"], place=project.layout.kernel_obj
            ),
        )
    else:
        yield task(
            project,
            "module",
            "an external module against the current kernel: module src=DIR",
            explain,
            command=Command(),
        )


def signed_with(project: Project) -> dict[str, str]:
    """Return the states of files that go into modules besides their sources.

    These are files that symbols name, and the generated key, which signs modules and is part of
    vmlinux.
    """
    named = kernel.files_named(project)
    return {
        **named.states(modules=True),
        **{path: project.stamps.digest(path) for path in named.made},
    }


def build(job: Job) -> dict[str, object]:
    """Build and install the modules by Kbuild, pack them, and return their inputs.

    A .ko that was changed since the last run is made again.
    """
    project, folder = job.project, kernel.object_folder(job)
    obj = folder.path
    kernel.put_config(job)
    if dotconfig.read_config(project.layout.config).get("MODULES") != "y":
        _install(job, False, project.layout.images / "modules.tar")
        write_whole(project.layout.images / "Module.symvers", b"")
        return {}
    folder.purge()
    for path, digest in job.previous.get("record", {}).get("outputs", {}).items():
        if (
            path.endswith(".ko")
            and owned.below(path, os.fspath(project.layout.build))
            and project.stamps.digest(path) != digest
        ):
            Path(path).unlink(missing_ok=True)
    folder.restore(
        {"Module.symvers": project.layout.images / "Module.symvers"}, spoilt=kernel.spoilt(job)
    )
    count = folder.make(
        # Make reads the exported symbols from vmlinux.o, which may have been removed.
        ["vmlinux", "modules", trace.GOAL],
        said=module_inputs.GOAL,
        prepares=True,
        named=kernel.files_named(project).digests(),
        label="modules",
        expected=int(job.previous.get("commands", 0)),
    )
    order = (obj / "modules.order").read_text().split()
    made = [str(obj / re.sub(r"\.o$", ".ko", name)) for name in order]
    _install(job, True, project.layout.images / "modules.tar")
    copy_whole(obj / "Module.symvers", project.layout.images / "Module.symvers")
    terminal.line("modules", f"{len(made)} of them" if made else "the configuration has none")
    found = module_inputs.of_tree(obj, project.layout.kernel_src, job.started)
    return {
        "commands": max(count, int(job.previous.get("commands", 0))),
        "made": made,
        "unsure": kernel.unsure(project),
        "holding": [str(path) for path in obj.glob(PLACED)],
        "discovered": [*found, *_described_by(project)],
    }


def _install(job: Job, built: bool, target: Path) -> None:
    """Install the modules by Kbuild into a temporary folder, and pack that.

    Args:
        job: The task's job.
        built: Whether there are modules; else the archive is empty.
        target: The archive.
    """
    from tasks.filesystem import tar

    project = job.project
    with tempfile.TemporaryDirectory(prefix=".modules.", dir=project.layout.here) as stage:
        if built:
            kernel.object_folder(job).ask(
                ["modules_install"],
                variables={"INSTALL_MOD_STRIP": "1", "INSTALL_MOD_PATH": os.path.abspath(stage)},
            )
        tar.pack(Path(stage), target, EPOCH, wanted=lambda path: not HOST_LINKS.fullmatch(path))


def explain(job: Job) -> None:
    """Raise the error of `doit module` if there is nothing to build.

    Raises:
        PiggyError: There is no src=, or the kernel takes no modules.
    """
    project = job.project
    if not project.settings.src:
        raise PiggyError(
            "'module' builds a module of your own, and needs to know where it is",
            "doit module src=DIR; DIR holds its Kbuild file or Makefile with obj-m",
        )
    raise PiggyError(
        "this kernel takes no modules",
        "add CONFIG_MODULES=y to a fragment, for instance "
        f"{project.layout.kernel_fragment}, or name one: fragments=modules",
    )


def sources_of(project: Project) -> Mapping[str, str]:
    """Return the sources of the external module (see kbuild/module_source.py) with their digests.

    Raises:
        PiggyError: The folder has neither Kbuild nor Makefile.
    """
    top = source(project)
    if not any((top / name).is_file() for name in ("Kbuild", "Makefile")):
        raise PiggyError(
            f"{project.origins['src']}: src={project.settings.src} has neither Kbuild nor Makefile",
            "it names the folder of an external module; its Kbuild file says obj-m := NAME.o",
        )
    return {
        name: project.stamps.digest(path)
        for name, path in module_source.files(top.resolve()).items()
    }


def build_outside(job: Job) -> dict[str, object]:
    """Build the external module in a copy of its folder, and pack it with the tree's modules.

    Nothing is written into the user's folder.
    """
    from tasks.filesystem import tar

    project, obj = job.project, job.project.layout.kernel_obj
    sources_of(project)
    work = module_source.copy(
        module_source.files(source(project).resolve()),
        source(project).name,
        project.layout.here / "module",
    )
    kernel.put_config(job)
    if project.stamps.digest(obj / "Module.symvers") != project.stamps.digest(
        project.layout.images / "Module.symvers"
    ):
        copy_whole(project.layout.images / "Module.symvers", obj / "Module.symvers")
    folder, work_at = kernel.object_folder(job), {"M": str(work.absolute())}
    folder.ask(["modules"], variables=work_at)
    built = sorted(work.rglob("*.ko"))
    if not built:
        raise PiggyError(
            f"{project.settings.src} gave no module",
            "its Kbuild file or Makefile says obj-m := NAME.o",
        )
    for module in built:
        copy_whole(module, project.layout.images / module.name)
        terminal.line("module", str(project.layout.images / module.name))
    with tempfile.TemporaryDirectory(prefix=".modules.", dir=project.layout.here) as stage:
        tar.unpack(project.layout.images / "modules.tar", Path(stage))
        folder.ask(
            ["modules_install"],
            variables={
                **work_at,
                "INSTALL_MOD_PATH": os.path.abspath(stage),
                "INSTALL_MOD_STRIP": "1",
                "INSTALL_MOD_DIR": "extra",
            },
        )
        tar.pack(
            Path(stage),
            project.layout.images / "module.tar",
            EPOCH,
            wanted=lambda path: not HOST_LINKS.fullmatch(path),
        )
    return {
        "made": [str(project.layout.images / module.name) for module in built],
        "discovered": [
            *module_inputs.of_outside(
                obj,
                project.layout.kernel_src,
                project.layout.here / "module",
                work,
                dotconfig.read_config(project.layout.config),
            ),
            *_described_by(project),
        ],
    }


def _described_by(project: Project) -> list[str]:
    """Return vmlinux if modules have their types as differences from those of vmlinux (BTF)."""
    types = dotconfig.read_config(project.layout.config).get("DEBUG_INFO_BTF_MODULES")
    return [str(project.layout.images / "vmlinux")] if types == "y" else []
