"""The serial line by itself: its log, its limits, and what comes on it."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.guest import faults, serial
from tasks.guest.serial import Limits
from tasks.system.errors import PiggyError


class Slow:
    """Plays the part of pexpect.spawn: it lives on for some looks after a signal."""

    pid = 7

    def __init__(self, heeds: dict[int, int]) -> None:
        self.heeds, self.left, self.got = heeds, sys.maxsize, list[int]()
        self.closed, self.ptyproc = False, SimpleNamespace(delayafterclose=0.1)

    def isalive(self) -> bool:
        self.left -= 1
        return self.left > 0

    def kill(self, number: int) -> None:
        self.got.append(number)
        self.left = min(self.left, self.heeds.get(number, sys.maxsize))

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("heeds", "got"),
    [
        ({signal.SIGHUP: 20}, [signal.SIGHUP]),
        ({signal.SIGKILL: 60}, [signal.SIGHUP, signal.SIGKILL]),  # after more than half a second
        ({}, [signal.SIGHUP, signal.SIGKILL]),
    ],
)
def test_a_qemu_that_takes_its_time_is_waited_for(
    heeds: dict[int, int], got: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    clock = SimpleNamespace(
        monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    monkeypatch.setattr(serial, "time", clock)
    process = Slow(heeds)
    if heeds:
        serial._end(process)  # type: ignore[arg-type]
        assert process.closed
    else:
        with pytest.raises(PiggyError, match="process 7. was killed and does not end"):
            serial._end(process)  # type: ignore[arg-type]
        assert now[0] > 20
    assert process.got == got


def test_a_log_is_begun_anew_in_the_file_that_is_there(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "console.log"
    for text in ("longer than the next", "short"):
        with serial.opened(log) as sink:
            sink.write(text)
    assert log.read_text() == "short"


@pytest.mark.parametrize(
    "line",
    [
        "[    1.000000] x",
        "Kernel panic - not syncing: ",
        "Failed to execute x ",
        "[a]",
        'Cannot open root device "a" or ',
        "Waiting for root device ",
        "\x1b[",
        "Run x ",
    ],
)
def test_a_line_without_end_costs_no_time(tmp_path: Path, line: str) -> None:
    one = serial.Line(None, tmp_path, Limits(), lambda text: None, ["qemu"])  # type: ignore[arg-type]
    started = time.process_time()
    for _ in range(16):
        one._take((line * 65536)[:65536])
    one._take(
        "\nKernel panic - not syncing: VFS: Unable to mount root fs\nnot syncing: No working init\n"
    )
    faults.diagnose(one.console, "qemu")
    faults.silence(one.console, 1, "qemu")
    faults.restarted(one.console)
    assert time.process_time() - started < 10  # it was hours


def test_missing_qemu(tmp_path: Path) -> None:
    with (
        pytest.raises(PiggyError, match="'qemu-system-none' can't be started"),
        serial.started(["qemu-system-none"], tmp_path / "log", Limits()),
    ):
        pass


def test_limits_are_scaled_for_emulation() -> None:
    assert serial.limits("kvm") == Limits()
    assert serial.limits("tcg").total == 3 * Limits().total


def test_what_answers_are_looked_for_in(tmp_path: Path) -> None:
    """Control characters and stamped kernel messages are in the log, however they are cut apart."""
    logged: list[str] = []
    one = serial.Line(None, tmp_path, Limits(), logged.append, ["/usr/bin/qemu-system-arm"])  # type: ignore[arg-type]
    chunks = ["\x1b[1mone\x1b", "[0m two\r\n[    1.00", "0000] a message\nthr", "ee\n"]
    for chunk in chunks:
        one._take(chunk)
    assert logged == chunks
    assert one.console == "one two\n[    1.000000] a message\nthree\n"
    assert one.fresh == "one two\nthree\n"
    assert one.name == "qemu-system-arm"


def test_an_error_shows_the_last_lines(tmp_path: Path) -> None:
    one = serial.Line(None, tmp_path / "log", Limits(), lambda text: None, ["qemu"])  # type: ignore[arg-type]
    one._take("".join(f"line {number}\n" for number in range(100)))
    with pytest.raises(serial.GuestError, match="it broke") as caught:
        one.fail("it broke", "mend it")
    shown = caught.value.hint.splitlines()
    assert shown[:2] == ["mend it", f"log: {tmp_path / 'log'}"]
    assert shown[3:] == [f"    line {number}" for number in range(85, 100)]
