"""The root file system as data: layers are merged to one sorted tuple of entries.

busybox + its links --+
overlays/base ... ----+--> compose --> devices.apply --> ext2.build, cpio.build
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from tasks.system.errors import PiggyError
from tasks.system.terminal import printable

DIR_MODE, LINK_MODE = 0o755, 0o777
# Bytes: include/uapi/linux/limits.h. The names in an ext2 directory have the same limit.
NAME_MAX, PATH_MAX = 255, 4096
# The programs that kernel_init() tries (init/main.c), without its last resort /bin/sh.
INITS = ("/sbin/init", "/etc/init", "/bin/init")
PIECE = 1 << 20  # bytes of a file that are read at once
# Bytes of an ext2 image. The format holds 4 TiB (2^32 blocks of 1 KiB: s_blocks_count in
# fs/ext2/ext2.h), but e2fsck and the digest read the whole image: a minute for this size.
IMAGE_MAX = 32 << 30
# Bytes of one file: ext2_max_size() in fs/ext2/super.c for blocks of 1 KiB; eight hex digits in a
# cpio header (buffer-format.rst of the kernel).
DISK_FILE_MAX = (12 + 256 + 256**2 + 256**3) << 10
ARCHIVE_FILE_MAX = 0xFFFFFFFF
LINKS_MAX = 40  # symbolic links on the way to a file: MAXSYMLINKS in include/linux/namei.h


class Entry(msgspec.Struct, frozen=True):
    """One name of the tree.

    Attributes:
        path: Absolute in the guest, "/" for the root; bytes that are not UTF-8 as surrogates
            (os.fsdecode).
        kind: "file", "dir", "link", "char", "block" or "fifo".
        mode: Permission bits with setuid, setgid and sticky; no file type.
        uid: The owner.
        gid: The group.
        source: A file's content: bytes, or the path of a file of the host.
        target: Of a link.
        major: Of a device.
        minor: Of a device.
        attributes: Extended attributes of a file or folder: (name, value), sorted.
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
    attributes: tuple[tuple[str, bytes], ...] = ()


class Layer(msgspec.Struct, frozen=True):
    """Entries of one origin, and the name that messages give it."""

    name: str
    entries: tuple[Entry, ...]


def busybox_layer(binary: Path, links: Path) -> Layer:
    """Return /bin/busybox, and a link to it for each line of busybox.links.

    The links are relative, so that they work in a chroot, in an initramfs, and in an image that is
    mounted on the host.

    Args:
        binary: The program.
        links: The list of links that busybox's make writes.

    Raises:
        PiggyError: A file is missing, or a line is no absolute path.
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
        if (
            not path.startswith("/")
            or path == "/"
            or os.path.normpath(path) != path
            or path.startswith("//")
        ):
            raise PiggyError(
                f"{links}:{number}: {path!r} is no plain absolute path",
                "one a line, such as /bin/ls",
            )
        found.append(
            Entry(path, "link", LINK_MODE, target=os.path.relpath(home, os.path.dirname(path)))
        )
    return Layer("busybox", tuple(found))


def compose(layers: Iterable[Layer]) -> tuple[Entry, ...]:
    """Merge layers, the later ones over the earlier, and return the entries sorted.

    The root is added, and any folder on the way to an entry that no layer has.

    Raises:
        PiggyError: A folder meets something else of the same name: nothing below it could be kept.
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
        raise PiggyError(
            f"{entry.path} is a {old.kind} in {origin} and a {entry.kind} in {layer}",
            "rename one of them, or leave one of the layers out",
        )
    merged[entry.path] = entry, layer


def parents(path: str) -> list[str]:
    """Return the folders on the way to a path, outermost first, without the root."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the entries sorted by their paths' bytes, component by component.

    A folder comes before its content.
    """
    return tuple(
        sorted(
            entries,
            key=lambda entry: os.fsencode(entry.path).split(b"/") if entry.path != "/" else [],
        )
    )


def few(names: Sequence[str], most: int = 3) -> str:
    """Return names for a message: the first ones, and the number of the others.

    Control characters are made visible.

    Args:
        names: The names.
        most: How many are listed.
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return printable(", ".join(names[:most])) + more


def check_names(entries: Iterable[Entry]) -> None:
    """Check that Linux can hold each name and path, whatever the file system.

    Raises:
        PiggyError: One is too long.
    """
    for entry in entries:
        raw = os.fsencode(entry.path)
        if len(raw) >= PATH_MAX or len(os.fsencode(entry.target)) >= PATH_MAX:
            raise PiggyError(
                f"{few([entry.path[:80]])}: the kernel takes names and link targets of less than"
                f" {PATH_MAX} bytes",
                "shorten it",
            )
        if len(raw.rpartition(b"/")[2]) > NAME_MAX:
            raise PiggyError(
                f"{few([entry.path])}: Linux holds names of up to {NAME_MAX} bytes",
                "give it a shorter name",
            )


def find(entries: Iterable[Entry], path: str) -> Entry | None:
    """Return the entry that a path leads to, following links as the guest's kernel does.

    Returns:
        The entry, or None if there is none.
    """
    tree = {entry.path: entry for entry in entries}
    here, left, links = "/", path.split("/"), 0
    while left:
        name = left.pop(0)
        if name in ("", "."):
            continue
        step = os.path.dirname(here) if name == ".." else os.path.join(here, name)
        entry = tree.get(step)
        if entry is None:
            return None
        if entry.kind != "link":
            here = step
            continue
        links += 1
        if links > LINKS_MAX:
            return None
        here = "/" if entry.target.startswith("/") else here
        left = [*entry.target.split("/"), *left]
    return tree.get(here)


def check_init(entries: Sequence[Entry], asked: str = "", ramfs: bool = False) -> None:
    """Check that a tree has the program that the kernel starts first.

    Source: kernel_init() in init/main.c.

    Args:
        entries: The tree.
        asked: The program that init= or, for an initramfs, rdinit= names; "" for none.
        ramfs: Whether the tree is an initramfs, whose /init may be there or link to /sbin/init.

    Raises:
        PiggyError: The program is missing, or not executable.
    """
    parameter = "rdinit" if ramfs else "init"
    candidates = (asked,) if asked else ("/init", "/sbin/init") if ramfs else INITS
    found = next(filter(None, (find(entries, path) for path in candidates)), None)
    if found is None:
        who = (
            f"the kernel is told {parameter}={few([asked])}, and there is no such file"
            if asked
            else (
                "the kernel looks for"
                f" {', '.join(candidates)}{'' if ramfs else ' (at last for /bin/sh)'}, and there is"
                " none"
            )
        )
        raise PiggyError(
            f"no init in the root file system: {who}",
            "CONFIG_INIT=y in busybox's configuration makes /sbin/init; or lay one over it with an"
            f" overlay, or name another program: append='{parameter}=/bin/sh'",
        )
    if found.kind != "file" or not found.mode & 0o111:
        what = f"has mode {found.mode:o}" if found.kind == "file" else f"is a {found.kind}"
        raise PiggyError(
            f"{few([found.path])} {what}: the kernel can't start it as init",
            "make it executable: chmod +x",
        )


def size(entry: Entry) -> int:
    """Return the bytes of a file's content.

    Raises:
        PiggyError: The file is unreadable.
    """
    if isinstance(entry.source, bytes):
        return len(entry.source)
    try:
        with entry.source.open("rb") as stream:
            return os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise PiggyError(
            f"{few([entry.path])}: can't read {entry.source}: {error.strerror}"
        ) from error


def chunks(entry: Entry, length: int) -> Iterator[bytes]:
    """Yield a file's content in pieces of up to 1 MiB.

    Args:
        entry: The file.
        length: Its expected size in bytes.

    Raises:
        PiggyError: The file is unreadable, or its size has changed.
    """
    if isinstance(entry.source, bytes):
        yield entry.source
        return
    left = length
    try:
        with entry.source.open("rb") as stream:
            while data := stream.read(PIECE):
                left -= len(data)
                yield data
    except OSError as error:
        raise PiggyError(
            f"{few([entry.path])}: can't read {entry.source}: {error.strerror}"
        ) from error
    if left:
        raise PiggyError(
            f"{few([entry.path])}: {entry.source} changed while it was read", "run doit again"
        )


def content(entry: Entry) -> bytes:
    """Return a file's content.

    Raises:
        PiggyError: The file is unreadable.
    """
    return b"".join(chunks(entry, size(entry)))
