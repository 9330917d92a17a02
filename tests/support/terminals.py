"""A program on a terminal of its own, as somebody at a keyboard has it; nothing of it outlives the
test."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest


def members(session: int) -> list[int]:
    """Return the processes of a session (proc(5): /proc/PID/stat) that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, *numbers = path.read_text().rpartition(")")[2].split()
            if int(numbers[2]) == session and state != "Z":
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def terminal(
    argv: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    log: Path | None = None,
    timeout: float = 120,
) -> Iterator[Any]:
    """Start a program for the body of a `with`, and yield it as pexpect has it.

    If the body failed, or the program is left running, it is killed with all that it started.

    Args:
        argv: The program and its arguments.
        cwd: Its working directory.
        env: Its environment.
        log: A file to which its output is appended.
        timeout: Seconds that it may take for each expected text.
    """
    pexpect = pytest.importorskip("pexpect")
    with contextlib.ExitStack() as stack:
        one = pexpect.spawn(
            argv[0],
            list(argv[1:]),
            cwd=str(cwd),
            env=dict(env),
            encoding="utf-8",
            codec_errors="replace",
            timeout=timeout,
            dimensions=(24, 200),
        )
        stack.callback(_end, one)
        if log:
            one.logfile_read = stack.enter_context(open(log, "a", encoding="utf-8"))
        yield one


def powered_off(guest: Any) -> None:
    """Power a guest off at its shell; its program must end with status 0."""
    guest.sendline("poweroff")
    guest.expect(pytest.importorskip("pexpect").EOF)
    guest.close()
    assert guest.exitstatus == 0


def _end(one: Any) -> None:
    """Kill the processes of a session, and close its terminal."""
    until = time.monotonic() + 30
    while (left := members(one.pid)) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        one.isalive()  # else it stays as a zombie
        time.sleep(0.05)
    one.close(force=True)
