"""Reading and writing of Piggyback's own files.

A file is written aside on the same file system, then renamed, so that it appears whole. A file that
is read or locked may have been put there by anybody: a pipe would hang us, a device would never
end, a link would lead to another file. So only regular files are opened.

The module also answers common questions about files: time of change, digest of the content, free
space on the disk, and the error for a write that failed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tasks.system import terminal
from tasks.system.errors import PiggyError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)
# several ticks of the coarse clock that file systems stamp with (CONFIG_HZ=100: 10 ms)
RACY_NS = 50_000_000
_T = TypeVar("_T")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    The body may create the temporary path as a file or as a directory. A directory replaces only a
    missing `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", suffix=".part", dir=path.parent
        ) as aside,
        _renamed(Path(aside) / path.name, path, aside) as draft,
    ):
        yield draft


@contextlib.contextmanager
def _renamed(draft: Path, path: Path, aside: str) -> Iterator[Path]:
    """Yield a draft; rename it to `path` on success.

    An error about a file whose name starts with `aside` is told about `path`, which the user knows.
    """
    try:
        yield draft
        os.replace(draft, path)
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename).startswith(aside)):
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`; rename it on success, remove it on failure.

    Without a folder around it, which takes two more operations of the file system.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(descriptor)
    try:
        with _renamed(Path(name), path, name) as draft:
            yield draft
    except BaseException:
        remove(name)
        raise


def write_whole(path: Path, data: str | bytes, mode: int = 0o644) -> None:
    """Write `data` to `path` so that a reader sees the old content or the new, never a part."""
    with replacing_file(path) as draft:
        draft.write_bytes(data.encode() if isinstance(data, str) else data)
        draft.chmod(mode)


def copy_whole(source: Path, path: Path) -> None:
    """Copy a file's content and mode to `path`, whole (see `replacing`)."""
    with replacing_file(path) as draft:
        shutil.copyfile(source, draft)
        shutil.copymode(source, draft)


def open_regular(
    path: Path | str, flags: int = os.O_RDONLY, mode: int = 0o666, follow: bool = False
) -> int:
    """Open a regular file and return its descriptor; never wait, follow a link or truncate.

    Args:
        path: The file. Its last part must be no link; folders on the way may be links (the user may
            have put them there).
        flags: As for os.open, without O_TRUNC.
        mode: Permissions of a file that O_CREAT makes.
        follow: Accept a link to a regular file, as for a file of the user's (settings, a fragment).

    Raises:
        OSError: ELOOP for a link (open(2), O_NOFOLLOW), EISDIR for a folder, EINVAL for a pipe,
            socket or device.
    """
    assert not flags & os.O_TRUNC
    fd = os.open(
        path,
        flags | (0 if follow else os.O_NOFOLLOW) | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY,
        mode,
    )
    try:
        kind = os.fstat(fd).st_mode
        if not stat.S_ISREG(kind):
            number = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
            raise OSError(number, "it is no regular file", os.fspath(path))
    except OSError:
        os.close(fd)
        raise
    return fd


def read_regular(path: Path | str, most: int = 1 << 30, follow: bool = False) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file.
        most: Greatest size in bytes; a longer file is none of ours.
        follow: See `open_regular`.

    Raises:
        OSError: As `open_regular` does; EFBIG for a file longer than `most`.
    """
    with open(open_regular(path, follow=follow), "rb") as stream:
        data = b""
        # Not `most`: read() would allocate that much.
        step = os.fstat(stream.fileno()).st_size + 1
        while len(data) <= most and (more := stream.read(min(step, most + 1 - len(data)))):
            data, step = data + more, 1 << 16
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is longer than {most} bytes", os.fspath(path))
    return data


def packed(content: object) -> bytes:
    """Return a content in MessagePack, as a file has it: behind a checksum."""
    return sealed(msgspec.msgpack.encode(content))


def sealed(data: bytes) -> bytes:
    """Return bytes behind their checksum."""
    return zlib.crc32(data).to_bytes(4) + data


def unpacked(data: bytes, type: type[_T]) -> _T:
    """Return the content that `packed` packed.

    Raises:
        ValueError: A bit of it is another one.
        MsgspecError: It is of another type.
    """
    content = memoryview(data)[4:]
    if zlib.crc32(content).to_bytes(4) != data[:4]:
        raise ValueError("the checksum is another one")
    return msgspec.msgpack.decode(content, type=type)


def decoded(
    path: Path,
    kind: type[_T],
    missing: _T,
    decode: Callable[..., Any] = unpacked,
    most: int = 1 << 30,
) -> _T:
    """Decode a file of ours; return `missing` if it is absent, damaged or of another form.

    Args:
        path: The file.
        kind: The type of its content.
        missing: The value for an absent or unreadable file.
        decode: The decoder, called with the bytes and `type=kind`; the default is `unpacked`.
        most: Greatest size in bytes; a longer file is none of ours.
    """
    try:
        content: _T = decode(read_regular(path, most), type=kind)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        return missing
    return content


def record(data: bytes, kind: type[_T], whose: str, hint: str = "") -> _T:
    """Decode a record in JSON that no default can replace.

    Args:
        data: The record.
        kind: The type of its content.
        whose: The subject of the error's sentence, as a rule the file's name.
        hint: The error's hint.

    Raises:
        PiggyError: It is no JSON, or has another form.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        why = terminal.printable(str(error))[:200]
        raise PiggyError(f"{whose} can't be read: {why}", hint) from error


def state(info: os.stat_result) -> tuple[int, int, int, int]:
    """Return what tells whether a file was touched: no tool can set its ctime."""
    return info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino


def remembering(read: Callable[[Path], _T]) -> Callable[[Path], _T]:
    """Return a function that reads a file and remembers what it found until the file is touched.

    What was touched within the last clock ticks is not remembered (see cache/digests.py).

    Args:
        read: Reads the file. The caller must not change its result.
    """
    known: dict[str, tuple[tuple[int, int, int, int], _T]] = {}

    @functools.wraps(read)
    def reader(path: Path) -> _T:
        now = time.time_ns()
        try:
            info = os.stat(path)
        except OSError:
            return read(path)
        entry = known.get(os.fspath(path))
        if entry is not None and entry[0] == state(info):
            return entry[1]
        value = read(path)
        if now - info.st_ctime_ns > RACY_NS:
            known[os.fspath(path)] = state(info), value
        return value

    return reader


def remove(*paths: Path | str) -> None:
    """Remove files and links; one that is not there is no error."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def changed(path: Path | str, follow: bool = True) -> int:
    """Return a file's mtime in nanoseconds since 1970, -1 if there is no such file.

    Args:
        path: The file.
        follow: Whether to take the time of a link's target, not of the link.
    """
    try:
        return os.stat(path, follow_symlinks=follow).st_mtime_ns
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return -1


def moved(info: os.stat_result) -> bool:
    """Tell whether a folder may have been moved to its place since an entry of it changed.

    rename(2) of a folder gives it another ctime, a new entry both times.
    """
    return info.st_ctime_ns != info.st_mtime_ns


def length(*paths: Path | str) -> int:
    """Return the bytes of files together; one that is not there has none."""
    total = 0
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            total += os.stat(path).st_size
    return total


def turned(path: Path | str) -> int:
    """Return when a link was made to lead where it leads (ns since 1970); 0 for what is no link.

    What it leads to may not have been touched since long ago.
    """
    try:
        info = os.lstat(path)
    except (OSError, ValueError):
        return 0
    return info.st_ctime_ns if stat.S_ISLNK(info.st_mode) else 0


def touched(path: Path | str, since: int, missing: bool) -> bool:
    """Tell whether the ctime of a file, or of the link that leads to it, is at or after a time.

    Args:
        path: The file.
        since: Nanoseconds since 1970.
        missing: The answer for a file that does not exist.
    """
    try:
        info = os.lstat(path)
        when = info.st_ctime_ns
        if stat.S_ISLNK(info.st_mode):
            when = max(when, os.stat(path).st_ctime_ns)
        return when >= since
    except (OSError, ValueError):
        return missing


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(top: Path, paths: Iterable[Path | str], follow: bool = True) -> str:
    """Return a digest over names and contents, the same wherever the folder lies.

    Args:
        top: The folder that names are relative to.
        paths: The files in it; their order counts.
        follow: Whether to digest a link's target, not the link's text.
    """
    whole = hashlib.sha256()
    for path in paths:
        whole.update(os.fsencode(os.path.relpath(path, top)) + b"\0")
        if not follow and os.path.islink(path):
            whole.update(os.fsencode(os.readlink(path)))
        else:
            whole.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return whole.hexdigest()


def free(path: Path) -> int:
    """Return the bytes that this user can still write at `path`, or at its nearest parent."""
    for folder in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            info = os.statvfs(folder)
            return info.f_bavail * info.f_frsize
    return 0


def no_space(path: Path, needed: int) -> PiggyError:
    """Return the error for a disk that is too full for a file.

    Args:
        path: The file that was to be written.
        needed: Its size in bytes; 0 if that is not known.
    """
    wants = f"{terminal.human(needed)} needed, " if needed else ""
    return PiggyError(
        f"no space left on the disk for {path}: {wants}{terminal.human(free(path.parent))} free",
        "free some (or inodes, or raise the quota); 'build=' and 'dl=' can lie on another disk",
    )


@contextlib.contextmanager
def explained(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn an OSError of the body into a PiggyError that names the file, the cause and the remedy.

    Args:
        path: The file being written.
        needed: Its size in bytes; 0 if that is not known.
    """
    try:
        yield
    except OSError as error:
        where = (
            Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
        )
        if error.errno in NO_SPACE:
            raise no_space(path, needed) from error
        if error.errno in _NO_RIGHT:
            raise PiggyError(
                f"can't write {where}: {error.strerror}",
                f"make {where.parent} writable for this user, "
                "or choose another place with 'build=' or 'dl='",
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise PiggyError(
                f"can't write {where}: a file stands where a folder is wanted",
                "move that file away",
            ) from error
        raise PiggyError(f"can't write {where}: {error.strerror or error}") from error
