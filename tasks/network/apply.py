"""Does the steps of a plan, and undoes them.

Started as a program of its own, by sudo where need be:

    python -m tasks.network.apply up | down

The plan comes by standard input, where nobody can exchange it, and is held against what net_up
makes (see `nettrust`). Each step is in the record before it is done. What fails is rolled back; a
hang-up (an SSH session that was cut by the very change) does not stop it, Ctrl-C and SIGTERM roll
back.
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

from tasks.network import record as netrecord
from tasks.network import state, trust
from tasks.network.record import Record
from tasks.network.steps import KILL, WRITE, Plan, Step, Words, shown
from tasks.system.errors import PiggyError
from tasks.system.process import CommandError, run
from tasks.system.terminal import printable

Say = Callable[[str], None]
_PATIENCE = 5.0  # seconds that a daemon may take to end


class Interrupted(PiggyError):
    """Somebody wants us to stop."""


def say(text: str) -> None:
    """Print a line; a terminal that is gone is no reason to stop halfway."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def received(stream: BinaryIO, folder: Path) -> Plan:
    """Read a plan from a stream. Raises PiggyError for one that net_up can't have made."""
    plan = netrecord.decode(stream.read(netrecord.LONGEST), Plan, "the plan on standard input")
    trust.check(plan, os.fspath(folder))
    return plan


def up(plan: Plan, folder: Path, tell: Say = say) -> None:
    """Do the steps of a plan.

    What an interrupted run left is undone first; of a plan that is in force, what no longer holds
    is done again. Raises PiggyError when a step fails; then everything is as it was.
    """
    record = netrecord.read(folder)
    if (
        record
        and record.complete
        and record.plan.asked == plan.asked
        and record.boot == netrecord.boot_id()
    ):
        _repair(record, tell)
        return
    if record and record.complete and record.boot == netrecord.boot_id():
        raise PiggyError("another network of ours is up", "doit net_down first")
    if record:
        tell("  net_up             an earlier one was interrupted: first it is undone")
        down(folder, tell)
    boot = netrecord.boot_id()
    with deferred() as stopped:
        for number, step in enumerate(plan.steps):
            netrecord.write(folder, Record(boot=boot, plan=plan, begun=number + 1))
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
        netrecord.write(folder, Record(boot=boot, plan=plan, begun=len(plan.steps), complete=True))


def _repair(record: Record, tell: Say) -> None:
    broken = [step for step in record.plan.steps if not state.holds(step.holds)]
    for step in broken:
        tell("    " + shown(step.do, step.stdin).replace("\n", "\n    "))
        do(step.do, step.stdin, step.patience)
    if not broken:
        tell("  net_up             it is up already; nothing to do")


def down(folder: Path, tell: Say = say) -> bool:
    """Undo what the record says, in reverse; return whether there was any.

    Steps whose effect is gone are passed over; a step that can't be undone does not keep the others
    from it. Raises PiggyError for those at the end.
    """
    record = netrecord.read(folder)
    if record is None:
        return False
    failures: list[PiggyError] = []
    with deferred():
        if record.boot == netrecord.boot_id():
            for step in reversed(record.plan.steps[: record.begun]):
                failures += _undo(step, tell)
        if not failures:
            netrecord.remove(folder)
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
        for words in step.undo:
            tell("    " + shown(words))
            try:
                do(words, "", step.patience)
            except PiggyError as error:
                if state.holds(step.holds):
                    failures.append(error)
    return failures


def do(words: Words, stdin: str, patience: float) -> None:
    """Do one command of a step; a command that fails is tried again for `patience` seconds.

    Raises PiggyError.
    """
    if words[0] == WRITE:
        try:
            Path(words[1]).write_text(words[2] + "\n")
        except FileNotFoundError:
            if not words[1].startswith(
                "/proc/sys/net/ipv4/conf/"
            ):  # a link that is gone has no switch to put back
                raise PiggyError(f"{words[1]} does not exist") from None
        except OSError as error:
            raise PiggyError(f"{words[1]} can't be set to {words[2]}: {error.strerror}") from error
        return
    if words[0] == KILL:
        _kill(words[1])
        return
    until = time.monotonic() + patience
    while True:
        try:
            run(words, stdin=stdin or None)
            return
        except CommandError as error:
            if time.monotonic() >= until:
                said = error.done.output.strip().splitlines()
                raise PiggyError(
                    f"'{shown(words)}' failed: {printable(said[-1]) if said else error.message}",
                    printable(error.hint),
                ) from error
            time.sleep(0.2)


def _kill(pidfile: str) -> None:
    """End the daemon of a pidfile.

    A descriptor holds on to the process while it is looked at, so that no other one that takes its
    number meanwhile gets the signal (pidfd_open(2)).
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
    """Give a list that gets the signals which would end us; meanwhile they do not."""
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
    """The program: returns its exit status."""
    folder = netrecord.place()
    os.umask(0o022)  # the record is for everybody to read, whatever root's habits are
    try:
        if argv == ["up"] and not sys.stdin.isatty():
            up(received(sys.stdin.buffer, folder), folder)
        elif argv == ["down"]:
            if not down(folder, lambda _: None):  # who asked has seen the list
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
