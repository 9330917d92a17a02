"""Keys of objects in the store: their .cmd files without the paths of tree and object folder.

A .cmd file is rewritten as a list of names: the command, the dependencies as fixdep wrote them, and
the rest. The same list gives the .cmd file back, byte for byte, in another tree and object folder.
Inputs that no .cmd file names have names of their own: headers that would hide one that was read,
the two folders if the object depends on their paths, symbols that the command names, and objtool.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import NamedTuple

import msgspec

from tasks.cache.places import Places
from tasks.kbuild import compiler
from tasks.kbuild.saved import Saved, Unfamiliar, unescaped
from tasks.system.pattern import pattern

HIDING = "#hiding"  # the headers that would hide one that was read
PLACE = "#place"  # the folders' paths, if the object holds one, or the command tells one
SYMBOL = "#CONFIG_"  # before the name of a symbol that the command names
OBJTOOL = "#objtool"  # objtool, if the command runs it
PROGRAM = "tools/objtool/objtool"
_WILDCARD = pattern(r"\$\(wildcard (include/config/[\w/]+(?:\.h)?)\)")
_PATH = pattern(r"[\w./+@%~,:=<>-]+")
_TARGET = pattern(r"[\w./+@%~,-]+\.o")
_HEAD = pattern(r"(?:saved)?cmd_(\S+) := [^\n]+")
_TAIL = pattern(r"\s*|\n*\S+: \$\(wildcard [^()$\s]+\)\n")
# Options by which the object depends on unrecorded inputs, or the compiler writes further outputs:
# plug-ins, profiles, response files.
_STRANGE = pattern(
    r"@|--?(?:fplugin|specs|wrapper|save-temps|gsplit|gz|fprofile|fauto-profile|fbranch|ftest"
    r"|fdump|fstack-usage|fcallgraph|flto|ffat-lto|Xclang|include-pch|B)"
    r"|-m(?:arch|tune|cpu)=native"  # of which host?
    r"|-W[apl],(?!-)|-W[apl],.*@"  # a file for the assembler or preprocessor
    r"|-f(?!\w+-prefix-map=)[\w-]+=\S*[/.]"  # a file for the compiler
)
# cmd_objtool of scripts/Makefile.lib
_CHECKED = pattern(rf"\s*; \./{PROGRAM}(?: +--[\w=-]+)* +[\w./+@%~,-]+\.o\s*$")
_DEBUG = pattern(r"-g(?:\d|gdb\S*|dwarf\S*)?")
_SHELL = pattern(r"[;&|<>`(){}*?\\\n]")


class Roots(msgspec.Struct, frozen=True, dict=True):
    """The folders whose paths are replaced by placeholders.

    Attributes:
        tree: The source tree.
        obj: The object folder.
        tools: The toolchain's folder; "" for tools on PATH.
    """

    tree: str
    obj: str
    tools: str = ""

    @cached_property
    def places(self) -> Places:
        """The folders, each with its placeholder as the word."""
        return Places({"tree": [self.tree], "obj": [self.obj], "tools": [self.tools]})

    def pairs(self) -> list[tuple[str, str]]:
        """Return pairs of a path and its placeholder, the longest path first."""
        return self.places.pairs

    def hidden(self, text: str) -> str:
        """Replace each path in a text by its placeholder.

        Raises:
            Unfamiliar: The text has a placeholder already.
        """
        try:
            return self.places.hidden(text)
        except ValueError as error:
            raise Unfamiliar(str(error)) from error

    def shown(self, text: str) -> str:
        """Replace each placeholder in a text by its path."""
        return self.places.shown(text)


def names_of(record: Saved, text: str, roots: Roots) -> list[str]:
    """Rewrite a .cmd file as a list of names.

    Args:
        record: The .cmd file, parsed.
        text: Its text.
        roots: The folders whose paths are replaced.

    Raises:
        Unfamiliar: The object may have unrecorded inputs, or the list would not give the same text.
    """
    familiar(record)
    words = compiler.words(record.command)
    if unlisted := next(_unlisted(words, roots), ""):
        raise Unfamiliar(f"the headers of {unlisted} are in no record")
    if compiler.begins(words):
        raise Unfamiliar(f"the command of {record.target} has a part of a symbol's name")
    deps = re.findall(r"^ +(\$\(wildcard \S+\)|\S+) \\$", text, re.MULTILINE)
    head = f"{record.key} {record.text}"
    names = [roots.hidden(part) for part in (head, record.source, *deps, record.tail)]
    if record_of(names, roots) != text:
        raise Unfamiliar(f"the record of {record.target} would not come back as it is")
    return names


def _unlisted(words: Sequence[str], roots: Roots) -> Iterator[str]:
    """Yield the folders of which the compiler lists no headers, but for the compiler's own."""
    for folder in compiler.systems(words):
        path = os.path.normpath(os.path.join(roots.obj, folder))
        if f"{path}/".startswith((f"{roots.tree}/", f"{roots.obj}/")):
            yield folder


def familiar(record: Saved) -> None:
    """Check that a command only compiles a kernel object, from recorded inputs.

    Raises:
        Unfamiliar: It does anything else.
    """
    if not record.compiles or not record.lists or not _TARGET.fullmatch(record.target):
        raise Unfamiliar(f"{record.target} is not compiled")
    command = re.sub(r"'[^']*'|\"[^\"]*\"", "", record.command)
    command = _CHECKED.sub("", command)
    words = command.split()
    if "-D__KERNEL__" not in words:
        raise Unfamiliar(f"{record.target} is of a host program")
    if _SHELL.search(command) or f"-o {record.target}" not in " ".join(words):
        raise Unfamiliar(f"the command of {record.target} does more than compile")
    if strange := next(filter(_STRANGE.match, compiler.words(record.command)), ""):
        raise Unfamiliar(f"the command of {record.target} has {strange}")


def record_of(names: Sequence[str], roots: Roots) -> str:
    """Return the text of the .cmd file that a list of names stands for.

    Raises:
        Unfamiliar: They are no such names; make must not read the text.
    """
    if len(names) < 3:
        raise Unfamiliar("these are no names of a record")
    head, source, *deps, tail = names
    match = _HEAD.fullmatch(head)
    if (
        not match
        or not _TARGET.fullmatch(match[1])
        or not _TAIL.fullmatch(tail)
        or not _PATH.fullmatch(source)
        or not all(map(_is_dependency, deps))
    ):
        raise Unfamiliar("these are no names of a record")
    unescaped(head)
    target = match[1]
    lines = "".join(f"{'    ' if dep[0] == '$' else '  '}{dep} \\\n" for dep in deps)
    return roots.shown(
        f"{head}\n\nsource_{target} := {source}\n\ndeps_{target} := \\\n{lines}\n"
        f"{target}: $(deps_{target})\n\n$(deps_{target}):\n{tail}"
    )


@cache
def _is_dependency(name: str) -> bool:
    """Tell whether fixdep writes such a name: the file of a symbol, or a header."""
    return bool((_WILDCARD if name[:1] == "$" else _PATH).fullmatch(name))


def symbol_file(name: str) -> str:
    """Return the file below include/config/ of a dependency on a symbol; "" for another one."""
    match = _WILDCARD.fullmatch(name)
    return match[1] if match else ""


def of_record(names: Sequence[str]) -> list[str]:
    """Return the names of the .cmd file, without those of unrecorded inputs."""
    return [name for name in names if not name.startswith("#")]


def placed(record: Saved, content: bytes, roots: Roots) -> bool:
    """Tell whether an object depends on where a folder lies.

    It does if it holds a path, as debug information does, or the command has one for a macro.

    Args:
        record: Its .cmd file.
        content: Its content.
        roots: The folders.
    """
    held, words = [path for path, _ in roots.pairs()], compiler.words(record.command)
    return (
        any(map(_DEBUG.fullmatch, words))
        or any(path.encode() in content for path in held)
        or any(compiler.handed(words, path) for path in held)
    )


def unrecorded(record: Saved) -> list[str]:
    """Return the names of the symbols that a command names, and OBJTOOL if it runs that."""
    names = [f"{SYMBOL}{name}" for name in sorted(compiler.symbols(compiler.words(record.command)))]
    return [*names, *([OBJTOOL] if _CHECKED.search(record.command) else [])]


def folders(command: str) -> tuple[str, ...]:
    """Return the folders in which the compiler searches headers, in its order.

    Source: GCC's manual, "Options for Directory Search".
    """
    plain = re.sub(r"[\"'\\]", "", command)  # the shell takes its quotes away
    options = re.findall(r"(?:^|\s)-(I|iquote|isystem|idirafter) ?(\S+)", plain)
    order = ("iquote", "I", "isystem", "idirafter")
    return tuple(
        os.path.normpath(folder) for kind in order for option, folder in options if option == kind
    )


class _Header(NamedTuple):
    """What is asked of a header for each object that was compiled with it.

    Attributes:
        path: Its normalised path.
        folder: The folder that it lies in.
        names: The names by which it may have been found in one of the folders of -I.
        parts: The folders in these names; "" for none.
        earlier: The existing files that precede it in the folders of -I.
    """

    path: str
    folder: str
    names: list[str]
    parts: frozenset[str]
    earlier: list[str]


class Hiding:
    """The search for headers that would hide one that an object was compiled with.

    Attributes:
        top: The object folder, which names are relative to.
    """

    def __init__(self, top: str) -> None:
        self.top = top
        # What is asked of many objects is found out once.
        self._norm = cache(os.path.normpath)
        self._is = cache(lambda path: os.path.isfile(os.path.join(top, path)))
        self._there = cache(lambda path: norm if self._is(norm := self._norm(path)) else "")
        self._is_folder = cache(lambda path: os.path.isdir(os.path.join(top, path)))
        self._headers: dict[tuple[str, ...], dict[str, _Header]] = {}  # by the folders of -I

    def of(self, command: str, source: str, deps: Sequence[str]) -> list[str]:
        """Return the existing files that precede one of the headers in the compiler's order.

        Args:
            command: The compiler's command.
            source: The source.
            deps: The headers that were read.
        """
        look = folders(command)
        known = self._headers.setdefault(look, {})
        for dep in deps:
            if dep not in known:
                known[dep] = self._header(look, dep)
        headers = [known[dep] for dep in deps]
        # where an #include "..." looks first: beside the file that has it
        beside = {os.path.dirname(os.path.normpath(source)), *(each.folder for each in headers)}
        hiding = {path for each in headers for path in each.earlier}
        for path in self._beside(beside, headers):
            if self._is(path):
                hiding.add(path)
        return sorted(hiding.difference(each.path for each in headers))

    def _beside(self, beside: Collection[str], headers: Sequence[_Header]) -> Iterator[str]:
        """Yield the names of headers, by -I, in folders of files that were read.

        Few folders have a subfolder of such a name, as include/linux/asm would be.
        """
        by_part: dict[str, set[str]] = {}
        for part in set().union(*(each.parts for each in headers)):
            for folder in beside:
                below = f"{folder}/{part}" if folder and part else folder or part
                if part and not self._is_folder(below):
                    continue
                if part not in by_part:
                    names = [each.names for each in headers if part in each.parts]
                    split = [name.rpartition("/") for few in names for name in few]
                    by_part[part] = {name for above, _, name in split if above == part}
                for name in by_part[part]:
                    yield f"{below}/{name}" if below else name

    def _header(self, look: tuple[str, ...], dep: str) -> _Header:
        """Return what is asked of a header.

        Args:
            look: The folders of -I.
            dep: The header.
        """
        path = self._norm(dep)
        names: list[str] = []
        earlier: list[str] = []
        for number, folder in enumerate(look):
            if name := _below(folder, path):
                names.append(name)
                places = [self._there(f"{above}/{name}") for above in look[:number]]
                earlier += filter(None, places)
        parts = frozenset([name.rpartition("/")[0] for name in names])
        return _Header(path, path.rpartition("/")[0], names, parts, earlier)


def _below(folder: str, path: str) -> str:
    """Return a path from a folder on; "" if it does not lie there."""
    if folder == ".":
        return "" if path.startswith(("/", "..")) else path
    return path[len(folder) + 1 :] if path.startswith(folder + "/") else ""


def flags(env: Mapping[str, str], source: str) -> set[str]:
    """Return the flags that the top Makefile sets for all objects of a language.

    Args:
        env: The environment of a recipe, to which the Makefile exports them.
        source: A source, whose suffix tells the language (C or assembler).
    """
    names = ("NOSTDINC_FLAGS", "LINUXINCLUDE", "KBUILD_CPPFLAGS")
    own = "KBUILD_AFLAGS" if source.endswith(".S") else "KBUILD_CFLAGS"
    return {word for name in (*names, own) for word in env.get(name, "").split()}
