"""The shipped configuration, copied for a test that changes it or loads it in another folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped configuration as the working folder, as in a run of doit."""
    made = tmp_path / "project"
    for name in ("configs", "overlays"):
        shutil.copytree(TOP / name, made / name, ignore=shutil.ignore_patterns("local"))
    monkeypatch.chdir(made)
    return made
