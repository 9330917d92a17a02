"""Safe extraction of tar archives: hostile members are refused.

Each member is checked against a model of what the archive has made so far. Two rules make the
extraction safe: no member is written through a link (each parent must be a folder that we made),
and at the end each symbolic link, followed through all others, must stay in the tree.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from tasks.fetch import decompress, tarstream
from tasks.fetch.tarstream import Data, Member
from tasks.system.errors import PiggyError
from tasks.system.terminal import printable

STAMP = ".piggyback-source"  # a file that we add to the tree, and no archive may bring along
MAX_HOPS = 40  # as many symbolic links as the kernel follows: MAXSYMLINKS, include/linux/namei.h
MAX_DEPTH = 100  # folders in a path: a kernel has 10, and shutil.rmtree recurses
MAX_NAME = 4095  # bytes of a path or a link's target: PATH_MAX, include/uapi/linux/limits.h
# Bytes of all paths together, implied folders included; a kernel's have 5 MB.
MAX_PATHS = 1 << 26
MAX_STEPS = 5_000_000  # to follow all links: some seconds; a kernel's links take 2,000
_COPY = 1 << 20
_FOLDER, _FILE, _LINK = "folder", "file", "link"


class Hostile(Exception):
    """A member that is refused; the text continues the sentence "member NAME ..."."""


class _Tree(msgspec.Struct, frozen=True):
    """The tree that an archive has made so far.

    Attributes:
        root: Its folder; all paths are relative to it.
        kinds: Path to kind.
        links: Path of a symbolic link to its target.
        times: Path of a folder to its mtime, seconds since 1970.
        room: Bytes left for further paths.
    """

    root: Path
    kinds: dict[str, str] = msgspec.field(default_factory=lambda: {"": _FOLDER})
    links: dict[str, str] = msgspec.field(default_factory=dict)
    times: dict[str, float] = msgspec.field(default_factory=dict)
    room: list[int] = msgspec.field(default_factory=lambda: [MAX_PATHS])

    def note(self, path: str, kind: str) -> None:
        """Record the kind of file that is made at a path.

        Raises:
            Hostile: The paths are too many or too long. A member of 4 KB can ask for 100 folders,
                each with a path of up to 4 KB.
        """
        if path not in self.kinds:
            self.room[0] -= len(path)
            if self.room[0] < 0 or len(self.kinds) > tarstream.MEMBERS:
                raise Hostile("needs more folders than any source has")
        self.kinds[path] = kind


def extract(
    archive: Path,
    root: Path,
    outside_links: Collection[str] = (),
    bar: bool = False,
    strip: bool = True,
) -> None:
    """Extract a tar archive into an empty folder.

    Modes get u+rw and go-w and lose set-id bits, whatever the umask; times are the archive's.

    Args:
        archive: The file.
        root: The empty folder. After an error, the caller removes it.
        outside_links: Symbolic links (paths below `root`) that may lead out of it.
        bar: Whether to show progress.
        strip: Whether to leave out the top-level folder; all members must then lie in one.

    Raises:
        PiggyError: A member is refused (the message names it), or the archive is damaged.
        OSError: The disk is full, for example.
    """
    tree = _Tree(root)
    top = at = ""
    try:
        with tarstream.members(archive, bar) as members:
            for member, data in members:
                at = member.name
                path = checked(at)
                if strip:
                    first, _, path = path.partition("/")
                    top = top or first
                    if first != top:
                        raise Hostile(f"lies outside the archive's one top folder '{top}'")
                try:
                    _place(tree, member, data, path, top)
                except FileExistsError as error:
                    raise Hostile(
                        "has another member's name, as this file system folds case"
                    ) from error
        if strip and not top:
            raise decompress.damaged(archive, "it is empty")
        steps = iter(range(MAX_STEPS))
        for path, target in tree.links.items():
            at = f"{top}/{path}" if strip else path
            if path not in outside_links and not _stays_inside(path, target, tree.links, steps):
                raise Hostile(f"is a link out of the tree, to '{target}'")
    except Hostile as why:
        raise PiggyError(
            printable(f"{archive}: member {at[:200]!r} {why}"),
            "the archive is refused; get it from somewhere else",
        ) from why
    for path, mtime in tree.times.items():
        os.utime(tree.root / path, (mtime, mtime))


def checked(name: str) -> str:
    """Return a member's path without `.` and empty parts.

    Raises:
        Hostile: The path is absolute, has `..`, or is too long or too deep.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if (
        not 0 < len(parts) <= MAX_DEPTH
        or name.startswith("/")
        or ".." in parts
        or not _is_text(name)
    ):
        raise Hostile(f"has an unsafe path: {name[:200]!r}")
    return "/".join(parts)


def _is_text(name: str) -> bool:
    """Tell whether a name has no control characters and at most MAX_NAME bytes."""
    return len(os.fsencode(name)) <= MAX_NAME and not re.search(r"[\x00-\x1f\x7f]", name)


def _place(tree: _Tree, member: Member, data: Data, path: str, top: str) -> None:
    """Write one member into the tree and record it present.

    Args:
        tree: The tree so far.
        member: The member.
        data: Its content.
        path: Where to write it, below the tree's root.
        top: The top-level folder that is left out, which hard links name, too; "" for none.

    Raises:
        Hostile: The member is refused.
    """
    present = tree.kinds.get(path)
    if path == STAMP or (not path and member.kind != "folder"):
        raise Hostile("stands where our stamp or a folder belongs")
    if (
        present
        and not (present == _FOLDER and member.kind == "folder")
        and not (present == _FILE and member.kind == "file")
    ):
        raise Hostile(f"comes again, in place of a {present}")
    _make_folders(tree, path.rpartition("/")[0])
    file_path = tree.root / path
    if member.kind == "folder":
        tree.note(path, _FOLDER)
        if not present:
            file_path.mkdir()
        file_path.chmod((member.mode & 0o755) | 0o700)
        tree.times[path] = member.mtime
    elif member.kind == "file":
        if present:
            file_path.unlink()
        _write(data, member, file_path)
        tree.note(path, _FILE)
    elif member.kind == "link":
        target = member.target
        if not target or not _is_text(target):
            raise Hostile(f"is a link with an unsafe target: {target[:200]!r}")
        os.symlink(target, file_path)
        os.utime(file_path, (member.mtime, member.mtime), follow_symlinks=False)
        tree.note(path, _LINK)
        tree.links[path] = target
    elif member.kind == "hard":
        target = checked(member.target)
        first, _, below = target.partition("/")
        if top:
            target = below if first == top else ""
        if tree.kinds.get(target) != _FILE:
            raise Hostile(
                f"is a hard link to '{member.target}', which is no earlier file of the archive"
            )
        os.link(tree.root / target, file_path, follow_symlinks=False)
        tree.note(path, _FILE)
    else:
        raise Hostile(
            "is a device, a pipe, a sparse file, or something else that no source tree needs"
        )


def _make_folders(tree: _Tree, path: str) -> None:
    """Make the folder `path` and its parents.

    Raises:
        Hostile: The path leads through a link or a file.
    """
    if tree.kinds.get(path) == _FOLDER:
        return
    parts = path.split("/")
    for step in ("/".join(parts[:count]) for count in range(1, len(parts) + 1)):
        kind = tree.kinds.get(step)
        if kind is None:
            tree.note(step, _FOLDER)
            (tree.root / step).mkdir()
        elif kind != _FOLDER:
            raise Hostile(f"lies below '{step}', which is a {kind}")


def _write(data: Data, member: Member, file_path: Path) -> None:
    """Write a regular file.

    O_EXCL also catches two names that differ in case only, where the file system folds case.
    """
    mode = (member.mode & 0o755) | 0o600
    fd = os.open(
        file_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode
    )
    with os.fdopen(fd, "wb", buffering=0) as file:
        shutil.copyfileobj(data, file, _COPY)
        os.fchmod(fd, mode)
        os.utime(fd, (member.mtime, member.mtime))


def _stays_inside(path: str, target: str, links: dict[str, str], steps: Iterator[int]) -> bool:
    """Tell whether a symbolic link, followed through all others, stays in the tree.

    A missing part of the way counts as a folder. No folder on the way to `path` is a link (see
    `_make_folders`).

    Args:
        path: The link.
        target: Where it leads.
        links: Path to target of all symbolic links.
        steps: The steps left to follow all links.

    Raises:
        Hostile: The steps are used up.
    """
    here = path.split("/")[:-1]
    todo = target.split("/")[::-1]
    hops = 0
    if target.startswith("/"):
        return False
    while todo:
        part = todo.pop()
        if next(steps, None) is None or len(here) > 2 * MAX_DEPTH:
            raise Hostile("leads through too many other links and folders")
        if part == "..":
            if not here:
                return False
            here.pop()
        elif part not in ("", "."):
            here.append(part)
            onward = links.get("/".join(here))
            if onward is not None:
                hops += 1
                if hops > MAX_HOPS or onward.startswith("/"):
                    return False
                here.pop()
                todo.extend(onward.split("/")[::-1])
    return True
