"""A program of the tests that is ended puts its files back."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).resolve().parents[1] / "support"
PROGRAM = """\
import os, signal, sys, time
import ending
ending.by_exception()
try:
    print("begun", flush=True)
    time.sleep(60)
finally:
    os.kill(os.getpid(), signal.SIGTERM)  # in the middle of it
    print("put back", flush=True)
"""


def test_a_second_signal_does_not_end_it_while_it_puts_files_back() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=SUPPORT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "put back\n"
    assert process.returncode == 143
