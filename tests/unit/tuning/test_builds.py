"""Words that name a build."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.system.errors import PiggyError
from tasks.tuning import builds


@pytest.mark.parametrize("word", ["~nobody-of-this-name/pc", "x" * 300, "/tmp/" + "x" * 300])
def test_a_word_that_can_be_no_path_is_told_in_a_sentence(tmp_path: Path, word: str) -> None:
    project: Any = SimpleNamespace(top=tmp_path)
    with pytest.raises(PiggyError, match="names no build: "):
        builds.named(project, word)
