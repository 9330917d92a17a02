"""A folder as one file: a tar archive that is the same whoever packs it.

It can be a task's output and a layer of the root filesystem.

It is read as warily as an archive from elsewhere: it may come from a store that others write to.
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
    """Write what lies below a folder to a tar archive, whole.

    Sorted, of root, with the time `epoch` (seconds since 1970), files 0644 or 0755, folders 0755.
    wanted: whether a path (relative to the folder) is to be in it.
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
            if info.isreg() or info.islnk():  # a second name of a file is a file of its own, too
                info.type, info.linkname = tarfile.REGTYPE, ""
                info.mode = 0o755 if info.mode & 0o100 else 0o644
                info.size = os.path.getsize(path)
                with path.open("rb") as stream:
                    tar.addfile(info, stream)
            else:
                info.mode = LINK_MODE if info.issym() else DIR_MODE
                tar.addfile(info)


def unpack(archive: Path, folder: Path) -> None:
    """Lay an archive that `pack` made out in a folder, which must be empty or missing.

    Raises PiggyError when it can't be read, or would lead out of the folder (see `untar`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    untar.extract(archive, folder, strip=False)


def layer(archive: Path) -> Layer:
    """Return an archive that `pack` made as a layer of the root filesystem.

    Raises PiggyError when it can't be read, or holds what `pack` does not put there.
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
