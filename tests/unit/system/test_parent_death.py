"""Words before a program that end it with its parent."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tasks.system import parent_death


def test_the_words_run_the_program() -> None:
    words = parent_death.words(os.environ["PATH"])
    assert words  # Debian's util-linux has setpriv
    done = subprocess.run([*words, "sh", "-c", "echo $0", "-x"], capture_output=True, check=True)
    assert done.stdout == b"-x\n"


@pytest.mark.parametrize("content", ["", "#!/bin/sh\necho an old one\n", None])
def test_a_host_without_them(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "setpriv").write_text(content)
        (tmp_path / "setpriv").chmod(0o755)
    assert parent_death.words(str(tmp_path)) == ()
