"""Run Kconfig's own program, conf, without make, and with the answers that it got before.

Make needs most of a second to come to `scripts/kconfig/conf --syncconfig Kconfig`, and conf another
one for the $(shell,...) of the Kconfig files: does the compiler know this option? Both come to the
same each time, as long as nothing that they looked at is another thing. So:

- make is asked once for each target (ask.mk): it builds conf if need be, and tells its command and
  environment, all as it would otherwise run it. Which files it looked at on the way is watched.
- conf is linked once more from the objects that make compiled, with a popen(3) that knows answers
  (watch.c). A command that is not among them is run as ever, and watched.

The Kconfig files, the .config and auto.conf are read, and written, by conf as ever: nothing is
remembered of them. Where anything is unfamiliar, make decides.

In the object folder: piggyback.conf, piggyback.watch are the programs; piggyback.kconfig what is
known; piggyback.answers, piggyback.learned, piggyback.ask what one run reads and writes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.kbuild import make, saved, watch
from tasks.kbuild.saved import Unfamiliar
from tasks.system import process
from tasks.system.errors import PiggyError
from tasks.system.files import read_regular, write_whole
from tasks.system.jobserver import Budget
from tasks.system.process import clean_env

RULES = Path(__file__).with_name("ask.mk")
SHELL = Path(__file__).with_name("ask.sh")
CONF = "scripts/kconfig/conf"  # relative to the object folder, as the commands of Kbuild have it
FILE = "piggyback.kconfig"
PROGRAM, WATCHER, ASKED = "piggyback.conf", "piggyback.watch", "piggyback.ask"
ANSWERS, LEARNED = "piggyback.answers", "piggyback.learned"  # watch.c has these names, too
# of the environment of a recipe: what belongs to the run of make in which it was taken
_OF_THE_RUN = {"MAKEFILES", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "_", "OLDPWD"}
# Each make of a folder includes auto.conf (scripts/Makefile.build). Of what Kconfig is run with
# nothing depends on that: it would not come to the same in a folder without it.
_CONFIGURATION = (".config", "include/config/")
_SPECIAL = re.compile(r"[^\w\s./+@%~,:=-]")
_SAYS = re.compile(r"\s*(?::|echo\s[^;&|<>`$()]*)")  # a line of a recipe that only says something


class Answer(msgspec.Struct, array_like=True):
    """What a command of $(shell,...) said: output, wait status, and the files it looked at."""

    output: str
    status: int
    files: list[str]


_New = dict[str, tuple[Answer, dict[str, str]]]  # by command, with the states of its files


class Told(msgspec.Struct):
    """What make told of one target.

    argv: the command; env: its environment; states: of what make looked at; kept: what it made on
    the way in the object folder.
    """

    argv: list[str]
    env: dict[str, str]
    states: dict[str, str]
    kept: list[str]


class Known(msgspec.Struct):
    """What is known of an object folder, and holds for `key` (see `_key`).

    targets: by name; answers: by the digest of the environment, then by command; states: of the
    files that these name; programs: the states of ours; refused: why make has to decide whatever
    comes.
    """

    key: str = ""
    targets: dict[str, Told] = {}
    answers: dict[str, dict[str, Answer]] = {}
    states: dict[str, str] = {}
    programs: dict[str, str] = {}
    refused: str = ""


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


def taken(request: Request) -> bool:
    """Make a configuration target without make, if that is possible.

    The log says whether it was, and why not.
    """
    started = time.monotonic()
    try:
        told = _run(request)
    except Unfamiliar as reason:
        _log(request, f"make decides: {reason.message}")
        return False
    _log(request, f"without make: {told}, {time.monotonic() - started:.2f} s")
    return True


def _log(request: Request, text: str) -> None:
    request.log.parent.mkdir(parents=True, exist_ok=True)
    with request.log.open("a", encoding="utf-8") as log:
        log.write(f"# Kconfig: {text}\n")


def _run(request: Request) -> str:
    """Run conf, and return how that was done.

    Raises:
        Unfamiliar: Make has to decide.
    """
    obj = request.obj
    make.repair(obj)
    link = _link_command(obj)
    known = _read(obj, _key(request, link))
    if known.refused:
        raise Unfamiliar(known.refused)
    _build(request, known, link)
    told, asked = _told(request, known, link)
    stale, before = set(watch.changed(known.states)), known.answers.get(_digest(told.env), {})
    answers = {
        command: answer for command, answer in before.items() if stale.isdisjoint(answer.files)
    }
    (obj / LEARNED).unlink(missing_ok=True)
    write_whole(
        obj / ANSWERS,
        b"".join(
            watch.netstring(command)
            + watch.netstring(answer.output)
            + watch.netstring(str(answer.status))
            for command, answer in answers.items()
        ),
    )
    started = time.time_ns()
    with request.jobs.token():
        done = process.run(
            [os.fspath(obj / PROGRAM), *told.argv[1:]],
            cwd=obj,
            env={**told.env, **request.env},
            check=False,
        )
    with request.log.open("a", encoding="utf-8") as log:
        log.write(done.output)
    if done.returncode:
        raise Unfamiliar(f"{shlex.join(told.argv)} ended with status {done.returncode}")
    new, ran = _learned(obj, started)
    if new or len(answers) < len(before):
        _remember(known, stale, _digest(told.env), answers, new)
        _write(obj, known)
    how = f"{shlex.join(told.argv)}, {len(answers)} answers known, {ran} commands run"
    return f"{how}, {asked}" if asked else how


def _link_command(obj: Path) -> list[str]:
    """Return the words of the command that Kbuild linked conf with.

    Raises:
        Unfamiliar: There is none, or it needs a shell.
    """
    if not (obj / CONF).exists():
        raise Unfamiliar("its program is not built")
    command = saved.read(os.fspath(obj / "scripts/kconfig/.conf.cmd")).command
    words = command.split()
    if _SPECIAL.search(command) or words.count("-o") != 1 or words.count(CONF) != 1:
        raise Unfamiliar("its program is not linked by a plain command")
    return words


def _key(request: Request, link: Sequence[str]) -> str:
    """Return the digest of what is given when make is asked, and when conf runs.

    That is make's command and environment, the host, our own code, and the objects that conf is
    linked from.
    """
    host = os.uname()
    parts = [
        *request.argv,
        *(f"{name}={value}" for name, value in sorted(clean_env(request.pins).items())),
        *(host.sysname, host.nodename, host.release, host.version, host.machine),
        str(os.cpu_count()),
        *(path.read_text() for path in (watch.SOURCE, RULES, SHELL)),
        *link,
        *(watch.state(f"r{request.obj / word}") for word in (*link, CONF) if word.endswith(".o")),
        watch.state(f"r{request.obj / CONF}"),
    ]
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def _read(obj: Path, key: str) -> Known:
    """Return what is known for a key: nothing at first, and after any change of it."""
    try:
        known = msgspec.msgpack.decode(read_regular(obj / FILE), type=Known)
    except (OSError, ValueError, RecursionError, msgspec.DecodeError):
        known = Known()
    return known if known.key == key else Known()


def _write(obj: Path, known: Known) -> None:
    """Write down what is known, without the answers in environments that are no target's."""
    used = {_digest(told.env) for told in known.targets.values()}
    known.answers = {env: part for env, part in known.answers.items() if env in used}
    files = {name for part in known.answers.values() for one in part.values() for name in one.files}
    known.states = {name: at for name, at in known.states.items() if name in files}
    write_whole(obj / FILE, msgspec.msgpack.encode(known))


def _digest(env: Mapping[str, str]) -> str:
    text = "\0".join(f"{name}={value}" for name, value in sorted(env.items()))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _remember(
    known: Known, stale: set[str], env: str, answers: Mapping[str, Answer], new: _New
) -> None:
    """Add new answers to the old ones that are left.

    A file has one state: answers that came when it had another one go.
    """
    states = {name: at for _, found in new.values() for name, at in found.items()}
    stale |= {name for name, at in states.items() if known.states.get(name, at) != at}
    known.answers[env] = dict(answers)
    known.answers = {
        each: {command: one for command, one in part.items() if stale.isdisjoint(one.files)}
        for each, part in known.answers.items()
    }
    known.answers[env] |= {command: answer for command, (answer, _) in new.items()}
    known.states |= states


def _build(request: Request, known: Known, link: Sequence[str]) -> None:
    """Build conf with answers, and the program that watches, unless they are those of the key.

    Raises:
        Unfamiliar: They can't be built here.
    """
    obj = request.obj
    if known.programs and known.programs == _programs(obj):
        return
    known.key = _key(request, link)
    at = link.index("-o")
    words = [*link[:at], *link[at + 2 :]]
    tools = [word for word in words if not word.endswith(".o")]
    wrap = ["-Wl,--wrap=popen", "-Wl,--wrap=pclose"]
    source = os.fspath(watch.SOURCE)
    for argv in (
        [words[0], "-O2", *words[1:], *wrap, "-o", PROGRAM, source],
        [tools[0], "-O2", *tools[1:], "-DPIGGYBACK_MAIN", "-o", WATCHER, source],
    ):
        try:
            process.run(argv, cwd=obj, log=request.log)
        except PiggyError:
            known.refused = "a program that it needs can't be built here; the log has the errors"
            _write(obj, known)
            raise Unfamiliar(known.refused) from None
    known.programs = _programs(obj)


def _programs(obj: Path) -> dict[str, str]:
    return {name: watch.state(f"r{obj / name}") for name in (PROGRAM, WATCHER)}


def _told(request: Request, known: Known, link: Sequence[str]) -> tuple[Told, str]:
    """Return what make tells of the target, and why it was asked ("": it had told before).

    Raises:
        Unfamiliar: Its answer can't be used.
    """
    told, why = known.targets.get(request.goal), "make was asked for the first time"
    if told is not None:
        changed = watch.changed(told.states)
        lost = [name for name in told.kept if not os.path.lexists(name)]
        if not changed and not lost:
            return told, ""
        why = f"make was asked, as {[*changed, *lost][0].lstrip('rd')} changed"
    told = _ask(request, known)
    if _key(request, link) != known.key:
        raise Unfamiliar("its program was just built anew")
    known.targets[request.goal] = told
    _write(request.obj, known)
    return told, why


def _ask(request: Request, known: Known) -> Told:
    """Have make come to the target's command, and tell it.

    Raises:
        Unfamiliar: It failed, or its answer can't be used.
    """
    obj, folder = request.obj, request.obj / ASKED
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
            [os.fspath(obj / WATCHER), os.fspath(log), *request.argv, request.goal],
            env={**request.pins, **request.jobs.environment(), **hooks},
            log=request.log,
            check=False,
        )
    if done.returncode:
        raise Unfamiliar("make failed when it was asked")
    marker.unlink()
    seen = watch.read(log)[0]
    try:
        states = watch.states(seen, obj, started, _CONFIGURATION)
        argv = _command(folder / "commands", request.goal)
    except Unfamiliar as reason:
        if seen.odd:
            known.refused = seen.odd
            _write(obj, known)
        raise reason
    env = _environment(folder / "environment")
    shutil.rmtree(folder)
    kept = [
        name[1:] for name in seen.files if name.startswith(f"w{obj}/") and os.path.lexists(name[1:])
    ]
    return Told(argv, env, states, kept)


def _command(path: Path, goal: str) -> list[str]:
    """Return the one command of a recipe, as words.

    Raises:
        Unfamiliar: It has several, or another one than conf.
    """
    try:
        lines = path.read_text().split("\0")
    except (OSError, UnicodeDecodeError):
        lines = []
    commands = [line for line in lines if line and not _SAYS.fullmatch(line)]
    words = commands[0].split() if len(commands) == 1 else []
    if words[:1] != [CONF] or _SPECIAL.search(commands[0]):
        raise Unfamiliar(f"the target {goal} is more than one run of {CONF}")
    return words


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


def _learned(obj: Path, started: int) -> tuple[_New, int]:
    """Return the answers that can be remembered, and the number of all commands that were run."""
    if not (obj / LEARNED).exists():
        return {}, 0
    found, new = watch.read(obj / LEARNED), _New()
    for one in found:
        try:
            states = watch.states(one, obj, started)
        except Unfamiliar:
            continue
        new[one.command] = Answer(one.output, one.status, sorted(states)), states
    return new, len(found)
