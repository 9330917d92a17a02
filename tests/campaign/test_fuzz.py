"""Some cases of each target of the fuzzer; and the fuzzer itself: it finds what it is there to
find."""

from __future__ import annotations

import os
import random
from pathlib import Path

import fuzz
import pytest
from fuzz import Target

from tasks.system.errors import PiggyError


@pytest.mark.parametrize("target", fuzz.targets(), ids=lambda target: target.name)
def test_nothing_gets_out_and_nothing_runs_away(target: Target, tmp_path: Path) -> None:
    counts, failures = fuzz.run(target, target.cases, 1, tmp_path)
    assert failures == []
    assert counts["refused"] > 0  # else the inputs are no trial
    assert counts["taken"] > 0


def refuse(text: str) -> None:
    error = PiggyError("")
    error.message = text  # as if PiggyError did not make it printable itself
    raise error


def turn() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda data, folder: 1 / 0, "ZeroDivisionError"),
        (lambda data, folder: refuse(" "), "can't be read"),
        (lambda data, folder: refuse("a\x1b[2Jb"), "can't be read"),
        (lambda data, folder: turn(), "of CPU"),
        (lambda data, folder: bytes(100 << 20), "of memory"),
        (lambda data, folder: (folder / ".." / "target").unlink(), "got out"),
        (lambda data, folder: (folder / ".." / "etc" / "new").touch(), "got out"),
        (lambda data, folder: os.chmod(folder / ".." / "target", 0o4777), "got out"),
    ],
)
def test_the_fuzzer_finds(
    check: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    target = Target("bad", random.Random.random, check)  # type: ignore[arg-type]
    counts, failures = fuzz.run(target, 1, 1, tmp_path)
    assert counts == {"failed": 1}
    assert said in failures[0]


def test_a_seed_gives_the_same_input_again() -> None:
    for target in fuzz.targets():
        assert repr(target.make(random.Random("x"))) == repr(target.make(random.Random("x")))
