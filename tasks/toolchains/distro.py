"""The provider `distro`: the distribution's cross gcc, and for user space a libc from source.

distribution's TRIPLE-gcc -+
libc (see libc.py) --------+-> toolchain -> toolchain.json, userspace.json
"""

from __future__ import annotations

from typing import Any

from tasks.config.pins import Source
from tasks.config.project import Project
from tasks.graph.task import Job
from tasks.toolchains import compiler, libc, record
from tasks.toolchains.record import Found


def check(project: Project) -> None:
    """Check that the machine is set up for the selected libc.

    Raises:
        PiggyError: It is not.
    """
    libc.check(project)


def doc(project: Project) -> str:
    """Return the line for `doit list`."""
    gcc = f"cross compiler {project.machine.triple}-gcc"
    name = "uClibc-ng" if libc.selected(project) == "uclibc" else "musl"
    return f"{gcc} with a static {name}, probed" if project.machine.userspace else gcc


def sources(project: Project) -> list[Source]:
    """Return the pin of the libc's source."""
    return libc.sources(project)


def needs(project: Project) -> dict[str, Any]:
    """Return what the task `toolchain` depends on, as arguments for `task`."""
    programs = compiler.programs(f"{project.machine.triple}-")
    settings = {"triple": project.machine.triple}
    if not project.machine.userspace:
        return {"tools": programs, "settings": settings}
    more = libc.needs(project)
    return {
        **more,
        "tools": [*more["tools"], *programs],
        "settings": {**settings, **more["settings"]},
    }


def build(job: Job) -> dict[str, list[str]]:
    """Find the compiler, build the libc unless that ID is there, and probe the result.

    Returns:
        What the task learned: the files that it found and made.
    """
    triple = job.project.machine.triple
    version, parts = compiler.compiler(f"{triple}-", hint(triple))
    ident = record.ident(version, *map(job.project.stamps.digest, parts))
    if not job.project.machine.userspace:
        return record.finish(job, Found(ident, f"{triple}-", version, parts))
    user, cc, more, made = libc.userspace(job, version, parts)
    return record.finish(
        job, Found(ident, f"{triple}-", version, [*parts, *more], cc=cc, user=user, made=made)
    )


def hint(triple: str) -> str:
    """Return the hint for a missing cross compiler of the distribution."""
    return f"'doit setup' installs it (package gcc-{triple.replace('_', '-')} on Debian)"
