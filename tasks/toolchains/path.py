"""A toolchain of the user's own: any prefix, a toolchain's folder, or the tarball of an SDK.

    toolchain_prefix=/opt/x/bin/arm-linux-   crosstool-NG's x-tools, a Yocto SDK, Linaro's and Arm's
                                             releases, ...
    toolchain_prefix=/opt/x                  the same, where /opt/x/bin holds one compiler
    toolchain_prefix=sdk.tar.gz              what `doit toolchain_export` packed: unpacked to
                                             build/toolchains/ID

Nothing is written to what the user named. The identity is the content of the tools, wherever they
lie.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tasks.config.pins import Source
from tasks.config.project import Project
from tasks.fetch import unpack
from tasks.graph.task import Job
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.toolchains import compiler, record, sdk
from tasks.toolchains.folder import key_files
from tasks.toolchains.record import Found

HINT = (
    "'toolchain_prefix=' takes a prefix such as /opt/x/bin/arm-linux-, a toolchain's folder, or its"
    " tarball"
)


def check(project: Project) -> None:
    """Raise PiggyError when nothing was named, or a tarball that is not there."""
    named = project.settings.toolchain_prefix
    if not named:
        raise PiggyError("toolchain=path needs to be told where the toolchain is", HINT)
    if sdk.is_tarball(named) and not (project.top / Path(named).expanduser()).is_file():
        raise PiggyError(
            f"{project.origins['toolchain_prefix']}: there is no toolchain {named}", HINT
        )


def doc(project: Project) -> str:
    """What `doit list` says."""
    return f"cross compiler {project.settings.toolchain_prefix}, probed"


def sources(project: Project) -> list[Source]:
    """It needs none of the pins."""
    return []


def needs(project: Project) -> dict[str, Any]:
    """What the task depends on, as words for `task`."""
    named = project.settings.toolchain_prefix
    return {
        "files": [
            *([Path(named).expanduser()] if sdk.is_tarball(named) else []),
            *kernel_files(project),
        ],
        "tools": compiler.programs(named) if named.endswith("-") else [],
        "settings": {
            "prefix": named,
            "arch": project.machine.arch,
            "build": os.path.abspath(project.layout.build),
        },
    }


def kernel_files(project: Project) -> list[Path]:
    """The file that tells the kernel's version: the headers in a toolchain must not be newer."""
    if not project.machine.userspace:
        return []
    if project.settings.kernel_src:
        return [project.layout.kernel_src / "Makefile"]
    return [unpack.stamp(project.layout.build, project.kernel_pin.name)]


def build(job: Job) -> dict[str, list[str]]:
    """Find the toolchain, and probe it."""
    project = job.project
    named = project.settings.toolchain_prefix
    path = Path(named).expanduser()
    made: list[str] = []
    if sdk.is_tarball(named):
        folder = sdk.install(project, path, project.stamps.digest(path), job.log)
        prefix, made = compiler.prefix_in(folder), key_files(folder)
    elif path.is_dir() and not named.endswith("-"):
        prefix = compiler.prefix_in(path.absolute())
    else:
        prefix = str(path.absolute()) if "/" in named else named
        prefix = prefix.removesuffix("gcc") if prefix.endswith("-gcc") else prefix
    if "/" in prefix and sdk.misplaced(Path(prefix).parents[1]):
        terminal.line(
            "note",
            f"{Path(prefix).parents[1]} is set up for {sdk.misplaced(Path(prefix).parents[1])}; its"
            f" {sdk.SCRIPT} would change that",
        )
    return record.finish(job, found(project, prefix, made))


def found(project: Project, prefix: str, made: list[str]) -> Found:
    """Describe the toolchain with that prefix.

    Its ID is the content of its tools and of its libc.
    """
    version, parts = compiler.compiler(prefix, HINT)
    ident = record.ident(version, *map(project.stamps.digest, parts))
    if not project.machine.userspace:
        return Found(ident, prefix, version, parts, made=made)
    libc = compiler.libc_parts(f"{prefix}gcc")
    user = record.ident(ident, *map(project.stamps.digest, libc))
    return Found(ident, prefix, version, [*parts, *libc], cc=f"{prefix}gcc", user=user, made=made)
