"""Have make tell how it runs Kconfig's program: its command, and the environment of that.

Make runs for the target as ever and builds what the program needs; ask.mk has it hand the command
to ask.sh instead of the shell. What it looked at on the way is watched (watch.py): as long as that
is the same, it would come to the same command.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.kbuild import make, watch
from tasks.kbuild.saved import Unfamiliar
from tasks.system import process
from tasks.system.jobserver import Budget

RULES = Path(__file__).with_name("ask.mk")
SHELL = Path(__file__).with_name("ask.sh")
CONF = "scripts/kconfig/conf"  # relative to the object folder, as the commands of Kbuild have it
FOLDER = "piggyback.ask"
# of the environment of a recipe: what belongs to the run of make in which it was taken
_OF_THE_RUN = {"MAKEFILES", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "_", "OLDPWD"}
# Each make of a folder includes auto.conf (scripts/Makefile.build). Of what Kconfig is run with
# nothing depends on that: it would not come to the same in a folder without it.
_CONFIGURATION = (".config", "include/config/")
SPECIAL = re.compile(r"[^\w\s./+@%~,:=-]")
_SAYS = re.compile(r"\s*(?::|echo\s[^;&|<>`$()]*)")  # a line of a recipe that only says something


class NotFollowed(Unfamiliar):
    """Make did something that can't be watched, and will do so each time."""


class Request(msgspec.Struct, frozen=True):
    """A configuration target to be made.

    argv: make's command without the target; obj: the object folder, absolute; goal: the target;
    pins: make's environment; env: what is added for this run of conf alone, and is nothing to the
    commands of Kconfig files; jobs: the budget; log: the log.
    """

    argv: Sequence[str]
    obj: Path
    goal: str
    pins: Mapping[str, str]
    env: Mapping[str, str]
    jobs: Budget
    log: Path


class Told(msgspec.Struct):
    """What make told of one target.

    argv: the command, [] where the target is more than one run of conf; env: its environment;
    states: of what make looked at; kept: what it made on the way in the object folder.
    """

    argv: list[str]
    env: dict[str, str]
    states: dict[str, str]
    kept: list[str]


def ask(request: Request, watcher: Path) -> Told:
    """Have make come to the target's command, and tell it.

    Args:
        request: The target.
        watcher: The program of watch.c that runs a command.

    Raises:
        NotFollowed: What it depends on can't be told.
        Unfamiliar: It failed, or its answer can't be used.
    """
    obj, folder = request.obj, request.obj / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    log, started = folder / "log", time.time_ns()
    hooks = {
        "MAKEFILES": os.fspath(RULES),
        "PIGGYBACK_ASK": os.fspath(SHELL),
        "PIGGYBACK_ASKED": os.fspath(folder),
    }
    marker = obj / make.RUNNING
    marker.touch()
    with request.jobs.token():
        done = process.run(
            [os.fspath(watcher), os.fspath(log), *request.argv, request.goal],
            env={**request.pins, **request.jobs.environment(), **hooks},
            log=request.log,
            check=False,
        )
    if done.returncode:
        raise Unfamiliar("make failed when it was asked")
    marker.unlink()
    seen = watch.read(log)[0]
    if seen.odd:
        raise NotFollowed(seen.odd)
    states = watch.states(seen, obj, started, _CONFIGURATION)
    argv = _command(folder / "commands")
    env = _environment(folder / "environment") if argv else {}
    shutil.rmtree(folder)
    kept = [
        name[1:] for name in seen.files if name.startswith(f"w{obj}/") and os.path.lexists(name[1:])
    ]
    return Told(argv, env, states, kept)


def _command(path: Path) -> list[str]:
    """Return the one command of a recipe, as words; [] if it has several, or another than conf."""
    try:
        lines = path.read_text().split("\0")
    except (OSError, UnicodeDecodeError):
        lines = []
    commands = [line for line in lines if line and not _SAYS.fullmatch(line)]
    words = commands[0].split() if len(commands) == 1 else []
    return words if words[:1] == [CONF] and not SPECIAL.search(commands[0]) else []


def _environment(path: Path) -> dict[str, str]:
    """Return the environment of a recipe, without what belongs to the run in which it was taken.

    Raises:
        Unfamiliar: It is no text.
    """
    try:
        words = path.read_text().split("\0")
    except (OSError, UnicodeDecodeError):
        raise Unfamiliar("make's environment can't be read") from None
    pairs = (word.partition("=") for word in words if word)
    return {
        name: value
        for name, _, value in pairs
        if name not in _OF_THE_RUN and not name.startswith("PIGGYBACK_")
    }
