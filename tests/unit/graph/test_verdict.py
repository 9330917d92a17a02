"""Which failures are a verdict on a commit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from doit.exceptions import InvalidDodoFile

from tasks.graph import task, verdict
from tasks.graph.verdict import Exceeded, or_none
from tasks.system.errors import PiggyError, in_a_sentence


def failures(*errors: PiggyError | None) -> list[dict[str, Any]]:
    """The records of failed tasks; None is a bug of ours, which doit records without a status."""
    return [
        {"task": "t", "exception": task.failed(one) if one else SimpleNamespace()} for one in errors
    ]


@pytest.mark.parametrize(
    ("tasks", "errors", "status"),
    [
        (["size"], [], 0),
        (["size"], [Exceeded("large")], 1),
        (["boot_profile"], [Exceeded("long")], 1),
        (["size"], [PiggyError("no size")], 125),
        (["size"], [None], 125),
        (["bzImage", "size"], [PiggyError("no C")], 125),
        (["bzImage", "size"], [PiggyError("no C"), Exceeded("large")], 125),
        (["bzImage"], [PiggyError("no C")], 1),
        (["bzImage"], [None], 1),
    ],
)
def test_only_a_limit_that_is_exceeded_is_a_verdict(
    tasks: list[str], errors: list[PiggyError | None], status: int
) -> None:
    assert verdict.status(tasks, failures(*errors)) == status


def test_what_is_refused_before_a_task_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict.stdio, "full", 1)
    with pytest.raises(InvalidDodoFile), or_none(["why", "vmlinux"]):
        raise InvalidDodoFile("no such machine")
    with pytest.raises(InvalidDodoFile), or_none(["machine=x", "-n", "2", "why", "size"]):
        raise InvalidDodoFile("no such machine")
    assert verdict.stdio.full == 1
    with (
        pytest.raises(SystemExit) as caught,
        or_none(["size", "machine=x"]),
        in_a_sentence(InvalidDodoFile),
    ):
        raise PiggyError("no such machine", "there are others")
    assert caught.value.code == verdict.stdio.full == 125
    assert capsys.readouterr().err == "ERROR: no such machine\n  hint: there are others\n"
