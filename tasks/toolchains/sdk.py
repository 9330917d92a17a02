"""Toolchains as tarballs: unpacked once, relocated by their own script, and packed again."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from tasks.config.project import EPOCH, Project
from tasks.fetch import untar
from tasks.system import files
from tasks.system.files import replacing
from tasks.system.process import run
from tasks.system.terminal import printable
from tasks.toolchains import compiler, folder, record

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
# Buildroot's script; the toolchains of crosstool-NG and Arm need none, wherever they lie.
SCRIPT = "relocate-sdk.sh"
# The file in which that script notes the folder that a toolchain is set up for.
LOCATION = "share/buildroot/sdk-location"


def is_tarball(path: str | Path) -> bool:
    """Tell whether a file's name is that of a tarball."""
    return str(path).endswith(ENDINGS)


def install(project: Project, archive: Path, digest: str, log: Path) -> Path:
    """Unpack and relocate the toolchain of a tarball, unless it is there and intact.

    Args:
        project: The project.
        archive: The tarball.
        digest: The hash of its content, from which the ID is made; its path does not matter.
        log: The file that gets the output.

    Returns:
        The toolchain's folder, build/toolchains/ID.

    Raises:
        PiggyError: The archive is damaged or hostile, the disk is full, or the relocation script
            fails.
    """
    base = project.layout.toolchains.absolute()
    base.mkdir(parents=True, exist_ok=True)
    home = base / record.ident("sdk", digest, str(base))
    with folder.locked(home):
        if folder.intact(home):
            return home
        folder.clear(home)
        try:
            with files.explained(home):
                with replacing(home) as draft:
                    draft.mkdir()
                    untar.extract(archive, draft)
                relocate(home, log)
                prefix = compiler.prefix_in(home)
                folder.seal(home, compiler.parts_inside(prefix, home))
        except BaseException:
            folder.clear(home)  # a half relocated toolchain is of no use
            raise
    return home


def relocate(home: Path, log: Path) -> None:
    """Run a toolchain's own relocation script if it has one.

    Args:
        home: The toolchain's folder, at its final path.
        log: The file that gets the output.

    Raises:
        CommandError: The script fails.
    """
    script = home / SCRIPT
    if script.is_file():
        run(
            ["sh", str(script)] if not os.access(script, os.X_OK) else [str(script)],
            cwd=home,
            log=log,
        )


def misplaced(home: Path) -> str:
    """Return the folder that a Buildroot toolchain is set up for, "" if that is where it lies."""
    try:
        location = files.read_regular(home / LOCATION, 1 << 16).decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return (
        ""
        if "\0" in location or os.path.realpath(location) == os.path.realpath(home)
        else printable(location)
    )


def pack(home: Path, name: str, target: Path, log: Path) -> None:
    """Pack a toolchain's folder as a tarball; the bytes are the same each time.

    Args:
        home: The toolchain's folder.
        name: The one folder at the top of the tarball.
        target: The tarball.
        log: The file that gets the output.

    Raises:
        CommandError: tar fails.
    """
    with replacing(target) as draft:
        draft.parent.mkdir(parents=True, exist_ok=True)
        plain = draft.with_name("sdk.tar")
        run(
            [
                "tar",
                "--sort=name",
                f"--mtime=@{EPOCH}",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
                "--format=gnu",
                f"--exclude=./{folder.SEAL}",
                f"--transform=flags=rhS;s,^\\.,{name},",
                "-cf",
                str(plain),
                "-C",
                str(home),
                ".",
            ],
            log=log,
        )
        import shutil

        with (
            plain.open("rb") as source,
            draft.open("wb") as sink,
            gzip.GzipFile("", "wb", 6, sink, mtime=0) as packed,
        ):
            shutil.copyfileobj(source, packed, 1 << 20)
        plain.unlink()
