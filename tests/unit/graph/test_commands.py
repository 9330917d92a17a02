"""What the command line asks for, as it is known before the tasks are loaded."""

from __future__ import annotations

import sys

import pytest
from doit.cmdparse import CmdOption, CmdParseError, TaskParse

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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n"], "option -n requires argument"),
        (["--frob"], "option --frob not recognized"),
        (["--dry=1"], "option --dry must not have an argument"),
        (["-n", "x (parsing"], "the option 'slots' takes a whole number, not 'x (parsing'"),
        (["--slots="], "the option 'slots' takes a whole number, not ''"),
    ],
)
def test_an_option_that_doit_refuses_is_told_in_a_sentence(words: list[str], said: str) -> None:
    options = [
        {"name": "slots", "short": "n", "long": "slots", "default": 1, "type": int},
        {"name": "dry", "long": "dry", "default": False, "type": bool},
    ]
    with pytest.raises(CmdParseError) as caught:
        TaskParse([CmdOption(one) for one in options]).parse(words)
    assert commands._of_option(str(caught.value)).splitlines() == [
        said,
        "  hint: 'doit help TASK' shows the options of a task",
    ]
