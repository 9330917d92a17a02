"""tests/support/terminals.py: no program that a test starts on a terminal outlives it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from terminals import members, terminal

TOP = Path(__file__).resolve().parents[2]
STUBBORN = "trap '' HUP TERM INT; sleep 99 & echo up; sleep 98"


def test_a_failed_test_leaves_nothing_running(tmp_path: Path) -> None:
    log, seen = tmp_path / "log", []

    def fail() -> None:
        with terminal(["sh", "-c", STUBBORN], tmp_path, os.environ, log) as one:
            seen.append(one.pid)
            one.expect("up")
            until = time.monotonic() + 20
            while len(members(one.pid)) < 3 and time.monotonic() < until:
                time.sleep(0.02)
            assert len(members(one.pid)) == 3, "not what is tested"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert members(seen[0]) == []
    assert log.read_text().strip() == "up"


def test_a_program_that_ends_keeps_its_status(tmp_path: Path) -> None:
    with terminal(["sh", "-c", "read line; exit 3"], tmp_path, os.environ) as one:
        one.sendline("x")
        one.wait()
    assert one.exitstatus == 3


def test_all_tests_start_terminals_that_way() -> None:
    found = {
        path.relative_to(TOP).as_posix()
        for path in (TOP / "tests").rglob("*.py")
        if re.search(r"\bpexpect\.spawn\(", path.read_text())
    }
    assert found == {"tests/support/terminals.py"}
