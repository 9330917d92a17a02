"""An overlay: a folder whose files are laid over the root file system.

What happens to each file of the folder:

    file -+-> left out: version control's files, and those that editors leave behind
          +-> mode: as it is, or narrowed; from configs/rootfs/overlays.txt for Piggyback's own
          +-> attributes: user.* and security.capability
          +-> refused: sockets, pipes, devices; scripts and tables with Windows line ends

A file keeps its mode, with setuid, setgid and sticky bits, except the write permission of group and
others: git stores only the x bit, and a checkout under umask 002 gives 0664 and 0775 where one
under 022 gives 0644 and 0755. A folder with the sticky bit (/tmp) keeps its whole mode. A folder
loses its setgid bit, which a checkout inherits from the folder it was made in. Nothing is ever
widened. The owner is root. Everything else (an owner, 0664, or 0644 where the checkout's umask is
077) belongs in the device and permission table, which is applied last. A note reports each change.

An ACL is left out, since it names users of the host, as an owner does. The group then gets no more
than its own entry gave it: the group bits of such a file's mode are a mask (acl(5)). Labels of the
host's security modules and desktops (security.selinux, trusted.*, user.xdg.*, ...) are left out as
well, since they depend on who builds.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.filesystem.tree import DIR_MODE, LINK_MODE, Entry, Layer, few, parents
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
CAPABILITY = "security.capability"
ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
_CONTROLLED = pattern(r"\.(git|hg|svn|bzr)|CVS|\.git(ignore|attributes|modules)")
_LITTER = pattern(r".*~|#.*#|\.#.*|\..*\.sw[a-z]|\.nfs[0-9a-f]{8,}", re.DOTALL)
_KEEPS_A_FOLDER = ".gitkeep"
_CONTROL = pattern(r"[\0-\x1f\x7f]")
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}
# Files that busybox's programs read line by line, where a carriage return becomes part of a word.
_TABLES = pattern(
    r"etc/(inittab|fstab|passwd|group|shadow|profile|hostname|hosts|network\.conf|mdev\.conf|init\.d/.*)",
    re.DOTALL,
)
_SHEBANG_MAX = 256  # BINPRM_BUF_SIZE, include/uapi/linux/binfmts.h
_TABLE_MAX = 1 << 20  # bytes that are searched for carriage returns
_NO_ATTRIBUTES = (errno.ENOTSUP, errno.ENODATA, errno.ENOSYS)


class Name(msgspec.Struct, frozen=True):
    """One name below an overlay's folder, as it is on the disk.

    Attributes:
        path: Its path below the folder.
        kind: "file", "dir", "link", "other", or "out" for what is left out.
        mode: Permission bits with setuid, setgid and sticky.
        target: Of a link.
        attributes: The extended attributes that could be in the image, and ACLs.
    """

    path: str
    kind: str
    mode: int
    target: str = ""
    attributes: tuple[tuple[str, bytes], ...] = ()


def snapshot(folder: Path) -> dict[str, tuple[str, str]]:
    """Return the state of an overlay's folder, to be compared with an earlier one.

    Args:
        folder: The folder; a missing one has the state {}.

    Returns:
        By path, the kind, and mode, target and attributes as text. The content of files is not in
        it.

    Raises:
        PiggyError: A folder is unreadable.
    """
    if not folder.is_dir():
        return {}
    return {
        name.path: (
            name.kind,
            " ".join(
                [
                    f"{name.mode:o}",
                    name.target,
                    *(f"{key}={value.hex()}" for key, value in name.attributes),
                ]
            ),
        )
        for name in _walk(folder)
        if name.kind != "out"
    }


def layer(folder: Path, known: Mapping[str, Entry] | None = None) -> tuple[Layer, tuple[str, ...]]:
    """Return an overlay's folder as a layer, and notes about everything that changes on the way.

    Links are taken as links, never followed.

    Args:
        folder: The folder.
        known: Entries whose mode and owner replace those on the disk, by path ("/etc/passwd").

    Returns:
        The layer, and one sentence for each kind of change.

    Raises:
        PiggyError: The folder is missing or unreadable, or holds a socket, a pipe, a device, a name
            with control characters, or a script or table with carriage returns.
    """
    if not folder.is_dir():
        raise PiggyError(f"overlay {folder}: no such folder")
    found, out, narrowed, widened, lists = [], [], [], [], []
    for name in _walk(folder):
        if name.kind == "out":
            out.append(name.path)
            continue
        _check(folder, name)
        path, mode = f"/{name.path}", landed_mode(name)
        entry = Entry(
            path,
            name.kind,
            mode,
            target=name.target,
            source=folder.absolute() / name.path if name.kind == "file" else b"",
            attributes=_landing(name),
        )
        fixed = (known or {}).get(path)
        if fixed and fixed.kind == name.kind:
            entry = msgspec.structs.replace(entry, mode=fixed.mode, uid=fixed.uid, gid=fixed.gid)
            if fixed.mode & ~name.mode:
                widened.append(f"{path} ({name.mode:o} -> {fixed.mode:o})")
        elif mode != name.mode:
            narrowed.append(f"{path} ({name.mode:o} -> {mode:o})")
        if any(key in (ACL, DEFAULT_ACL) for key, _ in name.attributes):
            lists.append(path)
        found.append(entry)
    notes = (
        (out, "left out, as files of version control and of editors are: {}"),
        (narrowed, "modes narrowed, since only the owner may write: {}"),
        (widened, "modes of configs/rootfs/overlays.txt: {}"),
        (lists, "access control lists are left out, since they name users of this machine: {}"),
    )
    return Layer(f"overlay {folder}", tuple(found)), tuple(
        f"overlay {few([str(folder)])}: {text.format(few(names))}" for names, text in notes if names
    )


def landed_mode(name: Name) -> int:
    """Return the mode that a name gets in the image, by the rule at the top of this module."""
    mode = name.mode
    if name.kind == "link":
        return LINK_MODE
    if name.kind == "dir":
        mode &= ~stat.S_ISGID
    if not (name.kind == "dir" and mode & stat.S_ISVTX):
        mode &= ~OTHERS_WRITE
    for key, value in name.attributes:
        if key == ACL:
            mode &= ~stat.S_IRWXG | _group_bits(value)
    return mode


def _group_bits(value: bytes) -> int:
    """Return the owning group's permissions in an ACL, as mode bits.

    Source: include/uapi/linux/posix_acl_xattr.h.
    """
    for tag, rights, _ in struct.iter_unpack("<HHI", value[4:] if len(value) % 8 == 4 else b""):
        if tag == 4:  # ACL_GROUP_OBJ
            return (int(rights) & 7) << 3
    return 0


def _landing(name: Name) -> tuple[tuple[str, bytes], ...]:
    return tuple((key, value) for key, value in name.attributes if key not in (ACL, DEFAULT_ACL))


def _walk(folder: Path) -> Iterator[Name]:
    """Yield the names below a folder, each folder before its content.

    A name that is left out is yielded, but nothing below it.
    """
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
                if (
                    _CONTROLLED.fullmatch(item.name)
                    or kind != "dir"
                    and _LITTER.fullmatch(item.name)
                ):
                    yield Name(path, "out", 0)
                    continue
                if item.name == _KEEPS_A_FOLDER:  # meant to be left out: not reported
                    continue
                yield Name(
                    path,
                    kind,
                    LINK_MODE if kind == "link" else stat.S_IMODE(state),
                    os.readlink(item.path) if kind == "link" else "",
                    _attributes(item.path) if kind in ("file", "dir") else (),
                )
                if kind == "dir":
                    folders.append(path + "/")
            pending += reversed(folders)
    except OSError as error:
        raise PiggyError(
            f"overlay {folder}: can't read {error.filename}: {error.strerror}"
        ) from error


def _attributes(path: str) -> tuple[tuple[str, bytes], ...]:
    """Return the extended attributes that matter here, sorted."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return tuple(
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(names)
            if name in (CAPABILITY, ACL, DEFAULT_ACL)
            or name.startswith("user.")
            and not name.startswith("user.xdg.")
        )
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return ()
        raise


def _check(folder: Path, name: Name) -> None:
    """Check that a name can be in the image.

    Raises:
        PiggyError: It can't.
    """
    if name.kind == "other":
        raise PiggyError(
            f"overlay {folder}: {name.path!r} is neither file, folder nor link",
            "device nodes and named pipes belong in the device table (configs/rootfs/devices.txt)",
        )
    if _CONTROL.search(name.path + name.target):
        raise PiggyError(
            f"overlay {folder}: {name.path!r} has a control character in its name or target",
            "rename it",
        )
    if name.kind == "file":
        _check_lines(folder, name.path)


def _check_lines(folder: Path, path: str) -> None:
    """Check that a script, or a table that busybox reads, has no Windows line ends.

    The kernel takes the carriage return as part of the interpreter's name, and finds no such file
    (fs/binfmt_script.c). busybox takes it as part of a line's last word.

    Raises:
        PiggyError: It has.
    """
    from tasks.system.files import open_regular

    place = folder / path
    try:
        with open(open_regular(place), "rb") as stream:
            head = stream.read(_SHEBANG_MAX)
            script = head.startswith(b"#!")
            bad = (
                head.partition(b"\n")[0].endswith(b"\r")
                if script
                else bool(_TABLES.fullmatch(path)) and b"\r\n" in head + stream.read(_TABLE_MAX)
            )
    except OSError as error:
        raise PiggyError(f"overlay {folder}: can't read {place}: {error.strerror}") from error
    if bad:
        what = (
            "the kernel finds no interpreter whose name ends with a carriage return"
            if script
            else "what reads it takes the carriage return for a part of the last word"
        )
        raise PiggyError(
            f"overlay {folder}: {path!r} has the line ends of Windows (CRLF): {what}",
            f"sed -i 's/\\r$//' {shlex.quote(str(place))}; for a git checkout also: git config"
            " core.autocrlf input",
        )


def tables(rows: Sequence[tuple[Entry, str]]) -> dict[str, dict[str, Entry]]:
    """Return the rows of configs/rootfs/overlays.txt by overlay, then by path in the overlay.

    The first name of a row's path is the overlay. Folders on the way that have no row are 0755 and
    root's.

    Args:
        rows: Entry and "FILE:LINE" of each row.

    Raises:
        PiggyError: A row is neither for a file nor for a folder of an overlay.
    """
    found: dict[str, dict[str, Entry]] = {}
    for entry, where in rows:
        overlay, slash, path = entry.path[1:].partition("/")
        if entry.kind not in ("file", "dir") or not slash:
            raise PiggyError(
                f"{where}: {entry.path!r} is no file or folder of an overlay",
                "such as /base/etc/inittab f 644 0 0",
            )
        table = found.setdefault(overlay, {})
        for parent in parents(f"/{path}"):
            table.setdefault(parent, Entry(parent, "dir", DIR_MODE))
        table[f"/{path}"] = msgspec.structs.replace(entry, path=f"/{path}")
    return found
