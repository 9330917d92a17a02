"""The provider `path`: a toolchain of the user's own.

    toolchain_prefix=/opt/x/bin/arm-linux-   crosstool-NG's x-tools, a Yocto SDK, Linaro's and Arm's
                                             releases, ...
    toolchain_prefix=/opt/x                  the same, where /opt/x/bin holds one compiler
    toolchain_prefix=sdk.tar.gz              a tarball that `doit toolchain_export` packed; it is
                                             unpacked to build/toolchains/ID

Nothing is written into the user's folders. The identity is the content of the tools, wherever they
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
    """Check that a toolchain is named, and that a tarball exists.

    Raises:
        PiggyError: None is named, or the tarball is missing.
    """
    named = project.settings.toolchain_prefix
    if not named:
        raise PiggyError("toolchain=path needs to be told where the toolchain is", HINT)
    if sdk.is_tarball(named) and not (project.top / Path(named).expanduser()).is_file():
        raise PiggyError(
            f"{project.origins['toolchain_prefix']}: there is no toolchain {named}", HINT
        )


def doc(project: Project) -> str:
    """Return the line for `doit list`."""
    return f"cross compiler {project.settings.toolchain_prefix}, probed"


def sources(project: Project) -> list[Source]:
    """Return no pins: nothing is fetched."""
    return []


def needs(project: Project) -> dict[str, Any]:
    """Return what the task `toolchain` depends on, as arguments for `task`."""
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
    """Return the file that tells the kernel's version; a toolchain's headers must not be newer."""
    if not project.machine.userspace:
        return []
    if project.settings.kernel_src:
        return [project.layout.kernel_src / "Makefile"]
    return unpack.standing_for(project.layout.kernel_src, "")


def build(job: Job) -> dict[str, list[str]]:
    """Find the toolchain, unpack it if it is a tarball, and probe it.

    Returns:
        What the task learned: the files that it found and made.
    """
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
    return record.finish(job, describe(project, prefix, made))


def describe(project: Project, prefix: str, made: list[str]) -> Found:
    """Describe the toolchain with a prefix; its ID comes from the content of its tools and libc.

    Args:
        project: The project.
        prefix: The prefix of its compiler.
        made: Files of it that the provider made.

    Raises:
        PiggyError: The compiler is missing or incomplete.
    """
    version, parts = compiler.compiler(prefix, HINT)
    ident = record.ident(version, *map(project.stamps.digest, parts))
    if not project.machine.userspace:
        return Found(ident, prefix, version, parts, made=made)
    libc = compiler.libc_parts(f"{prefix}gcc")
    user = record.ident(ident, *map(project.stamps.digest, libc))
    return Found(ident, prefix, version, [*parts, *libc], cc=f"{prefix}gcc", user=user, made=made)
