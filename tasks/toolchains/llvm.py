"""The provider `llvm`: the distribution's clang and lld for the kernel (LLVM=1).

User space is compiled as with `distro`: by the distribution's gcc and with a static libc.

    clang, ld.lld, llvm-* -> toolchain.json   LLVM=1, -14 or /usr/lib/llvm-14/bin/, as the kernel's
                                              Makefile takes it
    TRIPLE-gcc, musl      -> userspace.json

Source: Documentation/kbuild/llvm.rst. It lists the architectures; the file of a machine that is
supported says so: [toolchain] llvm = true.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import Any

from tasks.config.pins import Source
from tasks.config.project import Project
from tasks.graph.task import Job
from tasks.system.errors import PiggyError
from tasks.system.process import clean_env, run
from tasks.toolchains import compiler, distro, libc, record
from tasks.toolchains.record import Found

# The programs that LLVM=1 selects in the kernel's top Makefile.
PROGRAMS = (
    "clang",
    "ld.lld",
    "llvm-ar",
    "llvm-nm",
    "llvm-objcopy",
    "llvm-objdump",
    "llvm-readelf",
    "llvm-strip",
)
SUFFIX_SINCE = (5, 18)  # LLVM=-14 and LLVM=/path/: commit e9c281928c24


def check(project: Project) -> None:
    """Check that Linux can be built with LLVM for the machine, and the form of the setting `llvm`.

    Raises:
        PiggyError: It can't, or the kernel's Makefile does not take the setting.
    """
    llvm, machine = project.settings.llvm, project.machine
    if not machine.toolchain.llvm:
        raise PiggyError(
            f"Linux can't be built with LLVM=1 for the machine '{project.settings.machine}' "
            f"(ARCH={machine.arch})",
            "Documentation/kbuild/llvm.rst lists what it supports; a machine's file "
            "says so: [toolchain] llvm = true",
        )
    if not re.fullmatch(r"1|-[\w.]+|/.*/", llvm):
        raise PiggyError(
            f"{project.origins['llvm']}: setting 'llvm' takes 1, a suffix such as -14, or a folder"
            f" such as /usr/lib/llvm-14/bin/, not {llvm!r}",
            "it is handed to the kernel's Makefile as LLVM=",
        )


def doc(project: Project) -> str:
    """Return the line for `doit list`."""
    return (
        f"clang and lld (LLVM={project.settings.llvm}) for the kernel, {project.machine.triple}-gcc"
        " for user space"
    )


def names(llvm: str) -> list[str]:
    """Return the programs that LLVM=`llvm` selects, as the kernel's Makefile finds them."""
    if llvm.endswith("/"):
        return [f"{llvm}{name}" for name in PROGRAMS]
    return [f"{name}{llvm if llvm.startswith('-') else ''}" for name in PROGRAMS]


def sources(project: Project) -> list[Source]:
    """Return the pins that user space needs."""
    return libc.sources(project)


def needs(project: Project) -> dict[str, Any]:
    """Return what the task `toolchain` depends on, as arguments for `task`."""
    base = distro.needs(project) if project.machine.userspace else {"settings": {}}
    return {
        **base,
        "tools": [*base.get("tools", []), *names(project.settings.llvm)],
        "settings": {
            **base["settings"],
            "llvm": project.settings.llvm,
            "supported": project.machine.toolchain.llvm,
        },
    }


def build(job: Job) -> dict[str, list[str]]:
    """Find LLVM's programs, and build user space's libc unless it is there.

    Returns:
        What the task learned: the files that it found and made.

    Raises:
        PiggyError: A program is missing, or the kernel is too old for the form of `llvm`.
    """
    project = job.project
    llvm, machine = project.settings.llvm, project.machine
    if llvm != "1" and record.kernel_version(project.layout.kernel_src) < SUFFIX_SINCE:
        raise PiggyError(
            f"this kernel's Makefile takes LLVM=1 alone, not LLVM={llvm}",
            "that came with 5.18; have clang and its tools on PATH without a suffix",
        )
    parts = []
    for name in names(llvm):
        found = shutil.which(name, path=clean_env()["PATH"])
        if not found:
            raise PiggyError(
                f"{name} is not installed, and LLVM={llvm} needs it",
                "'doit toolchain=llvm setup' installs it; 'llvm=-14' takes the programs with that"
                " suffix",
            )
        parts.append(os.path.realpath(found))
    version = run([parts[0], "--version"]).output.partition("\n")[0]
    ident = record.ident(version, *map(project.stamps.digest, parts))
    variables = {"LLVM": llvm, "LLVM_IAS": "1"}  # before 5.15 LLVM=1 did not imply LLVM_IAS=1
    prefix = f"{machine.triple}-"
    if not machine.userspace:
        return record.finish(job, Found(ident, prefix, version, parts, variables=variables))
    gcc_version, gcc_parts = compiler.compiler(
        prefix, "user space is compiled with it; " + distro.hint(machine.triple)
    )
    user, cc, more, made = libc.userspace(job, gcc_version, gcc_parts)
    return record.finish(
        job,
        Found(
            ident,
            prefix,
            version,
            [*parts, *gcc_parts, *more],
            cc=cc,
            user=user,
            made=made,
            variables=variables,
        ),
    )
