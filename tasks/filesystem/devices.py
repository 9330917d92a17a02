"""The device and permission table: nodes, owners and modes that a git checkout can't hold.

It is plain text in the form of Buildroot's makedevs:

    # NAME        TYPE MODE UID GID [MAJOR MINOR [START INC COUNT]]
    /dev/console  c    600  0   0   5     1
    /dev/tty      c    620  0   5   4     0      0     1   5       tty0 to tty4, minors 0 to 4
    /proc         d    755  0   0                                  a folder: is made, or changed
    /etc/shadow   f    600  0   0                                  a file of a layer: is changed

Types: c and b devices, p a named pipe, d a folder, f a file. The mode is octal. "-" stands for an
unused field. A name with spaces is quoted. Of two lines for the same name the later wins.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from tasks.filesystem.tree import DIR_MODE, NAME_MAX, PATH_MAX, Entry, in_order, parents
from tasks.system.errors import PiggyError, nearest
from tasks.system.files import read_regular
from tasks.system.pattern import pattern

FORM = (
    "NAME TYPE MODE UID GID [MAJOR MINOR [START INC COUNT]], such as '/dev/console c 600 0 0 5 1'"
)
KINDS = {"c": "char", "b": "block", "p": "fifo", "d": "dir", "f": "file"}
MAJOR_MAX, MINOR_MAX = 0xFFF, 0xFFFFF  # include/linux/kdev_t.h: 12 and 20 bits
ID_MAX = 0xFFFFFFFE  # (uid_t)-1 means "leave as it is"
# Nodes in a range: far more than any real one, so that a typo can't fill the image.
COUNT_MAX = 4096
ROWS_MAX = 65536  # entries of a whole table, for the same reason
LONGEST_NAME, LONGEST_PATH = NAME_MAX - 8, PATH_MAX - 9  # bytes; a range appends digits
TABLE_MAX = 256 << 10  # bytes of a table
_DEC, _OCT = pattern(r"[0-9]{1,10}"), pattern(r"[0-7]{1,5}")


class Row(msgspec.Struct, frozen=True):
    """One line of a table, or one node of its range: the entry, and "FILE:LINE" for messages."""

    entry: Entry
    where: str


def read(table: Path) -> tuple[Row, ...]:
    """Return the rows of a table in the order of its lines.

    Raises:
        PiggyError: A line is malformed; the message names file, line and the right form.
    """
    rows: list[Row] = []
    for number, line in enumerate(_text(table).split("\n"), 1):
        where = f"{table}:{number}"
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise PiggyError(f"{where}: {str(error).lower()}", f"the form is {FORM}") from error
        if words:
            rows += (Row(entry, where) for entry in _entries(words, where))
        if len(rows) > ROWS_MAX:
            raise PiggyError(
                f"{where}: up to here the table asks for more than {ROWS_MAX} names",
                "leave them to devtmpfs",
            )
    return tuple(rows)


def _text(table: Path) -> str:
    """Return the text of a table, which is a regular file or a link to one.

    Raises:
        PiggyError: It is neither, or is no UTF-8.
    """
    try:
        return read_regular(os.path.realpath(table), TABLE_MAX).decode().replace("\r\n", "\n")
    except OSError as error:
        raise PiggyError(f"device table {table}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PiggyError(f"device table {table}: byte {error.start} is no UTF-8") from error


def _entries(words: list[str], where: str) -> list[Entry]:
    """Return the entries of one line."""
    if not 5 <= len(words) <= 10:
        raise PiggyError(
            f"{where}: {len(words)} fields, where 5 to 10 are wanted", f"the form is {FORM}"
        )
    path, letter = words[:2]
    if not path.startswith("/") or os.path.normpath(path) != path or path.startswith("//"):
        raise PiggyError(
            f"{where}: {path[:80]!r} is no plain absolute path",
            "such as /dev/console, no '/' at the end",
        )
    if not path.isprintable():
        raise PiggyError(
            f"{where}: {path[:80]!r} has a control character in its name", f"the form is {FORM}"
        )
    if len(path.encode()) > LONGEST_PATH or any(
        len(name.encode()) > LONGEST_NAME for name in path.split("/")
    ):
        raise PiggyError(
            f"{where}: {path[:40]!r}... has more than {LONGEST_PATH} bytes, or a name in it more"
            f" than {LONGEST_NAME}",
            "shorten it",
        )
    if letter not in KINDS:
        raise PiggyError(
            f"{where}: unknown type {letter[:20]!r}",
            "c and b are devices, p a pipe, d a folder, f a file",
        )
    kind = KINDS[letter]
    if path == "/" and kind != "dir":
        raise PiggyError(f"{where}: '/' can only be of type d")
    if not _OCT.fullmatch(words[2]) or int(words[2], 8) > 0o7777:
        raise PiggyError(
            f"{where}: the mode {words[2][:20]!r} is no octal number up to 7777",
            f"the form is {FORM}",
        )
    uid, gid = (
        _number(words[index], name, ID_MAX, where) for index, name in ((3, "UID"), (4, "GID"))
    )
    entry = Entry(path, kind, int(words[2], 8), uid, gid)
    rest = [None if word == "-" else word for word in words[5:]] + [None] * (10 - len(words))
    if kind not in ("char", "block"):
        if any(word not in (None, "0") for word in rest):
            raise PiggyError(
                f"{where}: numbers after the GID are for devices (types c and b)",
                f"the form is {FORM}",
            )
        return [entry]
    if rest[0] is None or rest[1] is None:
        raise PiggyError(f"{where}: a device needs MAJOR and MINOR", f"the form is {FORM}")
    major = _number(rest[0], "MAJOR", MAJOR_MAX, where)
    minor = _number(rest[1], "MINOR", MINOR_MAX, where)
    start, step, count = (
        _number(word or "0", name, MINOR_MAX, where)
        for word, name in zip(rest[2:], ("START", "INC", "COUNT"), strict=True)
    )
    if not count:
        if start or step:
            raise PiggyError(f"{where}: START and INC need a COUNT", f"the form is {FORM}")
        return [replace(entry, major=major, minor=minor)]
    if count > COUNT_MAX or minor + (count - 1) * step > MINOR_MAX:
        raise PiggyError(f"{where}: the range goes beyond {COUNT_MAX} nodes or minor {MINOR_MAX}")
    return [
        replace(entry, path=f"{path}{start + nth}", major=major, minor=minor + nth * step)
        for nth in range(count)
    ]


def _number(word: str, name: str, limit: int, where: str) -> int:
    if not _DEC.fullmatch(word) or int(word) > limit:
        raise PiggyError(
            f"{where}: {name} {word[:20]!r} is no number from 0 to {limit}", f"the form is {FORM}"
        )
    return int(word)


def apply(entries: Iterable[Entry], rows: Iterable[Row]) -> tuple[Entry, ...]:
    """Return a tree with the rows applied, sorted; missing folders on the way to a node are added.

    Args:
        entries: The tree.
        rows: The rows of the table.

    Raises:
        PiggyError: A file is missing, or a node's name is taken by something else; the message
            names file and line of the row.
    """
    tree = {entry.path: entry for entry in entries}
    tree.setdefault("/", Entry("/", "dir", DIR_MODE))
    for entry, where in ((row.entry, row.where) for row in rows):
        old = tree.get(entry.path)
        if entry.kind == "file":
            if old is None:
                raise PiggyError(
                    f"{where}: no file {entry.path} in the tree.{nearest(entry.path, tree)}",
                    "type f is for a file that an overlay brings; d, c, b and p make one",
                )
            if old.kind == "link":
                raise PiggyError(
                    f"{where}: {entry.path} is a link to {old.target}",
                    "name the file that it leads to",
                )
        if old and old.kind != entry.kind:
            raise PiggyError(
                f"{where}: {entry.path} is a {old.kind} in the tree, not a {entry.kind}"
            )
        for parent in parents(entry.path):
            above = tree.setdefault(parent, Entry(parent, "dir", DIR_MODE))
            if above.kind != "dir":
                raise PiggyError(f"{where}: {parent} is a {above.kind} in the tree, not a folder")
        tree[entry.path] = (
            replace(old, mode=entry.mode, uid=entry.uid, gid=entry.gid)
            if old and entry.kind in ("file", "dir")
            else entry
        )
    return in_order(tree.values())
