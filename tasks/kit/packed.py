"""A folder as one file: a tar archive that is the same whoever packs it, to be a task's output and a layer of the root
filesystem."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from tasks.kit.errors import PiggyError
from tasks.kit.fs import replacing
from tasks.kit.tree import DIR_MODE, LINK_MODE, Entry, Layer


def pack(folder: Path, archive: Path, epoch: int, wanted: Callable[[str], bool] = lambda path: True) -> None:
    """Write what lies below a folder to a tar archive, whole.

    Sorted, of root, with the time `epoch` (seconds since 1970), files 0644 or 0755, folders 0755. wanted: whether a path
    (relative to the folder) is to be in it.
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
    """Lay an archive that `pack` made out in a folder again."""
    with tarfile.open(archive) as tar:
        for info in tar:
            path = folder / info.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if info.isdir():
                path.mkdir(exist_ok=True)
            elif info.issym():
                path.symlink_to(info.linkname)
            else:
                stream = tar.extractfile(info)
                assert stream
                path.write_bytes(stream.read())
                path.chmod(info.mode)


def layer(archive: Path) -> Layer:
    """Return an archive that `pack` made as a layer of the root filesystem. Raises PiggyError when it can't be read."""
    kinds = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "link"}
    found = []
    try:
        with tarfile.open(archive) as tar:
            for info in tar:
                stream = tar.extractfile(info) if info.isreg() else None
                found.append(Entry("/" + info.name, kinds[info.type], info.mode, target=info.linkname,
                                   source=stream.read() if stream else b""))
    except (OSError, tarfile.TarError, KeyError) as error:
        raise PiggyError(f"{archive} can't be read: {error}", "remove it and run doit again") from error
    return Layer(archive.name, tuple(found))
