"""Run Kconfig's own program, conf, without make, and with the answers that it got before.

Make needs most of a second to come to `scripts/kconfig/conf --syncconfig Kconfig`, and conf another
one for the $(shell,...) of the Kconfig files: does the compiler know this option? Both come to the
same each time, as long as nothing that they looked at is another thing. So:

- make is asked once for each target (ask.py): it builds conf if need be, and tells its command and
  environment, all as it would otherwise run it. Which files it looked at on the way is watched.
- conf is linked once more from the objects that make compiled, with a popen(3) that knows answers
  (answers.c). A command that is not among them is run as ever, and watched.

The Kconfig files, the .config and auto.conf are read, and written, by conf as ever: nothing is
remembered of them. Where anything is unfamiliar, make decides.

In the object folder: piggyback.conf, piggyback.watch are the programs; piggyback.kconfig what is
known; piggyback.answers, piggyback.learned what one run reads and writes.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.kbuild import ask, make, saved, watch
from tasks.kbuild.ask import CONF, SPECIAL, Request, Told
from tasks.kbuild.saved import Unfamiliar
from tasks.system import process
from tasks.system.errors import PiggyError
from tasks.system.files import decoded, packed, write_whole
from tasks.system.process import clean_env

POPEN = Path(__file__).with_name("answers.c")
FILE = "piggyback.kconfig"
PROGRAM, WATCHER = "piggyback.conf", "piggyback.watch"
ANSWERS, LEARNED = "piggyback.answers", "piggyback.learned"  # answers.c has these names, too


class Answer(msgspec.Struct, array_like=True):
    """The answer of a command of $(shell,...).

    Attributes:
        output: Its standard output.
        status: Its wait status.
        files: The files that it read, as keys of Known.states.
    """

    output: str
    status: int
    files: list[str]


_New = dict[str, tuple[Answer, dict[str, str]]]  # by command, with the states of its files


class Known(msgspec.Struct):
    """The remembered answers of an object folder.

    Attributes:
        key: The digest that all of it holds for (see `_key`).
        targets: Name of a target to make's answer.
        answers: Digest of an environment, to command, to answer.
        states: Each file that an answer names, to its state.
        programs: Our programs, to their states.
        refused: Why make always has to decide; "" if it has not.
    """

    key: str = ""
    targets: dict[str, Told] = {}
    answers: dict[str, dict[str, Answer]] = {}
    states: dict[str, str] = {}
    programs: dict[str, str] = {}
    refused: str = ""


def environment(obj: Path) -> dict[str, str]:
    """Return the environment of Kconfig's program, as make told it last; {} if it never did.

    Args:
        obj: The object folder.
    """
    known = decoded(obj / FILE, Known, Known())
    return next((dict(told.env) for told in known.targets.values() if told.env), {})


def taken(request: Request) -> bool:
    """Make a configuration target without make, if possible; the log tells why not.

    Returns:
        Whether it was made.
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
    """Run conf, and return a summary for the log.

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
    try:
        with request.jobs.token():
            done = process.run(
                [os.fspath(obj / PROGRAM), *told.argv[1:]],
                cwd=obj,
                env={**told.env, **request.env},
                check=False,
            )
    except (PiggyError, OSError) as error:
        raise Unfamiliar(f"{obj / PROGRAM} does not start: {error}") from error
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
    """Return the words of the command by which Kbuild linked conf.

    Raises:
        Unfamiliar: There is none, or it needs a shell.
    """
    if not (obj / CONF).exists():
        raise Unfamiliar("its program is not built")
    command = saved.read(os.fspath(obj / "scripts/kconfig/.conf.cmd")).command
    words = command.split()
    if SPECIAL.search(command) or words.count("-o") != 1 or words.count(CONF) != 1:
        raise Unfamiliar("its program is not linked by a plain command")
    return words


def _key(request: Request, link: Sequence[str]) -> str:
    """Return a digest of the inputs that are not watched.

    These are make's command and environment, the host, our own code, and the objects that conf is
    linked from.
    """
    host = os.uname()
    parts = [
        *request.argv,
        *(f"{name}={value}" for name, value in sorted(clean_env(request.pins).items())),
        *(host.sysname, host.nodename, host.release, host.version, host.machine),
        str(os.cpu_count()),
        *(path.read_text() for path in (watch.SOURCE, POPEN, ask.RULES, ask.SHELL)),
        *link,
        *(watch.state(f"r{request.obj / word}") for word in (*link, CONF) if word.endswith(".o")),
        watch.state(f"r{request.obj / CONF}"),
    ]
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def _read(obj: Path, key: str) -> Known:
    """Return the remembered answers; none if there are none for this key."""
    known = decoded(obj / FILE, Known, Known())
    return known if known.key == key else Known()


def _write(obj: Path, known: Known) -> None:
    """Write the remembered answers, without those for environments that no target has any more."""
    used = {_digest(told.env) for told in known.targets.values()}
    known.answers = {env: part for env, part in known.answers.items() if env in used}
    files = {name for part in known.answers.values() for one in part.values() for name in one.files}
    known.states = {name: at for name, at in known.states.items() if name in files}
    write_whole(obj / FILE, packed(known))


def _digest(env: Mapping[str, str]) -> str:
    text = "\0".join(f"{name}={value}" for name, value in sorted(env.items()))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _remember(
    known: Known, stale: set[str], env: str, answers: Mapping[str, Answer], new: _New
) -> None:
    """Add new answers, and remove those that depend on stale files.

    A file has one state: an answer for another state of it is removed.

    Args:
        known: The remembered answers, which are changed.
        stale: The files whose state changed; added to.
        env: The digest of the environment.
        answers: The valid old answers for it.
        new: The new answers for it.
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
    """Build conf with answers.c, and the program of watch.c, unless both exist for this key.

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
    for argv in (
        [*words, *wrap, "-o", PROGRAM, os.fspath(POPEN)],
        [*tools, "-DPIGGYBACK_MAIN", "-o", WATCHER, os.fspath(watch.SOURCE)],
    ):
        try:
            with request.jobs.token():
                process.run(argv, cwd=obj, log=request.log)
        except PiggyError:
            known.refused = "a program that it needs can't be built here; the log has the errors"
            _write(obj, known)
            raise Unfamiliar(known.refused) from None
    known.programs = _programs(obj)


def _programs(obj: Path) -> dict[str, str]:
    return {name: watch.state(f"r{obj / name}") for name in (PROGRAM, WATCHER)}


def _told(request: Request, known: Known, link: Sequence[str]) -> tuple[Told, str]:
    """Return make's answer for the target, and why make was asked; "" if the answer was remembered.

    Raises:
        Unfamiliar: The answer can't be used.
    """
    told, why = known.targets.get(request.goal), "make was asked for the first time"
    if told is not None:
        changed = watch.changed(told.states)
        lost = [name for name in told.kept if not os.path.lexists(name)]
        first = next(iter([*changed, *lost]), "").lstrip("rd")
        why = f"make was asked, as {first} changed" if first else ""
    if told is None or why:
        told = _asked(request, known, link)
    if not told.argv:
        raise Unfamiliar(f"the target {request.goal} is more than one run of {CONF}")
    return told, why


def _asked(request: Request, known: Known, link: Sequence[str]) -> Told:
    """Ask make for the target's command, and remember the answer.

    Raises:
        Unfamiliar: The answer can't be used.
    """
    try:
        told = ask.ask(request, request.obj / WATCHER)
    except ask.NotFollowed as reason:
        known.refused = reason.message
        _write(request.obj, known)
        raise
    if _key(request, link) != known.key:
        raise Unfamiliar("its program was just built anew")
    known.targets[request.goal] = told
    _write(request.obj, known)
    return told


def _learned(obj: Path, started: int) -> tuple[_New, int]:
    """Return the answers that can be remembered, and the number of all commands that were run."""
    if not (obj / LEARNED).exists():
        return {}, 0
    try:
        found, new = watch.read(obj / LEARNED), _New()
    except Unfamiliar:  # a name that is no text; conf has done its work
        return {}, 0
    for one in found:
        try:
            states = watch.states(one, obj, started)
        except Unfamiliar:
            continue
        new[one.command] = Answer(one.output, one.status, sorted(states)), states
    return new, len(found)
