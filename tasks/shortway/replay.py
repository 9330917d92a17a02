"""Run of Kbuild's saved commands for stale targets (see stale.py), in parallel.

The order is that of make's prerequisites. A target whose stale inputs were all made again with the
same content is not made again; it gets a new time, so that make considers it up to date, too.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tasks.cache.digests import MISSING
from tasks.kbuild import seconds
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.make import first_errors
from tasks.kbuild.objects import Objects
from tasks.kbuild.saved import Saved, Unfamiliar
from tasks.kbuild.trace import Said
from tasks.shortway import computed, thin_archive
from tasks.shortway.early import Early, environment
from tasks.shortway.stale import Targets, content, users_of
from tasks.system import files, terminal
from tasks.system.beside import beside
from tasks.system.jobserver import Budget
from tasks.system.pattern import pattern
from tasks.system.process import CommandError, Completed, child, stop_all

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

# A command may write files beside its target (modpost); their users are found in the next round.
ROUNDS = 4
SHOWN = 8  # least number of commands for a progress bar
# Errors of gcc and clang; of as.
_ERROR = pattern(r"^\S+:\d+:(?:\d+:)? (?:fatal )?error: |^\S+:\d+: Error: ", re.MULTILINE)
_ABSENT = pattern("No such file|not found")


class Replay(msgspec.Struct, dict=True):
    """One run of saved commands.

    Attributes:
        obj: The object folder.
        goal: The goal's target; made last, alone or beside `unread`.
        said: The goal's trace.
        known: The .cmd files.
        jobs: The jobserver.
        log: The file for commands and their output.
        checks: Suffix of a source to the script that Kbuild runs on the compiled object.
        label: The progress bar's label; "" for no bar.
        given: Returns the mtime of a file outside of the object folder (ns since 1970), -1 if it is
            missing.
        made: Each target that got a new time, in order, to its old mtime.
        changed: Those of them that may have other content.
        took: Each target whose command ran, to its seconds.
        relisted: Archives that have other members.
        objects: The object store; None for none.
        compiled: The objects that were compiled, not taken from the store.
        name: The name of the goal's trace.
        started: When it began, ns since 1970.
        unread: Targets that the goal is made after, but not from (see link_script.py).
        goal_env: More of the environment of the goal's command.
        goal_command: What the shell runs for the goal; "" for the saved command.
        early: Where commands may have begun already; None for nowhere.
        then: The saved commands by which the goal is stripped, and then compressed, each with its
            environment, if they are to begin at once.
    """

    obj: Path
    goal: str
    said: Said
    known: Depfiles
    jobs: Budget
    log: Path
    checks: Mapping[str, str] = msgspec.field(default_factory=dict)
    label: str = ""
    given: Callable[[str], int] = files.changed
    made: dict[str, int] = msgspec.field(default_factory=dict)
    changed: set[str] = msgspec.field(default_factory=set)
    took: dict[str, float] = msgspec.field(default_factory=dict)
    relisted: set[str] = msgspec.field(default_factory=set)
    objects: Objects | None = None
    compiled: list[str] = msgspec.field(default_factory=list)
    name: str = ""
    started: int = 0
    unread: Collection[str] = ()
    goal_env: Mapping[str, str] = {}
    goal_command: str = ""
    early: Early | None = None
    then: Sequence[tuple[Saved, Mapping[str, str]]] = ()

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._keeper: Executor | None = None
        self._copies: list[Future[None]] = []
        self.env = environment(self.said)
        self.targets = Targets(self.obj, self.said, self.known, self.given)

    def run(self) -> None:
        """Make all stale targets, then the goal.

        Targets made before an error stay; they equal make's.

        Raises:
            Unfamiliar: Make has to decide.
            CommandError: A source has errors.
        """
        stale = self.stale()
        by_itself = self.goal in stale
        for target in stale:  # check all commands that will surely run before the first one runs
            self.targets.command(target)
        with self._keeping():
            for _ in range(ROUNDS):
                if not stale - {self.goal}:
                    break
                late = self.targets.downstream(stale, self.goal).intersection(self.unread)
                self._round(stale - {self.goal}, late)
                if late:
                    self._with_goal(late, by_itself)
                stale = self.targets.stale()
            if self.goal in stale:
                self._make_goal(by_itself)
                stale = self.targets.stale()
            self._go_on()
        if stale:
            raise Unfamiliar(f"{min(stale)} would be made once more")

    def _make_goal(self, by_itself: bool) -> None:
        self._finish(
            self.goal, self.targets.command(self.goal), run=by_itself or bool(self.changed)
        )

    def _with_goal(self, late: set[str], by_itself: bool) -> None:
        """Make the goal beside targets that it does not read, and make it the newest."""
        with beside(lambda: self._round(late)):
            self._make_goal(by_itself)
        for path in (os.path.join(self.obj, self.goal), self.targets.recorded[self.goal]):
            os.utime(path)

    def _go_on(self) -> None:
        """Begin what the goal is needed for."""
        if self.early and self.then and self.goal in self.changed:
            self.early.compress(self.then)

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        """Have objects copied into the store beside the links in the body of a `with`.

        All links but the compressor's leave a processor idle. Objects of a run that fails are
        copied after it.
        """
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as self._keeper:
            yield
        for copy in self._copies:
            copy.result()

    def _keep(self) -> None:
        """Begin to copy what was compiled into the store; nothing of it is being compiled now."""
        if self.objects and self.compiled and self._keeper:
            took = seconds.alone({**self.took})  # a copy at once: links that run add their seconds
            made, started = [*self.compiled], self.started
            self._copies.append(self._keeper.submit(self.objects.keep_made, made, started, took))

    def run_part(self) -> None:
        """Make all stale targets of a trace without its goal.

        Raises:
            Unfamiliar: The targets' own task has to decide.
            CommandError: A source has errors.
        """
        self._round(self.targets.stale())

    def stale(self) -> set[str]:
        """Look at the sources, and return the stale targets, before the first command runs.

        Raises:
            Unfamiliar: A source is missing.
        """
        self.targets.look_at_sources()
        return self.targets.stale()

    def _round(self, stale: set[str], without: Collection[str] = ()) -> None:
        """Make the stale targets and their users, each as soon as its inputs are made.

        Args:
            stale: The targets.
            without: Targets to leave for later.
        """
        from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

        todo = self.targets.downstream(stale, self.goal).difference(without)
        commands = {
            target: self.targets.command(target)
            for target in todo
            if target in self.targets.recorded
        }
        words = {target: command.words() for target, command in commands.items()}
        inputs = {
            target: (self.targets.inputs[target] | words.get(target, set())) & todo - {target}
            for target in todo
        }
        waits = {target: len(names) for target, names in inputs.items()}
        took = seconds.read(self.obj).of if len(todo) > self.jobs.size else {}
        ready = [target for target, count in waits.items() if not count]
        users = users_of(inputs)
        running: dict[Future[None], str] = {}
        left, compiling = len(todo), {name for name, one in commands.items() if one.compiles}
        bar = (
            terminal.bar(self.label, left, "commands")
            if left >= SHOWN and self.label
            else contextlib.nullcontext()
        )
        with ThreadPoolExecutor(self.jobs.size) as pool, bar as progress:
            try:
                while left:
                    # the longest first, so that none is left over at the end, alone
                    for target in sorted(ready, key=lambda name: (-took.get(name, 0.0), name)):
                        run = target in stale or not self.changed.isdisjoint(inputs[target])
                        if run and target not in commands:
                            raise Unfamiliar(
                                f"{target}, which make writes without a record, may have to change"
                            )
                        running[pool.submit(self._finish, target, commands.get(target), run)] = (
                            target
                        )
                    if not running:
                        raise Unfamiliar(f"{min(todo)}: some target is made from itself")
                    ready = []
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        future.result()
                        left, target = left - 1, running.pop(future)
                        if target in compiling:
                            compiling.remove(target)
                            if not compiling:
                                self._keep()
                        for user in users.get(target, ()):
                            waits[user] -= 1
                            if not waits[user]:
                                ready.append(user)
                        if progress is not None:
                            progress.step()
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, Exception):  # doit ends, and does not wait for compilers
                    stop_all(lambda: not all(future.done() for future in running))
                raise

    def _finish(self, target: str, command: Saved | None, run: bool) -> None:
        """Make a target, or give it and its .cmd file a new time.

        Args:
            target: The target.
            command: Its command; None for a target without a .cmd file, which stays as it is.
            run: Whether to run the command.

        Raises:
            Unfamiliar: The command failed or made no target.
            CommandError: A source has errors.
        """
        if command is None:
            return
        now = computed.current(command, self.obj)  # its inputs are made
        run, command = run or now.text != command.text, now
        path = os.path.join(self.obj, target)
        before = self.made.get(target, self.targets.when(target))
        if not run:
            os.utime(path)
            os.utime(self.targets.recorded[target])
            self.made[target] = before
            return
        was = content(path)
        relisted = not self.relisted.isdisjoint(self.targets.inputs[target])
        if relisted and target.endswith(".a"):
            self.relisted.add(target)
        if self._taken(target, command):
            pass
        elif (
            not relisted
            and thin_archive.packs(command, self.said.env)
            and thin_archive.renew(
                path,
                os.fspath(self.obj),
                functools.partial(thin_archive.symbols, self.obj, self.said.env),
            )
        ):
            os.utime(self.targets.recorded[target])
        else:
            self._command(
                command,
                self.checks.get(os.path.splitext(command.source)[1], "")
                if command.compiles
                else "",
            )
        if not os.path.isfile(path):
            raise Unfamiliar(f"the command of {target} did not make it")
        if was == MISSING or was != content(path):
            self.changed.add(target)
            if self.objects and not target.endswith((".o", ".a")):
                with self._lock:
                    self.objects.renew()
        self.made[target] = before

    def _taken(self, target: str, command: Saved) -> bool:
        """Copy an object from the store if it is there; note it as compiled if not."""
        if not command.compiles or not self.objects:
            return False
        with self._lock:
            if self.objects.take(target):
                return True
        self.compiled.append(target)
        return False

    def run_logged(
        self, argv: Sequence[str], env: Mapping[str, str], shown: str, target: str = ""
    ) -> tuple[int, str]:
        """Run a program in the object folder, and return its exit status and its output.

        Args:
            argv: The program and its arguments.
            env: Its environment.
            shown: The command as the log shows it.
            target: The target whose seconds are measured; "" for none.
        """
        with (
            self.jobs.token(),
            child(
                argv,
                vfork=argv[0] == "sh",
                cwd=self.obj,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
            ) as process,
        ):
            started = time.monotonic()
            output = process.communicate()[0]
            if target:
                self.took[target] = time.monotonic() - started
        with self.log.open("a", encoding="utf-8", errors="replace") as log:
            log.write(f"$ {shown}\n{output}")
        return process.returncode, output

    def _command(self, command: Saved, check: str) -> None:
        """Run a saved command; if it fails, remove its target, as make does (.DELETE_ON_ERROR).

        Args:
            command: The command.
            check: A script to run on the target; "" for none.

        Raises:
            CommandError: The compiler found errors in a source, as it would when make runs it.
            Unfamiliar: Any other failure: a missing file, for example, may be one that make makes.
        """
        target, env = os.path.normpath(command.target), self.env
        if target == self.goal:
            env = {**env, **self.goal_env}
            if self.goal_command:
                command = msgspec.structs.replace(command, command=self.goal_command)
        shown = command.command.strip()
        result = self.early.take(command, env) if self.early else None
        if result:
            shown = f"{shown}\n{result.output}# {target} was begun early"
        argv = ["sh", "-c", command.script(check, ran=bool(result))]
        status, output = self.run_logged(argv, env, shown, target)
        if result:
            self.took[target] += result.seconds
        if status:
            for name in (command.target, command.depfile):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(os.path.join(self.obj, name))
            if command.compiles and _ERROR.search(output) and not _ABSENT.search(output):
                done = Completed(tuple(command.command.split()), status, output, 0.0)
                raise first_errors(CommandError(done, self.obj, {}, self.log))
            raise Unfamiliar(f"the command of {command.target} failed")
