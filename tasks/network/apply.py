"""Apply the steps of a plan, or undo them, as a program that sudo can start.

    python -m tasks.network.apply up | down

The plan comes on standard input, where nobody can replace it, and must be one that net_up makes
(trust.py). Each step is recorded before it is done. If a step fails, all are rolled back. SIGHUP
(the end of an SSH session that this very change cuts off) is ignored; SIGINT and SIGTERM cause a
rollback.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tasks.network import record, state, trust
from tasks.network.record import Record
from tasks.network.steps import KILL, WRITE, Arguments, Plan, Step, shown
from tasks.system import files
from tasks.system.errors import PiggyError
from tasks.system.process import CommandError, run
from tasks.system.terminal import printable

Say = Callable[[str], None]
_PATIENCE = 5.0  # seconds that a daemon may take to end


class Interrupted(PiggyError):
    """The user asked us to stop."""


def say(text: str) -> None:
    """Print a line; a closed terminal is no reason to stop halfway."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def received(stream: BinaryIO, folder: Path) -> Plan:
    """Read a plan from a stream.

    Args:
        stream: The stream.
        folder: The folder of the record.

    Raises:
        PiggyError: net_up can't have made it.
    """
    plan = files.record(stream.read(record.LONGEST), Plan, "the plan on standard input")
    trust.check(plan, os.fspath(folder))
    return plan


def up(plan: Plan, folder: Path, tell: Say = say) -> None:
    """Do the steps of a plan.

    If an earlier run was interrupted, its steps are undone first. If the same plan is in force, the
    steps whose effect is gone are done again.

    Args:
        plan: The plan.
        folder: The folder of the record.
        tell: Called with lines for the user.

    Raises:
        PiggyError: A step fails, and everything is as it was before; or another plan is in force.
    """
    last = record.read(folder)
    if last and last.complete and last.plan.asked == plan.asked and last.boot == record.boot_id():
        _repair(last, tell)
        return
    if last and last.complete and last.boot == record.boot_id():
        raise PiggyError("another network of ours is up", "doit net_down first")
    if last:
        tell("  net_up             an earlier one was interrupted: first it is undone")
        down(folder, tell)
    boot = record.boot_id()
    with deferred() as stopped:
        for number, step in enumerate(plan.steps):
            record.write(folder, Record(boot=boot, plan=plan, begun=number + 1))
            try:
                if stopped:
                    raise Interrupted("net_up was interrupted")
                do(step.do, step.stdin, step.patience)
            except PiggyError as error:
                tell(
                    f"  net_up             failed at step {number + 1} of {len(plan.steps)};"
                    " everything is put back:"
                )
                down(folder, tell)
                raise PiggyError(f"{error.message}; everything was put back", error.hint) from error
        record.write(folder, Record(boot=boot, plan=plan, begun=len(plan.steps), complete=True))


def _repair(last: Record, tell: Say) -> None:
    broken = [step for step in last.plan.steps if not state.holds(step.holds)]
    for step in broken:
        tell("    " + shown(step.do, step.stdin).replace("\n", "\n    "))
        do(step.do, step.stdin, step.patience)
    if not broken:
        tell("  net_up             it is up already; nothing to do")


def down(folder: Path, tell: Say = say) -> bool:
    """Undo the recorded steps in reverse order.

    A step whose effect is gone is skipped. A step that can't be undone does not stop the others.

    Args:
        folder: The folder of the record.
        tell: Called with lines for the user.

    Returns:
        Whether there was a record.

    Raises:
        PiggyError: Steps could not be undone; the record stays.
    """
    last = record.read(folder)
    if last is None:
        return False
    failures: list[PiggyError] = []
    with deferred():
        if last.boot == record.boot_id():
            for step in reversed(last.plan.steps[: last.begun]):
                failures += _undo(step, tell)
        if not failures:
            record.remove(folder)
    if failures:
        raise PiggyError(
            "; ".join(error.message for error in failures),
            f"the record stays in {folder}; mend it, and 'doit net_down' goes"
            f" on\n{failures[0].hint}",
        )
    return True


def _undo(step: Step, tell: Say) -> list[PiggyError]:
    failures = []
    if state.holds(step.holds):
        for arguments in step.undo:
            tell("    " + shown(arguments))
            try:
                do(arguments, "", step.patience)
            except PiggyError as error:
                if state.holds(step.holds):
                    failures.append(error)
    return failures


def do(arguments: Arguments, stdin: str, patience: float) -> None:
    """Run one command of a step, and again for `patience` seconds if it fails.

    Args:
        arguments: A program's argument vector, or a built-in command of steps.py.
        stdin: The program's standard input.
        patience: Seconds.

    Raises:
        PiggyError: It fails to the end.
    """
    if arguments[0] == WRITE:
        try:
            Path(arguments[1]).write_text(arguments[2] + "\n")
        except FileNotFoundError:
            # The switch of a link that is gone can't be restored, and need not be.
            if not arguments[1].startswith("/proc/sys/net/ipv4/conf/"):
                raise PiggyError(f"{arguments[1]} does not exist") from None
        except OSError as error:
            raise PiggyError(
                f"{arguments[1]} can't be set to {arguments[2]}: {error.strerror}"
            ) from error
        return
    if arguments[0] == KILL:
        _kill(arguments[1])
        return
    until = time.monotonic() + patience
    while True:
        try:
            run(arguments, stdin=stdin or None)
            return
        except CommandError as error:
            if time.monotonic() >= until:
                output = error.done.output.strip().splitlines()
                reason = printable(output[-1]) if output else error.message
                raise PiggyError(
                    f"'{shown(arguments)}' failed: {reason}",
                    printable(error.hint),
                ) from error
            time.sleep(0.2)


def _kill(pidfile: str) -> None:
    """End the daemon of a pidfile.

    A pidfd is opened before the process is checked, so that a process that gets the same number in
    the meantime is not signalled (pidfd_open(2)).
    """
    pid, until = state.pid_of(pidfile), time.monotonic() + _PATIENCE
    if not pid:
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        while pid == state.pid_of(pidfile):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(
                    handle, signal.SIGTERM if time.monotonic() < until - 2 else signal.SIGKILL
                )
            if time.monotonic() > until:
                raise PiggyError(f"process {pid} does not end")
            time.sleep(0.05)
    finally:
        os.close(handle)


@contextlib.contextmanager
def deferred() -> Iterator[list[int]]:
    """Hold back the signals that would end us for the body of a `with`.

    Yields:
        A list of the signals that came, without SIGHUP, which is ignored.
    """
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {
        number: signal.signal(
            number, lambda got, _: caught.append(got) if got != signal.SIGHUP else None
        )
        for number in numbers
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: list[str]) -> int:
    """Run the program, and return its exit status."""
    folder = record.place()
    os.umask(0o022)  # everybody may read the record, whatever root's umask is
    try:
        if argv == ["up"] and not sys.stdin.isatty():
            up(received(sys.stdin.buffer, folder), folder)
        elif argv == ["down"]:
            if not down(folder, lambda _: None):  # the task net_down has printed the steps
                say("  net_down           nothing is up")
        else:
            say(__doc__ or "")
            return 2
    except (PiggyError, OSError) as error:
        with contextlib.suppress(OSError):
            print(error, file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
