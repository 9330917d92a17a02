"""What a power cut leaves: what was written last is empty or cut short, and has its whole time."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from playground import Kept, Playground, finish
from test_kill import working_in

LOADER = "arch/x86/boot/compressed"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the host another boot ID")
@pytest.mark.parametrize(
    ("moment", "lost"),
    [
        ("vmlinux", ["include/config/auto.conf", "include/generated/autoconf.h"]),
        pytest.param(
            "vmlinux",
            ["kernel/panic.o", "lib/string.o", "piggyback.boot"],
            marks=pytest.mark.long,
        ),
        ("misc.o", ["include/generated/asm/errno.h", "piggyback.made"]),
        ("header.o", [f"{LOADER}/misc.o", f"{LOADER}/../voffset.h", ".config"]),
        pytest.param(
            "header.o", [f"{LOADER}/mkpiggy", f"{LOADER}/piggy.o"], marks=pytest.mark.long
        ),
    ],
    ids=["configuration", "kernel", "generated", "loader", "programs"],
)
@pytest.mark.parametrize(
    "part", [0, pytest.param(0.5, marks=pytest.mark.long)], ids=["empty", "cut_short"]
)
def test_a_power_cut(
    fresh: Playground, kept: Kept, moment: str, lost: list[str], part: float
) -> None:
    """In the middle of a first build, and the host starts anew."""
    fresh.pause(moment)
    process = fresh.start()
    fresh.reached(moment)
    for pid in [process.pid, *working_in(fresh.top)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    finish(process)
    fresh.resume()
    for name in lost:
        path = fresh.obj / name
        info = path.stat()
        os.truncate(path, int(info.st_size * part))
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    fresh.restart()
    fresh.doit()
    assert fresh.digests() == kept.digests
    assert fresh.doit().ran == []
