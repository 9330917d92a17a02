"""`doit floor`: the boots that it makes, and what it says of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks import qemu
from tasks.guest.qemu import Boot
from tasks.guest.serial import EmulatorError, GuestError
from tasks.reports import floor
from tasks.system.errors import PiggyError

MEMINFO = "MemTotal: 6000 kB\nMemFree: 5000 kB\n"


class Guest:
    """Stands in for QEMU: passes with `least` KiB and more, but for the boots in `odd`."""

    def __init__(self, least: int, odd: tuple[int, ...] = ()) -> None:
        self.least, self.odd, self.memories = least, odd, list[int]()

    def examined(self, project: Any, it: Boot, more: Any = ()) -> None:
        assert it.extra[-2] == "-m"
        print("network   a note")
        self.memories.append(int(it.extra[-1].removesuffix("K")))
        assert it.memory == self.memories[-1] >> 10  # which decides how the checks run
        if self.memories[-1] < self.least or len(self.memories) in self.odd:
            raise GuestError("the guest ran out of memory\x1b[31m", "", "", Path("console.log"))
        for check in more:
            check.judge(MEMINFO)


@pytest.fixture
def job(tmp_path: Path) -> Any:
    (tmp_path / "console.log").write_text("Memory: 1K/2K available (1000K kernel code)\n")
    project = SimpleNamespace(
        settings=SimpleNamespace(memory=8, machine="pc"),
        machine=SimpleNamespace(qemu=SimpleNamespace(memory=32)),
        layout=SimpleNamespace(logs=tmp_path),
    )
    return SimpleNamespace(project=project)


def run(monkeypatch: pytest.MonkeyPatch, job: Any, guest: Guest, **options: Any) -> None:
    monkeypatch.setattr(qemu, "checked", lambda project: Boot(kernel=Path("k"), extra=("-x",)))
    monkeypatch.setattr(qemu, "examined", guest.examined)
    floor.find(job, **options)


def test_found(
    monkeypatch: pytest.MonkeyPatch, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = Guest(6500)
    run(monkeypatch, job, guest)
    said = capsys.readouterr().out
    assert guest.memories[0] == 8192
    assert guest.memories[-1] == 6656
    assert "it passes with 6,656 K, and fails with 6,400 K; found to 256 K in 10 boots" in said
    assert "      5,000 K  free\n" in said
    assert "      1,000 K  kernel: code\n" in said
    assert said.endswith("      6,656 K\n")
    assert "\x1b" not in said
    assert "a note" not in said


def test_json(
    monkeypatch: pytest.MonkeyPatch, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, job, Guest(6500), step=1024, as_json=True)
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert "8,192 K" in said.err
    assert (found["machine"], found["floor_kib"], found["step_kib"]) == ("pc", 7168, 1024)
    assert sum(found["users_kib"].values()) == 7168
    assert [trial["passed"] for trial in found["trials"]].count(False) == 4


def test_a_floor_that_does_not_pass_again_is_none(
    monkeypatch: pytest.MonkeyPatch, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, job, Guest(6500, odd=(10, 11)))
    assert "it passes with 6,912 K, and fails with 6,656 K" in capsys.readouterr().out


def test_a_single_failure_is_none(
    monkeypatch: pytest.MonkeyPatch, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, job, Guest(6500, odd=(1, 3, 7)))
    assert "it passes with 6,656 K, and fails with 6,400 K" in capsys.readouterr().out


def test_fails_with_what_it_has(monkeypatch: pytest.MonkeyPatch, job: Any) -> None:
    guest = Guest(9000)
    with pytest.raises(PiggyError, match="it fails with 8,192 K, .*ran out of memory"):
        run(monkeypatch, job, guest)
    assert guest.memories == [8192, 8192]


@pytest.mark.parametrize(
    "error",
    [PiggyError("no room"), EmulatorError("killed by SIGKILL", "", "", Path("console.log"))],
)
def test_a_failure_of_the_host_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, job: Any, error: PiggyError
) -> None:
    def examined(self: Any, project: Any, it: Boot, more: Any = ()) -> None:
        raise error

    monkeypatch.setattr(Guest, "examined", examined)
    with pytest.raises(PiggyError, match=f"^{error.message}"):
        run(monkeypatch, job, Guest(1))


@pytest.mark.parametrize("step", [0, -1, 3, 1 << 21])
def test_step(step: int) -> None:
    floor.check(step=4, as_json=False)
    with pytest.raises(PiggyError, match="it takes KiB, from 4"):
        floor.check(step=step, as_json=False)


def test_no_more_than_it_has(
    monkeypatch: pytest.MonkeyPatch, job: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though what was found does not pass again, and the next step is more than there is."""
    run(monkeypatch, job, Guest(5000, odd=(5, 6)), step=3000)
    assert "it passes with 8,192 K" in capsys.readouterr().out
