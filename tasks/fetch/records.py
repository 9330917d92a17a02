"""Records of verified archives: dl/NAME.json has file, sha256, version and origin of source NAME.

A file that has the size and times of its record is not hashed again.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from tasks.config.pins import Source
from tasks.system import address, files, terminal
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern

BY_HAND = "put there by hand"
# As pins and Debian's versions allow (Debian Policy, 5.6.12).
_NAME = pattern(r"[A-Za-z0-9][A-Za-z0-9.+~_:-]{0,200}")
_SHA256 = pattern(r"[0-9a-f]{64}")


class Obtained(msgspec.Struct, frozen=True):
    """A verified archive.

    Attributes:
        name: The source's name.
        path: The file.
        sha256: The hash of its content.
        version: The upstream version.
        origin: An address without its password, a package, or BY_HAND.
    """

    name: str
    path: Path
    sha256: str
    version: str
    origin: str


class Record(msgspec.Struct, frozen=True):
    """The content of dl/NAME.json.

    Attributes:
        name: The source's name.
        file: The archive's name in dl/.
        sha256: The hash of its content.
        version: The upstream version.
        origin: An address without its password, a package, or BY_HAND.
        package: The distribution's package; "" if it is not from apt.
        package_version: The package's version; "" if it is not from apt.
        pinned: The pin's sha256 at that time; "" for none.
        size: Bytes.
        mtime_ns: Time of the last change of the content, nanoseconds since 1970.
        ctime_ns: Time of the last change of the inode, nanoseconds since 1970.
    """

    name: str
    file: str
    sha256: str
    version: str
    origin: str
    package: str
    package_version: str
    pinned: str
    size: int
    mtime_ns: int
    ctime_ns: int


def plain(name: str) -> bool:
    """Tell whether a name read from a record is a plain file name: no path out of dl/."""
    return bool(_NAME.fullmatch(name))


def trusted(source: Source, dl: Path) -> Obtained | None:
    """Return the recorded archive, unhashed; None unless size and times are as recorded."""
    record = _recorded(source, dl)
    if not record or (
        source.sha256 and record.file != source.filename and os.path.lexists(dl / source.filename)
    ):
        return None  # upstream's own file, put there by hand, has precedence
    if record.origin != address.shown(record.origin):
        return None  # the record must be written again, without the password in it
    try:
        now = (dl / record.file).stat()
    except OSError:
        return None
    if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (
        record.size,
        record.mtime_ns,
        record.ctime_ns,
    ):
        return None
    return _obtained(record, dl)


def checked(source: Source, dl: Path, writable: bool = True) -> Obtained | None:
    """Hash the file in `dl` with upstream's name or the recorded one; record it if it is good.

    Args:
        source: The source.
        dl: The folder of archives.
        writable: Whether to rename a bad file to FILE.bad, and to record a good one.

    Returns:
        The archive, or None if there is no good file.

    Raises:
        PiggyError: Something other than a file has the name.
    """
    record = _recorded(source, dl)
    expected = {source.filename: source.sha256} if source.sha256 else {}
    if record and record.file != source.filename:
        expected[record.file] = record.sha256
    for name, sha256 in expected.items():
        path = dl / name
        if not path.exists():
            continue
        if not path.is_file():
            raise PiggyError(f"{path} is not a file", f"move it away: {name} belongs there")
        digest = files.sha256_of(path)
        if digest != sha256:
            if writable:
                os.replace(path, path.with_name(name + ".bad"))
            terminal.line(
                "bad",
                f"{path} is truncated or"
                f" corrupt{', moved to ' + name + '.bad' if writable else ''}: its sha256 is"
                f" {digest}, and should be {sha256}",
            )
            continue
        ours = record if record and record.file == name else None
        if not writable:
            return Obtained(
                source.name,
                path,
                sha256,
                ours.version if ours else source.version,
                address.shown(ours.origin) if ours else BY_HAND,
            )
        if ours:
            return write(source, dl, name, sha256, ours.origin, ours.package, ours.package_version)
        return write(source, dl, name, sha256, BY_HAND)
    return None


def _recorded(source: Source, dl: Path) -> Record | None:
    """Return the record of `source`; None if it is missing, damaged, or of another pin."""
    record = files.decoded(
        dl / f"{source.name}.json", Record, None, decode=msgspec.json.decode, most=1 << 20
    )
    if record is None:
        return None
    package = source.package.name if source.package else ""
    fits = (
        record.pinned == (source.sha256 or "")
        and record.package in ("", package)
        and record.name == source.name
    )
    fits = fits and plain(record.file) and bool(_SHA256.fullmatch(record.sha256))
    proof = (
        record.sha256 == source.sha256 if record.file == source.filename else bool(record.package)
    )
    return record if fits and proof else None


def write(
    source: Source,
    dl: Path,
    name: str,
    sha256: str,
    origin: str,
    package: str = "",
    version: str = "",
) -> Obtained:
    """Write dl/NAME.json for a file that was just verified.

    Args:
        source: The source.
        dl: The folder of archives.
        name: The file's name in it.
        sha256: The hash of its content.
        origin: An address, a package, or BY_HAND.
        package: The distribution's package; "" if it is not from apt.
        version: The package's version; "" if it is not from apt.
    """
    path = dl / f"{source.name}.json"
    # The upstream part of a Debian version, without epoch and revision (Debian Policy, 5.6.12).
    upstream = version.partition(":")[2] or version
    upstream = upstream.rpartition("-")[0] or upstream
    with files.explained(path):
        now = (dl / name).stat()
        record = Record(
            source.name,
            name,
            sha256,
            source.version if name == source.filename else upstream,
            address.shown(origin),
            package,
            version,
            source.sha256 or "",
            now.st_size,
            now.st_mtime_ns,
            now.st_ctime_ns,
        )
        files.write_whole(path, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    return _obtained(record, dl)


def _obtained(record: Record, dl: Path) -> Obtained:
    return Obtained(
        record.name, dl / record.file, record.sha256, record.version, address.shown(record.origin)
    )
