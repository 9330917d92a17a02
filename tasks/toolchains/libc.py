"""The libc of user space, built from source for a gcc that comes with another one.

_unpack:musl, or _unpack:uclibc -+
kernel's uapi headers -----------+-> build/toolchains/ID/  (shared by all machines that need
compiler ------------------------+                          the same)
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.config.pins import Source
from tasks.config.project import Project
from tasks.fetch import unpack
from tasks.graph.task import Job
from tasks.kbuild import make
from tasks.system import files, terminal
from tasks.system.errors import PiggyError
from tasks.system.process import run
from tasks.toolchains import folder, libc_store, record, uclibc

KEY_FILES = (
    "bin/musl-gcc",
    "lib/libc.a",
    "lib/crt1.o",
    "lib/musl-gcc.specs",
    "include/linux/version.h",
)


def check(project: Project) -> None:
    """Check that the machine's file has what uClibc-ng needs, if that is the selected libc.

    Raises:
        PiggyError: It has not.
    """
    if (
        selected(project) == "uclibc"
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
    """Return the pin of the libc; none for a machine without a user space."""
    return [project.source(selected(project))] if project.machine.userspace else []


def needs(project: Project) -> dict[str, Any]:
    """Return what building the libc depends on, as arguments for `task`."""
    machine, own = project.machine, project.settings.kernel_src
    fragment = [uclibc.FRAGMENT] if selected(project) == "uclibc" else []
    kernel = unpack.standing_for(project.layout.kernel_src, own)
    return {
        "files": [unpack.stamp(project.layout.build, selected(project)), *fragment, *kernel],
        "trees": {"uapi": lambda: uapi_state(project)} if changing(project) else {},
        "tools": ["make"],
        "settings": {
            "cflags": machine.cflags,
            "arch": machine.arch,
            "libc": selected(project),
            "uclibc": "; ".join(machine.toolchain.uclibc) if selected(project) == "uclibc" else "",
            "own": project.layout.kernel_place if own else "",
            "build": os.path.abspath(project.layout.build),
        },
    }


def changing(project: Project) -> bool:
    """Tell whether the kernel tree may get new headers: one of the user's own, or a patched one."""
    return bool(project.settings.kernel_src or project.layout.kernel_patches)


def selected(project: Project) -> str:
    """Return the name of the libc that the settings select: musl or uclibc."""
    return "musl" if project.settings.libc == "auto" else project.settings.libc


def userspace(
    job: Job, version: str, parts: Sequence[str]
) -> tuple[str, str, list[str], list[str]]:
    """Build the libc in a folder of build/toolchains unless it is there and intact.

    Args:
        job: The run of the task `toolchain`.
        version: The compiler's version line.
        parts: The files that are the compiler's identity.

    Returns:
        The ID, which is the same wherever the libc lies, the compiler driver for the libc, further
            input files, and the libc's key files.
    """
    project = job.project
    base = project.layout.toolchains
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".headers.", dir=base) as scratch:
        headers = Path(scratch) / "include"
        install_headers(job, headers)
        with_uclibc = selected(project) == "uclibc"
        recipe = (
            [
                *project.machine.toolchain.uclibc,
                project.machine.cflags,
                uclibc.FRAGMENT.read_text(),
                uclibc.SPECS,
            ]
            if with_uclibc
            else configure_arguments(project)
        )
        stamps = [project.stamps.digest(path) for path in parts]
        source = unpack.stamp(project.layout.build, selected(project)).read_text()
        identity = (
            version,
            *stamps,
            source,
            files.digest_of(headers, sorted(path for path in headers.rglob("*") if path.is_file())),
            *recipe,
        )
        # What is installed has the path of its folder in it.
        home = (base / record.ident(*identity, os.path.abspath(base))).absolute()
        with folder.locked(home):
            if not folder.intact(home):
                folder.clear(home)
                tree = (project.layout.build / "src" / selected(project)).resolve()
                names = uclibc.KEY_FILES if with_uclibc else KEY_FILES
                code = project.codes.of(uclibc.build if with_uclibc else build_musl)
                key = libc_store.key(project, tree, *identity, code)
                if not libc_store.bring_back(project, key, home, names):
                    if with_uclibc:
                        prefix = f"{project.machine.triple}-"
                        uclibc.build(job, tree, home, prefix, headers)
                    else:
                        build_musl(job, tree, home, recipe, headers)
                    libc_store.keep(job, key, home)
    # An edit of a header in the unpacked tree must count, so the headers are inputs. Another tree
    # may also get new headers: it is listed anew at every run (needs), in 40 ms.
    edited = [] if changing(project) else [str(path) for path in uapi_headers(project)]
    made = folder.key_files(home)
    # The others, the wrapper and its specs, hold the folder's path.
    content = [path for path in made if not path.endswith(libc_store.WITH_PATH)]
    ident = record.ident(*identity, *map(project.stamps.digest, content))
    return ident, str(home / "bin" / f"{selected(project)}-gcc"), edited, made


def uapi_headers(project: Project) -> list[Path]:
    """Return the headers that a kernel tree exports, from which headers_install works."""
    tree = project.layout.kernel_src
    return [
        path
        for base in (tree / "include" / "uapi", *sorted(tree.glob("arch/*/include/uapi")))
        for path in sorted(base.rglob("*.h"))
    ]


def uapi_state(project: Project) -> dict[str, str]:
    """Return the digest of each exported header of the user's own kernel tree, by path."""
    return {
        os.path.relpath(path, project.layout.kernel_src): project.stamps.digest(path)
        for path in uapi_headers(project)
    }


def configure_arguments(project: Project) -> list[str]:
    """Return the arguments of musl's configure, without the paths.

    They select a small, static musl with its gcc wrapper (musl's INSTALL).
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
    """Install the kernel's user-space headers in a folder (make headers_install).

    Args:
        job: The run of the task `toolchain`.
        include: The folder, called include.
    """
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


def build_musl(job: Job, source: Path, home: Path, recipe: Sequence[str], headers: Path) -> None:
    """Build a static musl with its gcc wrapper and the kernel's headers.

    Args:
        job: The run of the task `toolchain`.
        source: musl's tree.
        home: The folder that the result becomes, when it is complete.
        recipe: The arguments of configure.
        headers: The kernel's headers.

    Raises:
        CommandError: configure or make fails.
    """
    project = job.project
    with folder.staged(home, KEY_FILES) as (work, made):
        with project.jobs.token(), terminal.bar("musl", 1310, "files") as progress:

            def on_line(line: str) -> None:
                if " -c " in line:
                    progress.step()

            run(
                [
                    str(source / "configure"),
                    f"--prefix={home}",
                    f"--syslibdir={home}/lib",
                    *recipe,
                ],
                cwd=work,
                log=job.log,
            )
            run(["make"], cwd=work, log=job.log, on_line=on_line, env=project.jobs.environment())
            run(
                ["make", "install", f"DESTDIR={made.parents[len(home.parts) - 2]}"],
                cwd=work,
                log=job.log,
            )
        folder.add(headers, made / "include")
