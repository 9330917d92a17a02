"""The provider `bootlin`: toolchains that Bootlin builds with Buildroot and publishes.

configs/bootlin.toml -> fetch:bootlin-ARCH-LIBC -> dl/
  -> toolchain -> build/toolchains/ID/ (relocated by its own script)
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from tasks.config import toml
from tasks.config.pins import Sha256, Source
from tasks.config.project import Project
from tasks.fetch import obtain
from tasks.graph.task import Job
from tasks.system.errors import PiggyError
from tasks.toolchains import compiler, path, record, sdk
from tasks.toolchains.folder import key_files

DATA = "configs/bootlin.toml"


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of configs/bootlin.toml: the address and hash of every toolchain.

    Attributes:
        url: The address, with {arch}, {libc} and {version} in it.
        version: The release of all toolchains.
        sha256: The hashes, by architecture and libc.
    """

    url: str
    version: str
    sha256: dict[str, dict[str, Sha256]]


def libc(project: Project) -> str:
    """Return Bootlin's name of the libc that the settings select."""
    return "uclibc" if project.settings.libc == "auto" else project.settings.libc


def pin(project: Project) -> Source:
    """Return the pinned toolchain for the selected machine and libc.

    Raises:
        PiggyError: Bootlin has none.
    """
    table = toml.convert(toml.read(project.top / DATA), Table, DATA)
    arch, which = project.machine.toolchain.bootlin, libc(project)
    if not arch:
        raise PiggyError(
            f"Bootlin has no toolchain for the machine '{project.settings.machine}': its file names"
            " none",
            "[toolchain] bootlin = \"ARCH\" in the machine's file, or another 'toolchain='",
        )
    known = table.sha256.get(arch, {})
    if which not in known:
        raise PiggyError(
            f"{DATA} has no toolchain for {arch} with {which}",
            f"for {arch} there is: {', '.join(known) or 'nothing'} ('libc=')",
        )
    url = table.url.format(arch=arch, libc=which, version=table.version)
    return Source(
        name=f"bootlin-{arch}-{which}", version=table.version, urls=(url,), sha256=known[which]
    )


def check(project: Project) -> None:
    """Check that Bootlin has a toolchain for the machine and libc.

    Raises:
        PiggyError: It has none.
    """
    pin(project)


def doc(project: Project) -> str:
    """Return the line for `doit list`."""
    return (
        f"Bootlin's cross compiler for {project.machine.toolchain.bootlin} with {libc(project)},"
        " probed"
    )


def sources(project: Project) -> list[Source]:
    """Return the pin of the selected toolchain."""
    return [pin(project)]


def needs(project: Project) -> dict[str, Any]:
    """Return what the task `toolchain` depends on, as arguments for `task`."""
    return {
        "files": [project.layout.dl / f"{pin(project).name}.json", *path.kernel_files(project)],
        "settings": {
            "pin": msgspec.json.encode(pin(project)).decode(),
            "arch": project.machine.arch,
            "build": os.path.abspath(project.layout.build),
        },
    }


def build(job: Job) -> dict[str, list[str]]:
    """Unpack the toolchain, relocate it, and probe it.

    Returns:
        What the task learned: the files that it found and made.
    """
    project = job.project
    got = obtain.obtain(
        pin(project),
        dl=project.layout.dl,
        mirror="",
        offline=True,
        apt_state=project.layout.build / "host" / "apt",
        log=job.log,
    )
    folder = sdk.install(project, got.path, got.sha256, job.log)
    return record.finish(job, path.describe(project, compiler.prefix_in(folder), key_files(folder)))
