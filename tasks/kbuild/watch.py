"""What a command looked at, so that what it said can be taken for given while that is the same.

watch.c follows a command and all that it starts, and notes the path of every file that it opens,
looks at, executes or writes, and that it did not find. Here it is told whether anything about these
is another thing by now. What a command says may depend on more: its environment and working folder,
which the user of this module compares; the time and random numbers, which are left out.

A file counts as the same under (mtime, ctime, size, inode), as in cache/digests.py; those below
/proc and /sys, which have no times, by content. What a process sees of itself there (/proc/self) is
left out, as it depends on the program. Of a folder that was listed counts when an entry came or
went; in the build's own folder only single files do.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tasks.kbuild.saved import Unfamiliar

SOURCE = Path(__file__).with_name("watch.c")
# what a file must be older than at the start; see RACY_NS in cache/digests.py
RACY_NS = 50_000_000
_OWN = re.compile(r"/proc/(?:self|thread-self|\d+)(?:/|$)|/dev/")
_STRANGE = ("/proc/", "/sys/")
MOST = 1 << 16  # bytes of a file below /proc that count


class Command(msgspec.Struct, frozen=True):
    """A command that was watched.

    command, output, status: as popen(3) takes and gives them; odd: why it can't be remembered, ""
    if it can; files: what it looked at, each path after a letter of watch.c.
    """

    command: str
    output: str
    status: int
    odd: str
    files: tuple[str, ...]


def read(log: Path) -> list[Command]:
    """Read what watch.c wrote.

    Raises:
        Unfamiliar: It can't be read, or holds a name that is no text.
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
    """Return the state of everything that a command looked at, by its path after its letter.

    Files that it wrote are left out, and those in folders that it made and removed: temporary ones.

    Args:
        command: The command.
        obj: The build's own folder, absolute.
        since: When it was started (ns since 1970).
        without: How the names of files begin, from `obj` on, of which nothing depends.

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
    """Return the state of a file; "" for one that is not there.

    Args:
        name: Its path after a letter, "d" if a folder's entries count.
        before: Refuse a file that may have changed since (ns since 1970; 0: none).

    Raises:
        Unfamiliar: It may have.
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
    """Return the files that have another state than this one, each after its letter."""
    pairs = states.items() if isinstance(states, Mapping) else states
    return [name for name, known in pairs if state(name) != known]
