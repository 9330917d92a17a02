"""What the command line asks for, as it is known before the tasks are loaded."""

from __future__ import annotations

import re
import sys

import pytest
from doit.cmdparse import CmdOption, CmdParseError, TaskParse
from doit.exceptions import InvalidCommand

from tasks.graph import commands
from tasks.graph.inputs import Inputs


@pytest.mark.parametrize(
    ("words", "only"),
    [
        (["bzImage"], True),
        (["machine=versatile", "bzImage", "qemu_test"], True),
        ([], True),
        (["machine=versatile"], True),
        (["price"], False),
        (["bzImage", "price"], False),
        (["-n", "2", "bzImage"], False),
        (["--process=2", "bzImage"], False),
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


class Task:
    """As much of doit's Task as the words of `run` are held against."""

    def __init__(self, name: str, made: bool = True, pos_arg: str | None = None) -> None:
        self.name, self.pos_arg = name, pos_arg
        self.uptodate = [(object.__new__(Inputs) if made else False, [], {})]


TASKS = [
    Task("setup", made=False),
    Task("Image"),
    Task("fetch:musl"),
    Task("fetch:linux"),
    Task("why", made=False, pos_arg="names"),
]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["*"], ["Image", "fetch:musl", "fetch:linux"]),
        (["setup", "fetch:*"], ["setup", "fetch:musl", "fetch:linux"]),
        (["Image", "build/pc/images/bzImage", "-x"], ["Image", "build/pc/images/bzImage", "-x"]),
        (["Im*", "why", "*"], ["Image", "why", "*"]),
    ],
)
def test_a_pattern_names_what_is_made(words: list[str], found: list[str]) -> None:
    assert commands._without_patterns(words, TASKS) == found


@pytest.mark.parametrize(
    ("word", "said"),
    [("set*", "the pattern 'set*' names nothing that is made"), ("x*", "there is no task 'x*'")],
)
def test_a_pattern_that_names_nothing_that_is_made(word: str, said: str) -> None:
    with pytest.raises(InvalidCommand, match=re.escape(said)):
        commands._without_patterns(["Image", word], TASKS)
