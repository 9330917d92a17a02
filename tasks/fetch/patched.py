"""Patched trees: a copy of an unpacked tree that shares all files which no patch touches.

    build/src/NAME-<sha256> -> shared -> build/MACHINE/src/NAME-<sha256> -> update

The copy is made once. An unchanged file is a reflink of the original's where the file system can do
that (ioctl_ficlone(2): Btrfs, XFS), else a hard link. When the patches change, only the files that
come out otherwise are written, so that make finds everything else as it was.

The copy may hold edits of the user's. None is written over: a file is replaced only if it is still
as we wrote it. What we wrote is recorded in the copy, and before each update what it is about to
write, so that an update that was killed is known for what it is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from tasks.fetch.diff import OURS
from tasks.fetch.series import File
from tasks.system import files, restart
from tasks.system.errors import PiggyError

RECORD = f"{OURS}-patches"
_FICLONE = 0x40049409  # include/uapi/linux/fs.h
_REFUSED = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY)
ABSENT = ""


class Record(msgspec.Struct):
    """What we wrote into a copy: each file that patches touch, to the states that are ours.

    There are several of a file while it is being replaced.
    """

    files: dict[str, list[str]] = {}


def state(file: File | None) -> str:
    """Return the state of a file: a digest of its content, and whether it can be executed."""
    if file is None:
        return ABSENT
    return hashlib.sha256(file.data).hexdigest() + ("x" if file.executable else "")


def at(path: Path) -> File | None:
    """Return the file at a path; None if there is nothing.

    Raises:
        PiggyError: It is no regular file.
    """
    try:
        mode = os.lstat(path).st_mode
        return File(files.read_regular(path), bool(mode & 0o100))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PiggyError(f"{path} can't be read: {error.strerror}") from error


# the copy ----------------------------------------------------------------------------------------


def share(tree: Path, copy: Path) -> None:
    """Make a copy of a tree, unless it exists; it appears whole.

    Args:
        tree: The unpacked tree.
        copy: The copy.

    Raises:
        PiggyError: It can't be written.
    """
    if os.path.lexists(copy):
        return
    aside = copy.with_name(f".{copy.name}.part")
    with files.explained(copy):
        shutil.rmtree(aside, ignore_errors=True)
        try:
            sharing = Sharing()
            aside.mkdir(parents=True)
            for path, inner in _below(tree):
                target = aside / inner
                if stat.S_ISDIR(path.stat(follow_symlinks=False).st_mode):
                    target.mkdir()
                elif path.is_symlink():
                    target.symlink_to(os.readlink(path))
                else:
                    sharing.of(path.path, os.fspath(target))
            restart.flush(aside)
            os.rename(aside, copy)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def _below(tree: Path) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Yield what is in a tree, a folder before its content, each with its path from the tree on.

    Left out are what is no file, folder or link, and a repository of the user's.
    """
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        with os.scandir(tree / inner) as entries:
            for entry in entries:
                name = os.path.join(inner, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    if name == ".git":
                        continue
                    waiting.append(name)
                elif not entry.is_symlink() and not entry.is_file():
                    continue
                yield entry, name


class Sharing:
    """How files share their content: by the first of the ways that works here."""

    def __init__(self) -> None:
        self._ways: list[Callable[[str, str], None]] = [_reflink, os.link, _copied]

    def of(self, source: str, target: str) -> None:
        """Make `target` a file with the content, mode and times of `source`."""
        while True:
            try:
                self._ways[0](source, target)
                return
            except OSError as error:
                if error.errno not in _REFUSED or len(self._ways) == 1:
                    raise
                with contextlib.suppress(FileNotFoundError):
                    os.remove(target)
                if error.errno == errno.EMLINK:  # of this file alone
                    _copied(source, target)
                    return
                del self._ways[0]


def _reflink(source: str, target: str) -> None:
    with open(source, "rb") as one, open(target, "xb") as other:
        fcntl.ioctl(other.fileno(), _FICLONE, one.fileno())
    shutil.copystat(source, target)


def _copied(source: str, target: str) -> None:
    shutil.copy2(source, target)


# the patches -------------------------------------------------------------------------------------


def update(tree: Path, copy: Path, wanted: Mapping[str, File | None]) -> list[str]:
    """Give the files of a copy the content that the patches give them; the others stay.

    Files that no patch touches any more become those of the tree again.

    Args:
        tree: The unpacked tree.
        copy: The copy.
        wanted: Each file that the patches touch, relative to the tree; None for one that they
            remove.

    Returns:
        The files that were written or removed.

    Raises:
        PiggyError: One was edited in the copy, and nothing was written; or it can't be written.
    """
    known = _known(copy)
    changes = due(tree, copy, wanted)
    after = {name: [state(file)] for name, file in wanted.items()}
    if changes or after != known:
        begun = {
            name: list(dict.fromkeys([*known.get(name, [state(at(tree / name))]), state(file)]))
            for name, file in changes.items()
        }
        _record(copy, Record({**known, **after, **begun}))
        with files.explained(copy):
            _write(copy, changes)
    _record(copy, Record(after))
    return list(changes)


def due(tree: Path, copy: Path, wanted: Mapping[str, File | None]) -> dict[str, File | None]:
    """Return the files that `update` would write, or remove; the arguments are the same.

    Raises:
        PiggyError: The user edited one of them.
    """
    known, changes, edited = _known(copy), {}, []
    for name in sorted({*wanted, *known}):
        original = at(tree / name)
        file = wanted.get(name, original)
        ours = [*known.get(name, []), state(original)]
        here = state(at(copy / name))
        if here == state(file) or known.get(name) == [state(file)]:
            continue  # as it should be, or edited where nothing changes for us
        changes[name] = file
        edited += [name] if here not in ours else []
    if edited:
        more = f" (and {len(edited) - 1} more)" if len(edited) > 1 else ""
        raise PiggyError(
            f"{copy / edited[0]} was edited{more}, and the patches now make another file of it",
            f"keep your edit elsewhere (diff -u {tree / edited[0]} {copy / edited[0]}) and remove"
            f" the folder {copy}; it is made again",
        )
    return changes


def edited(copy: Path, wanted: Mapping[str, File | None]) -> list[Path]:
    """Return the files of a copy that are not as the patches make them."""
    return [copy / name for name, file in wanted.items() if state(at(copy / name)) != state(file)]


def _known(copy: Path) -> dict[str, list[str]]:
    return files.decoded(copy / RECORD, Record, Record(), msgspec.json.decode).files


def _write(copy: Path, changes: Mapping[str, File | None]) -> None:
    """Write and remove files, each whole; folders that become empty go, too."""
    drafts = copy.with_name(f".{copy.name}.drafts")
    shutil.rmtree(drafts, ignore_errors=True)
    drafts.mkdir()
    try:
        for number, file in enumerate(changes.values()):
            if file is not None:
                draft = drafts / str(number)
                draft.write_bytes(file.data)
                draft.chmod(0o755 if file.executable else 0o644)
        restart.flush(drafts)  # a file that a power cut left empty would count as the user's edit
        for number, (name, file) in enumerate(changes.items()):
            path = copy / name
            if file is None:
                files.remove(path)
                with contextlib.suppress(OSError):  # it is not empty
                    os.removedirs(path.parent)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(drafts / str(number), path)
    finally:
        shutil.rmtree(drafts, ignore_errors=True)


def _record(copy: Path, record: Record) -> None:
    files.write_whole(copy / RECORD, msgspec.json.encode(record))
