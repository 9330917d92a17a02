"""Proof that the incremental build is right.

Everything built once more from nothing, elsewhere, and compared.

plain doit -> images/* -+
                        +-> verify: the first link that differs, or none
a doit of its own,     -+
from nothing, in build/.verify-MACHINE/MACHINE/images/*
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tasks import dtbs, kernel, modules, sources
from tasks.config.project import Project
from tasks.graph import nested
from tasks.graph.task import Command, Job, Needs, TaskDict, task
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.toolchains import record

BLOCK = 1 << 16


class Difference(msgspec.Struct, frozen=True):
    """Where two files part: the first byte, and the sizes of both (-1: there is no such file)."""

    name: str
    offset: int
    sizes: tuple[int, int]

    def __str__(self) -> str:
        mine, clean = ("missing" if size < 0 else terminal.size(size) for size in self.sizes)
        return (
            f"{self.name} differs from byte {self.offset:,} on ({mine} here, {clean} in the clean"
            " build)"
        )


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `verify`."""
    yield task(
        project,
        "verify",
        "build everything from nothing in another folder and compare, link by link",
        verify,
        inputs=Needs(after=project.goals),
        command=Command(),
    )


def artifacts(project: Project) -> list[str]:
    """Return the names in images/ that are compared, in the order in which they are made."""
    kernel_config = ["config", "miniconfig"]
    chain = [
        "vmlinux",
        "System.map",
        kernel.generated(project).name,
        *(path.name for path in kernel.module_facts(project)),
        *project.chain,
    ]
    trees = [dtbs.blob(project, name).name for name in project.machine.kernel.dtbs]
    extra = modules.archive(project)
    space = [
        "busybox.config",
        "busybox",
        "busybox.links",
        project.layout.rootfs.name,
        project.layout.initramfs.name,
    ]
    return [
        *kernel_config,
        *chain,
        *trees,
        *([extra.name] if extra else []),
        *(space if project.machine.userspace else []),
    ]


def verify(job: Job) -> None:
    """Build again and compare.

    Raises:
        PiggyError: Something differs: the first difference in the order of the chain. The clean
            build then stays for a look.
    """
    project = job.project
    shadow = project.layout.build.absolute() / f".verify-{project.settings.machine}"
    shutil.rmtree(shadow, ignore_errors=True)
    # the same sources, edits and all: trees are taken from where they are
    busybox_src = os.path.realpath(project.layout.busybox_src) if project.machine.userspace else ""
    words = nested.words(
        project,
        {
            "machine": project.settings.machine,
            "build": str(shadow),
            "busybox_src": busybox_src,
            "dl": os.path.abspath(project.layout.dl),
            "store_size": "0",
            **_same_toolchain(project),
            "kernel_src": os.path.realpath(project.layout.kernel_src),
            "patches": "",  # they are in that tree
        },
    )
    for path in sources.edited(project):
        terminal.line("edited", f"{path}: not as the patches make it; it is built as it is")
    terminal.line("verify", f"a clean build in {shadow}; log: {job.log}")
    last: list[str] = []
    with terminal.status("verify") as show:

        def heard(line: str) -> None:
            last[:] = [*last[-15:], line]
            show(line)

        status = nested.logged(project.top, nested.argv(words, *project.goals), job.log, heard)
    if status:
        raise PiggyError(
            f"the clean build failed with status {status}:\n"
            + "\n".join("    " + line for line in last),
            f"log: {job.log}",
        )
    names = artifacts(project)
    found = compare(project.layout.images, shadow / project.settings.machine / "images", names)
    if found:
        others = f"; also {', '.join(one.name for one in found[1:])}" if found[1:] else ""
        raise PiggyError(
            f"the incremental build is not what a clean one gives: {found[0]}{others}",
            f"both stay for a look: {project.layout.images} and"
            f" {shadow}/{project.settings.machine}/images. Please report it, with the edits"
            " before it",
        )
    shutil.rmtree(shadow, ignore_errors=True)
    terminal.line("verify", f"{len(names)} files, each bit by bit what a clean build gives")


def _same_toolchain(project: Project) -> dict[str, str]:
    """Return the settings by which the clean build takes the toolchain that is there.

    To build one takes half an hour.
    """
    if project.settings.toolchain != "buildroot":
        return {}
    return {"toolchain": "path", "toolchain_prefix": record.read(project).prefix}


def compare(mine: Path, clean: Path, names: Sequence[str]) -> list[Difference]:
    """Compare files of two folders by name; return those that differ, in the order of `names`."""
    found = []
    for name in names:
        sizes = tuple(
            path.stat().st_size if path.is_file() else -1 for path in (mine / name, clean / name)
        )
        if sizes == (-1, -1):
            continue
        offset = 0 if -1 in sizes else first_difference(mine / name, clean / name)
        if offset is not None:
            found.append(Difference(name, offset, (sizes[0], sizes[1])))
    return found


def first_difference(one: Path, other: Path) -> int | None:
    """Return the offset of the first byte in which two files differ, None if they are equal."""
    start = 0
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            a, b = left.read(BLOCK), right.read(BLOCK)
            if a != b:
                pairs = enumerate(zip(a, b, strict=False))
                return start + next((at for at, (x, y) in pairs if x != y), min(len(a), len(b)))
            if not a:
                return None
            start += len(a)
