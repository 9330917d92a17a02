"""The record of what net_up did: what net_down goes by, also after a crash or a reboot.

It lies in /run/piggyback, one folder for each network namespace, and not in build/: root acts by it, so only root may write
it; `rm -r build` must not take it away while the bridge is up; and it is the host's, whichever checkout asks. /run is gone
after a reboot, as are bridge, rules and routes. Where /run outlives one (containers), the boot's identity in it tells.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from tasks.kit.errors import PiggyError
from tasks.kit.fs import replacing
from tasks.kit.netstep import Plan

RUN = Path("/run/piggyback")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """boot: which boot of the host it was.  begun: how many steps were begun; the last of them may not have been done.
    complete: all were done."""

    boot: str
    plan: Plan
    begun: int = 0
    complete: bool = False


def boot_id() -> str:
    """Return what identifies this boot of the host."""
    return _BOOT_ID.read_text().strip()


def place(run: Path = RUN) -> Path:
    """Return the folder of this network namespace's record."""
    return run / str(os.stat("/proc/self/ns/net").st_ino)


def read(folder: Path) -> Record | None:
    """Return the record, None if there is none. Raises PiggyError for one that can't be read."""
    try:
        return msgspec.json.decode((folder / "record.json").read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise PiggyError(f"{folder / 'record.json'} can't be read: {error}",
                         "it says what net_up changed; 'ip link' and 'nft list ruleset' show what is there") from error


def write(folder: Path, record: Record) -> None:
    """Write the record whole, and have it on the disk when this returns."""
    folder.mkdir(parents=True, exist_ok=True)
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
    """Remove the record and what lay beside it."""
    shutil.rmtree(folder, ignore_errors=True)
