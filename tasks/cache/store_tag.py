"""What makes a folder a store: its tag, and names of its own form (see cache/store_files.py).

The user names the folder, and may err: one that is not empty and has no tag is left alone, and in a
store nothing is touched that has another name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from pathlib import Path

from tasks.system import owned
from tasks.system.errors import PiggyError
from tasks.system.files import open_regular, read_regular, write_whole
from tasks.system.pattern import pattern

LAYOUT = 1  # of the folders and their names; in the tag
LIST = "list"
TAG = "CACHEDIR.TAG"  # by which backup programs leave the folder out: https://bford.info/cachedir/
_SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55\n# A store of Piggyback, format "
_SAYS = f"""{_SIGNATURE}{LAYOUT}.
# It keeps what builds made before, so that going back brings it back. Piggyback adds to \
results/ and blobs/, and removes
# from them what was not used for longest; all of it may be deleted at any time \
('doit store clear').
"""
HASH = "[0-9a-f]{32}"
# Drafts of files.replacing (of earlier versions), files.replacing_file and files.write_whole.
_ASIDE = r"\.(list|[0-9a-f]{30}|[0-9a-f]{32})\.[a-z0-9_]{8}\.part"
FOLDERS = pattern(f"results(/{HASH}(/{HASH}(/{_ASIDE})?)?)?|blobs(/[0-9a-f]{{2}}(/{_ASIDE})?)?")
FILES = pattern(
    f"results/{HASH}/{HASH}/(({_ASIDE}/)?(list|{HASH})|{_ASIDE})"
    f"|blobs/[0-9a-f]{{2}}/(({_ASIDE}/)?[0-9a-f]{{30}}|{_ASIDE})"
)
PARTS = ("results", "blobs")
USED = "used"  # the time and size of a store, for its limit
REFUSED = "refused"  # what is not believed
_TAG_ASIDE = pattern(rf"\.({re.escape(TAG)}|{USED}|{REFUSED})\.[a-z0-9_]{{8}}\.part")


def check(folder: Path) -> None:
    """Raise PiggyError if the folder is somebody else's: not empty, and no store."""
    try:
        said = _tag(folder)
        if _to_be_written(said) and _before_tags(folder, said):
            return
    except (FileNotFoundError, PermissionError):
        return
    except NotADirectoryError:
        raise PiggyError(
            f"the store {folder} is no folder", "move the file away, or name a folder with 'store='"
        ) from None
    found = re.match(re.escape(_SIGNATURE) + r"(\d{1,9})\.", said or "")
    if not found:
        raise PiggyError(
            f"the folder {folder} is not empty, and it is no store of Piggyback's; it is left"
            " alone",
            "'store=' must name a folder that is empty or not there yet, or a store",
        )
    if int(found[1]) != LAYOUT:
        raise PiggyError(
            f"the store {folder} has format {found[1]}, and this Piggyback knows {LAYOUT}",
            "name another folder with 'store=', or delete this one",
        )


def opened(folder: Path) -> str:
    """Return "" if the store can be used, else why nothing may be taken from it.

    Then others can write to it. A store from before there were tags gets one. Its folders may have
    been made with a umask of 002, where each user has a group of one's own; they are closed to the
    group.

    Raises:
        PiggyError: As `check` does.
    """
    check(folder)
    try:
        missing = _to_be_written(_tag(folder))
        if missing:
            _close_to_the_group(folder)
        with owned.folder(folder):
            if missing:
                with contextlib.suppress(OSError):  # read-only
                    tag(folder)
            return ""
    except PermissionError as error:
        return (error.strerror or "") if error.errno == errno.EPERM else ""
    except OSError:
        return ""


def tag(folder: Path) -> None:
    """Make the folder with its tag, where they are missing.

    Raises:
        OSError: It can't be made; EPERM for a folder that others can write to.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with owned.folder(folder):
        if _to_be_written(_tag(folder)):
            write_whole(folder / TAG, _SAYS)


def _tag(folder: Path) -> str | None:
    """Return what the tag says; None without one.

    Raises:
        OSError: There is no folder.
    """
    try:
        with open(open_regular(folder / TAG), encoding="utf-8", errors="replace") as stream:
            return stream.read(4096)
    except FileNotFoundError:
        os.stat(folder)
        return None
    except OSError as error:
        if isinstance(error, NotADirectoryError):
            raise
        os.lstat(folder / TAG)  # PermissionError: it is the folder that may not be entered
        return "?"  # a link, a folder, a file that we may not read


def _to_be_written(said: str | None) -> bool:
    """Tell whether a tag is missing, or what a power cut left of it."""
    return said is None or said != _SAYS and _SAYS.startswith(said)


def _before_tags(folder: Path, said: str | None) -> bool:
    """Tell whether the folder is empty, or a store of the time before there were tags.

    Where there are files, at least one must be a list that can be nobody else's, or the rest of the
    tag must be such: lists may be cut short, too, then.

    Args:
        folder: The folder.
        said: What there is of a tag.

    Raises:
        OSError: The folder can't be read.
    """
    top = {name for name in os.listdir(folder) if not _TAG_ASIDE.fullmatch(name)}
    if not top <= ({*PARTS, "lock"} if said is None else {*PARTS, "lock", TAG, USED, REFUSED}):
        return False
    for part in top.intersection(PARTS):
        place = folder / part
        if place.is_symlink() or not all(
            FOLDERS.fullmatch(f"{part}/{name}") for name in os.listdir(place)
        ):
            return False
    filled = any(names for part in PARTS for _, _, names in os.walk(folder / part))
    sure = said is not None and (not said or said.startswith(_SIGNATURE))
    return sure or not filled or any(map(_is_list, (folder / "results").glob(f"*/*/{LIST}")))


def _is_list(path: Path) -> bool:
    """Tell whether this is a list of a store's.

    It lies in a folder named by its hash, which names of a like form do not have by chance.
    """
    try:
        data = read_regular(path, 1 << 26)
    except OSError:
        return False
    return hashlib.sha256(data).hexdigest()[:32] == path.parent.name


def _close_to_the_group(folder: Path) -> None:
    mine = os.geteuid(), os.getegid()
    places = [folder]
    for part in PARTS:
        for where, folders, _ in os.walk(folder / part):
            short = os.path.relpath(where, folder)
            folders[:] = [name for name in folders if FOLDERS.fullmatch(f"{short}/{name}")]
            places.append(Path(where))
    for place in places:
        info = place.lstat()
        if (
            stat.S_ISDIR(info.st_mode)
            and (info.st_uid, info.st_gid) == mine
            and not info.st_mode & stat.S_IWOTH
            and info.st_mode & stat.S_IWGRP
        ):
            place.chmod(stat.S_IMODE(info.st_mode) & 0o755)
