"""Whether the host was started anew since a folder was written to: there may have been a power cut.

What was written in the last half minute before it may be empty, or cut short, with the time and the
name of a whole file: a page waits for up to 30 s until it is written (vm.dirty_expire_centisecs in
Documentation/admin-guide/sysctl/vm.rst), and a name does not (auto_da_alloc in
Documentation/admin-guide/ext4.rst: only some cases wait for the content).
"""

from __future__ import annotations

import os
from pathlib import Path

from tasks.system.files import read_regular, write_whole

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # another one after each start of the host
LATE = 60.0  # seconds; what was written earlier is on the disk


def remember(record: Path) -> None:
    """Write down during which run of the host a folder is written to.

    Args:
        record: The file for that, in the folder.
    """
    write_whole(record, _present())


def happened(record: Path) -> bool:
    """Tell whether the host was started anew since `remember`; not if that was never called."""
    try:
        return read_regular(record, 100) != _present().encode()
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True


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
            raise OSError(number, os.strerror(number), os.fspath(folder))
    finally:
        os.close(descriptor)


def _present() -> str:
    """Return the host's present run; "" where the kernel does not name it."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
