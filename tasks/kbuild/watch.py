"""The files that a command depends on, so that its output can be reused while they are the same.

watch.c traces a command and its children, and records the path of each file that they open, stat,
execute or write, missing ones included. This module tells whether one of them changed. The output
may have other inputs: environment and working folder, which the caller compares; the time and
random numbers, which are ignored.

A file is the same if mtime, ctime, size and inode are, as in cache/digests.py; below /proc and
/sys, where files have no times, if the content is. A process's own files there (/proc/self) are
ignored, as they depend on the program. A folder that was listed is the same if no entry was added
or removed; in the build's own folder, only single files count.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tasks.kbuild.saved import Unfamiliar
from tasks.system.files import RACY_NS
from tasks.system.pattern import pattern

SOURCE = Path(__file__).with_name("watch.c")
_OWN = pattern(r"/proc/(?:self|thread-self|\d+)(?:/|$)|/dev/")
_STRANGE = ("/proc/", "/sys/")
MOST = 1 << 16  # bytes of a file below /proc that count


class Command(msgspec.Struct, frozen=True):
    """A command that was watched.

    Attributes:
        command: The shell command, as for popen(3).
        output: Its standard output.
        status: Its wait status, as of pclose(3).
        odd: Why its output can't be remembered; "" if it can.
        files: The files that it used, each path after a letter of watch.c.
    """

    command: str
    output: str
    status: int
    odd: str
    files: tuple[str, ...]


def read(log: Path) -> list[Command]:
    """Read a log of watch.c.

    Raises:
        Unfamiliar: It can't be read, or has a name that is no text.
    """
    try:
        strings = _netstrings(log.read_bytes())
        found = []
        while strings:
            command, output, status, odd = (strings.pop() for _ in range(4))
            files = []
            while name := strings.pop():
                files.append(name)
            found.append(Command(command, output, int(status), odd, tuple(files)))
        return found
    except (OSError, ValueError, IndexError):  # ValueError: no UTF-8, or no number
        raise Unfamiliar("what was watched can't be read") from None


def _netstrings(data: bytes) -> list[str]:
    """Return the netstrings of a file, the last one first."""
    found, at = list[str](), 0
    while at < len(data):
        colon = data.index(b":", at)
        end = colon + 1 + int(data[at:colon])
        if data[end : end + 1] != b",":
            raise ValueError
        found.append(data[colon + 1 : end].decode())
        at = end + 1
    return found[::-1]


def netstring(text: str) -> bytes:
    """Return a text as watch.c reads it."""
    data = text.encode()
    return b"%d:%s," % (len(data), data)


def states(
    command: Command, obj: Path, since: int, without: tuple[str, ...] = ()
) -> dict[str, str]:
    """Return the states of the files that a command depends on: letter and path to state.

    Files that it wrote are left out, and temporary ones, in folders that it made and removed.

    Args:
        command: The command.
        obj: The build's own folder, absolute.
        since: When the command began, ns since 1970.
        without: Prefixes of paths, relative to `obj`, that are left out, too.

    Raises:
        Unfamiliar: It can't be remembered.
    """
    if command.odd:
        raise Unfamiliar(command.odd)
    written = {name[1:] for name in command.files if name[0] == "w"}
    gone = tuple(f"{path}/" for path in written if not os.path.lexists(path))
    ours = tuple(f"{obj}/{start}" for start in ("piggyback.", ".piggyback.", *without))
    found = {}
    for name in command.files:
        path = name[1:]
        if (
            name[0] == "w"
            or path in written
            or f"{path}/".startswith(gone)
            or f"{path}/".startswith(ours)
            or _OWN.match(path)
        ):
            continue
        inside = f"{path}/".startswith(f"{obj}/")
        key = f"r{path}" if inside else name
        found[key] = state(key, since)
    return found


def state(name: str, before: int = 0) -> str:
    """Return the state of a file; "" for a missing one.

    Args:
        name: Its path after a letter; "d" if a folder's entries count.
        before: A time, ns since 1970, since which the file must not have changed; 0 for none.

    Raises:
        Unfamiliar: It may have changed since.
    """
    path = name[1:]
    try:
        info = os.stat(path)
    except OSError:
        return ""
    if path.startswith(_STRANGE):
        return _content(path)
    if stat.S_ISDIR(info.st_mode) and name[0] != "d":
        return f"folder {info.st_mode:o}"
    if not stat.S_ISDIR(info.st_mode) and not stat.S_ISREG(info.st_mode):
        return "special"
    if before and max(info.st_ctime_ns, info.st_mtime_ns) > before - RACY_NS:
        raise Unfamiliar(f"{path} changed just now")
    return f"{info.st_mtime_ns} {info.st_ctime_ns} {info.st_size} {info.st_ino}"


def _content(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read(MOST)).hexdigest()[:16]
    except OSError:
        return "?"


def changed(states: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[str]:
    """Return the files whose states differ from the given ones, each path after its letter."""
    pairs = states.items() if isinstance(states, Mapping) else states
    return [name for name, known in pairs if state(name) != known]
