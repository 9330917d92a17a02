"""A shell on a guest's console: wait for it, run commands in it, power the guest off.

Kernel messages, echo and line wraps may appear anywhere in the output. So each command prints a
random token at its end, is quoted so that its echo differs from the output, and its status is asked
for again when no answer comes. `serial` has the line itself and the detection of failures.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.guest import serial
from tasks.guest.serial import Limits, Line
from tasks.system.errors import PiggyError

_LONGEST = 900  # busybox edits lines of up to 1024 characters
_PROMPT = re.compile(r"(?:^|\n)[^\n]{0,60}[#$] ")
_LEAD = re.compile(r"^[^\n]{0,60}?[#$>] ")  # a prompt before what was typed
_ENTER = "Please press Enter to activate this console"  # busybox init, "askfirst"
_HALTED = re.compile(r"System halted|reboot: Power down")  # kernel/reboot.c


@contextlib.contextmanager
def session(argv: Sequence[str], log: Path, limit: Limits) -> Iterator[Guest]:
    """Start QEMU for the body of a `with`, yield the guest, and end QEMU.

    Args:
        argv: QEMU's argument vector, with the console on standard input and output.
        log: A file for the console's output.
        limit: The timeouts.
    """
    with serial.started(argv, log, limit) as line:
        yield Guest(line)


def _named(command: str) -> str:
    """Shorten a command to its first line and 60 characters, for a message."""
    first, rest, _ = command.partition("\n")
    return f"{first[:60]}..." if rest or len(first) > 60 else first


def _answer(heard: str, token: str, command: str, question: str) -> str:
    """Extract a command's output from the console's text since it was sent.

    The terminal's echo is left out: of the command, and of each question for its status while it
    runs. Kernel messages may have split any of these.

    Args:
        heard: The console's text, up to the answer.
        token: The command's token.
        command: The command.
        question: The line that asks for its status.
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
    """A running guest with a shell on its serial line.

    Each method raises GuestError if the guest panics, falls silent, ends, or takes too long.
    """

    def __init__(self, line: Line) -> None:
        self.line = line

    def ready(self) -> float:
        """Wait until a shell answers; return the seconds since QEMU's start."""
        from tasks.guest.faults import booting, restarted

        token, until, ask_at, entered = (
            os.urandom(3).hex(),
            self.line.started + self.line.limit.boot,
            float("inf"),
            False,
        )
        wait = self.line.limit.again
        while f"<~{token}~>" not in self.line.fresh:
            now = time.monotonic()
            if now >= until:
                self.line.fail(
                    f"no shell answered within {self.line.limit.boot:.0f} s",
                    "does init start one on the console? (/etc/inittab, /etc/init.d/rcS, console=)",
                )
            if not entered and _ENTER in self.line.fresh:
                entered = True
                self.line.send("\n")
            if ask_at == float("inf") and _PROMPT.search(self.line.fresh):
                ask_at = now
            if now >= ask_at:
                self.line.send(f'echo "<~""{token}""~>"\n')
                wait, ask_at = wait * 1.5, now + wait
            quiet = not self.line.read(min(until, max(ask_at, now), now + self.line.limit.again))
            if (
                quiet
                and ask_at == float("inf")
                and self.line.fresh.strip()
                and not booting(self.line.console)
            ):
                ask_at = now  # a shell with an unusual prompt, perhaps
            if restarted(self.line.console):
                self.line.fail(
                    "the guest starts over again and again",
                    "the kernel restarts while it boots; "
                    "'panic=0' on its command line makes it stop where it fails",
                )
        self.line.fresh = self.line.fresh.partition(f"<~{token}~>")[2]
        return time.monotonic() - self.line.started

    def sh(self, command: str, seconds: float = 0) -> tuple[int, str]:
        """Run a command in a subshell of the guest's shell, without standard input.

        Args:
            command: The shell command.
            seconds: Its timeout; 0 for the limit of all commands.

        Returns:
            Its exit status and its output. Kernel messages without a time stamp
            (CONFIG_PRINTK_TIME=n) stay in the output.
        """
        if any(len(line) > _LONGEST for line in command.splitlines()):
            raise PiggyError(
                f"a line of the guest command '{command[:40]}...' is longer than {_LONGEST}"
                " characters"
            )
        token = os.urandom(3).hex()
        answer = re.compile(rf"<~{token} ((?:1?[0-9]?[0-9]|2[0-4][0-9]|25[0-5])?)~>")
        question = f'echo "<~""{token} $s{token}""~>"\n'
        self.line.send(
            f'echo "<~""{token}""~>"; (\n{command}\n) </dev/null; s{token}=$?; {question}'
        )
        seconds = seconds or self.line.limit.command
        until, wait = time.monotonic() + seconds, self.line.limit.again
        ask_at = time.monotonic() + wait
        while not (reply := answer.search(self.line.fresh)):
            now = time.monotonic()
            if now >= until:
                self.line.fail(
                    f"the guest's '{_named(command)}' did not end within {seconds:.0f} s", ""
                )
            if now >= ask_at:
                self.line.send(question)
                wait, ask_at = wait * 1.5, now + wait
            self.line.read(min(until, ask_at))
        output = _answer(self.line.fresh[: reply.start()], token, command, question)
        self.line.fresh = self.line.fresh[reply.end() :]
        if not reply[1]:
            self.line.fail(
                f"the guest's shell refused the command '{_named(command)}'", "a syntax error?"
            )
        return int(reply[1]), output.strip("\n")

    def poweroff(self) -> None:
        """Power the guest off; wait for QEMU's end, or for the message of a machine that halts."""
        import pexpect

        self.line.send("poweroff\n")
        until = time.monotonic() + self.line.limit.command
        while not _HALTED.search(self.line.console[-500:]):
            if time.monotonic() >= until:
                self.line.fail(
                    f"the guest did not power off within {self.line.limit.command:.0f} s", ""
                )
            try:
                self.line.read(until, end_is_fine=True)
            except pexpect.EOF:
                if self.line.status() != (0, 0):
                    self.line.end()
                return
        with contextlib.suppress(PiggyError, pexpect.EOF):
            self.line.read(time.monotonic() + 0.3, end_is_fine=True)
