"""An overlay: a folder whose files are laid over the root file system.

Here is what of it lands in the image, and how.

    names in the folder --+-> left out: what belongs to version control, and what editors leave about
                          +-> modes: as they are, or narrowed; of the overlays that ship with Piggyback, those of
                          |          configs/rootfs/overlays.txt
                          +-> attributes: user.* and security.capability
                          +-> refused: sockets, pipes, devices; scripts and tables with the line ends of Windows

A file's mode lands as it is, setuid and sticky bits included, but without the right of group and
others to write: git stores the x bit only, and a checkout under umask 002 gives 0664 and 0775 where
one under 022 gives 0644 and 0755. A folder with the sticky bit (/tmp) keeps its mode; its setgid
bit is dropped, which a checkout inherits from the folder it was made in. Nothing is ever widened.
The owner is root. All else (an owner, 0664, and 0644 where the checkout's umask is 077) belongs in
the device and permission table, which has the last word. What does not land as it lies there is
said.

An ACL names users of the host, as the owner does: it does not land, and the group gets no more than
its own entry gave (acl(5): the group bits of such a file's mode are a mask). The labels that the
host itself puts on files (security.selinux, trusted.*, user.xdg.*, ...) depend on who builds: they
do not land either.
"""  # noqa: E501

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

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
CAPABILITY = "security.capability"
ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
_CONTROLLED = re.compile(r"\.(git|hg|svn|bzr)|CVS|\.git(ignore|attributes|modules)")
_LITTER = re.compile(r".*~|#.*#|\.#.*|\..*\.sw[a-z]|\.nfs[0-9a-f]{8,}", re.DOTALL)
_KEEPS_A_FOLDER = ".gitkeep"
_CONTROL = re.compile(r"[\0-\x1f\x7f]")
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}
# What busybox's programs read by lines, and would take a carriage return for a part of.
_TABLES = re.compile(
    r"etc/(inittab|fstab|passwd|group|shadow|profile|hostname|hosts|network\.conf|mdev\.conf|init\.d/.*)",
    re.DOTALL,
)
_SHEBANG_MAX = 256  # BINPRM_BUF_SIZE, include/uapi/linux/binfmts.h
_TABLE_MAX = 1 << 20  # bytes that are searched for carriage returns
_NO_ATTRIBUTES = (errno.ENOTSUP, errno.ENODATA, errno.ENOSYS)


class Name(msgspec.Struct, frozen=True):
    """One name below an overlay's folder, as it lies there.

    kind: "file", "dir", "link", "other" (neither), or "out" for what is left out.
    mode: permission bits with setuid, setgid and sticky.  target: of a link.
    attributes: all extended ones that could land, and the ACL's.
    """

    path: str
    kind: str
    mode: int
    target: str = ""
    attributes: tuple[tuple[str, bytes], ...] = ()


def snapshot(folder: Path) -> dict[str, tuple[str, str]]:
    """Return the state of an overlay's folder, to be compared with an earlier one.

    It gives the kind and the rest as text, by path. All that lands in an image is in it except the
    content of files. A missing folder is {}. Raises PiggyError when a folder can't be read.
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
    """Return an overlay's folder as a layer, and what does not land as it lies there.

    The latter is a sentence for each kind.

    Links are taken as links, never followed.
    known: entries whose mode and owner count in place of those on the disk, by path
    ("/etc/passwd"). Raises PiggyError when the folder is missing or unreadable, for sockets, pipes,
    devices, names that hold control characters, and scripts and tables with carriage returns.
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
    said = (
        (out, "left out, as files of version control and of editors are: {}"),
        (narrowed, "modes narrowed, since only the owner may write: {}"),
        (widened, "modes of configs/rootfs/overlays.txt: {}"),
        (lists, "access control lists are left out, since they name users of this machine: {}"),
    )
    return Layer(f"overlay {folder}", tuple(found)), tuple(
        f"overlay {few([str(folder)])}: {text.format(few(names))}" for names, text in said if names
    )


def landed_mode(name: Name) -> int:
    """Return the mode that a name gets in the image; for the rule see above."""
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
    """Return what an ACL gives the owning group, as mode bits.

    See include/uapi/linux/posix_acl_xattr.h.
    """
    for tag, rights, _ in struct.iter_unpack("<HHI", value[4:] if len(value) % 8 == 4 else b""):
        if tag == 4:  # ACL_GROUP_OBJ
            return (int(rights) & 7) << 3
    return 0


def _landing(name: Name) -> tuple[tuple[str, bytes], ...]:
    return tuple((key, value) for key, value in name.attributes if key not in (ACL, DEFAULT_ACL))


def _walk(folder: Path) -> Iterator[Name]:
    """Yield the names below `folder`, each folder before what it holds.

    Of what is left out, its name only.
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
                if item.name == _KEEPS_A_FOLDER:  # put there to be left out: not worth a word
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
    """Return the extended attributes that are ours to look at, sorted."""
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
    """Raise PiggyError for a name that can't land."""
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
    """Raise PiggyError for a script, or a table that busybox reads, with the line ends of Windows.

    The kernel takes the carriage return for a part of the interpreter's name, and finds no such
    file (fs/binfmt_script.c); busybox takes it for a part of a line's last word.
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
    """Return the rows of configs/rootfs/overlays.txt by overlay, then by path in it.

    A row is (entry, "file:line").

    A row's first name is the overlay's. The folders on the way to a name are 0755 and root's where
    they have no row. Raises PiggyError for a row that is neither of a file nor of a folder.
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
