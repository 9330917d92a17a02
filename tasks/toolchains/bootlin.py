"""Toolchains that Bootlin builds with Buildroot and publishes, pinned in configs/bootlin.toml.

configs/bootlin.toml -> fetch:bootlin-ARCH-LIBC -> dl/
  -> toolchain -> build/toolchains/ID/ (relocated by its script)
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
    """configs/bootlin.toml: the address and the hashes of all toolchains.

    The address has {arch}, {libc} and {version} in it; the hashes are by arch and libc.
    """

    url: str
    version: str
    sha256: dict[str, dict[str, Sha256]]


def libc(project: Project) -> str:
    """The libc that the settings ask for."""
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
    """Raise PiggyError where Bootlin has no toolchain for the machine and libc."""
    pin(project)


def doc(project: Project) -> str:
    """What `doit list` says."""
    return (
        f"Bootlin's cross compiler for {project.machine.toolchain.bootlin} with {libc(project)},"
        " probed"
    )


def sources(project: Project) -> list[Source]:
    """The pins that the settings ask for."""
    return [pin(project)]


def needs(project: Project) -> dict[str, Any]:
    """What the task depends on, as words for `task`."""
    return {
        "files": [project.layout.dl / f"{pin(project).name}.json", *path.kernel_files(project)],
        "settings": {
            "pin": msgspec.json.encode(pin(project)).decode(),
            "arch": project.machine.arch,
            "build": os.path.abspath(project.layout.build),
        },
    }


def build(job: Job) -> dict[str, list[str]]:
    """Unpack the toolchain, relocate it, and probe it."""
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
    return record.finish(job, path.found(project, compiler.prefix_in(folder), key_files(folder)))
