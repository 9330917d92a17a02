"""Series of patches: read, and applied to copies of the files that they name.

A series is a folder with a file `series`, as quilt has it (a patch a line, perhaps with -pN or -R;
quilt(1)), or one whose *.patch files are applied in the order of their names, but for hidden ones,
such as editors make beside a file that is open in them. GNU patch applies
them in a scratch folder that holds the named files only. So nothing else can be reached, and a
series that fails half-way has changed nothing. No fuzz is allowed: each line of context must be
there, though it may have moved. What a patch may not do is in diff.py; it may not go through a
symbolic link of the tree either.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from tasks.config.patches import SERIES, is_patch
from tasks.fetch.diff import Diff
from tasks.system.errors import PiggyError
from tasks.system.files import read_regular
from tasks.system.process import run
from tasks.system.terminal import printable

LONGEST = 64 << 20  # bytes of a patch
SHOWN = 14  # lines of a hunk in an error


class Patch(msgspec.Struct, frozen=True):
    """One patch of a series.

    Attributes:
        path: The file.
        strip: How many folders of the names in it are left out (patch -p).
        reverse: Whether it is taken back (patch -R).
    """

    path: Path
    strip: int = 1
    reverse: bool = False


class File(msgspec.Struct, frozen=True):
    """A file as a series leaves it."""

    data: bytes
    executable: bool = False


def patches(places: Iterable[Path]) -> list[Patch]:
    """Return the patches of folders and single files, in order.

    Raises:
        PiggyError: A line of a series is wrong, or names a file that does not exist.
    """
    return [patch for place in places for patch in _in(place)]


def files(places: Iterable[Path]) -> list[Path]:
    """Return the files that decide what is applied: the series, and the patches in order."""
    listed = [place / SERIES for place in places if os.path.lexists(place / SERIES)]
    return [*listed, *(patch.path for patch in patches(places))]


def names(places: Iterable[Path]) -> list[str]:
    """Return the files of a tree that patches name."""
    return sorted({name for patch in patches(places) for name in read(patch).names})


def _in(place: Path) -> Iterator[Patch]:
    if not place.is_dir():
        yield Patch(place)
        return
    series = place / SERIES
    if not os.path.lexists(series):
        yield from (Patch(place / name) for name in sorted(os.listdir(place)) if is_patch(name))
        return
    text = _content(series).decode(errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if not words:
            continue
        name, strip, reverse = words[0], 1, False
        for option in words[1:]:
            if option == "-R":
                reverse = True
            elif found := re.fullmatch(r"-p(\d)|-pab", option):
                strip = int(found[1] or 1)
            else:
                raise PiggyError(
                    printable(f"{series}:{number}: '{option}' is not known here"),
                    "a line is the name of a patch, with -pN or -R after it",
                )
        if name.startswith("/") or ".." in name.split("/"):
            raise PiggyError(
                printable(f"{series}:{number}: '{name}' leads out of {place}"),
                "a series names patches of its own folder",
            )
        if not (place / name).is_file():
            raise PiggyError(printable(f"{series}:{number}: there is no {place / name}"))
        yield Patch(place / name, strip, reverse)


def read(patch: Patch) -> Diff:
    """Read a patch.

    Raises:
        PiggyError: It can't be read, has no unified diff, or may not do what it does.
    """
    text = _content(patch.path).decode(errors="surrogateescape")
    return Diff(patch.path, text, patch.strip)


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, LONGEST, follow=True)
    except OSError as error:
        raise PiggyError(printable(f"{path} can't be read: {error.strerror}")) from error


def applied(series: Sequence[Patch], tree: Path, log: Path | None) -> dict[str, File | None]:
    """Apply a series to copies of the files that it names.

    Args:
        series: The patches.
        tree: The tree.
        log: A file for what `patch` says.

    Returns:
        Each file that the series names, relative to the tree, as it is afterwards; None for one
        that is not there.

    Raises:
        PiggyError: A patch does not apply, or may not do what it does.
    """
    named: dict[str, None] = {}
    with tempfile.TemporaryDirectory(prefix="piggyback-patch-") as folder:
        scratch, input_ = Path(folder, "tree"), Path(folder, "patch")
        scratch.mkdir()
        for patch in series:
            diff = read(patch)
            for name in diff.names:
                if name not in named:
                    named[name] = None
                    _bring(tree, scratch, name, patch)
            text = "\n".join(diff.kept) + "\n"
            input_.write_bytes(text.encode(errors="surrogateescape"))
            _apply(patch, diff, input_, tree, scratch, log)
        found = _listed(scratch)
    if stray := found.keys() - named:  # its headers were read otherwise than `patch` reads them
        raise PiggyError(f"a patch makes {min(stray)}, which its headers do not name")
    return {
        name: found.get(name)
        for name in sorted(named)
        if name in found or os.path.lexists(tree / name)
    }


def _bring(tree: Path, scratch: Path, name: str, patch: Patch) -> None:
    """Copy a file of the tree into the scratch folder, if it exists.

    Raises:
        PiggyError: A link is on its way, or it is no file.
    """
    path = tree
    for part in name.split("/"):
        path = path / part
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            return
        if stat.S_ISLNK(mode):
            raise PiggyError(
                printable(f"{patch.path}: {name} is reached through the symbolic link {path}"),
                "have the patch name the file itself",
            )
    if stat.S_ISREG(mode):
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, scratch / name)


def _apply(
    patch: Patch, diff: Diff, input_: Path, tree: Path, scratch: Path, log: Path | None
) -> None:
    """Run GNU patch in the scratch folder (patch(1)).

    Raises:
        PiggyError: The patch does not apply; the message names file and hunk.
    """
    done = run(
        [
            "patch",
            f"-p{patch.strip}",
            "--unified",
            "--fuzz=0",
            "--force",
            "--no-backup-if-mismatch",
            "--reject-file=-",
            "--get=0",
            *(["--reverse"] if patch.reverse else []),
            f"--input={input_}",
        ],
        cwd=scratch,
        log=log,
        check=False,
    )
    if not done.returncode:
        return
    file, failed = "", None
    for line in done.output.splitlines():
        if found := re.match(r"(?:patching|checking) file '?(.+?)'?(?: \(.*\))?$", line):
            file = found[1]
        elif found := re.match(r"Hunk #(\d+) (?:FAILED|ignored)", line):
            failed = next(
                (h for h in diff.hunks if h.file == file and h.number == int(found[1])), None
            )
            break
    head = f"{patch.path} does not apply"
    if failed:
        head += f": hunk {failed.number} of {file} (line {failed.line} of the patch)"
        text = [*failed.text[:SHOWN]] + (["..."] if len(failed.text) > SHOWN else [])
    else:
        absent = [hunk for hunk in diff.hunks if not (scratch / hunk.file).exists()]
        missing = bool(absent) and not file
        head += f": there is no {absent[0].file} in the tree" if missing else ""
        text = [] if missing else done.output.strip().splitlines()[-SHOWN:]
    raise PiggyError(
        printable("\n    ".join([head, *text])),
        f"the tree is {tree}; each line of context must be there as it is in the patch"
        + (f"; log: {log}" if log else ""),
    )


def _listed(scratch: Path) -> dict[str, File]:
    """Return all files of the scratch folder.

    Raises:
        PiggyError: There is something else in it.
    """
    found = {}
    for place, folders, names in os.walk(scratch):
        for name in (*folders, *names):
            path = Path(place, name)
            mode, inner = os.lstat(path).st_mode, os.path.relpath(path, scratch)
            if stat.S_ISREG(mode):
                found[inner] = File(path.read_bytes(), bool(mode & 0o100))
            elif not stat.S_ISDIR(mode):
                raise PiggyError(printable(f"a patch makes {inner}, which is no file"))
    return found
