"""Unpacking upstream archives into a source tree.

Whole, once, and never over anything that the user changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from tasks.fetch import decompress, tarstream, untar
from tasks.system import files
from tasks.system.errors import PiggyError
from tasks.system.lock import Lock

STAMP = untar.STAMP


def stamp(build: Path, name: str) -> Path:
    """The file by which tasks depend on an unpacked source, below the build folder.

    It holds the archive's hash.
    """
    return build / "src" / name / STAMP


def unpack(
    archive: Path,
    sha256: str,
    parent: Path,
    name: str,
    *,
    outside_links: Collection[str] = (),
    progress: bool | None = None,
) -> Path:
    """Unpack a .tar.{gz,bz2,xz,zst} without its one top-level folder.

    Return the folder `parent/NAME-<sha256[:8]>`.

    `parent/NAME` becomes a relative symbolic link to it. A folder that is there already, with our
    stamp in it, is never written to again: whatever the user changed in it stays. Modes are made
    u+rw and go-w and set-id bits dropped, whatever the umask; times are the archive's; owners are
    the user.
    outside_links: symbolic links (paths in the folder) that may lead out of it, such as those in a
        target's skeleton.
    progress: show a bar (None: when standard error is a terminal). Raises PiggyError for an archive
    that is damaged or has another sha256, a hostile member, and a full disk.
    """
    folder = parent / f"{name}-{sha256[:8]}"
    if not _stamped(folder, sha256):
        with Lock(parent / f".{folder.name}.lock", os.fspath(folder)).held():
            if not _stamped(folder, sha256):
                bar = sys.stderr.isatty() if progress is None else progress
                _unpack_aside(archive, sha256, folder, outside_links, bar)
    _point(parent / name, folder)
    return folder


def _stamped(folder: Path, sha256: str) -> bool:
    """Tell whether `folder` was unpacked from the archive with that hash.

    Refuse one that is anything else.
    """
    try:
        stamp = json.loads(files.read_regular(folder / STAMP, 1 << 16))
    except (OSError, ValueError, RecursionError):
        stamp = None
    if isinstance(stamp, dict) and stamp.get("sha256") == sha256:
        return True
    if os.path.lexists(folder):
        raise PiggyError(
            f"{folder} is in the way: it has no {STAMP} of this archive",
            "it may hold work of yours, so it is left alone; move it away to have the source"
            " unpacked",
        )
    return False


def _unpack_aside(
    archive: Path, sha256: str, folder: Path, outside: Collection[str], bar: bool
) -> None:
    """Unpack into a folder beside `folder`, stamp it, rename it; on failure nothing stays."""
    if not archive.is_file():
        raise PiggyError(f"{archive} does not exist", "'doit fetch' gets it")
    found = files.sha256_of(archive)
    if found != sha256:
        raise decompress.damaged(archive, f"its sha256 is {found}, and should be {sha256}")
    aside = folder.with_name(f".{folder.name}.part")
    try:
        with files.explained(folder):
            shutil.rmtree(
                aside, ignore_errors=True
            )  # what a killed process left; its lock is ours now
            aside.mkdir(parents=True)
            untar.extract(archive, aside, outside, bar)
            (aside / STAMP).write_text(
                json.dumps({"sha256": sha256, "archive": archive.name}) + "\n"
            )
            os.rename(aside, folder)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in files.NO_SPACE:
            raise files.no_space(folder, _room_for(archive)) from error.__cause__
        raise


def _room_for(archive: Path) -> int:
    """Return the bytes that the unpacked archive takes on a disk, about.

    Blocks of 4096 bytes, one an inode.
    """
    with tarstream.members(archive) as members:
        return sum((member.size + 2 * 4096 - 1) // 4096 * 4096 for member, _ in members)


def _point(link: Path, folder: Path) -> None:
    """Make `link` a relative symbolic link to its sibling `folder`, by a rename."""
    with contextlib.suppress(OSError):
        if os.readlink(link) == folder.name:
            return
    if os.path.lexists(link) and not link.is_symlink():
        raise PiggyError(
            f"{link} is in the way: a link to {folder.name} belongs there", "move it away"
        )
    draft = link.with_name(f".{link.name}.{os.getpid()}.link")
    with files.explained(link):
        draft.unlink(missing_ok=True)
        os.symlink(folder.name, draft)
        os.replace(draft, link)
