from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.system import process
from tasks.system.errors import PiggyError
from tasks.system.lock import Lock
from tasks.system.process import CommandError, child, clean_env, foreground, pasteable, run, stop

TOP = Path(__file__).parents[3]
SH = "/bin/sh"


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Is the process gone (or a zombie that nobody has to wait for) within that time?"""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_output_status_and_time() -> None:
    done = run([SH, "-c", "echo one; echo two >&2; sleep 0.1"])
    assert (done.argv, done.returncode, done.output) == (
        (SH, "-c", "echo one; echo two >&2; sleep 0.1"),
        0,
        "one\ntwo\n",
    )
    assert 0.1 <= done.seconds < 5


def test_the_log_holds_the_command_and_all_that_was_said(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    run(["echo", "a b"], log=log, cwd=tmp_path, env={"X": "1 2"})
    run([SH, "-c", "printf 'no newline'; exit 3"], log=log, check=False)
    assert (
        log.read_text() == f"$ cd {tmp_path} && X='1 2' echo 'a b'\na b\n"
        f"$ {SH} -c 'printf '\"'\"'no newline'\"'\"'; exit 3'\nno newline"
    )


def test_passwords_in_addresses_reach_the_program_but_no_log_and_no_error(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    url = "http://me:s3cret@h/f?key=s3cret"
    assert run(["echo", url], log=log).output == f"{url}\n"
    with pytest.raises(CommandError) as caught:
        run([SH, "-c", f"echo {url}; printf '\\033[2J\\n'; exit 3"], log=log, env={"SITE": url})
    assert "s3cret" not in log.read_text() + str(caught.value)
    assert log.read_text().startswith(
        "$ echo 'http://h/f?...'\nhttp://h/f?...\n$ SITE='http://h/f?...' /bin/sh"
    )
    assert "\x1b" not in str(caught.value)
    assert "    \\x1b[2J" in str(caught.value)


def test_each_line_is_passed_on_as_it_comes() -> None:
    seen: list[tuple[str, float]] = []
    run(
        [SH, "-c", "echo a; sleep 0.4; echo; printf b"],
        on_line=lambda line: seen.append((line, time.monotonic())),
    )
    assert [line for line, _ in seen] == ["a", "", "b"]
    assert seen[1][1] - seen[0][1] > 0.2


def test_a_failure_gives_command_log_and_tail(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with pytest.raises(CommandError) as caught:
        run([SH, "-c", "seq 100; exit 7"], log=log, cwd=tmp_path, env={"A": "b"})
    error = caught.value
    assert error.message == "'sh' ended with status 7"
    assert error.done.returncode == 7
    lines = error.hint.splitlines()
    assert lines[:3] == [
        f"command: cd {tmp_path} && A=b /bin/sh -c 'seq 100; exit 7'",
        f"log: {log}",
        "last lines:",
    ]
    assert lines[3:] == [f"    {number}" for number in range(101 - process.TAIL_LINES, 101)]
    assert run([SH, "-c", "exit 7"], check=False).returncode == 7


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (40, "signal 40")],
)
def test_a_killed_program_names_the_signal(number: int, name: str) -> None:
    with pytest.raises(CommandError) as caught:
        run([SH, "-c", f"kill -{int(number)} $$"])
    assert caught.value.message == f"'sh' was killed by {name}"


def test_a_missing_program_and_one_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        PiggyError, match=r"'no-such-program' is not installed\n  hint: 'doit setup'"
    ):
        run(["no-such-program"])
    with pytest.raises(PiggyError, match=r"'no-such-program' is not installed"):
        foreground(["no-such-program"])
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    plain.chmod(0o644)
    for start in (run, foreground):
        with pytest.raises(PiggyError, match=rf"'{plain}' can't be executed: Permission denied"):
            start([plain])  # type: ignore[operator]


def test_a_missing_folder_is_not_taken_for_a_missing_program(tmp_path: Path) -> None:
    for start in (run, foreground):
        with pytest.raises(PiggyError, match=rf"'echo' can't run in {tmp_path}/none: No such file"):
            start(["echo"], cwd=tmp_path / "none")  # type: ignore[operator]


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "MAKEFLAGS",
        "MAKELEVEL",
        "CFLAGS",
        "LDFLAGS",
        "KBUILD_BUILD_USER",
        "KCONFIG_CONFIG",
        "ARCH",
        "O",
        "CC",
        "V",
        "CROSS_COMPILE",
        "LD_LIBRARY_PATH",
        "GCC_EXEC_PREFIX",
        "LC_MESSAGES",
        "LANG",
        "PYTHONPATH",
        "CDPATH",
        "BASH_ENV",
        "ENV",
        "SOURCE_DATE_EPOCH",
        "PIGGYBACK_JOBS",
    ):
        monkeypatch.setenv(name, "leak")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.setenv("PATH", ".::relative:/usr/bin:./bin:/bin:/usr/sbin")
    got = dict(line.split("=", 1) for line in run(["env"], env={"EXTRA": "1"}).output.splitlines())
    assert (got["LC_ALL"], got["TZ"], got["HOME"], got["EXTRA"]) == ("C", "UTC", "/home/x", "1")
    assert "leak" not in got.values()
    assert got["PATH"] == "/usr/bin:/bin:/usr/sbin:/usr/local/sbin:/sbin"


def test_extra_variables_win() -> None:
    assert clean_env({"LC_ALL": "C.UTF-8"})["LC_ALL"] == "C.UTF-8"


def test_standard_input_is_empty_or_a_text_of_any_size() -> None:
    assert run(["cat"]).output == ""
    text = "line äöü\n" * 120_000  # more than 1 MB, echoed back at once: no pipe may fill up
    assert run(["cat"], stdin=text).output == text
    assert run(["true"], stdin=text).output == ""  # a program that reads nothing


def test_output_that_is_no_utf8(tmp_path: Path) -> None:
    log = tmp_path / "log"
    seen: list[str] = []
    done = run(["printf", r"a\377b\n\0c\r\n"], log=log, on_line=seen.append)
    assert done.output == "a\ufffdb\n\0c\n"
    assert seen == ["a\ufffdb", "\0c"]
    assert "a\ufffdb" in log.read_text()


def test_the_pasteable_line_does_the_same_in_a_shell(tmp_path: Path) -> None:
    folder = tmp_path / "a b'c"
    folder.mkdir()
    env = {"EMPTY": "", "SPACED": "x  y", "QUOTED": 'it\'s "so" $HOME `id` \\'}
    script = (
        "import os, sys; print(os.getcwd(), sys.argv[1:], [os.environ[n] for n in ('EMPTY',"
        " 'SPACED', 'QUOTED')])"
    )
    argv = [
        sys.executable,
        "-c",
        script,
        "",
        "a b",
        "$(id)",
        "new\nline",
        "*",
        "~",
        "it's",
        "#x",
        "a=b",
        "ü",
    ]
    ours = run(argv, cwd=folder, env=env)
    assert "new" in ours.output
    pasted = subprocess.run(
        [SH, "-c", pasteable(argv, folder, env)],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert pasted.stdout == ours.output


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_ends_the_whole_group(tmp_path: Path, error: type[BaseException]) -> None:
    script = f"sleep 300 & echo $! > {tmp_path}/pid; echo ready; wait"

    def fail(line: str) -> None:
        raise error

    started = time.monotonic()
    with pytest.raises(error):
        run([SH, "-c", script], on_line=fail)
    assert time.monotonic() - started < 4
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_ignores_sigterm_is_killed_with_its_group(tmp_path: Path) -> None:
    ready, pid = tmp_path / "ready", tmp_path / "pid"
    script = (
        f"(trap '' TERM; echo 1 > {ready}; while :; do sleep 0.1; done) & echo $! > {pid}; wait"
    )
    with child([SH, "-c", script]) as started:
        while not (ready.exists() and pid.exists() and pid.read_text()):  # either may come first
            time.sleep(0.02)
        stop(started, patience=0.5)
    assert (
        started.returncode == -signal.SIGTERM
    )  # the leader went at once; what it left behind was killed
    assert gone(int(pid.read_text()))
    with child(
        [SH, "-c", f"trap '' TERM; echo 1 > {tmp_path}/again; while :; do sleep 0.1; done"]
    ) as started:
        while not (tmp_path / "again").exists():
            time.sleep(0.02)
        stop(started, patience=0.3)
    assert started.returncode == -signal.SIGKILL


def parent(code: str) -> subprocess.Popen[str]:
    """Start a Python that runs `code` with our modules; it says the pid of its child."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(TOP)!r})\n" + code],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "call",
    [
        (
            "run.run(['sh', '-c', 'echo $$; exec sleep 300'], on_line=lambda line: print(line,"
            " flush=True))"
        ),
        "run.foreground(['sh', '-c', 'echo $$; exec sleep 300'])",
        (
            "import sys\nwith run.child(['sh', '-c', 'echo $$; exec sleep 300'], vfork=True,"
            " stdout=sys.stdout) as one: one.wait()"
        ),
    ],
)
def test_a_child_dies_with_a_parent_that_is_killed(call: str) -> None:
    started = parent(f"from tasks.system import process as run\n{call}")
    assert started.stdout is not None
    pid = int(started.stdout.readline())
    assert not gone(pid, 0.2)
    started.kill()
    started.wait()
    assert gone(pid)
    started.stdout.close()


def test_a_lock_is_inherited_and_outlives_its_parent(tmp_path: Path) -> None:
    """A child that ignores SIGTERM goes on after a kill -9 of doit; as long as it does, the folder
    stays locked."""
    path = tmp_path / "lock"
    started = parent(
        "from pathlib import Path\nfrom tasks.system import lock; from tasks.system import process"
        f" as run\nlock.Lock(Path({str(path)!r}), 'x').acquire()\nrun.run(['sh', '-c', 'trap \"\""
        " TERM; echo $$; while :; do sleep 0.1; done'],\n        on_line=lambda line: print(line,"
        " flush=True))"
    )
    assert started.stdout is not None
    pid = int(started.stdout.readline())
    started.kill()
    started.wait()
    try:
        import fcntl

        with path.open() as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    deadline = time.monotonic() + 5
    Lock(path, "x").acquire()
    assert time.monotonic() < deadline
    started.stdout.close()


def test_other_open_files_are_not_inherited(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w"):
        assert "secret" not in run(["ls", "-l", "/proc/self/fd"]).output


def test_a_log_on_a_full_disk_is_an_error_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        run([SH, "-c", f"touch {tmp_path}/started"], log=Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "started").exists()


def test_a_log_that_can_not_grow_stops_the_program(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            run(
                [SH, "-c", f"echo $$ > {tmp_path}/pid; seq 100000; exec sleep 300"],
                log=tmp_path / "log",
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert (tmp_path / "log").read_text().startswith("$ ")
    assert gone(int((tmp_path / "pid").read_text()))


def test_foregrounds_output_goes_to_a_function_and_nobody_waits_for_what_was_left_behind() -> None:
    """A package's script may start a service, which keeps the pipe open."""
    said: list[str] = []
    started = time.monotonic()
    script = (
        "cat; echo one; (sleep 60; echo late) & echo two >&2; printf '\\377 rest'; echo $! >&2;"
        " exit 3"
    )
    assert foreground([SH, "-c", script], on_line=said.append) == 3
    assert time.monotonic() - started < 20
    assert said[:2] == ["one", "two"]
    assert re.fullmatch("\ufffd rest\\d+", said[2])
    os.kill(int(said[2].rpartition("t")[2]), signal.SIGTERM)


def test_foreground_returns_the_status_and_leaves_ctrl_c_to_the_program() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert foreground([SH, "-c", "exit 5"]) == 5
    assert (
        foreground([SH, "-c", "kill -INT $PPID; exit 6"]) == 6
    )  # Ctrl-C reaches us too, and is not for us
    assert signal.getsignal(signal.SIGINT) is before


def test_a_program_of_another_machine_is_an_oserror(tmp_path: Path) -> None:
    program = tmp_path / "foreign"
    program.write_bytes(b"\x7fELF\x00")
    program.chmod(0o755)
    with pytest.raises(OSError) as caught:
        run([program])  # type: ignore[list-item]
    assert caught.value.errno == 8


def test_no_zombies_are_left() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    for _ in range(3):
        run(["true"])
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime >= before
