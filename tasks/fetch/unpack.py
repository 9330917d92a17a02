"""Unpacking of upstream archives into source trees: once, completely, and over no user's change."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from tasks.fetch import decompress, tarstream, untar
from tasks.system import files, restart
from tasks.system.errors import PiggyError
from tasks.system.lock import Lock

STAMP = untar.STAMP


def stamp(build: Path, name: str) -> Path:
    """Return the path of an unpacked source's stamp, on which tasks depend.

    Args:
        build: The build folder.
        name: The source's name.
    """
    return build / "src" / name / STAMP


def standing_for(tree: Path, own: str) -> list[Path]:
    """Return the file that stands for a source tree as an input: its archive's stamp.

    There is none for a tree of the user's own.

    Args:
        tree: The tree.
        own: The setting that names a tree of the user's own; "" if this is none.
    """
    return [] if own else [tree / STAMP]


def unpack(
    archive: Path,
    sha256: str,
    parent: Path,
    name: str,
    *,
    outside_links: Collection[str] = (),
    progress: bool | None = None,
) -> Path:
    """Unpack a .tar.{gz,bz2,xz,zst} without its top-level folder into `parent/NAME-<sha256[:8]>`.

    `parent/NAME` becomes a relative symbolic link to that folder. A folder with our stamp is never
    written to again: the user's changes in it stay. Modes get u+rw and go-w and lose set-id bits,
    whatever the umask; times are the archive's; the owner is the user.

    Args:
        archive: The file.
        sha256: The hash that it must have.
        parent: Where the folder is made.
        name: The source's name.
        outside_links: Symbolic links (paths in the folder) that may lead out of it, such as those
            of a target's skeleton.
        progress: Whether to show a bar; None: if standard error is a terminal.

    Returns:
        The folder.

    Raises:
        PiggyError: The archive is damaged, has another sha256 or a hostile member; or the disk is
            full; or something else has the folder's name.
    """
    folder = parent / f"{name}-{sha256[:8]}"
    if not _stamped(folder, sha256):
        with Lock(parent / f".{folder.name}.lock", os.fspath(folder)).held():
            if not _stamped(folder, sha256):
                bar = sys.stderr.isatty() if progress is None else progress
                _unpack_aside(archive, sha256, folder, outside_links, bar)
    point(parent / name, folder)
    return folder


def _stamped(folder: Path, sha256: str) -> bool:
    """Tell whether `folder` exists with the stamp of the archive that has this hash.

    Raises:
        PiggyError: It exists without that stamp.
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
    """Unpack into a folder beside `folder`, write the stamp, rename it; on failure remove it."""
    if not archive.is_file():
        raise PiggyError(f"{archive} does not exist", "'doit fetch' gets it")
    digest = files.sha256_of(archive)
    if digest != sha256:
        raise decompress.damaged(archive, f"its sha256 is {digest}, and should be {sha256}")
    aside = folder.with_name(f".{folder.name}.part")
    try:
        with files.explained(folder):
            # A killed process may have left it; we hold the lock now.
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            untar.extract(archive, aside, outside, bar)
            (aside / STAMP).write_text(
                json.dumps({"sha256": sha256, "archive": archive.name}) + "\n"
            )
            restart.flush(aside)
            os.rename(aside, folder)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in files.NO_SPACE:
            raise files.no_space(folder, _room_for(archive)) from error.__cause__
        raise


def _room_for(archive: Path) -> int:
    """Return about how many bytes the unpacked archive takes on a disk.

    Each member counts as whole blocks of 4096 bytes, and one more for its inode.
    """
    with tarstream.members(archive) as members:
        return sum((member.size + 2 * 4096 - 1) // 4096 * 4096 for member, _ in members)


def point(link: Path, folder: Path) -> None:
    """Make `link` a relative symbolic link to its sibling `folder`; an old link is replaced.

    Raises:
        PiggyError: `link` is something other than a link.
    """
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
