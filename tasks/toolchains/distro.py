"""The distribution's cross gcc for the kernel; the same with a libc built from source for user
space. Takes seconds.

distribution's TRIPLE-gcc -+
_unpack:musl --------------+-> toolchain -> build/toolchains/ID/  (shared by all machines that need the same)
kernel's uapi headers -----+
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
from tasks.toolchains import compiler, record, uclibc
from tasks.toolchains import folder as home
from tasks.toolchains.record import Found

KEY_FILES = (
    "bin/musl-gcc",
    "lib/libc.a",
    "lib/crt1.o",
    "lib/musl-gcc.specs",
    "include/linux/version.h",
)


def check(project: Project) -> None:
    """Raise PiggyError for a machine that uClibc-ng is asked for and whose file does not say
    how."""
    if (
        libc(project) == "uclibc"
        and project.machine.userspace
        and not project.machine.toolchain.uclibc
    ):
        raise PiggyError(
            f"{project.origins['libc']}: uClibc-ng is not set up for the machine"
            f" '{project.settings.machine}'",
            '[toolchain] uclibc = ["ARCH", ...] in its file; or libc=musl, or another'
            " 'toolchain='",
        )


def doc(project: Project) -> str:
    """What `doit list` says."""
    gcc = f"cross compiler {project.machine.triple}-gcc"
    name = "uClibc-ng" if libc(project) == "uclibc" else "musl"
    return f"{gcc} with a static {name}, probed" if project.machine.userspace else gcc


def libc(project: Project) -> str:
    """The libc that the settings ask for."""
    return "musl" if project.settings.libc == "auto" else project.settings.libc


def sources(project: Project) -> list[Source]:
    """The pins that the settings ask for."""
    return [project.source(libc(project))] if project.machine.userspace else []


def needs(project: Project) -> dict[str, Any]:
    """What the task depends on, as words for `task`."""
    machine, own = project.machine, project.settings.kernel_src
    programs = compiler.programs(f"{machine.triple}-")
    if not machine.userspace:
        return {"tools": programs, "settings": {"triple": machine.triple}}
    fragment = [uclibc.FRAGMENT] if libc(project) == "uclibc" else []
    kernel = [] if own else [unpack.stamp(project.layout.build, project.kernel_pin.name)]
    return {
        "files": [unpack.stamp(project.layout.build, libc(project)), *fragment, *kernel],
        "trees": {"uapi": lambda: uapi_state(project)} if own else {},
        "tools": ["make", *programs],
        "settings": {
            "triple": machine.triple,
            "cflags": machine.cflags,
            "arch": machine.arch,
            "libc": libc(project),
            "uclibc": "; ".join(machine.toolchain.uclibc) if libc(project) == "uclibc" else "",
            "own": project.layout.kernel_place if own else "",
            "build": os.path.abspath(project.layout.build),
        },
    }


def build(job: Job) -> dict[str, list[str]]:
    """Find the compiler, make the libc and the headers if no toolchain of the same ID exists yet,
    and probe the result."""
    triple = job.project.machine.triple
    version, parts = compiler.compiler(f"{triple}-", hint(triple))
    ident = record.ident(version, *map(job.project.stamps.digest, parts))
    if not job.project.machine.userspace:
        return record.finish(job, Found(ident, f"{triple}-", version, parts))
    user, cc, more, made = userspace(job, version, parts)
    return record.finish(
        job, Found(ident, f"{triple}-", version, [*parts, *more], cc=cc, user=user, made=made)
    )


def hint(triple: str) -> str:
    """What to do when the distribution's compiler is missing."""
    return f"'doit setup' installs it (package gcc-{triple.replace('_', '-')} on Debian)"


def userspace(
    job: Job, version: str, parts: Sequence[str]
) -> tuple[str, str, list[str], list[str]]:
    """Have the libc at build/toolchains/ID; return the ID, the driver, what else went into it, and
    its key files."""
    project = job.project
    base = project.layout.build / "toolchains"
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".headers.", dir=base) as scratch:
        headers = Path(scratch) / "include"
        install_headers(job, headers)
        other = libc(project) == "uclibc"
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
        source = unpack.stamp(project.layout.build, libc(project)).read_text()
        ident = record.ident(
            version, *stamps, source, digest_of(headers), *recipe, os.path.abspath(base)
        )
        place = (base / ident).absolute()
        with home.locked(place):
            if not home.intact(place):
                home.clear(place)
                if other:
                    tree = (project.layout.build / "src" / "uclibc").resolve()
                    uclibc.build(job, tree, place, f"{project.machine.triple}-", headers)
                else:
                    build_musl(job, place, recipe, headers)
    # In the unpacked tree an edit counts. To list it anew at every run, as is done for a tree of
    # one's own, takes 40 ms.
    edited = [] if project.settings.kernel_src else [str(path) for path in uapi_headers(project)]
    return ident, str(place / "bin" / f"{libc(project)}-gcc"), edited, home.key_files(place)


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
    """The words for musl's configure, without its places: small, static, with its gcc wrapper (see
    musl's INSTALL)."""
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


def digest_of(folder: Path) -> str:
    """A digest over names and contents of all files below a folder."""
    whole = hashlib.sha256()
    for path in sorted(_files(folder)):
        whole.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return whole.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def build_musl(job: Job, place: Path, recipe: Sequence[str], headers: Path) -> None:
    """Build a static musl with its gcc wrapper, add the kernel headers, and put it all at `place`,
    whole."""
    project = job.project
    source = project.layout.build.absolute() / "src" / "musl"
    with home.staged(place, KEY_FILES) as (work, made):
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
        home.add(headers, made / "include")
