from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.config import project
from tasks.graph import nested

TOP = Path(__file__).parents[3]


def test_the_words_of_the_command_line_are_passed_on_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(TOP)
    loaded = project.load(
        TOP,
        {"PIGGYBACK_MEMORY": "64", "PIGGYBACK_APPEND": "quiet"},
        {"jobs": "3", "snapshot": "off", "append": "a b=c", "machines": "pc,pc", "offline": "1"},
    )
    assert nested.words(loaded, {"machine": "board", "machines": ""}) == {
        "offline": "yes",
        "jobs": "3",
        "snapshot": "no",
        "append": "a b=c",
        "machine": "board",
    }
    assert nested.words(loaded, {"jobs": "1"})["jobs"] == "1"
    plain = project.load(TOP, {}, {"append": ""})
    assert nested.words(plain, {}) == {"append": ""}  # said to be empty, whatever a file says


def test_the_command() -> None:
    assert nested.argv({"append": "a b", "machine": "pc"}, "qemu_test") == [
        sys.executable,
        "-m",
        "doit",
        "append=a b",
        "machine=pc",
        "qemu_test",
    ]


def test_what_it_says_is_logged_and_heard_and_its_status_returned(tmp_path: Path) -> None:
    heard: list[str] = []
    script = (
        "import sys, os; print('one'); print('two', file=sys.stderr); print(os.getcwd());"
        " sys.exit(7)"
    )
    log = tmp_path / "deep" / "log"
    assert nested.logged(tmp_path, [sys.executable, "-u", "-c", script], log, heard.append) == 7
    assert sorted(heard) == sorted(["one", "two", str(tmp_path)])
    assert log.read_text().splitlines()[0].startswith(f"$ {sys.executable} -u -c ")
    assert sorted(log.read_text().splitlines()[1:]) == sorted(heard)


def test_it_has_the_users_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIGGYBACK_MEMORY", "48")
    heard: list[str] = []
    nested.logged(
        tmp_path,
        [sys.executable, "-c", "import os; print(os.environ['PIGGYBACK_MEMORY'])"],
        tmp_path / "log",
        heard.append,
    )
    assert heard == ["48"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_us(tmp_path: Path, number: int) -> None:
    pid = tmp_path / "pid"
    script = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    ours = (
        "import signal, sys; from pathlib import Path; from tasks.graph import"
        " nested\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\nnested.logged(Path('.'),"
        f" [sys.executable, '-c', {script!r}], Path({str(tmp_path / 'log')!r}), print)"
    )
    with subprocess.Popen([sys.executable, "-c", ours], cwd=TOP) as parent:
        until = time.monotonic() + 20
        while not (pid.exists() and pid.read_text()):
            assert time.monotonic() < until
            time.sleep(0.02)
        parent.send_signal(number)
        parent.wait(20)
    child = int(pid.read_text())
    while time.monotonic() < until:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError("still there")


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [
        (
            [
                "  CC  x",
                "vmlinux failed: 'make' ended with status 2:",
                "    x.c:1:1: error: no",
                "  command: make",
            ],
            1,
            "vmlinux failed: 'make' ended with status 2: x.c:1:1: error: no",
        ),
        (
            ["qemu_test failed: no shell answered within 120 s", "  hint: does init"],
            1,
            "qemu_test failed: no shell answered within 120 s",
        ),
        (
            ["ERROR: command line: there is no kernel '7'", "hint"],
            3,
            "command line: there is no kernel '7'",
        ),
        (
            ["failed: what somebody prints", "last words ", ""],
            4,
            "doit ended with status 4: last words",
        ),
        ([], -signal.SIGKILL, "doit was killed by signal 9"),
        (["rootfs failed: x:"], 1, "rootfs failed: x:"),
        ([f"rootfs failed: {'long ' * 99}"], 1, "rootfs failed: " + "long " * 28 + "lo..."),
    ],
)
def test_the_first_error_in_one_sentence(lines: list[str], status: int, said: str) -> None:
    assert nested.first_error(lines, status) == said
    assert len(said) <= 160
