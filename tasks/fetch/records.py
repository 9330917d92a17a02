"""What lies in dl/, and which of it was verified.

Dl/NAME.json records file, sha256, version and origin of source NAME.

A file that has the size and times of its record was verified before, and is not hashed again.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from tasks.config.pins import Source
from tasks.system import address, files, terminal
from tasks.system.errors import PiggyError

BY_HAND = "put there by hand"
_NAME = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9.+~_:-]{0,200}"
)  # as pins and Debian's versions allow (Debian Policy, 5.6.12)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Obtained(msgspec.Struct, frozen=True):
    """A verified archive: name, path, sha256, upstream version, and where it came from."""

    name: str
    path: Path
    sha256: str
    version: str
    origin: str


class Record(msgspec.Struct, frozen=True):
    """What dl/NAME.json holds.

    pinned: the pin's sha256 at that time ("": none); package and
    package_version: "" if not from apt; origin: without a password.
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
    """Tell whether a name that was read from a file is that of a file in dl/ itself."""
    return bool(_NAME.fullmatch(name))


def trusted(source: Source, dl: Path) -> Obtained | None:
    """Return the recorded file when size and times are as they were when it was verified."""
    record = _recorded(source, dl)
    if not record or (
        source.sha256 and record.file != source.filename and os.path.lexists(dl / source.filename)
    ):
        return None  # upstream's own file, put there by hand, goes first
    if record.origin != address.shown(record.origin):
        return None  # it is written anew, without the password that it holds
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
    """Hash what lies in `dl` under upstream's name or the record's; return and record what is good.

    What is bad is moved aside to FILE.bad. In a folder that is not writable nothing is moved or
    recorded.
    """
    record = _recorded(source, dl)
    wanted = {source.filename: source.sha256} if source.sha256 else {}
    if record and record.file != source.filename:
        wanted[record.file] = record.sha256
    for name, sha256 in wanted.items():
        path = dl / name
        if not path.exists():
            continue
        if not path.is_file():
            raise PiggyError(f"{path} is not a file", f"move it away: {name} belongs there")
        found = files.sha256_of(path)
        if found != sha256:
            if writable:
                os.replace(path, path.with_name(name + ".bad"))
            terminal.line(
                "bad",
                f"{path} is truncated or"
                f" corrupt{', moved to ' + name + '.bad' if writable else ''}: its sha256 is"
                f" {found}, and should be {sha256}",
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
    """Write dl/NAME.json for a file that was just verified. version: the package's."""
    path = dl / f"{source.name}.json"
    # the upstream part of a Debian version: without epoch and revision (Debian Policy, 5.6.12)
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
