"""The exit status of what `git bisect run` asks for.

1 is the verdict that a limit is exceeded, and nothing else has it: a misspelt option, a setting
that an older commit does not know, a damaged image or a full disk would be a commit whose image is
too large. They have the status by which bisect skips a commit, where doit's own would be 1, 2 or 3.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from doit.cmdparse import CmdParseError
from doit.exceptions import InvalidCommand, InvalidDodoFile

from tasks.system import stdio
from tasks.system.errors import PiggyError, in_a_sentence

UNTESTED = 125  # git-bisect(1), "Bisect run": this commit can't be tested
REFUSED = 3  # doit's own
TASKS = ("size", "boot_profile")
ABOUT = ("why", "plan", "list", "info", "help", "forget", "ignore", "clean")  # tasks that are named


class Exceeded(PiggyError):
    """A limit is exceeded: the only failure of these tasks that says something of a commit."""


def asked(words: Sequence[str]) -> bool:
    """Tell whether a command line asks for a verdict, and not about the task that gives it."""
    first = next((word for word in words if word in {*TASKS, *ABOUT}), "")
    return first in TASKS


def status(tasks: Sequence[str], failures: Sequence[Mapping[str, Any]]) -> int:
    """Return the exit status for what failed in a run.

    Args:
        tasks: The names of the tasks that were asked for.
        failures: doit's records of what failed: the task, and the failure by `task.failed`.
    """
    found = [getattr(one["exception"], "status", None) for one in failures]
    if not found or not asked(tasks):
        return next((one or 1 for one in found), 0)
    exceeded = all(getattr(one["exception"], "exceeded", False) for one in failures)
    return 1 if exceeded else UNTESTED


def of_refusal(words: Sequence[str]) -> int:
    """Return the exit status of a command line that was refused before a task started."""
    return UNTESTED if asked(words) else REFUSED


@contextlib.contextmanager
def or_none(words: Sequence[str]) -> Iterator[None]:
    """Have what doit refuses before a task starts end with UNTESTED, if a verdict was asked for.

    Args:
        words: The command line.

    Raises:
        SystemExit: It was refused.
    """
    if not asked(words):
        yield
        return
    stdio.full = UNTESTED
    try:
        yield
    except (InvalidDodoFile, InvalidCommand, CmdParseError) as error:
        sys.stderr.write(f"ERROR: {error}\n")
        raise SystemExit(UNTESTED) from None


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Have what is wrong while dodo.py loads said in a sentence, with the status for it.

    Raises:
        InvalidDodoFile: Something is wrong, and no verdict was asked for.
        SystemExit: Something is wrong, and one was.
    """
    with or_none(sys.argv[1:]), in_a_sentence(InvalidDodoFile):
        yield
