"""Question to make: with which command and environment does it run Kconfig's program?

Make runs for the target as usual and builds what the program needs, but ask.mk makes it pass the
command to ask.sh in place of the shell. The files that make reads are watched (watch.py): as long
as they are the same, make would run the same command.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.kbuild import make, watch
from tasks.kbuild.saved import Unfamiliar
from tasks.system import process
from tasks.system.jobserver import Budget
from tasks.system.pattern import pattern

RULES = Path(__file__).with_name("ask.mk")
SHELL = Path(__file__).with_name("ask.sh")
CONF = "scripts/kconfig/conf"  # relative to the object folder, as the commands of Kbuild have it
FOLDER = "piggyback.ask"
# Environment variables of a recipe that hold for one run of make only.
_OF_THE_RUN = {"MAKEFILES", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "_", "OLDPWD"}
# Each make of a folder includes auto.conf (scripts/Makefile.build). Kconfig's command does not
# depend on it: else it would differ in a folder without it.
_CONFIGURATION = (".config", "include/config/")
SPECIAL = pattern(r"[^\w\s./+@%~,:=-]")
_SAYS = pattern(r"\s*(?::|echo\s[^;&|<>`$()]*)")  # a line of a recipe that only prints a text


class NotFollowed(Unfamiliar):
    """Make does something that can't be watched, in each run."""


class Request(msgspec.Struct, frozen=True):
    """A configuration target to be made.

    Attributes:
        argv: Make's command without the target.
        obj: The object folder, absolute.
        goal: The target.
        pins: Make's environment.
        env: Variables for this run of conf only, which the commands of Kconfig files don't use.
        jobs: The jobserver.
        log: The file for the output.
    """

    argv: Sequence[str]
    obj: Path
    goal: str
    pins: Mapping[str, str]
    env: Mapping[str, str]
    jobs: Budget
    log: Path


class Told(msgspec.Struct):
    """Make's answer for one target.

    Attributes:
        argv: The command; [] if the target is more than one run of conf.
        env: Its environment.
        states: Each file that make read, to its state (see watch.states).
        kept: The files that make wrote in the object folder and that still exist.
    """

    argv: list[str]
    env: dict[str, str]
    states: dict[str, str]
    kept: list[str]


def ask(request: Request, watcher: Path) -> Told:
    """Run make up to the target's command, and return that.

    Args:
        request: The target.
        watcher: The program of watch.c that runs a command.

    Raises:
        NotFollowed: Its inputs can't be watched.
        Unfamiliar: Make failed, or its answer can't be used.
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
    """Return the words of a recipe's only command; [] if it has several, or another than conf."""
    try:
        lines = path.read_text().split("\0")
    except (OSError, UnicodeDecodeError):
        lines = []
    commands = [line for line in lines if line and not _SAYS.fullmatch(line)]
    words = commands[0].split() if len(commands) == 1 else []
    return words if words[:1] == [CONF] and not SPECIAL.search(commands[0]) else []


def _environment(path: Path) -> dict[str, str]:
    """Return the environment of a recipe, without variables that hold for that run only.

    Raises:
        Unfamiliar: It can't be read, or is no text.
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
