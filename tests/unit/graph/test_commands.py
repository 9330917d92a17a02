"""What the command line asks for, as it is known before the tasks are loaded."""

from __future__ import annotations

import sys

import pytest

from tasks.graph import commands


@pytest.mark.parametrize(
    ("words", "only"),
    [
        (["bzImage"], True),
        (["machine=versatile", "bzImage", "qemu_test"], True),
        ([], False),
        (["machine=versatile"], False),
        (["price"], False),
        (["bzImage", "price"], False),
        (["-n", "2", "bzImage"], False),
        (["list", "bzImage"], False),
        (["bz*"], False),
    ],
)
def test_only_these_tasks(words: list[str], only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["doit", *words])
    made = [{"basename": name} for name in ("bzImage", "qemu_test")]
    assert commands.only(made) is only
