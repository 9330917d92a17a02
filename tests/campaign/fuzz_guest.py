"""What a guest writes on its console while it is tested: the session with its shell, the checks,
and what they report."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pexpect
from fuzz import Failure, Target, mutated

from tasks.guest import checks, network_checks
from tasks.guest.console import Guest
from tasks.guest.serial import GuestError, Limits, Line
from tasks.network.cable import Cable
from tasks.system.errors import PiggyError
from tasks.system.terminal import printable

TOKEN = "TOKEN1"  # where the token of a script belongs; as long as one
BOOT = b"""[    0.000000] Linux version 6.1.0 (me@here) #1
[    0.100000] ata1: SATA max

[    0.200000] Run /sbin/init as init process
Please press Enter to activate this console.\x20
/ # """
DISK = (
    hashlib.md5("".join(f"{n}\n" for n in range(1, 20001)).encode(), usedforsecurity=False)
    .hexdigest()
    .encode()
)
CHECKS = sorted(
    [
        *checks.standard(release="6.1.0", nic=True),
        *network_checks.checks(
            Cable(address="10.0.2.15"), ["network"], ("http://10.0.2.2:1/", "the page")
        ),
    ],
    key=lambda check: check.late,
)
ANSWERS = [
    b"Linux (none) 6.1.0 #1 i686 GNU/Linux",
    b"/dev/sda / ext2 rw 0 0\nproc /proc proc rw 0 0\nsys /sys sysfs rw 0 0",
    b"Mem:   28772 1580 26000 0 4 5",
    b"eth0 52:54:00:12:34:56 ne2k",
    b"    inet 10.0.2.15/24 brd 10.0.2.255 scope global eth0\ndefault via 10.0.2.2 dev eth0",
    b"64 bytes from 10.0.2.2: seq=0 ttl=255 time=0.3 ms",
    b"the page",
    DISK + b"  -\nfrom disk",
    b"1700000000\n1700000001",
]
MARKS = [
    b"<~TOKEN1 0~>\n",
    b"<~TOKEN1~>",
    b"<~TOKEN1 256~>",
    b"<~TOKEN1 ",
    b"<~TOKEN1 " + b"9" * 5000 + b"~>",
    b"<~TOKEN1 ~>",
    b'echo "<~""TOKEN1 $sTOKEN1""~>"\n',
    b"\x1b[2J",
    b"\x1b]0;x\x07",
    b"\x9b31m",
    b"\xc2\x9b5n",
    b"\x1b[" + b"0" * 9999,
    b"\r",
    b"Kernel panic - not syncing: ",
    b"\nKernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\n",
    b"[    1.000000] ",
    b"\n[    1.000000] usb: hello\n",
    b"Linux version 6\n",
    b"reboot: System halted",
    b"/ # ",
    b"Failed to execute /init (error -8)\n",
    b"BUG: unable to handle page fault\n",
    b"\n" * 500,
    b"[    1.000000] x" * 9000,
    b"Kernel panic - not syncing: " * 5000,
    b"Failed to execute x " * 6000,
    b"\n" + b"[a]" * 30000,
    b'Cannot open root device "a" or ' * 4000,
    b"\nRun x" * 3000,
    b"4102444800" * 3,
    b"99999999999",
]
LIMITS = Limits(boot=30, silence=30, command=30, total=60, again=0.001)


class Case(NamedTuple):
    """What a guest says: at its boot, when it is asked for a shell, to the script of all checks,
    and at its end; in pieces of this many characters."""

    boot: bytes
    shell: bytes
    script: bytes
    end: bytes
    piece: int


def make(rng: random.Random) -> Case:
    """A guest that passes, with changes to one or two of its answers."""
    answers = (
        b"<~TOKEN1:%d~>\n%s\n<~TOKEN1:%d 0~>\n" % (number, text, number)
        for number, text in enumerate(ANSWERS)
    )
    said = [BOOT, b"<~TOKEN1~>\n", *answers, b"<~TOKEN1 0~>\n", b"reboot: Power down\n"]
    for _ in range(rng.choice([0, 1, 1, 2])):
        at = rng.randrange(len(said))
        said[at] = mutated(rng, said[at], MARKS, 3)
    return Case(
        said[0],
        said[1],
        b"".join(said[2:-1]),
        said[-1],
        rng.choice([7 if sum(map(len, said)) < 5000 else 5000, 500, 65536, 65536]),
    )


class Process:
    """Plays the part of pexpect.spawn: answers what it is asked, at most once to each token, and
    ends when it is asked no more. A check that is run again alone passes."""

    exitstatus, signalstatus = 0, None

    def __init__(self, case: Case) -> None:
        self.ptyproc = SimpleNamespace()
        self.case, self.seen, self.quiet = case, set[str](), 0
        self.waiting = case.boot.decode(errors="replace")

    def send(self, text: str) -> None:
        """Take a question."""
        found = re.search(r'<~(?:"")?([0-9a-f]{6})', text)
        token = found[1] if found else "poweroff"
        if token in self.seen:
            return
        self.seen.add(token)
        answer = self.case.shell
        if not found:
            answer = self.case.end
        elif "$*" in text:
            answer = self.case.script
        else:
            for check, good in zip(CHECKS, ANSWERS, strict=True):
                if check.command in text:
                    answer = b"<~TOKEN1~>\n" + good + b"\n<~TOKEN1 0~>\n"
        self.waiting += answer.decode(errors="replace").replace(TOKEN, token)

    def read_nonblocking(self, size: int, timeout: float) -> str:
        """Give the next piece."""
        if not self.waiting:
            self.quiet += 1
            if self.quiet > 20:
                raise pexpect.EOF("")
            raise pexpect.TIMEOUT("")
        piece, self.waiting = self.waiting[: self.case.piece], self.waiting[self.case.piece :]
        return piece

    def isalive(self) -> bool:
        """It has ended."""
        return False

    def close(self, force: bool = False) -> None:
        """There is nothing to close."""


def check(case: Case, folder: Path) -> None:
    """Test the guest. What is said of it is printable and short; it passes only with an answer to
    each question."""
    process: Any = Process(case)
    heard: list[str] = []
    guest = Guest(Line(process, folder / "log", LIMITS, heard.append, ["qemu-system-i386"]))
    said: list[str] = []
    try:
        report = checks.examined(guest, CHECKS, said.append)
    except GuestError as error:
        if len(str(error)) > 8000:
            raise Failure(f"a report of {len(str(error))} characters") from error
        raise
    finally:
        assert all(printable(line) == line and len(line) < 400 for line in said)
    assert [result.name for result in report.results] == [check.name for check in CHECKS]
    assert "poweroff" in process.seen
    if report.status:
        assert 0 < report.status < 256
        raise checks.CheckError(report, folder / "log")
    assert heard


def make_page(rng: random.Random) -> bytes:
    """What a guest's web server answers, with changes."""
    page = b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<p>6.1.0</p>\n"
    return mutated(rng, page, [b"\r\n\r\n", b"HTTP/1.0 302 Found\r\n"], 2)


def check_page(data: bytes, folder: Path) -> None:
    """Fetch it by a socket pair in the place of a connection."""
    import socket
    import time
    from unittest import mock

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            with mock.patch("socket.create_connection", return_value=ours):
                network_checks.fetched("http://127.0.0.1:1/", time.monotonic() + 1)
        except ValueError as error:
            raise PiggyError(printable(str(error))) from error


TARGETS = [Target("guest", make, check), Target("guest-page", make_page, check_page)]
