"""Find a compiler by its prefix, and the files whose content is its identity."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tasks.system.errors import PiggyError
from tasks.system.process import clean_env, run

BINUTILS = ("ar", "as", "ld", "nm", "objcopy", "objdump", "readelf", "strip")
# What a static program is linked with, besides libgcc.
LIBC = ("libc.a", "crt1.o", "crti.o", "crtn.o")
HEADERS = ("stdio.h", "linux/version.h")


def programs(prefix: str) -> list[str]:
    """Return the names of the compiler and binutils with a prefix, as makefiles call them.

    Tasks that look for them on PATH take them as inputs.
    """
    return [f"{prefix}{name}" for name in ("gcc", *BINUTILS)]


def compiler(prefix: str, hint: str) -> tuple[str, list[str]]:
    """Find PREFIXgcc, on PATH or at an absolute path.

    Args:
        prefix: The prefix, such as arm-linux-gnueabi- or /opt/x/bin/arm-linux-.
        hint: What the user can do when it is missing.

    Returns:
        Its version line, and the files that are its identity: the driver, cc1, as, ld, libgcc, the
            file of specs, which there need not be, and those binutils with the prefix that exist,
            since makefiles call them directly.

    Raises:
        PiggyError: It is missing or incomplete.
    """
    path = clean_env()["PATH"]
    gcc = shutil.which(f"{prefix}gcc", path=path)
    if not gcc:
        raise PiggyError(
            (
                f"the cross compiler {prefix}gcc is not installed"
                if "/" not in prefix
                else f"there is no compiler {prefix}gcc"
            ),
            hint,
        )
    version = run([gcc, "--version"]).output.partition("\n")[0]
    parts = [os.path.realpath(gcc)]
    real = f"{parts[0]}.br_real" if os.path.exists(f"{parts[0]}.br_real") else f"{gcc}.br_real"
    if os.path.exists(real):  # Buildroot's gcc is a wrapper around the real driver
        parts.append(os.path.realpath(real))
    for question in (
        "-print-prog-name=cc1",
        "-print-prog-name=as",
        "-print-prog-name=ld",
        "-print-file-name=libgcc.a",
    ):
        answer = run([gcc, question]).output.strip()
        found = answer if os.path.isabs(answer) else shutil.which(answer, path=path)
        if not found or not os.path.exists(found):
            raise PiggyError(
                f"{gcc} is incomplete: '{gcc} {question}' finds nothing",
                "reinstall the cross compiler's packages",
            )
        parts.append(libgcc := os.path.realpath(found))
    specs = run([gcc, "-print-file-name=specs"], check=False).output.strip()
    # Where gcc looks for it ("Spec Files" in its manual); a file that is not there may come.
    parts.append(specs if os.path.isabs(specs) else str(Path(libgcc).with_name("specs")))
    others = [shutil.which(f"{prefix}{name}", path=path) for name in BINUTILS]
    return version, list(
        dict.fromkeys([*parts, *(os.path.realpath(found) for found in others if found)])
    )


def parts_inside(prefix: str, folder: Path) -> list[str]:
    """Return which of these files lie in a folder, relative to it and in order.

    Args:
        prefix: As in `compiler`.
        folder: The folder of a toolchain.

    Raises:
        PiggyError: As `compiler` does.
    """
    return sorted(
        {
            os.path.relpath(path, folder)
            for path in compiler(prefix, "")[1]
            if Path(path).is_relative_to(folder) and os.path.exists(path)
        }
    )


def libc_parts(cc: str) -> list[str]:
    """Return the files of the libc that a compiler links with, as part of a toolchain's identity.

    Args:
        cc: The compiler driver.
    """
    found = [run([cc, f"-print-file-name={name}"], check=False).output.strip() for name in LIBC]
    paths = {
        os.path.realpath(path) for path in found if os.path.isabs(path) and os.path.exists(path)
    }
    root = run([cc, "-print-sysroot"], check=False).output.strip()
    paths.update(os.path.realpath(f"{root}/usr/include/{name}") for name in HEADERS if root)
    return sorted(path for path in paths if os.path.exists(path))


def prefix_in(folder: Path) -> str:
    """Return the prefix of the cross compiler in a toolchain's folder.

    The compiler is bin/PREFIXgcc or PREFIXgcc. A folder may hold the same compiler under several
    names: Buildroot's has i686-linux-gcc beside i686-buildroot-linux-uclibc-gcc. The longest name
    is the full one.

    Raises:
        PiggyError: There is no compiler, or there are two different ones.
    """
    for directory in (folder / "bin", folder):
        names = sorted(
            (
                path
                for path in directory.glob("*-gcc")
                if os.access(path, os.X_OK) and path.is_file()
            ),
            key=lambda path: (len(path.name), path.name),
        )
        if len({run([str(path), "-dumpmachine"], check=False).output for path in names}) > 1:
            raise PiggyError(
                f"{directory} has more than one compiler: {', '.join(path.name for path in names)}",
                "name the one to take by its whole prefix: 'toolchain_prefix=FOLDER/bin/NAME-'",
            )
        if names:
            return str(names[-1])[: -len("gcc")]
    raise PiggyError(
        f"{folder} holds no cross compiler: neither bin/*-gcc nor *-gcc is there",
        "'toolchain_prefix=' is a prefix (/opt/x/bin/arm-linux-), the folder of a toolchain, or its"
        " tarball",
    )
