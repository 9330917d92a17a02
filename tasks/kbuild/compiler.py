"""What a compiler's command depends on, and no list of headers has.

- A symbol that it names: `-DSHIFT=CONFIG_LOG_BUF_SHIFT`. Fixdep looks for symbols in sources only.
- Files with more options: `@FILE`, `-specs=FILE`, `-fplugin=FILE`.
- Folders of headers that the compiler does not list, as they count as the system's: `-isystem`,
  `-idirafter`. Those outside of the tree are the compiler's own.
- Where a folder lies: of `-DTREE='"$(srctree)"'` a source may use the length alone.

Source: GCC's manual, "Overall Options", "Options for Directory Search", -MMD.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tasks.kbuild import texts
from tasks.system.pattern import pattern

_QUOTED = pattern(r"(?:[^\s'\"\\]|\\.|'[^']*'|\"(?:[^\"\\]|\\.)*\")+")
_QUOTES = str.maketrans("", "", "\"'\\")
_SYMBOL = pattern(r"(?<!\w)CONFIG_(\w*[^\W_])(?!\w)")
_DEFINED = pattern(r"\w+(?:\([^)]*\))?(?:=|$)")
_OPTIONS = pattern(r"(?:-W[apl],(?:.*,)?)?@(.+)|--?(?:specs|fplugin)=(.+)")
_SYSTEM = pattern(r"-(?:isystem|idirafter)(.*)")
# Options with the name of a file or folder, of which the object has nothing.
_NAMING = pattern(r"-(?:I|i(?:quote|system|dirafter|nclude|macros)|f\w+-prefix-map=|Wp,-MM?D,)")
_HANDED = ("-D", "-Xassembler", "-Xpreprocessor")  # the next word is none of a file
ANY = ""  # how the names of all symbols begin


def words(command: str) -> list[str]:
    """Return the words of a command without their quotes."""
    found = command.split()
    quoted = [word for word in found if "'" in word or '"' in word]
    if any(word.count("'") % 2 or word.count('"') % 2 for word in quoted):  # of a word with spaces
        found = _QUOTED.findall(command)
    if quoted or "\\" in command:
        return [word.translate(_QUOTES) for word in found]
    return found


def symbols(parts: Sequence[str]) -> set[str]:
    """Return the symbols, without CONFIG_, that a command names.

    Args:
        parts: Its words.
    """
    return {name for text, _ in _said(parts) for name in _SYMBOL.findall(text)}


def begins(parts: Sequence[str]) -> set[str]:
    """Return how the names of symbols begin of which a command has a part; ANY for all.

    A file with more options may name any, unless make made it, or it is a plug-in.

    Args:
        parts: The command's words.
    """
    found = set[str]()
    for text, defined in _said(parts):
        if defined:
            found.update(texts.of_text(text.encode(errors="surrogateescape")).pasted)
    more = [word for word in parts if "plugin=" not in word]
    return found | ({ANY} if any(name.startswith(("/", "..")) for name in options(more)) else set())


def _said(parts: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield the texts in a command that may name symbols, each with whether it is a macro's."""
    before = ""
    for word in parts:
        if "CONFIG" in word:
            separate = before in ("-D", "-U")
            if separate or word.startswith(("-D", "-U")):
                macro = word if separate else word[2:]
                yield _DEFINED.sub("", macro, count=1), True
            elif "/" not in word:
                yield word, False
        before = word


def options(parts: Sequence[str]) -> list[str]:
    """Return the files with more options, as a command names them.

    Args:
        parts: The command's words.
    """
    maybe = (word for word in parts if "@" in word or "specs=" in word or "plugin=" in word)
    return [match[1] or match[2] for match in map(_OPTIONS.fullmatch, maybe) if match]


def systems(parts: Sequence[str]) -> list[str]:
    """Return the folders of headers that the compiler does not list, as a command names them.

    Args:
        parts: The command's words.
    """
    found = list[str]()
    for number, word in enumerate(parts):
        if match := _SYSTEM.fullmatch(word):
            found.append(match[1] or "".join(parts[number + 1 : number + 2]))
    return found


def handed(parts: Sequence[str], root: str) -> list[str]:
    """Return the words that have the path of a folder, and not only as the name of what is read.

    Of these an object may depend on where the folder lies, even if it does not hold the path.

    Args:
        parts: The words of a command.
        root: The folder; "" for none.
    """
    return [
        word
        for number, word in enumerate(parts)
        if root
        and root in word
        and (
            not _NAMING.match(word) if word[:1] == "-" else number and parts[number - 1] in _HANDED
        )
    ]
