"""Run tasks that do not need each other at the same time (`doit -n N`), each in a thread.

doit's own parallel runners will not do. With processes, a worker that is killed leaves doit waiting
for ever, and what doit found out about a task (why it runs, what its last run learned) stays behind
in the parent; with threads, each of them writes to the database. Here the main thread decides,
records and reports, just as without -n; a thread does nothing but run the action, which mostly
waits for compilers. No worker can die alone.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from doit import cmd_run
from doit.exceptions import InvalidCommand
from doit.runner import Runner

from tasks.graph import journal
from tasks.graph.inputs import inputs_of
from tasks.graph.task import check_options
from tasks.system import process, terminal


def install() -> None:
    """Have doit use our runners, for -n that of threads, of whichever kind (-P).

    A dodo.py has no other way: doit's plug-ins are loaded before it is known.
    """
    cmd_run.Runner = InTurn
    cmd_run.MRunner = cmd_run.MThreadRunner = Threads


class InTurn(Runner):
    """doit's own runner, one task after the other.

    What it makes by force (`doit -a`) is not taken from the store.
    """

    def run_all(self, task_dispatcher: Any) -> int:
        """Run what was asked for, once its options are checked; called by doit.

        Raises:
            PiggyError: An option is refused.
        """
        for name in task_dispatcher.selected_tasks:
            check_options(task_dispatcher.tasks[name])
        return int(super().run_all(task_dispatcher))

    def select_task(self, node: Any, tasks_dict: Any) -> bool:
        """Tell doit whether a task is to run now."""
        inputs = inputs_of(node.task)
        if inputs is not None:
            inputs.forced = self.always_execute
        return bool(super().select_task(node, tasks_dict))

    def _handle_task_error(self, node: Any, base_fail: Any) -> None:
        """Record and report a failed task; called by doit.

        The reporter says it if the record can't be written.
        """
        with journal.removing(self.dep_manager):
            super()._handle_task_error(node, base_fail)


class Threads(InTurn):
    """The runner of up to `num_process` tasks at once.

    No two of them work in the same folder (see Makes.place in graph/task.py), and what talks to the
    user, on the terminal, runs by itself and in the main thread.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        self.most = args[5] if len(args) > 5 else named["num_process"]
        super().__init__(
            *args[:5], **{key: value for key, value in named.items() if key != "num_process"}
        )
        if self.most < 1:
            raise InvalidCommand(f"-n {self.most}: there must be at least one task at a time")
        # It takes a lock of its own around each fork. Imported by a thread while another one forks,
        # it would release what it never took (subprocess forks where it has a preexec_fn).
        importlib.import_module("concurrent.futures.thread")
        self.threads: dict[str, threading.Thread] = {}
        self.running: dict[str, Any] = {}
        self.finished: SimpleQueue[tuple[Any, Any, BaseException | None]] = SimpleQueue()

    @staticmethod
    def available() -> bool:
        """Tell doit that it can be used."""
        return True

    def run_tasks(self, task_dispatcher: Any) -> None:
        """Run everything that the dispatcher gives out; called by doit."""
        waiting = list(_given_out(task_dispatcher, None))
        try:
            while waiting or self.running:
                node = self._startable(waiting) if self.finished.empty() else None
                if node is None:
                    node = self._finished()
                else:
                    # only now it is looked at: what ran before may have changed what it depends on
                    waiting.remove(node)
                    if self.select_task(node, task_dispatcher.tasks):
                        self._start(node)
                        continue
                waiting += _given_out(task_dispatcher, node)
                if self._stop_running:
                    waiting.clear()
        except BaseException:
            process.stop_all(lambda: any(thread.is_alive() for thread in self.threads.values()))
            raise

    def _finished(self) -> Any:
        """Wait for the next task to end, and record its result; return its node."""
        node, failure, error = self._next_result()
        del self.running[node.task.name]
        if error is not None:
            raise error
        self.process_task_result(node, failure)
        if failure and self._stop_running and self.running:
            terminal.line(
                "...", f"{', '.join(self.running)} still running: waiting for that; Ctrl-C ends it"
            )
        return node

    def _next_result(self) -> tuple[Any, Any, BaseException | None]:
        """Return what the next thread to end put there.

        A signal that comes right before Python goes to sleep, or that another thread was given,
        does not wake it: so it looks up now and then, or Ctrl-C would wait for a task to end.
        """
        while True:
            try:
                return self.finished.get(timeout=0.25)
            except Empty:
                continue

    def _startable(self, waiting: list[Any]) -> Any:
        """Return the first node that may start now, if any.

        What talks to the user waits until nothing else runs; and what comes after it, for it.
        """
        busy = {_place(node.task) for node in self.running.values()} - {""}
        for node in waiting if len(self.running) < self.most else ():
            if not node.task.actions:  # a group
                return node
            if _interactive(node.task):
                return None if self.running else node
            if _place(node.task) not in busy:
                return node
        return None

    def _start(self, node: Any) -> None:
        task = node.task
        self.running[task.name] = node
        if task.teardown:
            self.teardown_list.append(task)
        self.reporter.execute_task(task)
        if _interactive(task) or not task.actions:
            self._perform(node)
        else:  # a daemon: one that is stuck must not keep us from ending
            self.threads[task.name] = threading.Thread(
                target=self._perform, args=[node], name=task.name, daemon=True
            )
            self.threads[task.name].start()

    def _perform(self, node: Any) -> None:
        """Run the actions of a task; the result goes to the main thread, whatever it is."""
        try:
            self.finished.put((node, node.task.execute(self.stream), None))
        except BaseException as error:
            if threading.current_thread() is threading.main_thread():
                raise
            self.finished.put((node, None, error))


def _given_out(dispatcher: Any, processed: Any) -> Iterator[Any]:
    """Yield the nodes of the tasks that can be looked at now.

    Args:
        dispatcher: doit's.
        processed: The node that was run, or did not have to be; None at the start.
    """
    while True:
        try:
            node = dispatcher.generator.send(processed)
        except StopIteration:
            return
        if node == "hold on":  # all others wait for what is running
            return
        processed = None
        yield node


def _place(task: Any) -> str:
    """Return the folder in which a task must be the only one."""
    return (task.meta or {}).get("place", "")


def _interactive(task: Any) -> bool:
    """Tell whether a task runs whenever it is asked for (a boot, an editor, a report).

    Then it has the terminal to itself.
    """
    return inputs_of(task) is None
