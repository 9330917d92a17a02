"""The cross toolchain: found, unpacked or built by a provider, and probed before it is trusted.

`toolchain=` names the provider:

    distro      the distribution's gcc, and a libc from source
    path        a prefix, folder or SDK tarball of the user's own
    bootlin     a prebuilt toolchain of Buildroot's
    llvm        the distribution's clang and lld for the kernel
    buildroot   built from source by Buildroot (tasks/buildroot)

    provider -> probe -> toolchain -> build/MACHINE/toolchain.json   what the kernel is built with
                                   -> build/MACHINE/userspace.json   what user space is built with
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType

from tasks.config.pins import Source
from tasks.config.project import Project
from tasks.graph.task import Makes, Needs, TaskDict, task
from tasks.toolchains.record import records


def provider(project: Project) -> ModuleType:
    """Return the module of the selected provider; the others are not imported.

    Every provider has the functions `check`, `doc`, `sources`, `needs` and `build`.

    Args:
        project: The project, whose setting `toolchain` names the provider.
    """
    name = project.settings.toolchain
    module = "tasks.buildroot.provider" if name == "buildroot" else f"tasks.toolchains.{name}"
    return importlib.import_module(module)


def sources(project: Project) -> list[Source]:
    """Return the pins of the sources that the selected provider needs."""
    return list(provider(project).sources(project))


def check(project: Project) -> None:
    """Check the settings of the selected provider, before anything is built.

    Raises:
        PiggyError: The provider can't work with the settings or the machine.
    """
    provider(project).check(project)


def packed(project: Project) -> list[str]:
    """Return the names of the sources that the provider unpacks itself, being no source trees."""
    return (
        [source.name for source in sources(project)]
        if project.settings.toolchain == "bootlin"
        else []
    )


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield the task `toolchain`, after the provider's own tasks if it has any."""
    chosen = provider(project)
    if project.settings.toolchain == "buildroot":
        from tasks.buildroot import stage

        yield from stage.tasks(project)
    yield task(
        project,
        "toolchain",
        chosen.doc(project),
        chosen.build,
        inputs=Needs(**chosen.needs(project)),
        outputs=Makes(targets=records(project)),
    )
