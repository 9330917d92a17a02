"""The record of what net_up did, by which net_down undoes it, even after a crash.

It lies in /run/piggyback, in one folder for each network namespace, and not in build/. Root acts on
it, so only root may write it. `rm -r build` must not remove it while the bridge is up. And it
belongs to the host, whichever checkout asks. A reboot empties /run, and removes bridge, rules and
routes. Where /run survives one (containers), the boot's identity in the record shows it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import TypeVar

import msgspec

from tasks.network import trust
from tasks.network.steps import Plan
from tasks.system import files
from tasks.system.errors import PiggyError
from tasks.system.files import open_regular, replacing

_T = TypeVar("_T")
LONGEST = 1 << 20  # bytes of a record or a plan; real ones have up to 30 KB
RUN = Path("/run/piggyback")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SHOWS = "it says what net_up changed; 'ip link' and 'nft list ruleset' show what is there"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What net_up did, and how far it came.

    Attributes:
        boot: The identity of the host's boot.
        plan: The plan.
        begun: The number of steps begun; the last of them may be undone.
        complete: Whether all are done.
    """

    boot: str
    plan: Plan
    begun: int = 0
    complete: bool = False


def boot_id() -> str:
    """Return the identity of this boot of the host."""
    return _BOOT_ID.read_text().strip()


def place(run: Path = RUN) -> Path:
    """Return the folder of this network namespace's record."""
    return run / str(os.stat("/proc/self/ns/net").st_ino)


def read(folder: Path) -> Record | None:
    """Read the record.

    Returns:
        The record, or None if there is none.

    Raises:
        PiggyError: It is unreadable, somebody else could have written it, or net_up can't have made
            its plan.
    """
    file = folder / "record.json"
    try:
        if not _ours(folder):
            return None
        with open(open_regular(file), "rb") as stream:
            _only_ours(file, os.fstat(stream.fileno()))
            data = stream.read(LONGEST)
        record = files.record(data, Record, f"{file}")
        trust.check(record.plan, os.fspath(folder))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PiggyError(f"{file} can't be read: {error.strerror}", _SHOWS) from error
    except PiggyError as error:
        raise PiggyError(
            error.message if str(file) in error.message else f"{file}: {error.message}",
            f"{error.hint + '; ' if error.hint else ''}{_SHOWS}; then, as root: rm -r {folder}",
        ) from error
    if not 0 <= record.begun <= len(record.plan.steps):
        raise PiggyError(
            f"{file} is of no use: it says that {record.begun} of {len(record.plan.steps)} steps"
            " were begun",
            _SHOWS,
        )
    return record


def _ours(folder: Path) -> bool:
    """Return whether the folder exists.

    Raises:
        PiggyError: Somebody else can write to it or to its parent.
    """
    try:
        for path in (folder.parent, folder):
            info = os.lstat(path)
            if not stat.S_ISDIR(info.st_mode):
                raise PiggyError(f"{path} is no folder", "net_up makes it")
            _only_ours(path, info)
    except FileNotFoundError:
        return False
    return True


def _only_ours(path: Path, info: os.stat_result) -> None:
    """Check that only root and we could have written a file, since root acts on the record.

    Raises:
        PiggyError: Somebody else could have.
    """
    if info.st_uid not in (0, os.geteuid()):
        raise PiggyError(f"{path} belongs to user {info.st_uid}, and root would act by it")
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PiggyError(
            f"{path} can be written to by others (mode {stat.S_IMODE(info.st_mode):04o}), and root"
            " would act by it"
        )


def write(folder: Path, record: Record) -> None:
    """Write the record, which is complete and on the disk when this returns.

    Raises:
        PiggyError: Somebody else can write to the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _ours(folder)
    with replacing(folder / "record.json") as draft:
        with draft.open("wb") as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(record)))
            stream.flush()
            os.fsync(stream.fileno())
        draft.chmod(0o644)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove the record, dnsmasq's files, and drafts of an interrupted write.

    The folder is removed as well if nothing else is in it.
    """
    with contextlib.suppress(OSError):
        for draft in folder.glob(".record.json.*.part"):
            shutil.rmtree(draft, ignore_errors=True)
        for name in ("dnsmasq.pid", "leases", "record.json"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
