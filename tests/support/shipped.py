"""A project loaded by the settings of a test, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.config import project
from tasks.config.project import Project
from tasks.system.errors import PiggyError


def load(top: Path, **words: str) -> Project:
    return project.load(top, {}, words)


def refused(top: Path, **words: str) -> PiggyError:
    with pytest.raises(PiggyError) as caught:
        load(top, **words)
    return caught.value
