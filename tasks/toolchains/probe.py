"""A toolchain is put to the test before it is trusted.

It is asked what it is for, which libc and headers it has, and that it links statically.

Nothing is taken from names: a preprocessor run answers by the compiler's and the libc's own macros,
and a program is linked with -static, looked at, and run where this host can: natively, or under
QEMU's user mode.
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
# musl has no macro of its own by its authors' will; its headers mark each type that they define
# (config.guess asks so).
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
# The kernel's ARCH, and the macro by which a compiler says that it is for it (gcc's `-dM -E`).
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
# The machines of the kernel's `uname -m` that run a 32-bit program of another ARCH as it is.
RUNS = {
    "x86_64": ("x86_64", "i386"),
    "aarch64": ("arm64",),
    "riscv64": ("riscv",),
    "ppc64le": ("powerpc",),
}
# QEMU's user mode, by ARCH; where there are several, none is taken for certain.
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

    That is the libc's name and version, the headers' version ("6.1.55"), and how the program was
    run.
    """

    libc: str
    headers: str
    ran: str

    @property
    def series(self) -> tuple[int, int]:
        """The series of the kernel headers, (6, 1)."""
        major, minor = self.headers.split(".")[:2]
        return int(major), int(minor)


def probe(cc: str, *, arch: str, scratch: Path, log: Path | None) -> Facts:
    """Test the compiler driver `cc` for static programs of user space.

    arch: the kernel's ARCH that they are for; scratch: a folder to work in (not /tmp, from which a
    host may refuse to run anything). Raises PiggyError with one sentence that says what is wrong.
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
    """Return the libc and the headers' version, after seeing that the compiler is for `arch`."""
    macro = MACROS.get(arch, "")
    is_it = (
        f"#if {f'defined({macro})' if macro else '1'}\npiggy: for yes\n#else\npiggy: for"
        " no\n#endif\n"
    )
    source.write_text(is_it + QUESTIONS)
    done = run([cc, "-E", "-P", str(source)], log=log, check=False)
    said = dict(re.findall(r"^piggy: (\w+) (.*)$", done.output, re.MULTILINE))
    if said.get("for") == "no":
        target = run([cc, "-dumpmachine"], check=False).output.strip()
        raise PiggyError(
            f"the toolchain {cc} makes programs for {target}, not for ARCH={arch}",
            "name one that is for this machine",
        )
    if done.returncode or not said.get("code", "").strip().isdigit():
        raise _refused(cc, "it finds no libc with the kernel's headers", done, log)
    code = int(said["code"])  # KERNEL_VERSION(a, b, c) in include/generated/uapi/linux/version.h
    libc = re.sub(r" ?\. ?", ".", said.get("libc", "unknown").strip())
    return libc, f"{code >> 16}.{code >> 8 & 255}.{code & 255}"


def _run(cc: str, program: Path, arch: str, log: Path | None) -> str:
    """Run the program where this host can, and say how.

    Raises:
        PiggyError: It does not do what it should.
    """
    emulator = USER_MODE.get(arch, "")
    emulator = (
        shutil.which(emulator, path=clean_env()["PATH"])
        or shutil.which(f"{emulator}-static", path=clean_env()["PATH"])
        or ""
        if emulator
        else ""
    )
    ways = [("runs here", [str(program)])] if arch in RUNS.get(platform.machine(), ()) else []
    ways += [(f"runs in {Path(emulator).name}", [emulator, str(program)])] if emulator else []
    for how, argv in ways:
        try:
            done = run(argv, log=log, check=False)
        except OSError:
            continue  # the host's kernel has no support for this kind of program
        if done.returncode or done.output.strip() != "probe ok":
            raise _refused(
                cc,
                f"the program that it makes does not run here (status {done.returncode})",
                done,
                log,
            )
        return how
    return "to be run at the first boot"


def _refused(cc: str, what: str, done: Completed, log: Path | None) -> PiggyError:
    first = next(
        (line for line in done.output.splitlines() if re.search(r"error|cannot|undefined", line)),
        "",
    )
    return PiggyError(
        f"the toolchain {cc} was refused: {what}", (first + "\n  " if first else "") + f"log: {log}"
    )
