"""The boot test: boot, wait for the shell, run checks in it, power off, all in limited time.

A check is data: a name, a command for the guest's shell, and a function that judges its output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from tasks.guest.console import Command, Guest, session
from tasks.guest.serial import GuestError, Limits
from tasks.system.errors import PiggyError
from tasks.system.terminal import printable

_YEAR_2020, _YEAR_2100 = 1577836800, 4102444800  # seconds since 1970
_LONGEST = 300  # characters of a check's result: the guest's output may be endless
_UNSEEN = ": init asked for it; whether it came, a kernel without PRINTK can't say"
_ROOMY = 8  # MB: see standard()
_NUMBERS = 20000  # the disk check writes the numbers up to this one: 108,894 bytes


class Check(msgspec.Struct, frozen=True):
    """A command for the guest, and the function that judges its output.

    Attributes:
        name: The check's name.
        command: The shell command.
        judge: Gets the output and returns a text to print, or raises ValueError with the fault.
        seconds: The command's timeout; 0 for the limit of all commands.
        setup: A script for the guest's shell that runs before the first check: functions and
            variables that the command uses. Checks may share it.
        late: Whether it runs after those that are not late, as it keeps the guest busy while the
            host judges them.
    """

    name: str
    command: str
    judge: Callable[[str], str] = str.strip
    seconds: float = 0
    setup: str = ""
    late: bool = False


class Result(msgspec.Struct, frozen=True):
    """The result of a check.

    Attributes:
        name: The check's name.
        status: 0 if it passed; the command's exit status; 1 if the judge rejected the output.
        said: The judge's text, or the end of a failed command's output.
    """

    name: str
    status: int
    said: str


class Report(msgspec.Struct, frozen=True):
    """The results of a boot test.

    Attributes:
        results: One for each check.
        ready: Seconds from QEMU's start to the shell's first answer.
        checked: Seconds from there to the end of the last check.
        total: Seconds from QEMU's start to its end.
    """

    results: tuple[Result, ...]
    ready: float
    checked: float
    total: float

    @property
    def poweroff(self) -> float:
        """Seconds from the end of the last check to QEMU's end."""
        return self.total - self.ready - self.checked

    @property
    def status(self) -> int:
        """The first failure's status, or 0."""
        return next((result.status for result in self.results if result.status), 0)


class CheckError(PiggyError):
    """A guest that booted and failed a check; `report` has all results."""

    def __init__(self, report: Report, log: Path) -> None:
        bad = [result for result in report.results if result.status]
        super().__init__(
            printable(
                f"the guest booted, but failed {len(bad)} of {len(report.results)} checks: "
                + "; ".join(f"{check.name} (status {check.status}): {check.said}" for check in bad)
            ),
            f"log: {log}",
        )
        self.report = report
        self.status = report.status


def boot_test(
    argv: Sequence[str],
    checks: Sequence[Check],
    log: Path,
    limit: Limits,
    say: Callable[[str], None] = print,
) -> Report:
    """Boot, run all checks, power off, and return the report.

    Args:
        argv: QEMU's argument vector.
        checks: The checks, in order; late ones run last.
        log: A file for the console's output.
        limit: The timeouts.
        say: Called with a line "=== NAME ok: ..." after each check.

    Raises:
        GuestError: The guest does not boot, crashes, hangs or does not power off.
        CheckError: A check failed.
    """
    with session(argv, log, limit) as guest:
        report = examined(guest, checks, say)
    if report.status:
        raise CheckError(report, log)
    return report


def examined(guest: Guest, checks: Sequence[Check], say: Callable[[str], None]) -> Report:
    """Run all checks in a guest that was started, and power it off; the report may have failures.

    Raises:
        GuestError: As `boot_test` does.
    """
    import time

    ready = guest.ready()
    say(f"=== shell ok: after {ready:.1f} s")
    checks = sorted(checks, key=lambda check: check.late)
    results = [Result("", 0, "")] * len(checks)
    # Panics and oopses are still printed; if dmesg fails, the output only has more noise.
    setup = dict.fromkeys(["dmesg -n 1 2>/dev/null", *(check.setup for check in checks)])
    commands = [Command(check.command, check.seconds) for check in checks]
    for number, status, output in guest.sh_each(commands, "\n".join(filter(None, setup))):
        check = checks[number]
        result = results[number] = _result(check, status, output)
        say(f"=== {check.name} {'ok' if not result.status else 'FAILED'}: {result.said}")
    checked = time.monotonic() - guest.line.started - ready
    failed = any(result.status for result in results)
    try:
        seen = guest.poweroff()
        say("=== poweroff ok" + ("" if seen else _UNSEEN))
    except GuestError:
        if not failed:  # else the first failure is what the user needs to know
            raise
    return Report(tuple(results), ready, checked, time.monotonic() - guest.line.started)


def _result(check: Check, status: int, output: str) -> Result:
    if status:
        return Result(
            check.name, status, printable(" ".join(output.split()))[-_LONGEST:] or "no output"
        )
    try:
        return Result(check.name, 0, printable(check.judge(output))[:_LONGEST])
    except ValueError as error:
        return Result(check.name, 1, printable(str(error))[:_LONGEST])


def standard(
    release: str = "",
    root: Sequence[str] = ("ext2",),
    epoch: int = _YEAR_2020,
    nic: bool = False,
    floppy: bool = False,
    memory: int = _ROOMY,
) -> tuple[Check, ...]:
    """Return the checks for all machines.

    Args:
        release: The expected kernel release; "" for any.
        root: The allowed file system types of /.
        epoch: The earliest time that the clock may show, seconds since 1970.
        nic: Whether to check for a network card.
        floppy: Whether to check that the floppy is there to write to (see overlays/floppy).
        memory: The guest's memory, in MB. With little of it no check is late: the web server and
            what its page starts would take the memory that a check needs at the same time.
    """
    late = memory >= _ROOMY
    card = (Check("nic", _NIC, _nic),) if nic else ()
    written = (Check("floppy", _FLOPPY, _floppy, late=late),) if floppy else ()
    return (
        Check("uname", "uname -a", partial(_uname, release)),
        Check("mount", "cat /proc/mounts", partial(_mounts, root)),
        Check("free", "free", _free),
        *card,
        Check("disk", _DISK, _disk, late=late),
        *written,
        Check("clock", _CLOCK, partial(_clock, epoch), setup=_CLOCK_BEGINS, late=late),
    )


def _uname(release: str, output: str) -> str:
    match = re.search(r"^Linux \S+ (\S+) .*", output, re.M)
    if not match:
        raise ValueError(f"not what uname says: {output[:200]!r}")
    if release and match[1] != release:
        raise ValueError(f"the kernel that runs is {match[1]}, not {release}")
    return match[0].strip()


def _mounts(root: Sequence[str], output: str) -> str:
    table = [line.split() for line in output.splitlines()]
    # The last file system mounted on a folder is the visible one.
    at = {row[1]: row for row in table if len(row) == 6}
    if "/" not in at:
        raise ValueError("/proc/mounts has no /")
    kind, options = at["/"][2], at["/"][3].split(",")
    if kind not in root:
        raise ValueError(f"/ is of type {kind}, not {' or '.join(root)}")
    if "rw" not in options:
        raise ValueError(f"/ ({kind}) is mounted read-only")
    for folder, fstype in (("/proc", "proc"), ("/sys", "sysfs")):
        if folder not in at or at[folder][2] != fstype:
            raise ValueError(f"{fstype} is not mounted on {folder}")
    return f"/ is {kind}, read-write; /proc and /sys are there"


def _free(output: str) -> str:
    match = re.search(r"Mem: +([0-9]{1,15}) +([0-9]{1,15}) +([0-9]{1,15})", output)
    if not match or not int(match[1]):
        raise ValueError(f"no memory in what free says: {output[:200]!r}")
    return f"{int(match[1])} kB of memory, {int(match[2])} kB used"


# The file must be read back from the disk: it is synced, then dropped from the page cache
# (drop_caches in Documentation/admin-guide/sysctl/vm.rst). Without PROC_SYSCTL it may come from the
# cache, which the last line reports.
_DISK = f"""f=/.piggy-test; d=/proc/sys/vm/drop_caches; c=cache
seq {_NUMBERS} >$f && sync || {{ s=$?; rm -f $f; exit $s; }}
[ -w $d ] && echo 3 >$d && c=disk
md5sum <$f; s=$?; rm -f $f && sync || s=$?
echo from $c; exit $s"""


def _disk(output: str) -> str:
    import hashlib

    data = "".join(f"{number}\n" for number in range(1, _NUMBERS + 1)).encode()
    if hashlib.md5(data, usedforsecurity=False).hexdigest() not in output:
        raise ValueError(f"what was read back is not what was written: {output[:200]!r}")
    cached = (
        ""
        if "from disk" in output
        else " (perhaps from the cache: the kernel has no /proc/sys/vm/drop_caches)"
    )
    return f"{len(data)} bytes written, synced and read back{cached}"


# Without the floppy /mnt is a folder of the root filesystem, which can be written as well.
_FLOPPY = """f=/mnt/.piggy-test
while read -r from at kind options _; do
[ $at = /mnt ] && echo "$from is $kind, ${options%%,*}"
done </proc/mounts
echo kept >$f && sync && cat $f; s=$?; rm -f $f && sync || s=$?
exit $s"""


def _floppy(output: str) -> str:
    mounted = [line.strip() for line in output.splitlines() if line.startswith("/dev/")]
    if not mounted:
        raise ValueError("no floppy is mounted on /mnt: has the kernel BLK_DEV_FD and EXT2_FS?")
    if not mounted[-1].endswith("ext2, rw"):
        raise ValueError(f"not read-write on /mnt: {mounted[-1]}")
    if "kept" not in output.split():
        raise ValueError(f"what was read back is not what was written: {output[:200]!r}")
    return f"{mounted[-1]} on /mnt"


# The time before the other checks, and the first other time after them. A sleep of less than a
# second needs busybox's FEATURE_FANCY_SLEEP.
_CLOCK_BEGINS = "began=$(date +%s)"
_CLOCK = """[ "$began" ] || { date +%s; exit 1; }
n=0
while now=$(date +%s); [ "$now" = "$began" ] && [ $n -lt 40 ]; do
n=$((n+1)); sleep 0.05 2>/dev/null || { sleep 1; n=$((n+20)); }
done
echo "$began"; echo "$now"
"""


# Each network card with its hardware address and its driver.
_NIC = """cd /sys/class/net || exit
for i in *; do
[ -e $i/device ] && echo "$i $(cat $i/address) $(basename $(readlink $i/device/driver))"
done
true"""


def _nic(output: str) -> str:
    cards = re.findall(r"^(\S+) ((?:[0-9a-f]{2}:){5}[0-9a-f]{2}) ?(\S*)", output, re.M)
    if not cards:
        raise ValueError("the kernel sees no network card: has it the driver, and that of the bus?")
    return ", ".join(
        f"{name} {address} ({driver or 'driver unknown'})" for name, address, driver in cards
    )


def _clock(epoch: int, output: str) -> str:
    import datetime

    times = [
        int(word) for word in re.findall(r"^[0-9]{1,11}$", output, re.M)
    ]  # up to the year 5138
    if len(times) != 2:
        raise ValueError(f"not two times in seconds: {output[:200]!r}")
    shown = datetime.datetime.fromtimestamp(times[1], datetime.UTC).strftime(
        "%Y-%m-%d %H:%M:%S UTC"
    )
    if not epoch <= times[1] < _YEAR_2100:
        raise ValueError(
            f"the clock shows {shown}: has the kernel the driver of this machine's clock? "
            "(RTC_CLASS, RTC_HCTOSYS)"
        )
    if times[1] <= times[0]:
        raise ValueError(f"the clock stands still at {shown}")
    return shown
