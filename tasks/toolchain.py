"""The cross toolchain: found, unpacked or built by the provider that `toolchain=` names, and probed
before it is trusted.

distro      the distribution's gcc, and a libc from source    \\                    build/MACHINE/toolchain.json
path        a prefix, folder or SDK tarball of the user's own  |                   (what the kernel is built with)
bootlin     a prebuilt toolchain of Buildroot's                |-> probe -> toolchain
llvm        the distribution's clang and lld for the kernel    |                    build/MACHINE/userspace.json
buildroot   built from source by Buildroot (tasks/buildroot)  /                    (what user space is built with)
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType

from tasks.config.pins import Source
from tasks.config.project import Project
from tasks.graph.task import TaskDict, task
from tasks.toolchains.record import records


def provider(project: Project) -> ModuleType:
    """The module of the provider that is selected. Each answers the same: check, doc, sources,
    needs, build."""
    name = project.settings.toolchain
    place = "tasks.buildroot.provider" if name == "buildroot" else f"tasks.toolchains.{name}"
    return importlib.import_module(place)  # the others are not loaded


def sources(project: Project) -> list[Source]:
    """The pins that the provider needs."""
    return list(provider(project).sources(project))


def check(project: Project) -> None:
    """Raise PiggyError, before anything is built, for settings that the selected provider can't
    work with."""
    provider(project).check(project)


def packed(project: Project) -> list[str]:
    """The names of those pins that are no source trees, and are unpacked by the provider itself."""
    return (
        [source.name for source in sources(project)]
        if project.settings.toolchain == "bootlin"
        else []
    )


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield the task `toolchain`, and those that the provider has besides."""
    chosen = provider(project)
    if project.settings.toolchain == "buildroot":
        from tasks.buildroot import stage

        yield from stage.tasks(project)
    yield task(
        project,
        "toolchain",
        chosen.doc(project),
        chosen.build,
        targets=records(project),
        **chosen.needs(project),
    )
