"""Configuration fragments: requests to Kconfig, each with its place in a file.

A fragment is written in the language of a .config file (Documentation/kbuild/kconfig.rst,
scripts/kconfig/confdata.c):

    # any comment
    CONFIG_NET=y
    # CONFIG_MODULES is not set
    CONFIG_CMDLINE="console=ttyS0"      # a comment at the end of a line
    CONFIG_NE2K_PCI=y                   # optional: not every kernel has it
    #include "lean.config"              another fragment beside this one, which comes before it

Kconfig at most warns of a line that it can't parse, and ignores it. Here such a line is an error.
This is the only parser of fragments: other trees have another prefix (see Style).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from tasks.system.errors import PiggyError
from tasks.system.files import read_regular
from tasks.system.pattern import pattern

PREFIX = "CONFIG_"
LONGEST = 16 << 20  # bytes of a fragment
_INCLUDE = pattern(r'#include "([^"/]+)".*')
_ALMOST_INCLUDE = pattern(r"\s*#\s*include\s*[\"<].*", re.IGNORECASE)
_COMMENT = r"(?:[ \t]+#[ \t]*(?P<comment>.*))?"
_NUMBER = r"-[0-9]+|[0-9][0-9A-Fa-f]*|0[xX][0-9A-Fa-f]+"
_VALUE = rf'(y|m|n|{_NUMBER}|"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*")'
_ALMOST_SET = pattern(r"\s*(?:export\s+)?(\w+)\s*[:+?]?=\s*(.*)")
_HEX = pattern(r"0[xX][0-9A-Fa-f]+|(?=.*[A-Fa-f])[0-9A-Fa-f]{2,}")
_TRISTATES = {
    "y": ("y", "yes", "true", "on"),
    "m": ("m", "mod", "module"),
    "n": ("n", "no", "false", "off"),
}


class Style:
    """How a tree writes its symbols.

    Args:
        prefix: What precedes a name in a file (CONFIG_ in scripts/kconfig/lkc.h).
        stem: How every name begins. Buildroot has no prefix, and names that begin with BR2_.
        line: What messages call a line of such a file.
    """

    def __init__(self, prefix: str, stem: str = "", line: str = "configuration line") -> None:
        self.prefix, self.stem, self.line = prefix, stem, line
        name = rf"{prefix}({stem}[A-Za-z0-9_]+)"
        self.set = pattern(rf"{name}={_VALUE}{_COMMENT}")
        self.unset = pattern(rf"# {name} is not set{_COMMENT}")
        self.final = pattern(rf"{name}=(.*)")  # a line that Kconfig itself wrote
        # conf_read_simple() in confdata.c skips any one character after #, and ends the name at the
        # next space.
        loose = rf"{prefix}({stem}\S+)" if prefix + stem else "([A-Z0-9_]{2,})"
        self.almost_unset = pattern(
            rf"\s*(?:#+\s*|#.)?{loose}\s+is\s+(?:not\s+set|unset\b)",
            re.IGNORECASE if prefix + stem else 0,
        )
        self.hint = (
            f'a line is {prefix}{stem}NAME=value (y, m, n, a number or a "string"), '
            f"'# {prefix}{stem}NAME is not set', or a comment"
        )


LINUX = Style(PREFIX)  # of Linux and of busybox


class Request(msgspec.Struct, frozen=True):
    """One symbol as a fragment requests it.

    Attributes:
        symbol: Its name without the prefix.
        value: As in a .config file: y, m, n ("is not set"), a number, or a string with quotes and
            escapes.
        optional: Whether the request may fail; that is only reported then.
        origin_path: The fragment.
        line: The number of the line in it.
    """

    symbol: str
    value: str
    optional: bool
    origin_path: Path
    line: int

    @property
    def where(self) -> str:
        """The place of the request, as FILE:LINE."""
        return f"{self.origin_path}:{self.line}"

    @property
    def text(self) -> str:
        """The request as people write it: CONFIG_NAME=value, for n as well."""
        return f"{PREFIX}{self.symbol}={self.value}"


class Merged(msgspec.Struct, frozen=True):
    """The requests of several fragments, merged.

    Attributes:
        requests: By symbol, in the order of the lines that won.
        notes: Which line overrode which.
    """

    requests: Mapping[str, Request]
    notes: tuple[str, ...]


def config_line(symbol: str, value: str) -> str:
    """Return the line of a .config file that gives a symbol a value."""
    if re.fullmatch("[A-Fa-f][0-9A-Fa-f]*", value):  # a .config may hold a hex default without 0x
        value = f"0x{value}"
    return f"# {PREFIX}{symbol} is not set" if value == "n" else f"{PREFIX}{symbol}={value}"


def same(asked: str, got: str) -> bool:
    """Tell whether two values are the same to Kconfig.

    Strings are compared without escapes. A hex number may stand with 0x or without it
    (sym_string_valid() in symbol.c); a number that looks decimal is hex if the other one is.

    Args:
        asked: A value.
        got: Another one; "" for an absent symbol, which equals n and the empty string.
    """
    if asked == got:
        return True
    if not got or not asked:
        return (got or asked) in ("n", '""')
    if asked.startswith('"') or got.startswith('"'):
        return (
            asked.startswith('"') and got.startswith('"') and _unescaped(asked) == _unescaped(got)
        )
    base = 16 if _HEX.fullmatch(asked) or _HEX.fullmatch(got) else 10
    try:
        return int(asked, base) == int(got, base)
    except ValueError:
        return False


def parse(path: Path) -> list[Request]:
    """Read the requests of one fragment.

    Raises:
        PiggyError: Two lines contradict each other, or Kconfig would not take a line as it is
            written; the message names file and line.
    """
    requests: dict[str, Request] = {}
    for request in lines(read(path), path):
        earlier = requests.get(request.symbol)
        if earlier and not same(earlier.value, request.value):
            raise PiggyError(
                f"{request.where}: {request.text} contradicts line {earlier.line}, {earlier.text}",
                "keep one of the two; a later fragment may override an earlier one",
            )
        if not earlier or earlier.optional:
            requests[request.symbol] = request
    return list(requests.values())


def lines(text: str, path: Path, style: Style = LINUX) -> Iterator[Request]:
    """Yield the requests of a fragment's text.

    Args:
        text: The text.
        path: The fragment's name in messages.
        style: How the tree writes symbols.

    Raises:
        PiggyError: Kconfig would not take a line as it is written; the message names file and line.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if request := _request(path, number, line.removesuffix("\r").rstrip(" \t"), style):
            yield request


def merge(paths: Iterable[Path], optional: Collection[Path] = ()) -> Merged:
    """Read fragments and merge them: a later request overrides an earlier one, which is noted.

    A symbol that is requested twice with the same value is optional only if both requests are.

    Args:
        paths: The fragments in order.
        optional: Those of them whose requests are all optional.

    Raises:
        PiggyError: See `parse`.
    """
    requests: dict[str, Request] = {}
    notes = []
    for path in paths:
        for request in parse(path):
            if path in optional:
                request = msgspec.structs.replace(request, optional=True)  # noqa: PLW2901
            earlier = requests.get(request.symbol)
            if earlier and same(earlier.value, request.value):
                if earlier.optional and not request.optional:
                    requests[request.symbol] = request
                continue
            if earlier:
                notes.append(
                    f"{request.where} overrides {earlier.where}: {request.text} instead of"
                    f" {earlier.text}"
                )
                # Of two members of a choice the later one wins, so the order matters.
                del requests[request.symbol]
            requests[request.symbol] = request
    return Merged(requests, tuple(notes))


def with_included(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return fragments in order, each after those that it includes and that are not there yet.

    Raises:
        PiggyError: A fragment can't be read, or includes itself or what is not there.
    """
    found: list[Path] = []

    def add(path: Path, above: tuple[Path, ...]) -> None:
        if path in above:
            raise PiggyError(
                f"the configuration fragment {above[-1]} includes {path}, which includes it",
                "remove one of the lines '#include'",
            )
        for number, line in enumerate(read(path).split("\n"), 1):
            if match := _INCLUDE.fullmatch(line.rstrip()):
                other = path.parent / match[1]
                if not other.is_file():
                    raise PiggyError(
                        f"{path}:{number}: there is no file {other}",
                        "'#include' names a fragment beside the one that it stands in",
                    )
                if other not in found:
                    add(other, (*above, path))
            elif _ALMOST_INCLUDE.fullmatch(line.rstrip()):
                raise PiggyError(
                    f"{path}:{number}: not a line '#include': {_printable(line.rstrip()[:100])}",
                    "it is '#include \"NAME.config\"', for a fragment of the same folder",
                )
        found.append(path)

    for path in paths:
        add(path, ())
    return tuple(found)


def present(paths: Iterable[Path], own: Path) -> tuple[Path, ...]:
    """Return fragments in order, followed by the user's own if it exists, be it a broken link.

    One that is named among the others has its place there.
    """
    found = tuple(paths)
    return (*found, own) if os.path.lexists(own) and own not in found else found


def miniconfig(merged: Merged) -> str:
    """Return the text for KCONFIG_ALLCONFIG, each request below a comment with its place."""
    return "".join(
        f"# from {_printable(request.where)}\n{config_line(request.symbol, request.value)}\n"
        for request in merged.requests.values()
    )


def read(path: Path) -> str:
    """Return the text of a fragment, without a byte order mark, after which Kconfig misses line 1.

    Raises:
        PiggyError: The file is unreadable, or a line is not UTF-8.
    """
    try:
        data = read_regular(path, LONGEST, follow=True)
    except OSError as error:
        reason = (
            "it is a link to nothing"
            if isinstance(error, FileNotFoundError) and path.is_symlink()
            else error.strerror
        )
        raise PiggyError(f"the configuration fragment {path} can't be read: {reason}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PiggyError(
            f"{path}:{data.count(10, 0, error.start) + 1}: not UTF-8 text",
            "save the fragment as UTF-8",
        ) from error


def _request(path: Path, number: int, line: str, style: Style) -> Request | None:
    if match := style.set.fullmatch(line):
        symbol, value = match[1], match[2]
    elif match := style.unset.fullmatch(line):
        symbol, value = match[1], "n"
    elif not line.strip() or (line.lstrip().startswith("#") and not style.almost_unset.match(line)):
        return None
    else:
        shown = line if len(line) <= 200 else f"{line[:100]}... ({len(line)} characters)"
        raise PiggyError(
            f"{path}:{number}: not a {style.line}: {_printable(shown)}", _meant(line[:1000], style)
        )
    optional = re.match(r"optional\b", match["comment"] or "") is not None
    return Request(symbol, value, optional, path, number)


def _meant(line: str, style: Style) -> str:
    """Return the hint for a malformed line: the probable intention, and the right form."""
    guess = _unset_meant(line, style) or _set_meant(line, style)
    return f"did you mean '{guess}'? {style.hint}" if guess else style.hint


def _unset_meant(line: str, style: Style) -> str:
    unset = style.almost_unset.match(line)
    if not unset:
        return ""
    guess = f"# {style.prefix}{unset[1].upper() if unset[1].islower() else unset[1]} is not set"
    return guess if style.unset.fullmatch(guess) else ""


def _set_meant(line: str, style: Style) -> str:
    match = _ALMOST_SET.fullmatch(line.strip())
    if not match:
        return ""
    name, value = match[1], match[2]
    name = name.upper() if name.islower() else name
    head, _, rest = name.partition("_")
    start = style.prefix + style.stem
    if start and rest and difflib.SequenceMatcher(None, head.upper(), start[:-1]).ratio() > 0.7:
        name = rest
    guess = f"{start}{name}={_meant_value(value)}"
    return guess if style.set.fullmatch(guess) else ""


def _meant_value(value: str) -> str:
    if value[:1] == "'" == value[-1:]:
        value = f'"{value[1:-1]}"'
    if value.startswith('"'):
        closed = re.match(r'"(?:[^"\\]|\\.)*"', value)
        return closed[0] if closed else value.rstrip("\\") + '"'
    word = re.split(r"[\s#]", value, maxsplit=1)[0]
    for tristate, spellings in _TRISTATES.items():
        if word.lower() in spellings:
            return tristate
    if re.fullmatch(_NUMBER, word):
        return word
    if re.fullmatch(r"(?=.*[0-9])[0-9A-Fa-f]+", word):
        return f"0x{word}"
    return f'"{value}"' if value else "n"


def _unescaped(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted[1:-1])


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
