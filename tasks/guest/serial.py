"""A guest's serial line: what comes on it, for how long, and what went wrong with it.

QEMU has it on its standard input and output. Everything goes to the log as it comes; what is looked
for answers is free of control characters and of stamped kernel messages. A guest that panics, falls
silent, ends or takes too long is an error, whatever was waited for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

import msgspec

from tasks.system.errors import PiggyError
from tasks.system.files import open_regular
from tasks.system.terminal import printable

if TYPE_CHECKING:
    import pexpect

TAIL_LINES = 15
_TAIL = 1 << 16  # characters of the console that the last lines are looked for in
_MESSAGE = 1000  # characters: a guest's own word, which may be long, can be part of it
_TCG_FACTOR = 3.0  # how much more time an emulated guest gets
_KEPT = 1 << 20  # characters of the console held in memory; the log has all
_NOISE = re.compile(r"\r|\x1b\[[0-9;?]*[A-Za-z]")
# A kernel message, with CONFIG_PRINTK_TIME; of at most PRINTK_MESSAGE_MAX bytes
# (kernel/printk/internal.h).
_STAMPED = re.compile(r"\[ {0,5}[0-9]{1,9}\.[0-9]{6}\](?:\[[ TC][0-9]{1,9}\])? [^\n]{0,2048}\n")
_LINE = 4096  # characters: of a longer line that goes on, no more is looked through again


class Limits(msgspec.Struct, frozen=True):
    """How long to wait, in seconds.

    For the shell, for a word on the console, for one command, and for all together; `again`: after
    which time an unanswered question is put again.
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
    """A guest that did not do what it should.

    Its hint ends with the console's last lines and where the log is.
    """

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


def opened(log: Path) -> IO[str]:
    """Open a console's log, empty.

    Raises PiggyError where something else than a file stands at its place.
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
    """Start QEMU, and give its serial line; when the body ends, so does QEMU.

    Args:
        argv: QEMU's, with the serial line on standard input and output.
        log: The file that everything from the line goes to as it comes.
        limit: How long what may take.
    """
    import pexpect

    from tasks.system.process import clean_env, dying, pasteable

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
                preexec_fn=dying(),
            )
        except pexpect.ExceptionPexpect as error:
            raise PiggyError(
                f"'{argv[0]}' can't be started",
                "'doit setup' installs what is missing; 'doit doctor' shows what that is",
            ) from error
        process.delaybeforesend = None
        process.delayafterclose = process.delayafterterminate = 0.2

        def write(text: str) -> None:
            sink.write(text.replace("\r", ""))
            sink.flush()

        try:
            yield Line(process, log, limit, write, argv)
        finally:
            process.close(force=True)


class Line:
    """The serial line of a running guest.

    Attributes:
        log: The file that all goes to.
        limit: How long what may take.
        argv: QEMU's.
        name: QEMU's, as it is called in a sentence.
        started: When the line was opened (monotonic clock).
        console: What the guest said, without control characters.
        fresh: The part of it that no answer was found in yet.

    Every method raises GuestError when the guest panics, falls silent, ends, or takes too long.
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
        """Type this."""
        with contextlib.suppress(OSError):  # QEMU is gone: the next read says how
            self.process.send(text)

    def read(self, until: float, end_is_fine: bool = False) -> bool:
        """Take in what comes until then (monotonic clock); return whether anything came.

        Raise what is wrong.
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
        cut = max(0, len(self.console) - 16)  # what may be incomplete
        line = max(self.fresh.rfind("\n") + 1, len(self.fresh) - _LINE)
        self.console = self.console[-_KEPT:cut] + _NOISE.sub("", self.console[cut:] + chunk)
        last = _NOISE.sub("", self.fresh[line:] + chunk)
        self.fresh = self.fresh[-_KEPT:line] + (_STAMPED.sub("", last) if "\n" in chunk else last)

    def _rest(self, seconds: float = 1.0) -> None:
        """Take in what still comes after something went wrong."""
        import pexpect

        until = time.monotonic() + seconds
        with contextlib.suppress(pexpect.TIMEOUT, pexpect.EOF):
            while (left := until - time.monotonic()) > 0:
                self._take(self.process.read_nonblocking(65536, left))

    def fail(self, message: str, hint: str) -> NoReturn:
        """Raise the error for a guest that did not do what it should."""
        raise GuestError(message, hint, self.console, self.log)

    def _silent(self) -> NoReturn:
        from tasks.guest.faults import silence

        message, hint = silence(self.console, self.limit.silence, self.name)
        self.fail(
            message,
            hint + (". accel=tcg shows whether KVM is to blame" if "kvm" in self.argv else ""),
        )

    def end(self) -> NoReturn:
        """Raise the error for a QEMU that ended without having been asked to."""
        from tasks.guest.faults import ended

        self.fail(*ended(self.console, self.name, *self.status()))

    def status(self) -> tuple[int, int]:
        """Return the exit status and the signal of QEMU, once its console is closed."""
        until = time.monotonic() + 5
        while self.process.isalive() and time.monotonic() < until:
            time.sleep(0.01)
        self.process.close(force=True)
        return self.process.exitstatus or 0, self.process.signalstatus or 0
