"""A guest's serial line: output with timeouts, and detection of failures.

The line is QEMU's standard input and output. All output goes to the log as it comes; the text that
is searched for answers has no control characters and no kernel messages with time stamps. A guest
that panics, falls silent, ends or takes too long is an error at any time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

import msgspec

from tasks.system.errors import PiggyError
from tasks.system.files import open_regular
from tasks.system.pattern import pattern
from tasks.system.terminal import printable

if TYPE_CHECKING:
    import pexpect

TAIL_LINES = 15
_TAIL = 1 << 16  # characters of the console in which the last lines are searched
_MESSAGE = 1000  # characters of a message, which may quote a guest's long output
_TCG_FACTOR = 3.0  # of the timeouts for an emulated guest
_KEPT = 1 << 20  # characters of the console held in memory; the log has all
_NOISE = pattern(r"\r|\x1b\[[0-9;?]*[A-Za-z]")
# A kernel message, with CONFIG_PRINTK_TIME; of at most PRINTK_MESSAGE_MAX bytes
# (kernel/printk/internal.h).
_STAMPED = pattern(r"\[ {0,5}[0-9]{1,9}\.[0-9]{6}\](?:\[[ TC][0-9]{1,9}\])? [^\n]{0,2048}\n")
_LINE = 4096  # characters of an incomplete line that are searched again when more comes


class Limits(msgspec.Struct, frozen=True):
    """Timeouts, in seconds.

    Attributes:
        boot: Until the shell answers.
        silence: Without output on the console.
        command: For one command.
        total: For the whole session.
        again: Until an unanswered question is repeated.
    """

    boot: float = 40
    silence: float = 10
    command: float = 10
    total: float = 60
    again: float = 1

    def scaled(self, factor: float) -> Limits:
        """Return all limits times `factor`."""
        return Limits(**{name: getattr(self, name) * factor for name in self.__struct_fields__})


def limits(accel: str, base: Limits | None = None) -> Limits:
    """Return the limits for an accelerator ("kvm", "tcg")."""
    return (base or Limits()).scaled(1.0 if accel == "kvm" else _TCG_FACTOR)


class GuestError(PiggyError):
    """A guest that failed; the hint ends with the log's path and the console's last lines."""

    def __init__(self, message: str, hint: str, console: str, log: Path) -> None:
        tail = [line[:200] for line in console[-_TAIL:].splitlines() if line.strip()][-TAIL_LINES:]
        shown = (
            ["last lines on the console:", *("    " + line for line in tail)]
            if tail
            else ["the console is empty"]
        )
        super().__init__(
            printable(message)[:_MESSAGE],
            printable("\n".join(filter(None, [hint, f"log: {log}", *shown]))),
        )


class EmulatorError(GuestError):
    """A QEMU that the host ended or denied something: not what the guest did."""


def opened(log: Path) -> IO[str]:
    """Open a console's log and empty it.

    Raises:
        PiggyError: It is no regular file.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = open_regular(log, os.O_WRONLY | os.O_CREAT)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.ENXIO):
            raise
        raise PiggyError(
            f"the console's log {log} is no regular file, but a link, a folder, a pipe or a device",
            f"move it away: mv {shlex.quote(str(log))} ELSEWHERE",
        ) from error
    os.ftruncate(descriptor, 0)
    return open(descriptor, "w", encoding="utf-8", errors="replace")


@contextlib.contextmanager
def started(argv: Sequence[str], log: Path, limit: Limits) -> Iterator[Line]:
    """Start QEMU for the body of a `with`, yield its serial line, and end QEMU.

    Args:
        argv: QEMU's argument vector, with the serial line on standard input and output.
        log: A file for the line's output.
        limit: The timeouts.

    Raises:
        PiggyError: QEMU can't be started, or the log is no regular file.
    """
    import pexpect

    from tasks.system import parent_death
    from tasks.system.process import clean_env, pasteable

    with opened(log) as sink:
        sink.write(f"$ {pasteable(argv)}\n")
        sink.flush()
        try:
            process = pexpect.spawn(
                argv[0],
                list(argv[1:]),
                encoding="utf-8",
                codec_errors="replace",
                echo=False,
                env=clean_env(),
                preexec_fn=parent_death.dying(),
            )
        except pexpect.ExceptionPexpect as error:
            raise PiggyError(
                f"'{argv[0]}' can't be started",
                "'doit setup' installs what is missing; 'doit doctor' shows what that is",
            ) from error
        process.delaybeforesend = None

        def write(text: str) -> None:
            sink.write(text.replace("\r", ""))
            sink.flush()

        try:
            yield Line(process, log, limit, write, argv)
        finally:
            _end(process)


def _end(process: pexpect.spawn) -> None:
    """End QEMU if it runs, by SIGHUP or at last by SIGKILL, and wait until it is gone.

    On a busy host that takes longer than the tenth of a second for which pexpect's close waits.

    Raises:
        PiggyError: It is not gone after some seconds.
    """
    for number, seconds in ((signal.SIGHUP, 1.0), (signal.SIGKILL, 20.0)):
        if process.isalive():
            process.kill(number)
        until = time.monotonic() + seconds
        while process.isalive() and time.monotonic() < until:
            time.sleep(0.01)
    if process.isalive():
        raise PiggyError(f"QEMU (process {process.pid}) was killed and does not end")
    # There is nothing to wait for.
    process.ptyproc.delayafterclose = 0  # type: ignore[attr-defined]
    process.close()


class Line:
    """The serial line of a running guest.

    Attributes:
        log: The file of the line's output.
        limit: The timeouts.
        argv: QEMU's argument vector.
        name: QEMU's name in messages.
        started: When the line was opened (time.monotonic).
        console: The guest's output, without control characters.
        fresh: The part of it after the last answer.

    Each method raises GuestError if the guest panics, falls silent, ends, or takes too long.
    """

    def __init__(
        self,
        process: pexpect.spawn,
        log: Path,
        limit: Limits,
        write: Callable[[str], None],
        argv: Sequence[str],
    ) -> None:
        self.process, self.log, self.limit, self._write, self.argv = (
            process,
            log,
            limit,
            write,
            argv,
        )
        self.name = Path(argv[0]).name
        self.started = self._heard = time.monotonic()
        self.console = self.fresh = ""

    def send(self, text: str) -> None:
        """Send a text to the guest."""
        with contextlib.suppress(OSError):  # QEMU is gone: the next read says how
            self.process.send(text)

    def read(self, until: float, end_is_fine: bool = False) -> bool:
        """Read output, and check for failures.

        Args:
            until: When to give up waiting for output (time.monotonic).
            end_is_fine: Whether to raise pexpect.EOF, not GuestError, if QEMU ends.

        Returns:
            Whether there was output.
        """
        import pexpect

        from tasks.guest.faults import diagnose

        now = time.monotonic()
        if now - self.started > self.limit.total:
            self.fail(f"the guest was not done within {self.limit.total:.0f} s", "")
        if now - self._heard > self.limit.silence:
            self._silent()
        try:
            chunk = self.process.read_nonblocking(65536, max(0.01, until - now))
        except pexpect.TIMEOUT:
            return False
        except pexpect.EOF:
            if end_is_fine:
                raise
            self.end()
        self._take(chunk)
        if fault := diagnose(self.console[-len(chunk) - 400 :], self.name):
            self._rest()
            self.fail(*(diagnose(self.console, self.name) or fault))
        return True

    def _take(self, chunk: str) -> None:
        self._write(chunk)
        self._heard = time.monotonic()
        cut = max(0, len(self.console) - 16)  # an escape sequence may be incomplete
        line = max(self.fresh.rfind("\n") + 1, len(self.fresh) - _LINE)
        self.console = self.console[-_KEPT:cut] + _NOISE.sub("", self.console[cut:] + chunk)
        last = _NOISE.sub("", self.fresh[line:] + chunk)
        self.fresh = self.fresh[-_KEPT:line] + (_STAMPED.sub("", last) if "\n" in chunk else last)

    def _rest(self, seconds: float = 1.0) -> None:
        """Read the output that follows a failure, for some seconds."""
        import pexpect

        until = time.monotonic() + seconds
        with contextlib.suppress(pexpect.TIMEOUT, pexpect.EOF):
            while (left := until - time.monotonic()) > 0:
                self._take(self.process.read_nonblocking(65536, left))

    def fail(self, message: str, hint: str) -> NoReturn:
        """Raise GuestError with the console's last lines."""
        raise GuestError(message, hint, self.console, self.log)

    def _silent(self) -> NoReturn:
        from tasks.guest.faults import silence

        message, hint = silence(self.console, self.limit.silence, self.name)
        self.fail(
            message,
            hint + (". accel=tcg shows whether KVM is to blame" if "kvm" in self.argv else ""),
        )

    def end(self) -> NoReturn:
        """Raise GuestError for a QEMU that ended unexpectedly.

        It is an EmulatorError where the guest had no part in it.
        """
        from tasks.guest.faults import by_host, ended

        status, number = self.status()
        message, hint = ended(self.console, self.name, status, number)
        kind = EmulatorError if by_host(message, status, number) else GuestError
        raise kind(message, hint, self.console, self.log)

    def status(self) -> tuple[int, int]:
        """Wait for QEMU's end; return its exit status and the signal that killed it (0: none)."""
        until = time.monotonic() + 5
        while self.process.isalive() and time.monotonic() < until:
            time.sleep(0.01)
        _end(self.process)
        return self.process.exitstatus or 0, self.process.signalstatus or 0
