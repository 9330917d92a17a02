"""Test a toolchain before it is trusted: its processor, libc, headers, and static linking.

Names prove nothing. A preprocessor run answers from the macros of compiler and libc. A program is
linked with -static, its ELF header is checked, and it is run where this host can: natively, or
under QEMU's user mode.
"""

from __future__ import annotations

import platform
import re
import shutil
import tempfile
from pathlib import Path

import msgspec

from tasks.system.errors import PiggyError
from tasks.system.process import Completed, clean_env, run

PROGRAM = (
    '#include <stdio.h>\n#include <linux/version.h>\nint main(void) { return puts("probe ok") <'
    " 0; }\n"
)
# musl deliberately has no macro of its own. Its headers define a macro for each type that they
# define, by which config.guess recognizes it, too.
QUESTIONS = """\
#include <stdio.h>
#include <linux/version.h>
#if defined(__UCLIBC__)
piggy: libc uClibc-ng __UCLIBC_MAJOR__ . __UCLIBC_MINOR__ . __UCLIBC_SUBLEVEL__
#elif defined(__GLIBC__)
piggy: libc glibc __GLIBC__ . __GLIBC_MINOR__
#elif defined(__DEFINED_FILE) || defined(__DEFINED_size_t)
piggy: libc musl
#else
piggy: libc unknown
#endif
piggy: code LINUX_VERSION_CODE
"""
# The kernel's ARCH, and the macro that a compiler for it predefines (gcc -dM -E).
MACROS = {
    "arm": "__arm__",
    "arm64": "__aarch64__",
    "i386": "__i386__",
    "m68k": "__m68k__",
    "mips": "__mips__",
    "powerpc": "__powerpc__",
    "riscv": "__riscv",
    "s390": "__s390__",
    "sh": "__sh__",
    "x86_64": "__x86_64__",
}
# By `uname -m` of the host: each ARCH whose programs its processor runs.
RUNS = {
    "x86_64": ("x86_64", "i386"),
    "aarch64": ("arm64",),
    "riscv64": ("riscv",),
    "ppc64le": ("powerpc",),
}
# QEMU's user mode emulator, by ARCH. Where an ARCH has several (byte orders), none is listed.
USER_MODE = {
    "arm": "qemu-arm",
    "arm64": "qemu-aarch64",
    "i386": "qemu-i386",
    "m68k": "qemu-m68k",
    "s390": "qemu-s390x",
    "x86_64": "qemu-x86_64",
}


class Facts(msgspec.Struct, frozen=True):
    """What a probe found.

    Attributes:
        libc: The libc's name and version.
        headers: The version of the kernel headers, such as "6.1.55".
        ran: How the test program was run.
    """

    libc: str
    headers: str
    ran: str

    @property
    def series(self) -> tuple[int, int]:
        """The series of the kernel headers, such as (6, 1)."""
        major, minor = self.headers.split(".")[:2]
        return int(major), int(minor)


def probe(cc: str, *, arch: str, scratch: Path, log: Path | None) -> Facts:
    """Test a compiler driver for static programs of user space.

    Args:
        cc: The driver.
        arch: The kernel's ARCH for which it must compile.
        scratch: A folder to work in; not /tmp, which a host may mount noexec.
        log: The file that gets the output.

    Raises:
        PiggyError: The toolchain fails; one sentence says how.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".probe.", dir=scratch) as folder:
        source, program = Path(folder) / "probe.c", Path(folder) / "probe"
        libc, headers = _answers(cc, arch, source, log)
        source.write_text(PROGRAM)
        done = run([cc, "-static", "-Os", "-o", str(program), str(source)], log=log, check=False)
        if done.returncode:
            raise _refused(cc, "it can't compile and link a static program", done, log)
        if "INTERP" in run(["readelf", "-lW", str(program)]).output:
            raise _refused(cc, "what it links with -static is not static", done, log)
        return Facts(libc, headers, _run(cc, program, arch, log))


def _answers(cc: str, arch: str, source: Path, log: Path | None) -> tuple[str, str]:
    """Return the libc and the headers' version, having checked that the compiler is for `arch`."""
    macro = MACROS.get(arch, "")
    question = (
        f"#if {f'defined({macro})' if macro else '1'}\npiggy: for yes\n#else\npiggy: for"
        " no\n#endif\n"
    )
    source.write_text(question + QUESTIONS)
    done = run([cc, "-E", "-P", str(source)], log=log, check=False)
    answers = dict(re.findall(r"^piggy: (\w+) (.*)$", done.output, re.MULTILINE))
    if answers.get("for") == "no":
        target = run([cc, "-dumpmachine"], check=False).output.strip()
        raise PiggyError(
            f"the toolchain {cc} makes programs for {target}, not for ARCH={arch}",
            "name one that is for this machine",
        )
    if done.returncode or not answers.get("code", "").strip().isdigit():
        raise _refused(cc, "it finds no libc with the kernel's headers", done, log)
    code = int(answers["code"])  # KERNEL_VERSION(a, b, c) in include/generated/uapi/linux/version.h
    libc = re.sub(r" ?\. ?", ".", answers.get("libc", "unknown").strip())
    return libc, f"{code >> 16}.{code >> 8 & 255}.{code & 255}"


def _run(cc: str, program: Path, arch: str, log: Path | None) -> str:
    """Run the program if this host can, and return how it ran.

    Raises:
        PiggyError: It runs, and its status or output is wrong.
    """
    emulator = USER_MODE.get(arch, "")
    emulator = (
        shutil.which(emulator, path=clean_env()["PATH"])
        or shutil.which(f"{emulator}-static", path=clean_env()["PATH"])
        or ""
        if emulator
        else ""
    )
    runners = [("runs here", [str(program)])] if arch in RUNS.get(platform.machine(), ()) else []
    runners += [(f"runs in {Path(emulator).name}", [emulator, str(program)])] if emulator else []
    for name, argv in runners:
        try:
            done = run(argv, log=log, check=False)
        except OSError:
            continue  # the host's kernel does not support this program format
        if done.returncode or done.output.strip() != "probe ok":
            raise _refused(
                cc,
                f"the program that it makes does not run here (status {done.returncode})",
                done,
                log,
            )
        return name
    return "to be run at the first boot"


def _refused(cc: str, what: str, done: Completed, log: Path | None) -> PiggyError:
    first = next(
        (line for line in done.output.splitlines() if re.search(r"error|cannot|undefined", line)),
        "",
    )
    return PiggyError(
        f"the toolchain {cc} was refused: {what}", (first + "\n  " if first else "") + f"log: {log}"
    )
