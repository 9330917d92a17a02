"""uClibc-ng built from source for the distribution's gcc: static, with a wrapper as musl has.

The compiler comes with another libc, so the wrapper sets headers, start files and libraries by
gcc's specs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.graph.task import Job
from tasks.kconfig import dotconfig, fragments
from tasks.kconfig.fragments import Style, same
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.files import write_whole
from tasks.system.process import run
from tasks.toolchains import folder

FRAGMENT = Path("configs") / "uclibc.config"
KEY_FILES = (
    "bin/uclibc-gcc",
    "lib/libc.a",
    "lib/crt1.o",
    "lib/uclibc-gcc.specs",
    "include/linux/version.h",
)
STUBS = ("libm.a", "libcrypt.a", "libdl.a", "libpthread.a", "libresolv.a", "librt.a", "libutil.a")
FILES = 1500  # approximate number of object files, for the progress bar
# Modelled on musl's tools/musl-gcc.specs.sh, for static programs alone.
SPECS = """\
%rename cpp_options old_cpp_options

*cpp_options:
-nostdinc -isystem {home}/include -isystem include%s %(old_cpp_options)

*cc1:
%(cc1_cpu) -nostdinc -isystem {home}/include -isystem include%s

*link_libgcc:
-L{home}/lib -L .%s

*libgcc:
libgcc.a%s %:if-exists(libgcc_eh.a%s)

*startfile:
{home}/lib/crt1.o {home}/lib/crti.o crtbeginT.o%s

*endfile:
crtend.o%s {home}/lib/crtn.o

*lib:
--start-group -lc %G --end-group

*link:
-nostdlib -static

"""
WRAPPER = '#!/bin/sh\nexec {gcc} "$@" -specs {home}/lib/uclibc-gcc.specs\n'
STYLE = Style("")  # the symbols have no prefix in files


def requests(project_top: Path, lines: Sequence[str]) -> dict[str, str]:
    """Return the requests of the fragment and of the machine's own lines.

    Args:
        project_top: The project's folder.
        lines: The machine's lines.

    Returns:
        Symbol to value, "n" for not set.

    Raises:
        PiggyError: A line is not a request.
    """
    own = [
        *fragments.lines(fragments.read(project_top / FRAGMENT), FRAGMENT, STYLE),
        *fragments.lines("\n".join(lines), Path("[toolchain] uclibc"), STYLE),
    ]
    return {request.symbol: request.value for request in own}


def build(job: Job, source: Path, home: Path, prefix: str, headers: Path) -> None:
    """Build uClibc-ng with PREFIXgcc, and install it with the kernel's headers and a gcc wrapper.

    Args:
        job: The run of the task `toolchain`.
        source: uClibc-ng's tree.
        home: The folder that the result becomes, when it is complete.
        prefix: The compiler's prefix.
        headers: The kernel's headers.

    Raises:
        PiggyError: The machine's architecture is not one of uClibc-ng's, or a request did not take.
    """
    project = job.project
    arch, *lines = project.machine.toolchain.uclibc
    symbols = requests(project.top, lines)
    symbols.update(
        {
            f"TARGET_{arch}": "y",
            "KERNEL_HEADERS": f'"{headers.absolute()}"',
            "RUNTIME_PREFIX": '"/"',
            "DEVEL_PREFIX": '"/"',
            "MULTILIB_DIR": '"lib"',
            "CROSS_COMPILER_PREFIX": f'"{prefix}"',
            "UCLIBC_EXTRA_CFLAGS": f'"{project.machine.cflags}"',
        }
    )
    with folder.staged(home, KEY_FILES) as (work, made):
        obj = work / "obj"
        argv = ["make", "-C", str(source), f"O={obj}", f"ARCH={arch}"]
        obj.mkdir()
        write_whole(
            obj / ".config",
            "".join(
                f"# {name} is not set\n" if value == "n" else f"{name}={value}\n"
                for name, value in symbols.items()
            ),
        )
        run([*argv, "oldconfig"], log=job.log, stdin="\n" * 10_000)
        _check(symbols, (obj / ".config").read_text())
        with project.jobs.token(), terminal.bar("uClibc-ng", FILES, "files") as progress:

            def on_line(line: str) -> None:
                if line.lstrip().startswith(("CC ", "AS ")):
                    progress.step()

            run([*argv, "all"], log=job.log, on_line=on_line, env=project.jobs.environment())
        run([*argv, f"PREFIX={made}", "install_dev"], log=job.log)
        # libc.a holds everything, but programs still link with -lm and the like.
        for name in STUBS:
            if not (made / "lib" / name).exists():
                run([f"{prefix}ar", "rcD", str(made / "lib" / name)], log=job.log)
        folder.add(headers, made / "include")
        write_whole(made / "lib" / "uclibc-gcc.specs", SPECS.format(home=home))
        write_whole(
            made / "bin" / "uclibc-gcc", WRAPPER.format(gcc=f"{prefix}gcc", home=home), 0o755
        )


def _check(symbols: dict[str, str], config: str) -> None:
    got = dotconfig.parse_config(config, style=STYLE)
    missed = [
        f"{name}={value}" for name, value in symbols.items() if not same(value, got.get(name, ""))
    ]
    if missed:
        raise PiggyError(
            f"{len(missed)} of {len(symbols)} symbols requested of uClibc-ng did not take:"
            f" {', '.join(missed)}",
            f"they stand in {FRAGMENT} or in the machine's file ([toolchain] uclibc)",
        )
