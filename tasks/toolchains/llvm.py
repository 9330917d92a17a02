"""LLVM: the distribution's clang and lld for the kernel (LLVM=1).

User space is compiled as with `distro`, by its gcc and with a static libc.

    clang, ld.lld, llvm-* -> toolchain.json   LLVM=1, -14 or /usr/lib/llvm-14/bin/, as the kernel's
                                              Makefile takes it
    TRIPLE-gcc, musl      -> userspace.json

Source: Documentation/kbuild/llvm.rst. Which machines Linux supports so, their files say:
[toolchain] llvm = true.
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

# What LLVM=1 stands for in the kernel's top Makefile.
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
    """Raise PiggyError where Linux can't be built so.

    It is raised, too, for a setting that is none that the kernel's Makefile takes.
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
    """What `doit list` says."""
    return (
        f"clang and lld (LLVM={project.settings.llvm}) for the kernel, {project.machine.triple}-gcc"
        " for user space"
    )


def names(llvm: str) -> list[str]:
    """The programs that LLVM=`llvm` stands for, as the kernel's Makefile finds them."""
    if llvm.endswith("/"):
        return [f"{llvm}{name}" for name in PROGRAMS]
    return [f"{name}{llvm if llvm.startswith('-') else ''}" for name in PROGRAMS]


def sources(project: Project) -> list[Source]:
    """The pins that user space needs."""
    return libc.sources(project)


def needs(project: Project) -> dict[str, Any]:
    """What the task depends on, as words for `task`."""
    words = distro.needs(project) if project.machine.userspace else {"settings": {}}
    return {
        **words,
        "tools": [*words.get("tools", []), *names(project.settings.llvm)],
        "settings": {
            **words["settings"],
            "llvm": project.settings.llvm,
            "supported": project.machine.toolchain.llvm,
        },
    }


def build(job: Job) -> dict[str, list[str]]:
    """Find LLVM's programs, and user space's compiler and libc."""
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
    variables = {"LLVM": llvm, "LLVM_IAS": "1"}  # before 5.15 the assembler had to be asked for
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
