"""The reporter that doit runs with.

It commits each result, and holds the lock of the machine's folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from doit.exceptions import UnmetDependency
from doit.globals import Globals
from doit.reporter import ConsoleReporter

from tasks.config.project import Project
from tasks.graph import history, journal, startup, verdict
from tasks.graph.inputs import RESTORED, inputs_of
from tasks.system import crowd, files, stdio, terminal
from tasks.system.errors import PiggyError

STATUS_OF_DIFFERENCE = 4  # what a shared store holds is not what is made here
STATUS_OF_SIGNAL = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hung up",
}


def reporter_for(project: Project) -> type[ConsoleReporter]:
    """Return the reporter class for a project (doit wants a class, not an object)."""
    here, lock, stamps = project.layout.here, project.lock, project.stamps

    class Reporter(ConsoleReporter):
        desc = "Kbuild-like lines, each result committed at once"

        def initialize(self, tasks: Any, selected_tasks: Any) -> None:
            self.started = time.monotonic()
            crowd.at_start()
            self.run = time.time()
            self.done = self.fresh = 0
            self.reads = False
            self.begun: dict[str, float] = {}
            self.selected = selected_tasks
            unwind_on_signals()
            selected = [tasks[name] for name in selected_tasks if name in tasks]
            if selected and all((task.meta or {}).get("reads") for task in selected):
                # who only reads waits for nobody, and leaves the journal as it is
                lock.acquire_if_free()
                journal.only_read(Globals.dep_manager)
                self.reads = True
            else:
                try:
                    lock.acquire()
                except PiggyError as error:
                    _fail(error)
                journal.to_write(Globals.dep_manager)
            stamps.look_once(True)

        def write(self, text: str) -> None:
            sys.stdout.write(text)  # doit's own lines, to the stream that there is now

        def execute_task(self, task: Any) -> None:
            stdio.check()
            startup.loaded()
            stamps.look_once(False)
            self.begun[task.name] = time.monotonic()
            if task.actions:
                self._unfinished(task)

        def add_success(self, task: Any) -> None:
            self._commit()
            if task.actions:
                self.done += 1
                self._history(task, RESTORED if task.values.get(RESTORED) else "ok")
            stdio.check()  # now that it is recorded

        def add_failure(self, task: Any, fail: Any) -> None:
            self._unfinished(task)  # doit forgot all of it
            if isinstance(fail, UnmetDependency):  # with --continue
                terminal.line(
                    "skipped", f"{task.name}, since {fail.get_msg().strip()} was not made"
                )
                return
            self._history(task, "failed")
            if not fail.report:
                return
            self.failures.append({"task": task, "exception": fail})
            terminal.write(f"\n{task.name} failed: {fail.get_msg().strip()}", sys.stderr)

        def skip_uptodate(self, task: Any) -> None:
            if task.actions:
                self.fresh += 1

        def complete_run(self) -> None:
            if lock.taken or not self.reads:
                stamps.save()
                project.codes.save()
            lock.release()
            wrong = project.store.finish(wait=sys.exc_info()[0] is None)
            startup.end()
            seconds = time.monotonic() - self.started
            if self.runtime_errors:
                print("\n".join(self.runtime_errors), file=sys.stderr)
            elif not self.failures and not self.done and self.fresh and sys.exc_info()[0] is None:
                terminal.line(
                    "FRESH",
                    f"nothing to do: {self.fresh} task{'s' * (self.fresh != 1)} up to date"
                    f" ({terminal.took(seconds)})",
                )
            status = verdict.status(self.selected, self.failures)
            status = status or (STATUS_OF_DIFFERENCE if wrong else 0)
            if status > 1 and sys.exc_info()[0] is None:  # 0 and 1 are doit's own
                raise SystemExit(status)

        def _unfinished(self, task: Any) -> None:
            inputs = inputs_of(task)
            self._commit(
                lambda: journal.unfinish(
                    Globals.dep_manager,
                    task,
                    inputs.previous if inputs else {},
                    inputs.mark if inputs else True,
                )
            )

        def _commit(self, change: Callable[[], object] = lambda: None) -> None:
            backend = Globals.dep_manager.backend
            if self.reads:
                return
            try:
                change()
                journal.commit(backend)
            except Exception as error:
                journal.give_up(backend)
                if journal.locked(error):
                    _fail(
                        PiggyError(
                            f"the journal in {here} is held by another program", journal.HELD
                        )
                    )
                _fail(
                    PiggyError(
                        f"the journal can't be written: {error}",
                        f"is the disk full, or {here} not writable? Free some space and run doit"
                        " again",
                    )
                )

        def _history(self, task: Any, result: str) -> None:
            inputs = inputs_of(task)
            seconds = time.monotonic() - self.begun.pop(task.name, time.monotonic())
            asked = inputs and inputs.store and not inputs.forced
            history.append(
                project.layout.history,
                history.Line(
                    time=time.time(),
                    task=task.name,
                    result=result,
                    seconds=seconds,
                    why=inputs.reasons if inputs else [],
                    run=self.run,
                    notes=inputs.notes if inputs else [],
                    work=(inputs and inputs.work) or history.Work(),
                    missed=bool(asked) and result == "ok",
                    crowd=crowd.at_start(),
                    bytes=0 if result == "failed" else files.length(*task.targets[:1]),
                ),
            )

    return Reporter


def unwind_on_signals() -> None:
    """Have a signal that ends us stop what was started, and end us in a sentence."""
    for number in STATUS_OF_SIGNAL:
        signal.signal(number, _leave)


def _leave(number: int, frame: Any) -> NoReturn:
    """On a signal unwind as usual, and leave with 128 + its number as shells do.

    Children are stopped on the way.
    """
    signal.signal(number, signal.SIG_IGN)
    text = f"\n{STATUS_OF_SIGNAL[signal.Signals(number)]}; what was finished is kept\n"
    with contextlib.suppress(OSError):
        os.write(
            2, text.encode()
        )  # not print: the signal may have come in the middle of another one
    raise SystemExit(128 + number)


def _fail(error: PiggyError) -> NoReturn:
    print(f"ERROR: {error}", file=sys.stderr, flush=True)
    raise SystemExit(verdict.of_refusal(sys.argv[1:]))
