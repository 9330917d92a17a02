"""The root file system as data: layers laid over each other become one sorted tuple of entries.

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
NAME_MAX, PATH_MAX = (
    255,
    4096,
)  # include/uapi/linux/limits.h; an ext2 directory entry, too, holds names of up to 255
INITS = (
    "/sbin/init",
    "/etc/init",
    "/bin/init",
)  # what kernel_init() tries (init/main.c), but for its last resort /bin/sh
PIECE = 1 << 20  # bytes of a file that are read at once
# Bytes of an ext2 image. The format has room for 4 TiB (2^32 blocks of 1 KiB: s_blocks_count in
# fs/ext2/ext2.h), but an image is checked whole and hashed whole, which takes a minute for this
# much.
IMAGE_MAX = 32 << 30
# Bytes of one file: ext2_max_size() in fs/ext2/super.c for blocks of 1 KiB; eight hex digits in a
# cpio header (buffer-format.rst of the kernel).
DISK_FILE_MAX = (12 + 256 + 256**2 + 256**3) << 10
ARCHIVE_FILE_MAX = 0xFFFFFFFF
LINKS_MAX = 40  # links on the way to a file: MAXSYMLINKS, include/linux/namei.h


class Entry(msgspec.Struct, frozen=True):
    """One name of the tree.

    path:   absolute in the target, "/" for the root; bytes that are no UTF-8 as surrogates
        (os.fsdecode).
    kind:   "file", "dir", "link", "char", "block" or "fifo".
    mode:   the permission bits, with setuid, setgid and sticky; no file type.
    source: a file's content: a file of the host, or bytes.
    target: what a link says.
    attributes: extended ones, of a file or folder: (name, value), sorted.
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
    """Return /bin/busybox and a link to it for each line of `links`.

    These are busybox.links, as busybox's make leaves it.

    The links are relative: they lead to busybox in a chroot, an initramfs, and an image mounted on
    the host alike. Raises PiggyError when a file is missing or a line is no absolute path.
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
    """Lay the layers over each other, and return the entries sorted, each after its folder.

    The later layers win.

    The root and the folders on the way to an entry are added where no layer has them. Raises
    PiggyError when a folder meets something that is none: nothing below it could be kept.
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
    """Return the folders on the way to `path`, outermost first, without the root."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the entries in the order of their bytes, component by component.

    A folder comes before what it holds.
    """
    return tuple(
        sorted(
            entries,
            key=lambda entry: os.fsencode(entry.path).split(b"/") if entry.path != "/" else [],
        )
    )


def few(names: Sequence[str], most: int = 3) -> str:
    """Return names for a message: the first ones, and how many more there are.

    Control characters made visible.
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return printable(", ".join(names[:most])) + more


def check_names(entries: Iterable[Entry]) -> None:
    """Raise PiggyError for a name or path that Linux can't hold, whatever the file system."""
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
    """Return the entry that a path leads to, links in it followed as the guest's kernel would.

    None when there is none.
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
    """Raise PiggyError for a tree without the program that the kernel starts first.

    See kernel_init() in init/main.c.

    asked: the program that init= or, for an initramfs, rdinit= on the kernel's command line names
        ("": none).
    ramfs: whether the tree is an initramfs, whose /init may be there or lead to /sbin/init.
    """
    parameter = "rdinit" if ramfs else "init"
    wanted = (asked,) if asked else ("/init", "/sbin/init") if ramfs else INITS
    found = next(filter(None, (find(entries, path) for path in wanted)), None)
    if found is None:
        who = (
            f"the kernel is told {parameter}={few([asked])}, and there is no such file"
            if asked
            else (
                "the kernel looks for"
                f" {', '.join(wanted)}{'' if ramfs else ' (at last for /bin/sh)'}, and there is"
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
    """Return the bytes of a file's content. Raises PiggyError when it can't be read."""
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

    Raises PiggyError when it can't be read or is not `length` long.
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
    """Return a file's content. Raises PiggyError when it can't be read."""
    return b"".join(chunks(entry, size(entry)))
