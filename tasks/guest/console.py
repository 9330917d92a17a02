"""A shell on a guest's console: wait for it, run commands in it, power the guest off.

Kernel messages, echo and line wraps may appear anywhere in the output. So each command prints a
random token at its end, is quoted so that its echo differs from the output, and its status is asked
for again when no answer comes. Several commands go in one script, so that the guest does not wait
for the host between them. `serial` has the line itself and the detection of failures.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tasks.guest import serial
from tasks.guest.serial import Limits, Line
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern

_LONGEST = 900  # busybox edits lines of up to 1024 characters
_PROMPT = pattern(r"(?:^|\n)[^\n]{0,60}[#$] ")
_LEAD = pattern(r"^[^\n]{0,60}?[#$>] ")  # a prompt before what was typed
_ENTER = "Please press Enter to activate this console"  # busybox init, "askfirst"
_STATUS = "((?:1?[0-9]?[0-9]|2[0-4][0-9]|25[0-5])?)"  # of a shell's command; "" if it refused it
_HALTED = pattern(r"System halted|reboot: Power down")  # kernel/reboot.c
_REQUESTED = pattern(r"Requesting system (?:poweroff|halt)")  # init/init.c of busybox
# What dmesg says where the kernel has no syslog(2), that is, no PRINTK (kernel/sys_ni.c): ENOSYS.
# Of other calls (swapoff's, say) others say the same without klogctl, the C library's name of it.
_NO_SYSLOG = pattern(r"klogctl[^\n]{0,60}: Function not implemented")
_LAST_WORD = 4  # seconds that init takes at most from its message to the system call; it sleeps 1


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
    return _without_echo(output.replace(question, "").partition(f"<~{token}")[0], token)


def _without_echo(output: str, token: str) -> str:
    """Drop the lines of an output in which the terminal repeats a question with this token."""
    typed = ('echo "<~""', f'{token}~>"', f"$s{token}", f"s{token}=$?")
    return "".join(
        line for line in output.splitlines(keepends=True) if not any(part in line for part in typed)
    )


def _torn(output: str, token: str) -> bool:
    """Tell whether a question's echo begins in an output and is not a line of its own there.

    What stands on its line may belong to the output, or to the echo: it can't be told.
    """
    whole = _question(token).strip()
    return any(
        'echo "<~""' in line and _LEAD.sub("", line).strip() != whole
        for line in output.splitlines()
    )


def _question(token: str) -> str:
    """Return the line that asks the shell for the status of the command with this token."""
    return f'echo "<~""{token} $s{token}""~>"\n'


def _script(token: str, commands: Sequence[Command], setup: str) -> str:
    """Return the script that runs commands one after the other, each between two marks."""
    parts = "".join(
        f"m {number}; (\n{command.text}\n) </dev/null; m {number} $?\n"
        for number, command in enumerate(commands)
    )
    return (
        f'{{\nm() {{ echo "<~""{token}:$*""~>"; }}\n{setup}\n{parts}}}'
        f" </dev/null; s{token}=$?; {_question(token)}"
    )


class Command(msgspec.Struct, frozen=True):
    """A command for the guest's shell.

    Attributes:
        text: The command.
        seconds: Its timeout; 0 for the limit of all commands.
    """

    text: str
    seconds: float = 0


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
                # Without quotes: a chip without a driver loses what it has no room for, and a
                # quote that is left open would swallow each repetition.
                self.line.send(f"echo \\<~{token}\\~\\>\n")
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
        _check_lines(command)
        token = os.urandom(3).hex()
        answer, question = re.compile(rf"<~{token} {_STATUS}~>"), _question(token)
        self.line.send(
            f'echo "<~""{token}""~>"; (\n{command}\n) </dev/null; s{token}=$?; {question}'
        )
        asked = _Asked(self.line, question, self._limited(Command(command, seconds)))
        while not (reply := answer.search(self.line.fresh)):
            asked.read()
        output = _answer(self.line.fresh[: reply.start()], token, command, question)
        self.line.fresh = self.line.fresh[reply.end() :]
        if not reply[1]:
            self.line.fail(
                f"the guest's shell refused the command '{_named(command)}'", "a syntax error?"
            )
        return int(reply[1]), output.strip("\n")

    def sh_each(self, commands: Sequence[Command], setup: str) -> Iterator[tuple[int, int, str]]:
        """Run commands one after the other, as one script.

        The guest goes on while the caller uses what was yielded. A command whose answer was torn
        by kernel messages, or by the echo of a question that was put meanwhile, is run again alone
        at the end; so are all, if the shell refuses the script.

        Args:
            commands: The commands; each has a subshell, without standard input.
            setup: A script that the guest's shell runs before them: it has the functions and
                variables that they share.

        Yields:
            The command's number, and its exit status and output as `sh` returns them.
        """
        _check_lines("\n".join([setup, *(command.text for command in commands)]))
        token = os.urandom(3).hex()
        answer = re.compile(rf"<~{token}(?::([0-9]{{1,3}}))? {_STATUS}~>")
        self.line.send(_script(token, commands, setup))
        left = dict(enumerate(commands))
        asked = _Asked(self.line, _question(token), self._limited(commands[0]))
        while True:
            if not (reply := answer.search(self.line.fresh)):
                asked.read()
                continue
            heard, self.line.fresh = (
                self.line.fresh[: reply.start()],
                self.line.fresh[reply.end() :],
            )
            if not reply[1]:
                break
            number = int(reply[1])
            _, begun, output = heard.rpartition(f"<~{token}:{number}~>")
            if number in left and begun and reply[2] and not _torn(output, token):
                del left[number]
                yield number, int(reply[2]), _without_echo(output, token).strip("\n")
            later = [command for place, command in left.items() if place > number]
            asked.limit(self._limited((later or commands)[0]))
        for number, command in left.items():
            text = f"{setup}\n{command.text}" if setup else command.text
            yield number, *self.sh(text, command.seconds)

    def _limited(self, command: Command) -> Command:
        """Return a command with its timeout."""
        return Command(command.text, command.seconds or self.line.limit.command)

    def poweroff(self) -> bool:
        """Power the guest off; wait for QEMU's end, or for the message of a machine that halts.

        A kernel without PRINTK can't say that it halts; init's message that it asks for it is then
        the last that there is. That it has none, dmesg says.

        Returns:
            Whether QEMU ended or the kernel said that it halts; False if only init's message came.
        """
        import pexpect

        self.line.send("dmesg -n 1; poweroff\n")
        until = time.monotonic() + self.line.limit.command
        while not _HALTED.search(self.line.console[-500:]):
            if _NO_SYSLOG.search(self.line.fresh) and _REQUESTED.search(self.line.console[-500:]):
                return self._ends(time.monotonic() + _LAST_WORD)
            if time.monotonic() >= until:
                self.line.fail(
                    f"the guest did not power off within {self.line.limit.command:.0f} s", ""
                )
            try:
                self.line.read(until, end_is_fine=True)
            except pexpect.EOF:
                if self.line.status() != (0, 0):
                    self.line.end()
                return True
        with contextlib.suppress(PiggyError, pexpect.EOF):
            self.line.read(time.monotonic() + 0.3, end_is_fine=True)
        return True

    def _ends(self, until: float) -> bool:
        """Wait for QEMU's end; tell whether it came in time."""
        import pexpect

        try:
            while time.monotonic() < until:
                self.line.read(until, end_is_fine=True)
        except pexpect.EOF:
            if self.line.status() != (0, 0):
                self.line.end()
            return True
        return False


def _check_lines(script: str) -> None:
    """Raise PiggyError if a line is longer than the guest's line editor takes."""
    for line in script.splitlines():
        if len(line) > _LONGEST:
            raise PiggyError(
                f"a line of the guest command '{line[:40]}...' is longer than {_LONGEST} characters"
            )


class _Asked:
    """The wait for a command's answer; the question is put again if none comes."""

    def __init__(self, line: Line, question: str, command: Command) -> None:
        self._line, self._question, self._wait = line, question, line.limit.again
        self._ask_at = time.monotonic() + self._wait
        self.limit(command)

    def limit(self, command: Command) -> None:
        """Begin the time of a command."""
        self._command, self._until = command, time.monotonic() + command.seconds

    def read(self) -> None:
        """Read output, and check for failures.

        Raises:
            GuestError: The guest failed, or the command's time is over.
        """
        now = time.monotonic()
        if now >= self._until:
            self._line.fail(
                f"the guest's '{_named(self._command.text)}' did not end within"
                f" {self._command.seconds:.0f} s",
                "",
            )
        if now >= self._ask_at:
            self._line.send(self._question)
            self._wait *= 1.5
            self._ask_at = now + self._wait
        self._line.read(min(self._until, self._ask_at))
