"""Whether the host was started anew since a folder was written to, and what it may have lost.

What was written in the last half minute before a power cut may be empty, or cut short, with the
time and the name of a whole file: a page waits for up to 30 s until it is written
(vm.dirty_expire_centisecs in Documentation/admin-guide/sysctl/vm.rst), and a name does not
(Documentation/filesystems/ext4, "auto_da_alloc": only some cases wait for the content).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tasks.system.files import write_whole

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # another one after each start of the host
LATE_NS = 60_000_000_000


def remember(record: Path) -> None:
    """Write down during which run of the host a folder is written to.

    Args:
        record: The file for that, in the folder.
    """
    write_whole(record, _present())


def happened(record: Path) -> bool:
    """Tell whether the host was started anew since `remember`; not if that was never called."""
    try:
        return record.read_bytes() != _present().encode()
    except FileNotFoundError:
        return False


def late(folder: Path) -> Iterator[str]:
    """Yield the files below a folder that were written within the minute before the last of them.

    Their ctimes count, which nothing but a write sets. Links are left out.
    """
    found = [
        (info.st_ctime_ns, path)
        for top, _, names in os.walk(folder)
        for path in (os.path.join(top, name) for name in names)
        if stat.S_ISREG((info := os.lstat(path)).st_mode)
    ]
    last = max(found, default=(0, ""))[0]
    yield from (path for when, path in found if when >= last - LATE_NS)


def flush(folder: Path) -> None:
    """Wait until what was written to the folder's file system is on the disk (syncfs(2)).

    For folders that are made once, and believed by a mark afterwards. A failure is left to the
    system, which reports it to whoever writes next.
    """
    import ctypes  # only here: it is slow to load

    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        ctypes.CDLL(None).syncfs(descriptor)
    finally:
        os.close(descriptor)


def _present() -> str:
    """Return the host's present run; "" where the kernel does not name it."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
