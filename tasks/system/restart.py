"""Whether the host was started anew since a folder was written to: there may have been a power cut.

What was written in the last half minute before it may be empty, or cut short, with the time and the
name of a whole file: a page waits for up to 30 s until it is written (vm.dirty_expire_centisecs in
Documentation/admin-guide/sysctl/vm.rst), and a name does not (auto_da_alloc in
Documentation/admin-guide/ext4.rst: only some cases wait for the content).
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import os
from pathlib import Path

from tasks.system.files import read_regular, write_whole

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # another one after each start of the host
LATE = 60.0  # seconds; what was written earlier is on the disk
_WORK = " at work"
_LENGTH = 36  # of a UUID alone


def at_work(record: Path) -> None:
    """Write down that a folder is written to, during which run of the host, until the process ends.

    Whatever the end is, an error or a signal that Python handles, it is written down; only kill -9
    and the host's end leave the record as it is.

    Args:
        record: The file for that, in the folder.
    """
    write_whole(record, _present() + _WORK)
    _end_with_process(record.absolute())


@functools.cache
def _end_with_process(record: Path) -> None:
    atexit.register(_ended, record)


def _ended(record: Path) -> None:
    if os.path.lexists(record):
        with contextlib.suppress(OSError):
            remember(record)


def remember(record: Path) -> None:
    """Write down during which run of the host a folder was written to.

    Args:
        record: The file for that, in the folder.
    """
    write_whole(record, _present())


def happened(record: Path) -> bool:
    """Tell whether the host was started anew since a record; not if there is none."""
    said = _said(record)
    return said is not None and said.removesuffix(_WORK) != _present()


def cut_off(record: Path) -> bool:
    """Tell whether the host was started anew while the folder of a record was written to.

    So it may have been if the record itself is damaged.
    """
    return happened(record) and len(_said(record) or "") != _LENGTH


def _said(record: Path) -> str | None:
    """Return what a record says; None without one, "?" for what is none."""
    try:
        return read_regular(record, 100).decode(errors="replace")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return "?"


def flush(folder: Path) -> None:
    """Wait until what was written to the folder's file system is on the disk (syncfs(2)).

    For folders that are made once, and believed by a mark afterwards.

    Raises:
        OSError: It could not be written.
    """
    import ctypes  # only here: it is slow to load

    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor):
            number = ctypes.get_errno()
            if number in (errno.ENOSYS, errno.EPERM):  # in some sandboxes
                os.sync()
                return
            raise OSError(number, os.strerror(number), os.fspath(folder))
    finally:
        os.close(descriptor)


def _present() -> str:
    """Return the host's present run; "" where the kernel does not name it."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
