"""What a skipped test means.

On a desk a test that lacks a program is left out, and pytest says so. Where the variable NO_SKIPS
is set, as by .ci/run, all that tests want is installed, and a skip is a failure: else the tests
that nobody runs any more would look like those that pass. Only what nobody can install is excepted;
such a reason is given by `this_host`.
"""

from __future__ import annotations

import os
from typing import NoReturn, TypeVar

import pytest

VARIABLE = "NO_SKIPS"
HOST = "this host: "
_Report = TypeVar("_Report", pytest.TestReport, pytest.CollectReport)


def this_host(lacks: str) -> NoReturn:
    """Skip a test for want of hardware, or of what the host's kernel or file system can do."""
    pytest.skip(f"{HOST}{lacks}")


def judged(report: _Report) -> _Report:
    """Return a report; a skip for want of what can be installed is a failure where none may be."""
    expected = hasattr(report, "wasxfail")  # that is no skip, though its outcome is called so
    if not (os.environ.get(VARIABLE) and report.skipped and not expected):
        return report
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    why = why.removeprefix("Skipped: ")
    if not why.startswith(HOST):
        report.outcome = "failed"
        report.longrepr = f"skipped, and {VARIABLE} is set: {why}"
    return report
