"""The libc that user space is linked with, made from source for a gcc that brings another one.

_unpack:musl, or _unpack:uclibc -+
kernel's uapi headers -----------+-> build/toolchains/ID/  (shared by all machines that need the
compiler ------------------------+                          same)
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.config.pins import Source
from tasks.config.project import Project
from tasks.fetch import unpack
from tasks.graph.task import Job
from tasks.kbuild import make
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.process import run
from tasks.toolchains import folder, record, uclibc

KEY_FILES = (
    "bin/musl-gcc",
    "lib/libc.a",
    "lib/crt1.o",
    "lib/musl-gcc.specs",
    "include/linux/version.h",
)


def check(project: Project) -> None:
    """Raise PiggyError if uClibc-ng is asked for and the machine's file does not say how."""
    if (
        chosen(project) == "uclibc"
        and project.machine.userspace
        and not project.machine.toolchain.uclibc
    ):
        raise PiggyError(
            f"{project.origins['libc']}: uClibc-ng is not set up for the machine"
            f" '{project.settings.machine}'",
            '[toolchain] uclibc = ["ARCH", ...] in its file; or libc=musl, or another'
            " 'toolchain='",
        )


def sources(project: Project) -> list[Source]:
    """Return the pins of the libc; none for a machine without a user space."""
    return [project.source(chosen(project))] if project.machine.userspace else []


def needs(project: Project) -> dict[str, Any]:
    """Return what making the libc depends on, as arguments for `task`."""
    machine, own = project.machine, project.settings.kernel_src
    fragment = [uclibc.FRAGMENT] if chosen(project) == "uclibc" else []
    kernel = [] if own else [unpack.stamp(project.layout.build, project.kernel_pin.name)]
    return {
        "files": [unpack.stamp(project.layout.build, chosen(project)), *fragment, *kernel],
        "trees": {"uapi": lambda: uapi_state(project)} if own else {},
        "tools": ["make"],
        "settings": {
            "cflags": machine.cflags,
            "arch": machine.arch,
            "libc": chosen(project),
            "uclibc": "; ".join(machine.toolchain.uclibc) if chosen(project) == "uclibc" else "",
            "own": project.layout.kernel_place if own else "",
            "build": os.path.abspath(project.layout.build),
        },
    }


def chosen(project: Project) -> str:
    """The libc that the settings ask for."""
    return "musl" if project.settings.libc == "auto" else project.settings.libc


def userspace(
    job: Job, version: str, parts: Sequence[str]
) -> tuple[str, str, list[str], list[str]]:
    """Have the libc at build/toolchains/ID.

    Returns:
        The ID, the driver, what else went into it, and its key files.
    """
    project = job.project
    base = project.layout.build / "toolchains"
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".headers.", dir=base) as scratch:
        headers = Path(scratch) / "include"
        install_headers(job, headers)
        other = chosen(project) == "uclibc"
        recipe = (
            [
                *project.machine.toolchain.uclibc,
                project.machine.cflags,
                uclibc.FRAGMENT.read_text(),
                uclibc.SPECS,
            ]
            if other
            else configure_words(project)
        )
        stamps = [project.stamps.digest(path) for path in parts]
        source = unpack.stamp(project.layout.build, chosen(project)).read_text()
        ident = record.ident(
            version, *stamps, source, digest_of(headers), *recipe, os.path.abspath(base)
        )
        place = (base / ident).absolute()
        with folder.locked(place):
            if not folder.intact(place):
                folder.clear(place)
                if other:
                    tree = (project.layout.build / "src" / "uclibc").resolve()
                    uclibc.build(job, tree, place, f"{project.machine.triple}-", headers)
                else:
                    build_musl(job, place, recipe, headers)
    # In the unpacked tree an edit counts. To list it anew at every run, as is done for a tree of
    # one's own, takes 40 ms.
    edited = [] if project.settings.kernel_src else [str(path) for path in uapi_headers(project)]
    return ident, str(place / "bin" / f"{chosen(project)}-gcc"), edited, folder.key_files(place)


def uapi_headers(project: Project) -> list[Path]:
    """The headers that a tree exports: what headers_install is made from."""
    tree = project.layout.kernel_src
    return [
        path
        for base in (tree / "include" / "uapi", *sorted(tree.glob("arch/*/include/uapi")))
        for path in sorted(base.rglob("*.h"))
    ]


def uapi_state(project: Project) -> dict[str, str]:
    """The exported headers of the user's own tree, each with its digest; new ones count, too."""
    return {
        os.path.relpath(path, project.layout.kernel_src): project.stamps.digest(path)
        for path in uapi_headers(project)
    }


def configure_words(project: Project) -> list[str]:
    """Return the words for musl's configure, without its places.

    They ask for a small, static one with its gcc wrapper (see musl's INSTALL).
    """
    prefix = f"{project.machine.triple}-"
    flags = " ".join(["-Os", "-pipe", *project.machine.cflags.split()])
    return [
        f"--target={project.machine.triple}",
        "--disable-shared",
        "--enable-wrapper=gcc",
        f"CC={prefix}gcc",
        f"CROSS_COMPILE={prefix}",
        f"CFLAGS={flags}",
    ]


def install_headers(job: Job, include: Path) -> None:
    """Export the kernel's user-space headers (`make headers_install`) into the folder `include`."""
    project = job.project
    with tempfile.TemporaryDirectory(prefix=".hdr.", dir=include.parent) as scratch:
        make.run(
            project.layout.kernel_src,
            Path(scratch),
            ["headers_install"],
            jobs=project.jobs,
            log=job.log,
            env={},
            variables={
                "ARCH": project.machine.arch,
                "INSTALL_HDR_PATH": str(include.parent.absolute()),
            },
        )
    for litter in include.rglob(".*"):
        litter.unlink()


def digest_of(top: Path) -> str:
    """A digest over names and contents of all files below a folder."""
    whole = hashlib.sha256()
    for path in sorted(_files(top)):
        whole.update(f"{path.relative_to(top)}\0".encode() + path.read_bytes() + b"\0")
    return whole.hexdigest()


def _files(top: Path) -> Iterator[Path]:
    return (path for path in top.rglob("*") if path.is_file())


def build_musl(job: Job, place: Path, recipe: Sequence[str], headers: Path) -> None:
    """Build a static musl with its gcc wrapper, and put it at `place`, whole.

    The kernel headers are added.
    """
    project = job.project
    source = project.layout.build.absolute() / "src" / "musl"
    with folder.staged(place, KEY_FILES) as (work, made):
        with project.jobs.token(), terminal.bar("musl", 1310, "files") as progress:

            def seen(line: str) -> None:
                if " -c " in line:
                    progress.step()

            run(
                [
                    str(source.resolve() / "configure"),
                    f"--prefix={place}",
                    f"--syslibdir={place}/lib",
                    *recipe,
                ],
                cwd=work,
                log=job.log,
            )
            run(["make"], cwd=work, log=job.log, on_line=seen, env=project.jobs.environment())
            run(
                ["make", "install", f"DESTDIR={made.parents[len(place.parts) - 2]}"],
                cwd=work,
                log=job.log,
            )
        folder.add(headers, made / "include")
