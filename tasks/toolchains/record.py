"""The toolchain of a machine, as two records: the kernel's compiler, and user space's.

    a provider (tasks/toolchains/*.py) -> Found -> probed
      -> build/MACHINE/toolchain.json  the kernel's part
      -> build/MACHINE/userspace.json  user space's part

With two records another libc makes busybox stale but not the kernel, and another compiler of the
kernel does not make busybox stale.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from tasks.config.project import Project
from tasks.graph.task import Job
from tasks.system import files, terminal
from tasks.system.errors import PiggyError
from tasks.system.files import read_regular, write_whole
from tasks.system.process import clean_env
from tasks.toolchains.probe import Facts, probe

_T = TypeVar("_T")


class Toolchain(msgspec.Struct, frozen=True):
    """What the kernel is built with.

    Attributes:
        id: A hash of the content of its tools.
        provider: The setting `toolchain`.
        prefix: The prefix of compiler and binutils, as people give it in CROSS_COMPILE=. The
            distribution's is found on PATH (arm-linux-gnueabi-), so that Kbuild's records hold the
            same commands as after a make by hand.
        version: The first line of the compiler's --version.
        variables: Further make variables for the kernel's Makefile, such as LLVM=1.
    """

    id: str
    provider: str
    prefix: str
    version: str
    variables: dict[str, str] = {}


class Userspace(msgspec.Struct, frozen=True):
    """What user space is built with, as probed.

    Attributes:
        id: A hash of libc, headers and compiler.
        prefix: The prefix of the binutils.
        cc: The compiler driver for static programs.
        libc: The libc's name and version.
        headers: The version of the kernel headers in it.
    """

    id: str
    prefix: str
    cc: str
    libc: str
    headers: str


class Found(msgspec.Struct, frozen=True):
    """What a provider found or made.

    Attributes:
        id: See Toolchain, as for prefix, version and variables.
        parts: The files whose content is the identity.
        cc: The driver for user space; "" for a machine that has only a kernel.
        user: The ID of user space's part; "" for the same.
        user_prefix: The prefix of user space's binutils; "" for the same.
        made: Files that the provider made; the task is stale when one is lost.
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
    """Return the paths of the machine's records."""
    return [
        project.layout.toolchain_record,
        *([project.layout.userspace_record] if project.machine.userspace else []),
    ]


def read(project: Project) -> Toolchain:
    """Read the record of what the kernel is built with.

    Raises:
        PiggyError: It is unreadable.
        FileNotFoundError: The task `toolchain` has not run.
    """
    return decode(project.layout.toolchain_record, Toolchain)


def read_user(project: Project) -> Userspace:
    """Read the record of what user space is built with.

    Raises:
        PiggyError: It is unreadable.
        FileNotFoundError: The task `toolchain` has not run.
    """
    return decode(project.layout.userspace_record, Userspace)


def folders(project: Project) -> dict[str, str]:
    """Return the folders that the toolchain is installed in, by words; see cache/places.py.

    One that is found on PATH shares its folder with the host's other programs.
    """
    found = {}
    searched = _searched(clean_env()["PATH"])
    with contextlib.suppress(FileNotFoundError):
        found["tools"] = os.path.dirname(read(project).prefix)
        found["libc"] = os.path.dirname(read_user(project).cc)
    return {
        word: os.path.dirname(path)
        for word, path in found.items()
        if path and os.path.realpath(path) not in searched
    }


@functools.cache
def _searched(path: str) -> frozenset[str]:
    """Return the folders that a PATH leads to."""
    return frozenset(os.path.realpath(part) for part in path.split(":"))


def decode(path: Path, kind: type[_T]) -> _T:
    """Read a record that a task wrote as JSON.

    Args:
        path: The record.
        kind: Its type.

    Raises:
        PiggyError: The file is no such record.
        FileNotFoundError: There is none.
    """
    hint = "remove it, and 'doit toolchain' makes it anew"
    try:
        data = read_regular(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PiggyError(f"{path} can't be read: {error.strerror}", hint) from error
    return files.record(data, kind, f"{path}", hint)


def finish(job: Job, found: Found) -> dict[str, list[str]]:
    """Probe what a provider found, and write the records.

    Returns:
        What the task `toolchain` learned: input files as "discovered", outputs as "made".

    Raises:
        PiggyError: The toolchain is for another processor, can't link statically, makes programs
            that do not run, or has newer kernel headers than the kernel.
    """
    project = job.project
    userspace = ""
    if found.cc:
        facts = probe(
            found.cc,
            arch=project.machine.arch,
            scratch=project.layout.toolchains,
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
        userspace = f", {facts.libc}, headers {facts.headers}, static: {facts.ran}"
    write_record(
        project.layout.toolchain_record,
        Toolchain(
            found.id, project.settings.toolchain, found.prefix, found.version, found.variables
        ),
    )
    terminal.line("toolchain", f"{found.version}{userspace}, ID {found.user or found.id}")
    base = project.layout.toolchains.absolute()
    # Files below build/toolchains were made by this task: they are its outputs, not its inputs.
    made = {one for one in found.parts if Path(one).is_relative_to(base) and os.path.exists(one)}
    return {"discovered": sorted({*found.parts} - made), "made": sorted({*found.made, *made})}


def write_record(path: Path, content: Toolchain | Userspace) -> None:
    """Write a record as indented JSON."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(content)))


def kernel_version(tree: Path) -> tuple[int, int]:
    """Return the series of a kernel tree, such as (6, 1), from its top Makefile.

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
    """Refuse headers newer than the kernel, as programs would use calls that it does not have.

    Only the series counts, since stable updates add nothing to the headers. Buildroot compares the
    same way (support/scripts/check-kernel-headers.sh).

    Raises:
        PiggyError: They are newer.
    """
    kernel = kernel_version(project.layout.kernel_src)
    if facts.series > kernel:
        raise PiggyError(
            f"the toolchain's kernel headers ({facts.headers}) are newer than the kernel "
            f"({kernel[0]}.{kernel[1]})",
            "take a toolchain with older headers, or a newer kernel: 'kernel='",
        )


def ident(*parts: str) -> str:
    """Return the ID of what some texts describe: twelve hex digits of their sha256.

    An empty one, as the digest of a file that is not there, counts for nothing.
    """
    return hashlib.sha256("\n".join(filter(None, parts)).encode()).hexdigest()[:12]
