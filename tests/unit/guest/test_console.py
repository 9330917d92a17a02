"""A guest session against a program that plays QEMU on a real pty, with a real shell behind it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.guest import checks, console
from tasks.guest.serial import GuestError, Limits
from tasks.system.errors import PiggyError
from tasks.system.terminal import printable

TOP = Path(__file__).resolve().parents[3]
LIMITS = Limits(boot=8, silence=1.5, command=3, total=20, again=0.3)
BOOT = """\
[    0.000000] Linux version 6.1.0 (me@here) #1
[    0.100000] VFS: Mounted root (ext2 filesystem) readonly on device 8:0.
[    0.200000] Run /sbin/init as init process
"""
FAKE = r'''#!PYTHON
"""Plays QEMU: says BOOT, then hands the console to a shell. Everything is in argv[1:]."""
import os, re, subprocess, sys, threading, time
mode, boot = sys.argv[1], sys.argv[2]
open(sys.argv[0] + ".pid", "w").write(str(os.getpid()))
out = sys.stdout.buffer
def say(data):
    out.write(data.replace(b"\n", b"\r\n")); out.flush()
say(boot.encode())
if mode.startswith("exit"):
    sys.exit(int(mode[4:]))
if mode == "stubborn":
    import signal
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
if mode == "crash":
    os.kill(os.getpid(), 11)
if mode == "silent":
    time.sleep(60)
if mode == "loop":
    while True:
        time.sleep(0.2); say(b"Linux version 6.1.0\nhello\n")
if mode == "chatter":
    while True:
        time.sleep(0.1); say(b"still busy\n")
if mode == "enter":
    say(b"\nPlease press Enter to activate this console. ")
    while sys.stdin.readline() != "\n":
        pass
if mode == "late":
    say(b"[    1.0] a line with a # in it"); time.sleep(1); say(b"\n")
script = "poweroff() { IGNORE; }; dmesg() { :; }; die() { kill -9 PID; }; PS1='/ # '\n"
script = script.replace("IGNORE", ":" if "stays" in mode else "exit")
if mode.startswith("mute"):
    no = "dmesg() { echo klogctl: Function not implemented; false;"
    script = script.replace("dmesg() { :;", no)
    if "asks" in mode:
        script = script.replace("() { :;", "() { echo Requesting system poweroff;", 1)
if mode == "swapless-stays":  # poweroff's own complaint, of a kernel with messages
    said = "echo swapoff: /dev/sda2: Function not implemented; echo Requesting system poweroff"
    script = script.replace("() { :;", "() { " + said + ";", 1)
script = script.replace("PID", str(os.getpid()))
shell = subprocess.Popen(["sh", "-i"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, start_new_session=True, bufsize=0)
shell.stdin.write(script.encode())
def echo():
    lost = int(mode[3:]) if mode.startswith("cut") else 0
    for line in sys.stdin.buffer:
        line, lost = line[lost:], 0  # typed before the console had a driver
        wrapped = re.sub(rb"(.{76})", b"\\1\n\x1b[6n", line)  # a line editor's echo
        say(wrapped)
        try: shell.stdin.write(line)
        except OSError: return
threading.Thread(target=echo, daemon=True).start()
broken = 0
while data := os.read(shell.stdout.fileno(), 4096):
    if mode == "noisy":
        data = re.sub(rb"\n", b"\n[    3.141592] usb 1-1: a message\n", data)
    if mode == "torn" and broken < 2:  # kernel messages without a stamp in the middle of the answer
        torn = rb"\1random: crng init done\n \2"
        data, count = re.subn(rb"(<~[\w:]+) (\d)", torn, data, count=2 - broken)
        broken += count
    say(data)
if mode == "halts":
    say(b"[    9.000000] reboot: System halted\n"); time.sleep(60)
say(b"[    9.000000] reboot: Power down\n")
os._exit(0)
'''


@pytest.fixture
def fake(tmp_path: Path):
    program = tmp_path / "qemu-system-i386"
    program.write_text(FAKE.replace("PYTHON", sys.executable))
    program.chmod(0o755)
    return lambda mode, boot=BOOT: [str(program), mode, boot]


def failure(argv: list[str], tmp_path: Path, limit: Limits = LIMITS) -> GuestError:
    with console.session(argv, tmp_path / "log", limit) as one, pytest.raises(GuestError) as caught:
        one.ready()
    assert str(tmp_path / "log") in caught.value.hint
    return caught.value


def gone(pid: int) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("mode", ["plain", "enter", "late", "noisy", "torn"])
def test_commands_give_status_and_output(fake, tmp_path: Path, mode: str) -> None:
    with console.session(fake(mode), tmp_path / "log", LIMITS) as one:
        assert 0 < one.ready() < LIMITS.boot
        assert one.sh("echo one; echo two >&2; (exit 3)") == (3, "one\ntwo")
        assert one.sh("exit 7") == (7, "")  # the shell itself goes on
        assert one.sh("cat") == (0, "")  # no standard input to hang on
        assert one.sh("for n in 1 2 3\ndo echo $n\ndone # a comment") == (0, "1\n2\n3")
        assert one.sh("echo '<~'; echo \"$((6*7))\"; false") == (1, "<~\n42")
        one.poweroff()
    text = (tmp_path / "log").read_text()
    assert text.startswith("$ ")
    assert "Linux version 6.1.0" in text
    assert "reboot: Power down" in text
    assert "\r" not in text


@pytest.mark.parametrize("lost", [6, 10, 16])
def test_a_question_whose_beginning_is_lost_is_put_again(fake, tmp_path: Path, lost: int) -> None:
    with console.session(fake(f"cut{lost}"), tmp_path / "log", LIMITS) as one:
        one.ready()
        assert one.sh("echo one") == (0, "one")


def test_the_echo_of_questions_that_are_put_again_is_no_answer(fake, tmp_path: Path) -> None:
    with console.session(fake("plain"), tmp_path / "log", LIMITS) as one:
        one.ready()
        assert one.sh("echo one; sleep 1.2; echo two") == (
            0,
            "one\ntwo",
        )  # the question is put every 0.3 s
        assert one.sh("printf half; sleep 0.8; echo way; false") == (1, "halfway")
    text = (tmp_path / "log").read_text()
    assert text.count("echo") > 6


@pytest.mark.parametrize(
    ("heard", "answer"),
    [
        ('/ # echo "<~""abc123""~>"; (\n> date\n> ) </dev/null; s\n<~abc123~>\nTue\n', "Tue\n"),
        ('<~abc123~>\nTue\necho "<~""abc123 $sabc123""~>"\n', "Tue\n"),
        ('<~abc123~>\nTue\necho "<~""abc1random: crng init done\n23 $sabc123""~>"\n', "Tue\n"),
        (
            "<~abc1random: crng init done\n23~>\n/ # date\nTue\n",
            "<~abc1random: crng init done\n23~>\nTue\n",
        ),
        ("<~abc123~>\n<~abc123~>\nTue\n", ""),
    ],
)
def test_only_what_the_guest_says_is_its_answer(heard: str, answer: str) -> None:
    assert (
        console._answer(heard, "abc123", "date", 'echo "<~""abc123 $sabc123""~>"\n').lstrip("\n")
        == answer
    )


def test_a_status_that_no_shell_has_is_none(fake, tmp_path: Path) -> None:
    """256 would end doit with 0."""
    with console.session(fake("plain"), tmp_path / "log", LIMITS) as one:
        one.ready()
        for status in ("256", "9" * 5000, "-1", "1.0"):

            def answer(text: str, status: str = status) -> None:
                token = re.search('<~""([0-9a-f]{6})', text)
                one.line._take(f"<~{token and token[1]} {status}~>")

            one.line.send = answer  # type: ignore[method-assign]
            with pytest.raises(GuestError, match="did not end within"):
                one.sh("true", 0.2)


def test_what_a_guest_writes_reaches_nobodys_terminal_as_it_is(fake, tmp_path: Path) -> None:
    evil = BOOT + "\x1b]0;owned\x07\x9b2J \u202eKernel panic - not syncing: \x1b[2J\x1bcbad\x07\n"
    error = failure(fake("silent", evil), tmp_path)
    assert printable(str(error)) == str(error)
    assert "\\x1b]0;owned\\x07" in error.hint
    said: list[str] = []
    evils = [
        checks.Check("evil", "printf '\\033]0;x\\007\\n'"),
        checks.Check("bad", "printf '\\033c'; exit 3"),
    ]
    with pytest.raises(checks.CheckError) as caught:
        checks.boot_test(fake("plain"), evils, tmp_path / "log", LIMITS, said.append)
    assert said[1:3] == ["=== evil ok: \\x1b]0;x\\x07", "=== bad FAILED: \\x1bc"]
    assert printable(str(caught.value)) == str(caught.value)
    assert "bad (status 3): \\x1bc" in caught.value.message


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "/dev/full"])
def test_a_log_that_is_no_file_is_refused_and_left_alone(fake, tmp_path: Path, kind: str) -> None:
    log, precious = tmp_path / "console.log", tmp_path / "precious"
    precious.write_text("mine")
    if kind == "fifo":
        os.mkfifo(log)
    elif kind == "folder":
        log.mkdir()
    else:
        log.symlink_to(precious if kind == "link" else kind)
    with (
        pytest.raises(PiggyError, match="console.log is no regular file") as caught,
        console.session(fake("plain"), log, LIMITS),
    ):
        pass
    assert "move it away" in caught.value.hint
    assert precious.read_text() == "mine"


def test_refused_command_is_named(fake, tmp_path: Path) -> None:
    with console.session(fake("plain"), tmp_path / "log", LIMITS) as one:
        one.ready()
        with pytest.raises(GuestError, match=r"refused the command 'echo \)'"):
            one.sh("echo )")
        assert one.sh("echo alive") == (0, "alive")


def test_too_long_line_is_refused_before_it_is_cut(fake, tmp_path: Path) -> None:
    with (
        console.session(fake("plain"), tmp_path / "log", LIMITS) as one,
        pytest.raises(PiggyError, match="longer than"),
    ):
        one.sh("echo " + "x" * 1000)


def test_command_that_does_not_end(fake, tmp_path: Path) -> None:
    with console.session(fake("plain"), tmp_path / "log", LIMITS) as one:
        one.ready()
        started = time.monotonic()
        with pytest.raises(GuestError, match=r"'sleep 30' did not end within 1 s"):
            one.sh("sleep 30", 1)
        assert time.monotonic() - started < 2


def test_guest_that_dies_in_a_command(fake, tmp_path: Path) -> None:
    with console.session(fake("plain"), tmp_path / "log", LIMITS) as one:
        one.ready()
        with pytest.raises(GuestError, match="qemu-system-i386 was killed by SIGKILL"):
            one.sh("die")


def each(one: console.Guest, setup: str, *commands: str) -> list[tuple[int, int, str]]:
    return list(one.sh_each([console.Command(text) for text in commands], setup))


@pytest.mark.parametrize("mode", ["plain", "noisy", "torn"])
def test_commands_in_one_script_give_status_and_output(fake, tmp_path: Path, mode: str) -> None:
    with console.session(fake(mode), tmp_path / "log", LIMITS) as one:
        one.ready()
        sent: list[str] = []
        send = one.line.send
        one.line.send = lambda text: (sent.append(text), send(text))[1]  # type: ignore[method-assign]
        found = each(
            one, "two() { echo 2; }; x=7", "two; exit 3", "cat", "x=8; printf $x", "echo '<~' $x"
        )
        assert sorted(found) == [(0, 3, "2"), (1, 0, ""), (2, 0, "8"), (3, 0, "<~ 7")]
        if mode == "torn":  # the answers of the first two were: these ran again, alone
            assert [number for number, _, _ in found] == [2, 3, 0, 1]
        elif mode == "plain":
            assert len(sent) == 1
        one.poweroff()


def test_a_command_whose_output_stands_on_the_line_of_an_echo_runs_again(
    fake, tmp_path: Path
) -> None:
    """A busy host puts its question while the command runs: its echo is cut by what that prints."""
    with console.session(fake("plain"), tmp_path / "log", LIMITS) as one:
        one.ready()
        flag = tmp_path / "flag"
        cut = f"""[ -e {flag} ] || printf 'echo "<%s""8' '~"'; touch {flag}; echo 17; echo 18"""
        found = each(one, "", cut, "echo other")
        assert found == [(1, 0, "other"), (0, 0, "17\n18")]


def test_what_was_answered_can_be_used_while_the_script_goes_on(fake, tmp_path: Path) -> None:
    with console.session(fake("plain"), tmp_path / "log", LIMITS) as one:
        one.ready()
        flag = tmp_path / "flag"
        wait = f"until [ -e {flag} ]; do sleep 0.05; done; echo seen"
        for number, status, output in one.sh_each(
            [console.Command("echo now"), console.Command(wait)], ""
        ):
            assert (number, status, output) == ((1, 0, "seen") if number else (0, 0, "now"))
            flag.touch()


def test_the_command_of_a_script_that_is_refused_is_named(fake, tmp_path: Path) -> None:
    with console.session(fake("plain"), tmp_path / "log", LIMITS) as one:
        one.ready()
        with pytest.raises(GuestError, match=r"refused the command 'echo \)'"):
            each(one, "", "echo 1", "echo )", "echo 2")


def test_the_command_of_a_script_that_does_not_end_is_named(fake, tmp_path: Path) -> None:
    limit = Limits(boot=8, silence=9, command=1.5, total=20, again=5)
    with console.session(fake("plain"), tmp_path / "log", limit) as one:
        one.ready()
        commands = [console.Command(f"sleep {pause}") for pause in ("1", "1.1", "30", "0")]
        got: list[int] = []
        with pytest.raises(GuestError, match=r"'sleep 30' did not end within 2 s"):
            got.extend(number for number, _, _ in one.sh_each(commands, ""))
        assert got == [0, 1]  # each has the whole time, though both take longer together


def test_poweroff_that_is_not_heeded(fake, tmp_path: Path) -> None:
    with console.session(fake("stays"), tmp_path / "log", LIMITS) as one:
        one.ready()
        with pytest.raises(GuestError, match="did not power off within 3 s|silent"):
            one.poweroff()


def test_machine_that_can_only_halt_is_done_then(fake, tmp_path: Path) -> None:
    started = time.monotonic()
    with console.session(fake("halts"), tmp_path / "log", LIMITS) as one:
        one.ready()
        one.poweroff()
    assert time.monotonic() - started < 3
    assert gone(int((tmp_path / "qemu-system-i386.pid").read_text()))


def test_a_kernel_without_messages_is_not_asked_for_one(fake, tmp_path: Path) -> None:
    lines: list[str] = []
    one = [check("one", "echo 1")]
    limit = Limits(boot=8, silence=8, command=8, total=30, again=0.3)
    checks.boot_test(fake("mute-stays-asks"), one, tmp_path / "log", limit, lines.append)
    assert lines[-1].startswith("=== poweroff ok: init asked for it; whether it came,")
    assert gone(int((tmp_path / "qemu-system-i386.pid").read_text()))
    checks.boot_test(fake("mute-ends"), one, tmp_path / "log", LIMITS, lines.append)
    assert lines[-1] == "=== poweroff ok"
    for mode in ("mute-stays", "swapless-stays"):
        with pytest.raises(GuestError, match="did not power off within 3 s|silent"):
            checks.boot_test(fake(mode), one, tmp_path / "log", LIMITS, lines.append)


@pytest.mark.parametrize(
    ("mode", "boot", "message", "hint"),
    [
        (
            "exit0",
            BOOT + "[ 1.0] Kernel panic - not syncing: Fatal\n",
            "kernel panic: Fatal",
            "call trace",
        ),
        ("silent", BOOT + "Kernel panic - not syncing: Fatal\n", "kernel panic: Fatal", "Fatal"),
        (
            "shell",
            BOOT + "Initramfs unpacking failed: write error\n",
            "not unpack the initramfs: write error",
            "boot=disk",
        ),
        (
            "exit1",
            "qemu-system-i386: -foo: invalid option\n",
            "ended with status 1: -foo: invalid option",
            "machine file",
        ),
        (
            "exit1",
            'qemu-system-i386: Failed to get "write" lock\nIs another process using the image?\n',
            "lock",
            "another",
        ),
        ("crash", "", "killed by SIGSEGV", "empty"),
        ("exit0", "", "reset itself before its first word", "PHYSICAL_START"),
        (
            "exit0",
            "qemu-system-i386: warning: no feature\n",
            "reset itself before its first word",
            "PHYSICAL_START",
        ),
        ("exit0", BOOT, "reset or switched itself off", "triple fault"),
        ("silent", "", "black screen: not a word", "console="),
        ("silent", BOOT, "fell silent for 2 s after '.*Run /sbin/init", "inittab"),
        (
            "silent",
            "Linux version 6\n[    0.1] PCI: probing\n",
            "hangs: silent for .* PCI: probing",
            "initcall_debug",
        ),
        (
            "silent",
            "Linux version 6\nWaiting for root device /dev/sdb...\n",
            "waits for its root device /dev/sdb",
            "root=",
        ),
        ("loop", "Linux version 6.1.0\n", "starts over again and again", "panic=0"),
    ],
)
def test_ways_to_die(fake, tmp_path: Path, mode: str, boot: str, message: str, hint: str) -> None:
    started = time.monotonic()
    error = failure(fake(mode, boot), tmp_path)
    assert time.monotonic() - started < 6
    assert re.search(message, error.message)
    assert hint in error.hint
    assert gone(int((tmp_path / "qemu-system-i386.pid").read_text()))


def test_no_shell_among_chatter_ends_in_time(fake, tmp_path: Path) -> None:
    started = time.monotonic()
    assert (
        "no shell answered within 2 s"
        in failure(fake("chatter"), tmp_path, Limits(boot=2, silence=9)).message
    )
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("mode", ["plain", "stubborn"])
def test_interrupt_kills_qemu(fake, tmp_path: Path, mode: str) -> None:
    def interrupted() -> None:
        with console.session(fake(mode), tmp_path / "log", LIMITS) as one:
            one.ready()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert gone(int((tmp_path / "qemu-system-i386.pid").read_text()))


def test_qemu_dies_with_us(fake, tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\nfrom tasks.guest import console, serial\nwith"
        f" console.session({fake('plain')!r}, pathlib.Path({str(tmp_path / 'log')!r}),"
        " serial.Limits()) as one:\n    one.ready(); print('ready', flush=True); time.sleep(60)\n"
    )
    ours = subprocess.Popen([sys.executable, "-c", program], cwd=TOP, stdout=subprocess.PIPE)
    assert ours.stdout is not None
    assert ours.stdout.readline() == b"ready\n"
    pid = int((tmp_path / "qemu-system-i386.pid").read_text())
    os.kill(ours.pid, signal.SIGKILL)
    ours.wait()
    ours.stdout.close()
    assert gone(pid)


def check(name: str, command: str, judge=str.strip) -> checks.Check:
    return checks.Check(name, command, judge)


def test_boot_test_passes_and_reports(fake, tmp_path: Path) -> None:
    lines: list[str] = []
    report = checks.boot_test(
        fake("noisy"),
        [check("one", "echo 1"), check("two", "echo 2")],
        tmp_path / "log",
        LIMITS,
        lines.append,
    )
    assert report.status == 0
    assert [result.said for result in report.results] == ["1", "2"]
    assert lines[1:] == ["=== one ok: 1", "=== two ok: 2", "=== poweroff ok"]
    assert lines[0].startswith("=== shell ok: after ")


def test_boot_test_fails_with_the_first_status_and_runs_all(fake, tmp_path: Path) -> None:
    def never(output: str) -> str:
        raise ValueError(f"no good: {output}")

    three = [check("a", "echo x"), check("b", "echo oh; exit 5"), check("c", "echo y", never)]
    lines: list[str] = []
    with pytest.raises(checks.CheckError) as caught:
        checks.boot_test(fake("plain"), three, tmp_path / "log", LIMITS, lines.append)
    assert caught.value.report.status == 5
    assert (
        "failed 2 of 3 checks: b (status 5): oh; c (status 1): no good: y" in caught.value.message
    )
    assert lines[2] == "=== b FAILED: oh"


MOUNTS = "/dev/root / ext2 rw,relatime 0 0\nproc /proc proc rw 0 0\nsysfs /sys sysfs rw 0 0\n"


@pytest.mark.parametrize(
    ("name", "output", "wrong"),
    [
        ("uname", "Linux (none) 6.1.192 #1 i686 GNU/Linux", ""),
        (
            "uname",
            "Linux (none) 6.1.1 #1 i686 GNU/Linux",
            "the kernel that runs is 6.1.1, not 6.1.192",
        ),
        ("uname", "", "not what uname says"),
        ("mount", MOUNTS, ""),
        ("mount", "rootfs / rootfs rw 0 0\n" + MOUNTS, ""),
        ("mount", MOUNTS.replace("rw,", "ro,"), "read-only"),
        ("mount", MOUNTS.replace("ext2", "minix"), "of type minix, not ext2"),
        ("mount", MOUNTS.replace("proc /proc", "none /pro"), "proc is not mounted on /proc"),
        (
            "mount",
            MOUNTS.replace("sysfs /sys sysfs", "x /sys tmpfs"),
            "sysfs is not mounted on /sys",
        ),
        ("mount", "", "has no /"),
        ("free", "       total used free\nMem:   28772 1580 26000 0 4 5 6", ""),
        ("free", "Mem:  0 0 0", "no memory"),
        ("clock", "1700000000\n1700000001", ""),
        ("clock", "1700000000\n1700000000", "stands still"),
        ("clock", "10\n11", "RTC_HCTOSYS"),
        ("clock", "4102444800\n4102444801", "2100"),
        ("clock", "date: not found", "not two times"),
        ("disk", "d41d8cd98f00b204e9800998ecf8427e  -\nfrom disk", "not what was written"),
        ("nic", "eth0 52:54:00:12:34:56 ne2k-pci\n", ""),
        ("nic", "", "no network card"),
        ("floppy", "/dev/fd0 is ext2, rw\r\nkept\r\n", ""),
        ("floppy", "kept\n", "no floppy is mounted"),
        ("floppy", "/dev/fd0 is ext2, ro\nkept\n", "not read-write"),
        ("floppy", "/dev/fd0 is ext2, rw\n", "not what was written"),
    ],
)
def test_judges(name: str, output: str, wrong: str) -> None:
    found = checks.standard("6.1.192", nic=True, floppy=True)
    judge = {one.name: one.judge for one in found}[name]
    if not wrong:
        assert judge(output)
    else:
        with pytest.raises(ValueError, match=wrong):
            judge(output)


def test_disk_check_really_reads_back(tmp_path: Path) -> None:
    """Run the guest's own command here, once whole and once with a disk that loses bytes."""
    disk = {one.name: one for one in checks.standard()}["disk"]
    command = disk.command.replace("f=/.piggy-test", f"f={tmp_path}/f").replace(
        "/proc/sys/vm/drop_caches", "/nonexistent"
    )
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert (
        disk.judge(done.stdout)
        == "108894 bytes written, synced and read back (perhaps from the cache: "
        "the kernel has no /proc/sys/vm/drop_caches)"
    )
    assert not (tmp_path / "f").exists()
    lossy = subprocess.run(
        ["sh", "-c", command.replace("sync ||", "truncate -s 5000 $f ||")],
        capture_output=True,
        text=True,
        check=False,
    )
    with pytest.raises(ValueError, match="not what was written"):
        disk.judge(lossy.stdout)
    full = subprocess.run(
        ["sh", "-c", command.replace(f"f={tmp_path}/f", "f=/dev/full").replace("rm -f", ": ")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode


def test_floppy_check_sees_what_is_mounted(tmp_path: Path) -> None:
    """Run the guest's own command here."""
    floppy = {one.name: one for one in checks.standard(floppy=True)}["floppy"]
    mounts = tmp_path / "mounts"
    command = floppy.command.replace("/mnt/.piggy-test", f"{tmp_path}/f")
    command = command.replace("/proc/mounts", str(mounts))
    mounts.write_text("none / rootfs rw 0 0\n/dev/fd0 /mnt ext2 rw,noatime 0 0\n")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert floppy.judge(done.stdout) == "/dev/fd0 is ext2, rw on /mnt"
    assert not (tmp_path / "f").exists()
    mounts.write_text("none / rootfs rw 0 0\n")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    with pytest.raises(ValueError, match="no floppy is mounted"):
        floppy.judge(done.stdout)
    assert "floppy" not in {one.name for one in checks.standard()}


def test_a_guest_with_little_memory_does_one_thing_at_a_time() -> None:
    """The host asks its web server for a page only after the disk's check."""
    late = {one.name for one in checks.standard(floppy=True, memory=8) if one.late}
    assert late == {"disk", "floppy", "clock"}
    assert not [one for one in checks.standard(floppy=True, memory=7) if one.late]


@pytest.mark.parametrize(
    ("programs", "status", "judged"),
    [
        ("", 0, "UTC"),
        ("sleep() { [ $1 = 1 ] && /bin/sleep 1; }", 0, "UTC"),  # busybox without FANCY_SLEEP
        ("date() { echo 1700000000; }; sleep() { :; }", 0, "stands still"),
        ("date() { echo 1700000000; }; sleep() { [ $1 = 1 ]; }", 0, "stands still"),
        ("date() { echo not found; return 127; }", 0, "not two times"),
        ("date() { return 127; }", 1, ""),
    ],
)
def test_clock_check_waits_for_another_second(programs: str, status: int, judged: str) -> None:
    """Run the guest's own command here, with other programs."""
    clock = {one.name: one for one in checks.standard()}["clock"]
    done = subprocess.run(
        ["sh", "-c", f"{programs}\n{clock.setup}\n{clock.command}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == status
    if judged == "UTC":
        assert judged in clock.judge(done.stdout)
    elif judged:
        with pytest.raises(ValueError, match=judged):
            clock.judge(done.stdout)


def test_late_checks_come_last_and_all_share_a_setup(fake, tmp_path: Path) -> None:
    three = [
        checks.Check("late", "echo $x", setup="x=1", late=True),
        checks.Check("a", "x=$((x+1)); echo $x", setup="x=1"),
        checks.Check("b", "echo $x$y", setup="y=3"),
    ]
    lines: list[str] = []
    report = checks.boot_test(fake("plain"), three, tmp_path / "log", LIMITS, lines.append)
    assert lines[1:4] == ["=== a ok: 2", "=== b ok: 13", "=== late ok: 1"]
    assert [result.name for result in report.results] == ["a", "b", "late"]
    assert report.checked > 0
    assert report.poweroff > 0
    assert report.ready + report.checked + report.poweroff == pytest.approx(report.total)


def test_kvm_is_named_as_a_suspect_of_silence(fake, tmp_path: Path) -> None:
    assert (
        "accel=tcg shows whether KVM is to blame"
        in failure([*fake("silent", ""), "-accel", "kvm"], tmp_path).hint
    )
    assert "KVM" not in failure([*fake("silent", ""), "-accel", "tcg"], tmp_path).hint
