"""The sources of an external module: its folder, and files above it that it names with `..`.

They are built in a copy, as Kbuild writes its objects beside the sources. The copy preserves the
relative paths, so that `ccflags-y := -I$(src)/../common` or `NAME-y := ../common/part.o` work.
Links are followed: the copy has only files and folders, so that nothing is written through a link
into the user's folders.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern
from tasks.system.terminal import printable

# Outputs of an earlier build with M=.
MADE = pattern(r".*\.(o|ko|mod|mod\.c|a|symvers|order|cmd|d|tmp)|\..*|modules\.\w+|Module\.symvers")
MOST = 5000  # files outside of the module's folder: a project's headers, not a home folder
_SPECIAL = pattern(r"[\s:#$%'\"`\\;&|<>()*?\[\]{}!,]")
_TEXT = pattern(r"(Makefile|Kbuild).*|.*\.(c|h|S|s|mk|inc|include)")
_LONGEST = 1 << 20
# Paths with `..` in a makefile; $(src), $(M), $(PWD), ... at the beginning are the module's folder.
_UP = pattern(
    r"(?:\$[({]\w+[)}]/|(?<=-I)|(?<![\w./$+-]))((?:[\w.+-]+/)*\.\.(?:/[\w.+-]+)*)/?(?![\w./+-])"
)
_INCLUDED = pattern(
    r"^\s*(?:#\s*include|\.include|\.incbin)\s*[\"<]([^\">\n]*\.\.[^\">\n]*)[\">]", re.MULTILINE
)
_MAKEFILE = pattern(r"(Makefile|Kbuild).*|.*\.(mk|include)")


def check_name(folder: Path, origin: str) -> None:
    """Check that make can build in a folder of this name; the copy has the same name.

    Source: the kernel's top Makefile, "module directory path cannot contain"; other characters are
    special to make or to a shell.

    Args:
        folder: The module's folder.
        origin: Where the user named it, for the message.

    Raises:
        PiggyError: The name has a special character.
    """
    if special := _SPECIAL.search(folder.name):
        raise PiggyError(
            printable(
                f"{origin}: there is a {special[0]!r} in the name '{folder.name}', "
                "and make can't build a module there"
            ),
            "rename the folder, or name it by a link that has no such character: doit src=LINK",
        )


def files(top: Path) -> dict[str, Path]:
    """Return all files that a module may be made from.

    Returns:
        Path relative to the module's folder, such as "../common/x.h", to the file.

    Raises:
        PiggyError: The module names more than MOST files outside of its folder.
    """
    sources = {os.path.relpath(path, top): path for path in _below(top)}
    waiting, seen, above = list(sources.values()), set[str](), 0
    while waiting:
        path = waiting.pop()
        for name in _named(path, top) - seen:
            seen.add(name)
            for new in _below(top / name):
                key = os.path.relpath(new, top)
                if key not in sources:
                    sources[key], above = new, above + 1
                    waiting.append(new)
                if above > MOST:
                    raise PiggyError(
                        printable(
                            f"{path} names {os.path.normpath(top / name)}, which has more than"
                            f" {MOST} files in it"
                        ),
                        "a module is built in a copy of its folder and of what it names above that;"
                        " have it name the folder that it needs, such as ../common, and not all"
                        " that is above it",
                    )
    return dict(sorted(sources.items()))


def copy(found: Mapping[str, Path], name: str, place: Path) -> Path:
    """Make a fresh copy of a module's sources; an earlier copy is removed with its objects.

    Args:
        found: The sources, as `files` returns them.
        name: The name of the module's folder.
        place: The folder for the copy.

    Returns:
        The module's folder in the copy.
    """
    shutil.rmtree(place, ignore_errors=True)
    depth = max((key.count("../") for key in found), default=0)
    work = place.joinpath(*[f"above{number}" for number in range(depth, 0, -1)], name)
    work.mkdir(parents=True)
    for key, path in found.items():
        target = Path(os.path.normpath(work / key))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return work


def _below(top: Path) -> Iterator[Path]:
    """Yield the files below a folder; links are followed, hidden files and outputs left out.

    For a file, yield it and the files beside it, which it may include.
    """
    waiting = [(os.fspath(top), frozenset[tuple[int, int]]())] if top.is_dir() else []
    if not waiting:
        yield from (
            path
            for path in sorted(top.parent.iterdir())
            if path.is_file() and not MADE.fullmatch(path.name)
        )
    while waiting:
        folder, above = waiting.pop()
        info = os.stat(folder)
        if (info.st_dev, info.st_ino) in above:
            continue  # a link to a folder that it is in
        above |= {(info.st_dev, info.st_ino)}
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if os.path.isdir(path):
                if not name.startswith("."):
                    waiting.append((path, above))
            elif not MADE.fullmatch(name) and os.path.isfile(path):
                yield Path(path)


def _named(path: Path, top: Path) -> set[str]:
    """Return the existing files outside of a module's folder that one of its files names with `..`.

    Args:
        path: The file; its names are relative to its own folder or the module's.
        top: The module's folder.

    Returns:
        Paths relative to the module's folder.
    """
    if not _TEXT.fullmatch(path.name):
        return set()
    try:
        if path.stat().st_size > _LONGEST:
            return set()
        text = path.read_text(errors="replace")
    except OSError:
        return set()
    words = (
        _UP.findall(re.sub(r"#.*", "", text))
        if _MAKEFILE.fullmatch(path.name)
        else _INCLUDED.findall(text)
    )
    bases = os.path.relpath(path.parent, top), "."
    names = {os.path.normpath(os.path.join(base, word)) for word in words for base in bases}
    return {name for name in names if name.startswith("..") and _is_there(os.path.join(top, name))}


def _is_there(path: str) -> bool:
    """Tell whether a file exists, or for an object its source."""
    return (
        os.path.exists(path)
        or path.endswith(".o")
        and any(os.path.isfile(path[:-1] + suffix) for suffix in "cS")
    )
