"""A session with a guest on its serial console.

Wait for the shell, run commands in it, say clearly what went wrong.

Kernel messages, echo and line wraps come in between anywhere. So a question carries a token of its
own, is put so that its echo can't be taken for the answer, and is put again when the answer does
not come.
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
_LONGEST = 900  # busybox edits lines of up to 1024 characters
_NOISE = re.compile(r"\r|\x1b\[[0-9;?]*[A-Za-z]")
# A kernel message, with CONFIG_PRINTK_TIME; of at most PRINTK_MESSAGE_MAX bytes
# (kernel/printk/internal.h).
_STAMPED = re.compile(r"\[ {0,5}[0-9]{1,9}\.[0-9]{6}\](?:\[[ TC][0-9]{1,9}\])? [^\n]{0,2048}\n")
_LINE = 4096  # characters: of a longer line that goes on, no more is looked through again
_PROMPT = re.compile(r"(?:^|\n)[^\n]{0,60}[#$] ")
_LEAD = re.compile(r"^[^\n]{0,60}?[#$>] ")  # a prompt before what was typed
_ENTER = "Please press Enter to activate this console"  # busybox init, "askfirst"
_HALTED = re.compile(r"System halted|reboot: Power down")  # kernel/reboot.c


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
def session(argv: Sequence[str], log: Path, limit: Limits) -> Iterator[Guest]:
    """Start QEMU (its console on standard input and output) and give the guest.

    When the body ends, so does QEMU.

    Everything from the console goes to the file `log` as it comes.
    """
    import pexpect

    from tasks.system.process import _dying, clean_env, pasteable

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
                preexec_fn=_dying(),
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
            yield Guest(process, log, limit, write, argv)
        finally:
            process.close(force=True)


def _named(command: str) -> str:
    """Return a command as it is called in a sentence."""
    first, rest, _ = command.partition("\n")
    return f"{first[:60]}..." if rest or len(first) > 60 else first


def _answer(heard: str, token: str, command: str, question: str) -> str:
    """Return what a command said, of all that was heard since it was sent.

    What its terminal echoes
    is none of it: the command before, and each question that is put while it runs. A message may
    have torn any of these apart.
    """
    before, begun, output = heard.partition(f"<~{token}~>")
    if not begun:
        sent = {line.strip() for line in command.splitlines()}
        lines = [
            line
            for line in before.splitlines(keepends=True)
            if _LEAD.sub("", line).strip() not in sent
        ]
        output = "".join(lines)
    output = output.replace(question, "").partition(f"<~{token}")[0]
    typed = ('echo "<~""', f'{token}~>"', f"$s{token}", f"s{token}=$?")
    return "".join(
        line for line in output.splitlines(keepends=True) if not any(part in line for part in typed)
    )


class Guest:
    """A running guest.

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
        self.console = ""  # what the guest said, without control characters
        self._fresh = ""  # the part of it that no answer was found in yet

    def ready(self) -> float:
        """Wait until a shell answers; return the seconds since QEMU's start."""
        from tasks.guest.faults import booting, restarted

        token, until, ask_at, entered = (
            os.urandom(3).hex(),
            self.started + self.limit.boot,
            float("inf"),
            False,
        )
        wait = self.limit.again
        while f"<~{token}~>" not in self._fresh:
            now = time.monotonic()
            if now >= until:
                self._fail(
                    f"no shell answered within {self.limit.boot:.0f} s",
                    "does init start one on the console? (/etc/inittab, /etc/init.d/rcS, console=)",
                )
            if not entered and _ENTER in self._fresh:
                entered = True
                self._send("\n")
            if ask_at == float("inf") and _PROMPT.search(self._fresh):
                ask_at = now
            if now >= ask_at:
                self._send(f'echo "<~""{token}""~>"\n')
                wait, ask_at = wait * 1.5, now + wait
            quiet = not self._read(min(until, max(ask_at, now), now + self.limit.again))
            if (
                quiet
                and ask_at == float("inf")
                and self._fresh.strip()
                and not booting(self.console)
            ):
                ask_at = now  # a shell with an unusual prompt, perhaps
            if restarted(self.console):
                self._fail(
                    "the guest starts over again and again",
                    "the kernel restarts while it boots; "
                    "'panic=0' on its command line makes it stop where it fails",
                )
        self._fresh = self._fresh.partition(f"<~{token}~>")[2]
        return time.monotonic() - self.started

    def sh(self, command: str, seconds: float = 0) -> tuple[int, str]:
        """Run a command in a subshell of the guest's shell, without standard input.

        Return its status and its output.

        seconds: how long it may take (0: the limit for commands). Kernel messages without a time
        stamp (CONFIG_PRINTK_TIME=n) that come in between stay in the output.
        """
        if any(len(line) > _LONGEST for line in command.splitlines()):
            raise PiggyError(
                f"a line of the guest command '{command[:40]}...' is longer than {_LONGEST}"
                " characters"
            )
        token = os.urandom(3).hex()
        answer = re.compile(rf"<~{token} ((?:1?[0-9]?[0-9]|2[0-4][0-9]|25[0-5])?)~>")
        question = f'echo "<~""{token} $s{token}""~>"\n'
        self._send(f'echo "<~""{token}""~>"; (\n{command}\n) </dev/null; s{token}=$?; {question}')
        seconds = seconds or self.limit.command
        until, wait = time.monotonic() + seconds, self.limit.again
        ask_at = time.monotonic() + wait
        while not (found := answer.search(self._fresh)):
            now = time.monotonic()
            if now >= until:
                self._fail(
                    f"the guest's '{_named(command)}' did not end within {seconds:.0f} s", ""
                )
            if now >= ask_at:
                self._send(question)
                wait, ask_at = wait * 1.5, now + wait
            self._read(min(until, ask_at))
        output = _answer(self._fresh[: found.start()], token, command, question)
        self._fresh = self._fresh[found.end() :]
        if not found[1]:
            self._fail(
                f"the guest's shell refused the command '{_named(command)}'", "a syntax error?"
            )
        return int(found[1]), output.strip("\n")

    def poweroff(self) -> None:
        """Power the guest off and wait for QEMU's end.

        A machine that can only halt is done when its kernel says so.
        """
        import pexpect

        self._send("poweroff\n")
        until = time.monotonic() + self.limit.command
        while not _HALTED.search(self.console[-500:]):
            if time.monotonic() >= until:
                self._fail(f"the guest did not power off within {self.limit.command:.0f} s", "")
            try:
                self._read(until, end_is_fine=True)
            except pexpect.EOF:
                if self._status() != (0, 0):
                    self._end()
                return
        with contextlib.suppress(PiggyError, pexpect.EOF):
            self._read(time.monotonic() + 0.3, end_is_fine=True)

    def _send(self, text: str) -> None:
        with contextlib.suppress(OSError):  # QEMU is gone: the next read says how
            self.process.send(text)

    def _read(self, until: float, end_is_fine: bool = False) -> bool:
        """Take in what comes until then (monotonic clock); return whether anything came.

        Raise what is wrong.
        """
        import pexpect

        from tasks.guest.faults import diagnose

        now = time.monotonic()
        if now - self.started > self.limit.total:
            self._fail(f"the guest was not done within {self.limit.total:.0f} s", "")
        if now - self._heard > self.limit.silence:
            self._silent()
        try:
            chunk = self.process.read_nonblocking(65536, max(0.01, until - now))
        except pexpect.TIMEOUT:
            return False
        except pexpect.EOF:
            if end_is_fine:
                raise
            self._end()
        self._take(chunk)
        if fault := diagnose(self.console[-len(chunk) - 400 :], self.name):
            self._rest()
            self._fail(*(diagnose(self.console, self.name) or fault))
        return True

    def _take(self, chunk: str) -> None:
        self._write(chunk)
        self._heard = time.monotonic()
        cut = max(0, len(self.console) - 16)  # what may be incomplete
        line = max(self._fresh.rfind("\n") + 1, len(self._fresh) - _LINE)
        self.console = self.console[-_KEPT:cut] + _NOISE.sub("", self.console[cut:] + chunk)
        last = _NOISE.sub("", self._fresh[line:] + chunk)
        self._fresh = self._fresh[-_KEPT:line] + (_STAMPED.sub("", last) if "\n" in chunk else last)

    def _rest(self, seconds: float = 1.0) -> None:
        """Take in what still comes after something went wrong."""
        import pexpect

        until = time.monotonic() + seconds
        with contextlib.suppress(pexpect.TIMEOUT, pexpect.EOF):
            while (left := until - time.monotonic()) > 0:
                self._take(self.process.read_nonblocking(65536, left))

    def _fail(self, message: str, hint: str) -> NoReturn:
        raise GuestError(message, hint, self.console, self.log)

    def _silent(self) -> NoReturn:
        from tasks.guest.faults import silence

        message, hint = silence(self.console, self.limit.silence, self.name)
        self._fail(
            message,
            hint + (". accel=tcg shows whether KVM is to blame" if "kvm" in self.argv else ""),
        )

    def _end(self) -> NoReturn:
        """QEMU ended without having been asked to."""
        from tasks.guest.faults import ended

        self._fail(*ended(self.console, self.name, *self._status()))

    def _status(self) -> tuple[int, int]:
        """Return the exit status and the signal of QEMU, once its console is closed."""
        until = time.monotonic() + 5
        while self.process.isalive() and time.monotonic() < until:
            time.sleep(0.01)
        self.process.close(force=True)
        return self.process.exitstatus or 0, self.process.signalstatus or 0
