"""The root file system as data: layers laid over each other become one sorted tuple of entries.

    busybox + its links --+
    overlays/base ... ----+--> compose --> devices.apply --> ext2.build, cpio.build

What a file's mode in an overlay means: it lands as it is, setuid and sticky bits included, except where the checkout's
umask may have made it. Git stores only the x bit and creates 0666 or 0777 less the umask, so exactly these two modes
become 0644 and 0755, and a checkout with umask 077 gives the same image as one with 022. The umask is what the
overlay's own folder lacks of 0777. A folder's setgid bit is dropped: a checkout inherits it from the folder it was made
in. What no checkout can hold (0600 under umask 077, an owner, a setuid bit through git) belongs in the device and
permission table.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from tasks.kit.errors import PiggyError

DIR_MODE, LINK_MODE = 0o755, 0o777
NAME_MAX = 255  # include/uapi/linux/limits.h, and what an ext2 directory entry holds
_LITTER = re.compile(r"\.gitkeep|.*~|#.*#|\.#.*|\..*\.sw[a-z]|\.nfs[0-9a-f]{8,}", re.DOTALL)
_CONTROL = re.compile(r"[\0-\x1f\x7f]")
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}


class Entry(msgspec.Struct, frozen=True):
    """One name of the tree.

    path:   absolute in the target, "/" for the root; bytes that are no UTF-8 as surrogates (os.fsdecode).
    kind:   "file", "dir", "link", "char", "block" or "fifo".
    mode:   the permission bits, with setuid, setgid and sticky; no file type.
    source: a file's content: a file of the host, or bytes.
    target: what a link says.
    """

    path: str
    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    source: Path | bytes = b""
    target: str = ""
    major: int = 0
    minor: int = 0


class Layer(msgspec.Struct, frozen=True):
    """Entries of one origin, and the name that messages give it."""

    name: str
    entries: tuple[Entry, ...]


def busybox_layer(binary: Path, links: Path) -> Layer:
    """Return /bin/busybox and a link to it for each line of `links` (busybox.links, as busybox's make leaves it).

    The links are relative: they lead to busybox in a chroot, an initramfs, and an image mounted on the host alike.
    Raises PiggyError when a file is missing or a line is no absolute path.
    """
    if not binary.is_file():
        raise PiggyError(f"{binary}: no such file", "'doit busybox' builds it")
    home = "/bin/busybox"
    found = [Entry(home, "file", 0o755, source=binary)]
    try:
        lines = os.fsdecode(links.read_bytes()).splitlines()
    except OSError as error:
        raise PiggyError(f"{links}: {error.strerror}", "'doit busybox' builds it") from error
    for number, line in enumerate(lines, 1):
        path = line.strip()
        if not path or path == home:
            continue
        if not path.startswith("/") or path == "/" or os.path.normpath(path) != path or path.startswith("//"):
            raise PiggyError(f"{links}:{number}: {path!r} is no plain absolute path", "one a line, such as /bin/ls")
        found.append(Entry(path, "link", LINK_MODE, target=os.path.relpath(home, os.path.dirname(path))))
    return Layer("busybox", tuple(found))


def overlay_layer(folder: Path) -> Layer:
    """Return what lies in an overlay folder; links are taken as links, never followed.

    Left out are .gitkeep and what editors leave about (*~, #*#, .#*, .*.swp). For modes see above.
    Raises PiggyError when the folder is missing or unreadable, and for sockets, pipes, devices and names that hold
    control characters.
    """
    if not folder.is_dir():
        raise PiggyError(f"overlay {folder}: no such folder")
    found = []
    for path, kind, mode, target in _walk(folder):
        if kind == "other":
            raise PiggyError(f"overlay {folder}: {path!r} is neither file, folder nor link",
                             "device nodes and named pipes belong in the device table (configs/rootfs/devices.txt)")
        if _CONTROL.search(path + target):
            raise PiggyError(f"overlay {folder}: {path!r} has a control character in its name or target", "rename it")
        found.append(Entry("/" + path, kind, mode, target=target,
                           source=folder.absolute() / path if kind == "file" else b""))
    return Layer(f"overlay {folder}", tuple(found))


def snapshot(folder: Path) -> list[list[str | int]]:
    """Return the state of an overlay folder, to be compared with an earlier one: sorted [path, kind, mode, target].

    All that lands in an image is in it except the content of files; plain lists, so that it survives JSON. A missing
    folder is []. Raises PiggyError when a folder can't be read.
    """
    return [list(item) for item in _walk(folder)] if folder.is_dir() else []


def _walk(folder: Path) -> Iterator[tuple[str, str, int, str]]:
    """Yield (path below `folder`, kind, mode as it lands, link target), a folder before what it holds."""
    umask = ~folder.stat().st_mode & 0o777
    pending = [""]
    try:
        while pending:
            below = pending.pop()
            folders = []
            with os.scandir(os.path.join(folder, below)) as entries:
                items = sorted(entries, key=lambda item: os.fsencode(item.name))
            for item in items:
                path = f"{below}{item.name}"
                state = item.stat(follow_symlinks=False).st_mode
                kind = _KINDS.get(stat.S_IFMT(state), "other")
                if kind != "dir" and _LITTER.fullmatch(item.name):
                    continue
                target = os.readlink(item.path) if kind == "link" else ""
                yield path, kind, LINK_MODE if kind == "link" else landed_mode(state, umask), target
                if kind == "dir":
                    folders.append(path + "/")
            pending += reversed(folders)
    except OSError as error:
        raise PiggyError(f"overlay {folder}: can't read {error.filename}: {error.strerror}") from error


def landed_mode(state: int, umask: int) -> int:
    """Return the mode that a file or folder with st_mode `state` gets in the image; for the rule see above."""
    found = stat.S_IMODE(state)
    if stat.S_ISDIR(state):
        found &= ~stat.S_ISGID
    executable = stat.S_ISDIR(state) or bool(found & stat.S_IXUSR)
    if found == (0o777 if executable else 0o666) & ~umask:
        return 0o755 if executable else 0o644
    return found


def compose(layers: Iterable[Layer]) -> tuple[Entry, ...]:
    """Lay the layers over each other, the later ones winning, and return the entries sorted, each after its folder.

    The root and the folders on the way to an entry are added where no layer has them. Raises PiggyError when a folder
    meets something that is none: nothing below it could be kept.
    """
    merged: dict[str, tuple[Entry, str]] = {"/": (Entry("/", "dir", DIR_MODE), "the root")}
    for layer in layers:
        for entry in layer.entries:
            for parent in parents(entry.path):
                if parent not in merged or merged[parent][0].kind != "dir":
                    _lay(merged, Entry(parent, "dir", DIR_MODE), layer.name)
            _lay(merged, entry, layer.name)
    return in_order(entry for entry, _ in merged.values())


def _lay(merged: dict[str, tuple[Entry, str]], entry: Entry, layer: str) -> None:
    old, origin = merged.get(entry.path, (entry, layer))
    if (old.kind == "dir") != (entry.kind == "dir"):
        raise PiggyError(f"{entry.path} is a {old.kind} in {origin} and a {entry.kind} in {layer}",
                         "rename one of them, or leave one of the layers out")
    merged[entry.path] = entry, layer


def parents(path: str) -> list[str]:
    """Return the folders on the way to `path`, outermost first, without the root."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the entries in the order of their bytes, component by component: a folder comes before what it holds."""
    return tuple(sorted(entries, key=lambda entry: os.fsencode(entry.path).split(b"/") if entry.path != "/" else []))


def size(entry: Entry) -> int:
    """Return the bytes of a file's content. Raises PiggyError when it can't be read."""
    if isinstance(entry.source, bytes):
        return len(entry.source)
    try:
        with entry.source.open("rb") as stream:
            return os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise PiggyError(f"{entry.path}: can't read {entry.source}: {error.strerror}") from error


def content(entry: Entry) -> bytes:
    """Return a file's content. Raises PiggyError when it can't be read."""
    if isinstance(entry.source, bytes):
        return entry.source
    try:
        return entry.source.read_bytes()
    except OSError as error:
        raise PiggyError(f"{entry.path}: can't read {entry.source}: {error.strerror}") from error
