"""The requests to uClibc-ng in its fragment and in a machine's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.system.errors import PiggyError
from tasks.toolchains import uclibc


def test_the_fragment_and_the_machines_own_lines(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / uclibc.FRAGMENT).write_bytes(
        b"\xef\xbb\xbfDO_C99_MATH=y\r\n# words\n# HAVE_SHARED is not set  # why\n"
    )
    assert uclibc.requests(tmp_path, ["CONFIG_686=y"]) == {
        "DO_C99_MATH": "y",
        "HAVE_SHARED": "n",
        "CONFIG_686": "y",
    }
    with pytest.raises(
        PiggyError, match=r"\[toolchain\] uclibc:1: not a configuration line: CONFIG_686 = y"
    ):
        uclibc.requests(tmp_path, ["CONFIG_686 = y"])
    (tmp_path / uclibc.FRAGMENT).write_text("DO_C99_MATH=yes\n")
    with pytest.raises(PiggyError, match=r"configs/uclibc\.config:1: not a configuration line"):
        uclibc.requests(tmp_path, [])
