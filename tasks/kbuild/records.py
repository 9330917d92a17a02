"""Reader of Kbuild's records: the .cmd files, and the list of Kconfig files.

Kbuild writes beside each target X a file .X.cmd with its command (`savedcmd_X := ...`, before 6.2
`cmd_X`) and, for compiled objects, the sources and headers that the compiler read
(scripts/basic/fixdep.c). Busybox, whose build system descends from Kbuild, does the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from tasks.kbuild import symbol_times, unrecorded
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern

_TOKEN = pattern(r"[\w./+@%~,:-]*[\w]")


def below(folder: Path) -> Iterator[str]:
    """Yield the paths of all .cmd files below a folder."""
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            if name.startswith(".") and name.endswith(".cmd"):
                yield os.path.join(where, name)


def target_of(record: str) -> str:
    """Return the path of the target beside its .cmd file."""
    folder, name = os.path.split(record)
    return os.path.join(folder, name[1 : -len(".cmd")])


def located(top: str, name: str) -> str:
    """Return the normalised path of what a compiler or make calls by a name.

    By "..", a name leads away from where a link to a folder leads.

    Args:
        top: The folder that the name is relative to, absolute.
        name: The name.
    """
    path = os.path.join(top, name)
    if "/../" not in f"{path}/":
        return os.path.normpath(path)
    if path.endswith("/.."):
        return _folder(path)
    return os.path.join(_folder(os.path.dirname(path)), os.path.basename(path))


@cache
def _folder(path: str) -> str:
    plain, real = os.path.normpath(path), os.path.realpath(path)
    return plain if os.path.realpath(plain) == real else real


def dependencies(record: str) -> set[str]:
    """Return the dependencies in a .cmd file, unchanged: relative to O=, or absolute.

    The `$(wildcard include/config/X)` entries, which stand for CONFIG symbols, are left out: the
    configuration is an input of its own.
    """
    with open(record, encoding="utf-8", errors="surrogateescape") as stream:
        text = stream.read()
    names: set[str] = set()
    for match in re.finditer(
        r"^(?:source|deps)_[^\n]*?:= ?((?:[^\n]*\\\n)*[^\n]*)", text, re.MULTILINE
    ):
        names.update(match[1].replace("\\\n", " ").split())
    return {
        name
        for name in names
        if not name.startswith(("$(", "include/config/")) and not name.endswith(")")
    }


def symbol_files(record: str) -> set[str]:
    """Return the files below include/config/ of the symbols that a .cmd file's sources use.

    A symbol's name can't be told from the file of a kernel before 5.14, which is foo/bar.h for
    FOO_BAR and for FOO_bar. Source: scripts/basic/fixdep.c.
    """
    with open(record, encoding="utf-8", errors="surrogateescape") as stream:
        return set(re.findall(r"\$\(wildcard include/config/([\w/]+(?:\.h)?)\)", stream.read()))


def symbols(record: str, known: Iterable[str] = ()) -> set[str]:
    """Return the symbols, without CONFIG_, that the sources of a .cmd file's target use.

    Args:
        record: The .cmd file.
        known: The symbols of the configuration. Of an old file of none of them the name is taken to
            be in upper case; all that counts is that it is not set.
    """
    names = {path: name for name in known for path in symbol_times.paths(name)}
    return {
        names.get(path, path.removesuffix(".h").replace("/", "_").upper())
        if path.endswith(".h")
        else path
        for path in symbol_files(record)
    }


def of_module(text: str, record: str) -> bool:
    """Tell whether the target of a .cmd file is a loadable module, or part of one.

    Args:
        text: The .cmd file's text.
        record: Its path.
    """
    return " -DMODULE " in text or record.endswith((".ko.cmd", ".mod.cmd", ".mod.o.cmd"))


def command(record: str) -> str:
    """Return the saved command of a .cmd file."""
    with open(record, encoding="utf-8", errors="surrogateescape") as stream:
        match = re.search(r"^(?:saved)?cmd_[^\n]*? := (.*)$", stream.read(), re.MULTILINE)
    return match[1] if match else ""


def words(record: str) -> set[str]:
    """Return the words of a saved command that may be names of files."""
    return set(_TOKEN.findall(command(record)))


def closure(obj: Path, target: str, stop: Iterable[str]) -> set[str]:
    """Return the .cmd files of a target and of all targets that it was made from.

    Names in a command, and in its list of dependencies, that have a .cmd file of their own are
    followed.

    Args:
        obj: The object folder.
        target: The target, relative to it.
        stop: Targets of other tasks, which are not followed.
    """
    ends = {os.path.normpath(name) for name in stop}
    waiting, records = [os.path.normpath(target)], set()
    while waiting:
        name = waiting.pop()
        record = os.path.join(obj, os.path.dirname(name), f".{os.path.basename(name)}.cmd")
        if record in records or not os.path.exists(record):
            continue
        records.add(record)
        for word in words(record) | dependencies(record):
            path = os.path.normpath(word)
            if path not in ends and not path.startswith(("/", "..")):
                waiting.append(path)
    return records


def mentioned(record: str, tree: str) -> set[str]:
    """Return the files of a tree that a saved command names: scripts, tables, linker scripts."""
    return set(re.findall(re.escape(tree) + r"/[\w./+@%~,-]*\w", command(record)))


def makefiles(obj: Path, source: Path, record_files: Iterable[str]) -> list[str]:
    """Return the makefiles and scripts of a build, which no depfile names.

    These are the top Makefile and Kbuild, those of the architecture, those of each folder with a
    .cmd file and the tables beside them, lists of headers, and the files directly in scripts/
    (link-vmlinux.sh and others call one another). Folders in which they look for files are among
    them, each with "/*".

    Args:
        obj: The object folder.
        source: The tree.
        record_files: The .cmd files.
    """
    tree = os.path.realpath(source)
    built_in = {os.path.relpath(os.path.dirname(record), obj) for record in record_files}
    if any(folder.startswith("tools/") for folder in built_in):
        built_in |= {"tools/build", "tools/scripts"}  # of the makes below tools/, as for objtool
    paths = {
        os.path.join(tree, folder, name)
        for folder in {".", *built_in}
        for name in ("Makefile", "Kbuild")
    }
    paths.update(str(path) for path in Path(tree, "scripts").glob("*"))
    paths.update(unrecorded.beside(tree, built_in - {"."}))
    archs = {folder.split("/")[1] for folder in built_in if folder.startswith("arch/")}
    for arch in archs:
        paths.update(str(path) for path in Path(tree, "arch", arch).glob("Makefile*"))
    paths.update(unrecorded.headers(tree, archs))
    names = {os.path.normpath(path) for path in paths if os.path.isfile(path)}
    texts = [name for name in names if re.search(r"/(?:Makefile|Kbuild)[^/]*$", name)]
    return sorted(names | unrecorded.searched(tree, texts))


def kconfig_files(obj: Path, source: Path) -> list[str]:
    """Return the Kconfig files of the configuration, as `make syncconfig` recorded them.

    Source: scripts/kconfig/confdata.c, conf_write_autoconf_cmd().

    Raises:
        PiggyError: There is no such record.
    """
    record = obj / "include" / "config" / "auto.conf.cmd"
    try:
        text = record.read_text()
    except FileNotFoundError as error:
        raise PiggyError(
            f"{record} is missing after make syncconfig", "is this a kernel tree?"
        ) from error
    tree = os.path.realpath(source)
    words = re.search(r"deps_config :=((?:[^\n]*\\\n)*[^\n]*)", text)
    names = words[1].replace("\\\n", " ").split() if words else []
    paths = {
        os.path.normpath(os.path.join(tree, name.replace("$(srctree)", tree))) for name in names
    }
    return sorted(path for path in paths if os.path.isfile(path))
