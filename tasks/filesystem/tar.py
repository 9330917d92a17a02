"""A folder as one file: a tar archive with the same bytes whoever packs it.

As one file it can be a task's output, and a layer of the root filesystem. It is read as carefully
as an archive from elsewhere, since it may come from a store that others write to.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from tasks.fetch import tarstream, untar
from tasks.filesystem.tree import DIR_MODE, LINK_MODE, Entry, Layer
from tasks.system.errors import PiggyError
from tasks.system.files import replacing


def pack(
    folder: Path, archive: Path, epoch: int, wanted: Callable[[str], bool] = lambda path: True
) -> None:
    """Write the files below a folder to a tar archive, which appears whole or not at all.

    Members are sorted and belong to root. Files have the mode 0644 or 0755, folders 0755.

    Args:
        folder: The folder.
        archive: The archive.
        epoch: Every time in it, in seconds since 1970.
        wanted: Tells whether a path (relative to the folder) is packed.
    """
    with replacing(archive) as draft, tarfile.open(draft, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if not wanted(name):
                continue
            info = tar.gettarinfo(path, name)
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime = epoch
            if info.isreg() or info.islnk():  # a hard link is stored as a file of its own
                info.type, info.linkname = tarfile.REGTYPE, ""
                info.mode = 0o755 if info.mode & 0o100 else 0o644
                info.size = os.path.getsize(path)
                with path.open("rb") as stream:
                    tar.addfile(info, stream)
            else:
                info.mode = LINK_MODE if info.issym() else DIR_MODE
                tar.addfile(info)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive of `pack` in a folder, which is empty or missing.

    Raises:
        PiggyError: The archive is unreadable, or leads out of the folder (see `untar`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    untar.extract(archive, folder, strip=False)


def layer(archive: Path) -> Layer:
    """Return an archive of `pack` as a layer of the root filesystem.

    Raises:
        PiggyError: It is unreadable, or has members that `pack` does not write.
    """
    kinds = {"file": "file", "folder": "dir", "link": "link"}
    found = []
    with tarstream.members(archive) as members:
        for member, data in members:
            try:
                path = untar.checked(member.name)
                if (
                    member.kind not in kinds
                    or member.mode & ~0o755
                    and member.kind != "link"
                    or "\0" in member.target
                ):
                    raise untar.Hostile("is none that we packed")
            except untar.Hostile as why:
                raise PiggyError(
                    f"{archive}: member {member.name[:200]!r} {why}", "remove it and run doit again"
                ) from why
            found.append(
                Entry(
                    "/" + path,
                    kinds[member.kind],
                    member.mode,
                    target=member.target,
                    source=data.read() if member.kind == "file" else b"",
                )
            )
    return Layer(archive.name, tuple(found))
