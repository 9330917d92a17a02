"""Lets the tests import the project's packages wherever pytest is started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import skips
from firstbuild import FROM_STORE
from xdist.scheduler import LoadScopeScheduling

TOP = Path(__file__).resolve().parents[1]
if str(TOP) not in sys.path:
    sys.path.insert(0, str(TOP))


if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # started in the background; some tests are about Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: two of them build kernels, and much of the rest is
    waiting."""
    return len(os.sched_getaffinity(0)) + 1


class Together(LoadScopeScheduling):
    """Gives each process one test after the other, but all that use one really built machine to the
    same process; those that have the PC from the store are for another one."""

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.partition("::")[0])
        if path.parts[:2] != ("tests", "real"):
            return nodeid
        if path.stem == "test_arm":
            return "versatile"
        return "pc from the store" if path.stem in FROM_STORE else "pc"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return Together(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return skips.judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return skips.judged((yield))


@pytest.fixture(scope="session")
def triple() -> str:
    """The host's own triple, for which it must have TRIPLE-gcc."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    name = subprocess.run(
        ["gcc", "-dumpmachine"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not name.startswith("x86_64"):
        skips.this_host("no x86_64, which the fake kernel is for")
    if not shutil.which(f"{name}-gcc"):
        pytest.skip(f"{name}-gcc is not installed")
    return name
