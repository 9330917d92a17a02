"""Prebuilt toolchains as tarballs.

They are unpacked once, relocated by their own script, and packed again for another machine.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from tasks.config.project import EPOCH, Project
from tasks.fetch import untar
from tasks.system import disk, files
from tasks.system.files import replacing
from tasks.system.process import run
from tasks.system.terminal import printable
from tasks.toolchains import compiler, folder, record

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
SCRIPT = (
    "relocate-sdk.sh"  # Buildroot's; crosstool-NG's and Arm's toolchains find their place without
)
# where Buildroot's script notes the place that a toolchain is set up for
LOCATION = "share/buildroot/sdk-location"


def is_tarball(path: str | Path) -> bool:
    """Does a file's name say that it is a tarball?"""
    return str(path).endswith(ENDINGS)


def install(project: Project, archive: Path, digest: str, log: Path) -> Path:
    """Have a tarball's toolchain unpacked and relocated; return its folder, build/toolchains/ID.

    digest: of the tarball's content, which makes the ID: where the file lies does not matter.
    Raises PiggyError for an archive that is damaged or hostile, a full disk, and a relocation
    script that fails.
    """
    base = (project.layout.build / "toolchains").absolute()
    base.mkdir(parents=True, exist_ok=True)
    place = base / record.ident("sdk", digest, str(base))
    with folder.locked(place):
        if folder.intact(place):
            return place
        folder.clear(place)
        try:
            with disk.explained(place):
                with replacing(place) as draft:
                    draft.mkdir()
                    untar.extract(archive, draft)
                relocate(place, log)
                prefix = compiler.prefix_in(place)
                folder.seal(
                    place,
                    sorted(
                        {
                            os.path.relpath(path, place)
                            for path in compiler.compiler(prefix, "")[1]
                            if Path(path).is_relative_to(place)
                        }
                    ),
                )
        except BaseException:
            folder.clear(place)  # what is half relocated is of no use
            raise
    return place


def relocate(place: Path, log: Path) -> None:
    """Run a toolchain's own relocation script, where it has one.

    The toolchain must stand at its final place.
    """
    script = place / SCRIPT
    if script.is_file():
        run(
            ["sh", str(script)] if not os.access(script, os.X_OK) else [str(script)],
            cwd=place,
            log=log,
        )


def misplaced(place: Path) -> str:
    """Return where a Buildroot toolchain says that it stands, when that is not where it is.

    It is "" otherwise.
    """
    try:
        said = files.read_regular(place / LOCATION, 1 << 16).decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return (
        "" if "\0" in said or os.path.realpath(said) == os.path.realpath(place) else printable(said)
    )


def pack(place: Path, name: str, target: Path, log: Path) -> None:
    """Pack a toolchain's folder as the tarball `target`, below one folder called `name`.

    The bytes are the same whenever it is packed.

    Raises:
        PiggyError: tar failed.
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
                str(place),
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
