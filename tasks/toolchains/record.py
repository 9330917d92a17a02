"""The toolchain of a machine, as two records: the kernel's compiler, and user space's.

    a provider (tasks/toolchains/*.py) -> Found -> probed
      -> build/MACHINE/toolchain.json  the kernel's part
      -> build/MACHINE/userspace.json  user space's part

Two, so that another libc makes busybox stale and not the kernel, and another compiler of the kernel
not busybox.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from tasks.config.project import Project
from tasks.graph.task import Job
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.files import read_regular, write_whole
from tasks.system.terminal import printable
from tasks.toolchains.probe import Facts, probe

_T = TypeVar("_T")


class Toolchain(msgspec.Struct, frozen=True):
    """What the kernel is built with.

    id:        of the content of its tools.
    prefix:    of the compiler and binutils: what people give as CROSS_COMPILE=. The distribution's
               is found on PATH (arm-linux-gnueabi-), so that a make by hand finds the same commands
               in Kbuild's records.
    version:   the compiler's own first line.
    variables: further make variables for the kernel's Makefile, such as LLVM=1.
    """

    id: str
    provider: str
    prefix: str
    version: str
    variables: dict[str, str] = {}


class Userspace(msgspec.Struct, frozen=True):
    """What user space is built with, as probed.

    id:        of its libc, headers and compiler.
    prefix:    of its binutils; cc: the compiler driver for static programs.
    libc:      its name and version; headers: the version of the kernel's headers in it.
    """

    id: str
    prefix: str
    cc: str
    libc: str
    headers: str


class Found(msgspec.Struct, frozen=True):
    """What a provider gives.

    id, prefix, version, variables: see Toolchain; user: the ID of what user space takes ("": the
    same), cc its driver ("" for a machine that has only a kernel).
    parts: the files whose content the identity is; made: files that the provider made, whose loss
        makes the task stale.
    """

    id: str
    prefix: str
    version: str
    parts: Iterable[str]
    cc: str = ""
    user: str = ""
    user_prefix: str = ""
    made: Iterable[str] = ()
    variables: dict[str, str] = msgspec.field(default_factory=dict)


def records(project: Project) -> list[Path]:
    """The records that the machine has."""
    return [
        project.layout.toolchain_record,
        *([project.layout.userspace_record] if project.machine.userspace else []),
    ]


def read(project: Project) -> Toolchain:
    """Read the kernel's record, as the task `toolchain` left it."""
    return decode(project.layout.toolchain_record, Toolchain)


def read_user(project: Project) -> Userspace:
    """Read user space's record, likewise."""
    return decode(project.layout.userspace_record, Userspace)


def decode(path: Path, kind: type[_T]) -> _T:
    """Read a record that a task of ours left.

    Raises PiggyError for anything else in its place, and FileNotFoundError for nothing.
    """
    try:
        return msgspec.json.decode(read_regular(path), type=kind)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        why = error.strerror if isinstance(error, OSError) else error
        raise PiggyError(
            f"{path} is no record of ours: {printable(str(why))[:200]}",
            "remove it, and 'doit toolchain' makes it anew",
        ) from error


def finish(job: Job, found: Found) -> dict[str, list[str]]:
    """Probe what a provider found, and write the records.

    Returns:
        What the task `toolchain` learned.

    Raises:
        PiggyError: The toolchain is for another processor, can't link statically, makes programs
            that do not run, or has newer kernel headers than the kernel.
    """
    project = job.project
    told = ""
    if found.cc:
        facts = probe(
            found.cc,
            arch=project.machine.arch,
            scratch=project.layout.build / "toolchains",
            log=job.log,
        )
        check_headers(facts, project)
        ident = found.user or found.id
        write_record(
            project.layout.userspace_record,
            Userspace(
                ident, found.user_prefix or found.prefix, found.cc, facts.libc, facts.headers
            ),
        )
        told = f", {facts.libc}, headers {facts.headers}, static: {facts.ran}"
    write_record(
        project.layout.toolchain_record,
        Toolchain(
            found.id, project.settings.toolchain, found.prefix, found.version, found.variables
        ),
    )
    terminal.line("toolchain", f"{found.version}{told}, ID {found.user or found.id}")
    ours = (project.layout.build / "toolchains").absolute()
    made = {
        path for path in found.parts if Path(path).is_relative_to(ours)
    }  # just now: no inputs, but outputs
    return {"discovered": sorted({*found.parts} - made), "made": sorted({*found.made, *made})}


def write_record(path: Path, content: Toolchain | Userspace) -> None:
    """Write one of the records, as JSON to read."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(content)))


def kernel_version(tree: Path) -> tuple[int, int]:
    """Return the series (6, 1) of a kernel tree, by its top Makefile.

    Raises:
        PiggyError: The Makefile has none.
    """
    text = (tree / "Makefile").read_text(errors="replace") if (tree / "Makefile").is_file() else ""
    found = [
        re.search(rf"^{name}\s*=\s*(\d+)\s*$", text, re.MULTILINE)
        for name in ("VERSION", "PATCHLEVEL")
    ]
    if not all(found):
        raise PiggyError(
            f"{tree}/Makefile names no VERSION and PATCHLEVEL",
            "is it the top folder of a kernel tree?",
        )
    return int(found[0][1]), int(found[1][1])  # type: ignore[index]


def check_headers(facts: Facts, project: Project) -> None:
    """Refuse headers that are newer than the kernel.

    Programs would ask it for what it does not have.

    Series are compared, not stable updates, which add nothing to the headers; so does Buildroot
    (support/scripts/check-kernel-headers.sh).
    """
    kernel = kernel_version(project.layout.kernel_src)
    if facts.series > kernel:
        raise PiggyError(
            f"the toolchain's kernel headers ({facts.headers}) are newer than the kernel "
            f"({kernel[0]}.{kernel[1]})",
            "take a toolchain with older headers, or a newer kernel: 'kernel='",
        )


def ident(*parts: str) -> str:
    """Return the ID of what these texts describe."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
