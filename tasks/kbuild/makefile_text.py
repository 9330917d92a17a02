"""What the shell may see of a makefile: recipes, $(shell ...), and the variables that these have.

What is read there is no prerequisite, and no .cmd file has it.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Collection, Iterable, Iterator

from tasks.system import files
from tasks.system.pattern import pattern

_COMMENT = pattern(r"^[ \t]*#.*$", re.MULTILINE)
_RULE = pattern(r"[^\t=;]+:[^=;]*$")  # targets and prerequisites, which make itself looks at
_INCLUDE = pattern(r"\s*[-s]?include\s")
_OPTION = pattern(r"-include\s+\S+")  # a record has what this names
WILDCARD = pattern(r"\$\(wildcard\s+((?:[^()]|\([^()]*\))+)\)")
_LISTED = pattern(r"\b(?:ls|find|cd)\b")
_FIND = pattern(r"\bfind\b")
_GLOB = pattern(r"[*?\[]")
_LONG = 4096  # characters of a line; in a longer one nothing is looked for with much patience
# The files with all symbols, and make's list of all variables, which has them, too.
_WHOLE = pattern(
    r"auto\.conf(?![\w.])|autoconf\.h|KCONFIG_CONFIG|\.VARIABLES|(?<![\w.%*@-])\.config\b(?!\.)"
)
# Uses of these that tell nothing of a symbol: whether one is there, an option by which a source
# reads it, a name that is given, a message, a configuration that is made from others or removed.
_NOTHING_TOLD = pattern(
    r"-[defs]\s+\S+|-include\s+\S+|^PHONY\s.*|^(?:export\s+)?KCONFIG_CONFIG\s*(?:\?=.*)?$"
    r"|\bKCONFIG_CONFIG=\S+|>&2\s+\"[^\"]*\"|[^;|&]*[_-]config\.sh\b[^;|&]*"
    r"|\bcp \$\(KCONFIG_CONFIG\) \S+|\b(?:install|rm)\s[^;|&]*|\$\(error [^)]*\)"
    r"|^\s*@echo\s+(?:'[^']*'|\"[^\"$`]*\")\s*$|^\w*(?:CLEAN|MRPROPER|DISTCLEAN)_FILES\s.*"
)


def content(path: str) -> str:
    """Return the text of a makefile or Kconfig file; "" if it is no file that can be read."""
    try:
        return files.read_regular(path, follow=True).decode(errors="replace")
    except (OSError, ValueError):  # ValueError: a NUL in a name
        return ""


def lines(text: str) -> Iterator[str]:
    """Yield what is neither a comment, nor a rule's targets and prerequisites, nor an include.

    Lines that go on in the next one are joined.

    Args:
        text: The text of a makefile.
    """
    for line in _COMMENT.sub("", text.replace("\\\n", " ")).splitlines():
        if line.strip() and not _RULE.match(line) and not _INCLUDE.match(line):
            yield line


def whole_configuration(text: str) -> str:
    """Return the first line of a makefile that may read the whole configuration; "" for none."""
    if not _WHOLE.search(text):
        return ""
    for line in lines(text):
        if _WHOLE.search(line) and len(line) > _LONG:
            return " ".join(line[:80].split())
        if _WHOLE.search(_NOTHING_TOLD.sub("", WILDCARD.sub("", line))):
            return " ".join(line.split())
    return ""


def expanded(text: str, tree: str, folder: str) -> str:
    """Return a makefile's text with the names of the tree and of the folder that is made put in.

    Args:
        text: The text.
        tree: The tree's real path.
        folder: The folder, absolute.
    """
    # $(src) has the tree in front of it since 6.10; in scripts/ it is any folder
    for place in ("$(srctree)/$(src)", "$(srctree)/$(obj)", "$(src)"):
        text = text.replace(place, folder if folder != f"{tree}/scripts" else "$")
    return text.replace("$(srctree)", tree)


def named(text: str, tree: str, makefile: str) -> Iterator[tuple[str, str]]:
    """Yield the names of the tree, patterns of the shell among them, that the shell may see.

    Names with make variables are left out.

    Args:
        text: A makefile's text.
        tree: The tree's real path.
        makefile: The makefile's path.

    Yields:
        The name, absolute, and the line that has it.
    """
    word = re.compile(re.escape(tree) + r"(?>/[\w./+@%~,*?\[\]-]+)(?![$({])")
    for line in lines(expanded(text, tree, os.path.dirname(makefile))):
        if tree in line:
            kept = line if len(line) > _LONG else _OPTION.sub("", WILDCARD.sub("", line))
            for name in word.findall(kept):
                if "%" not in name:
                    yield os.path.normpath(name.rstrip(".,]")), line


def listed(text: str, tree: str, makefile: str) -> set[str]:
    """Return the folders, each with "/*", in which a new file counts for the shell.

    These are folders that it lists by ls, find or a pattern, or enters by cd, and where a file is
    not that it names. Arguments are as in `named`. The top Makefile's find is for other goals than
    an image.
    """
    found, top = set[str](), os.path.dirname(makefile) == tree
    for name, line in named(text, tree, makefile):
        place = name
        while _GLOB.search(place):
            place = os.path.dirname(place)
        if not place.startswith(f"{tree}/"):
            continue  # the tree itself, or what lies beside it
        if place == name and not os.path.lexists(name):
            found.update(awaited(name))
        elif (place != name or _LISTED.search(line)) and os.path.isdir(place):
            found.add(f"{place}/*")
            if _FIND.search(line) and not top:
                found.update(f"{where}/*" for where, _, _ in os.walk(place))
    return found


def awaited(name: str) -> set[str]:
    """Return the folder, with "/*", where it is seen that a missing file comes.

    There is none for a hidden file: the list of a folder has no such names.
    """
    if os.path.basename(name).startswith("."):
        return set()
    folder = os.path.dirname(name)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return {f"{folder}/*"}


def reading(tree: str, makefiles: Iterable[str], sources: Collection[str]) -> str:
    """Return a makefile of which the shell may read one of these sources; "" if none does.

    Args:
        tree: The tree's real path.
        makefiles: The makefiles, absolute.
        sources: The sources, absolute.
    """
    bases = {os.path.basename(name) for name in sources}
    for makefile in makefiles:
        text = content(makefile)
        if "*" in text or any(base in text for base in bases):
            for name, _ in named(text, tree, makefile):
                if any(_matches(source, name) for source in sources):
                    return makefile
    return ""


def _matches(path: str, name: str) -> bool:
    """Tell whether a pattern of the shell stands for a path."""
    return path.count("/") == name.count("/") and fnmatch.fnmatchcase(path, name)
