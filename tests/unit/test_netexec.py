"""Doing and undoing steps: what is recorded before, what is rolled back, what is left alone. Files stand for links."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tasks.kit import netexec, netrecord, netstate
from tasks.kit.errors import PiggyError
from tasks.kit.netrecord import Record
from tasks.kit.netstep import KILL, Plan, Step, shown, write

TOP = Path(__file__).parents[2]


def step(path: Path, value: str = "1", before: str = "0") -> Step:
    return Step(do=write(str(path), value), undo=(write(str(path), before),), holds=("file", str(path), value))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text("0\n")
    return paths


def plan(files: list[Path], *more: Step, bridge: str = "piggy0") -> Plan:
    return Plan(mode="nat", bridge=bridge, taps=(), steps=(*(step(path) for path in files), *more))


def values(files: list[Path]) -> str:
    return "".join(path.read_text().strip() for path in files)


def silent(_: str) -> None:
    pass


FAILS = Step(do=("false",), holds=("file", "/nowhere", ""))


def test_up_and_down_and_down_again(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "record"
    netexec.up(plan(files), folder, silent)
    assert values(files) == "111"
    record = netrecord.read(folder)
    assert record
    assert (record.complete, record.begun) == (True, 3)
    assert netexec.down(folder, silent)
    assert values(files) == "000"
    assert not folder.exists()
    assert not netexec.down(folder, silent)


def test_a_step_is_recorded_before_it_is_done(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen = tmp_path / "record", []
    real = netexec.do

    def watched(words: tuple[str, ...], stdin: str, patience: float) -> None:
        record = netrecord.read(folder)
        assert record
        seen.append((record.begun, record.complete, values(files)))
        real(words, stdin, patience)
    monkeypatch.setattr(netexec, "do", watched)
    netexec.up(plan(files), folder, silent)
    assert seen == [(1, False, "000"), (2, False, "100"), (3, False, "110")]


def test_what_fails_is_rolled_back(files: list[Path], tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(PiggyError) as caught:
        netexec.up(plan(files, FAILS), tmp_path / "record", said.append)
    assert "'false' failed" in caught.value.message
    assert "everything was put back" in caught.value.message
    assert "failed at step 4 of 4" in said[0]
    assert values(files) == "000"
    assert not (tmp_path / "record").exists()


def test_what_holds_no_longer_is_not_undone(files: list[Path], tmp_path: Path) -> None:
    netexec.up(plan(files), tmp_path / "record", silent)
    files[1].write_text("7\n")  # somebody else's doing
    netexec.down(tmp_path / "record", silent)
    assert values(files) == "070"


def test_up_again_does_again_only_what_no_longer_holds(files: list[Path], tmp_path: Path) -> None:
    said: list[str] = []
    netexec.up(plan(files), tmp_path / "record", silent)
    netexec.up(plan(files), tmp_path / "record", said.append)
    assert "nothing to do" in said.pop()
    files[2].write_text("0\n")
    netexec.up(plan(files), tmp_path / "record", said.append)
    assert [line.strip() for line in said] == [f"echo 1 > {files[2]}"]
    assert values(files) == "111"
    with pytest.raises(PiggyError) as caught:
        netexec.up(plan(files, bridge="other0"), tmp_path / "record", silent)
    assert "another network of ours is up" in caught.value.message


def test_a_reboot_undid_everything(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "record"
    for path in files:
        path.write_text("1\n")  # made by somebody after the reboot
    netrecord.write(folder, Record(boot="another", plan=plan(files), begun=3, complete=True))
    assert netexec.down(folder, silent)
    assert values(files) == "111"
    assert not folder.exists()


def test_an_interrupted_one_is_undone_first(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "record"
    files[0].write_text("1\n")
    netrecord.write(folder, Record(boot=netrecord.boot_id(), plan=plan(files), begun=2))
    said: list[str] = []
    netexec.up(plan(files[1:]), folder, said.append)
    assert "interrupted" in said[0]
    assert values(files) == "011"


def test_what_cant_be_undone_keeps_the_record(files: list[Path], tmp_path: Path) -> None:
    stuck = Step(do=("true",), undo=(("false",),), holds=("file", str(files[0]), "1"))
    folder = tmp_path / "record"
    steps = (step(files[0], before="1"), stuck, step(files[1]))
    netexec.up(Plan(mode="nat", bridge="b", taps=(), steps=steps), folder, silent)
    with pytest.raises(PiggyError) as caught:
        netexec.down(folder, silent)
    assert "false" in caught.value.message
    assert values(files[1:2]) == "0"  # the others are undone all the same
    assert netrecord.read(folder)


def test_ctrl_c_between_steps_rolls_back(files: list[Path], tmp_path: Path) -> None:
    stop = Step(do=("sh", "-c", f"kill -INT {os.getpid()}"))
    steps = (step(files[0]), stop, step(files[1]))
    with pytest.raises(PiggyError) as caught:
        netexec.up(Plan(mode="nat", bridge="b", taps=(), steps=steps), tmp_path / "r", silent)
    assert "interrupted" in caught.value.message
    assert values(files) == "000"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_hang_up_does_not_stop_it(files: list[Path], tmp_path: Path) -> None:
    hang_up = Step(do=("sh", "-c", f"kill -HUP {os.getpid()}"))
    steps = (step(files[0]), hang_up, step(files[1]))
    netexec.up(Plan(mode="nat", bridge="b", taps=(), steps=steps), tmp_path / "r", silent)
    assert values(files) == "110"


def test_a_switch_of_a_link_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    netexec.do(write("/proc/sys/net/ipv4/conf/no-such-link/forwarding", "1"), "", 0)
    with pytest.raises(PiggyError):
        netexec.do(write(str(tmp_path / "no" / "file"), "1"), "", 0)


def test_patience_tries_again(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f"echo x >>{count}; [ $(wc -l <{count}) -ge 3 ]"
    netexec.do(("sh", "-c", script), "", 5)
    with pytest.raises(PiggyError):
        netexec.do(("sh", "-c", "echo no such thing; exit 2"), "", 0)


def test_a_daemon_is_ended_by_its_pidfile_and_a_stranger_is_not(tmp_path: Path) -> None:
    pidfile = tmp_path / "d.pid"
    with subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)", str(pidfile)],
                          stdout=subprocess.PIPE) as ours, subprocess.Popen(["sleep", "60"]) as stranger:
        assert ours.stdout
        ours.stdout.read(1)
        pidfile.write_text(f"{stranger.pid}\n")
        assert netstate.pid_of(str(pidfile)) == 0
        netexec.do((KILL, str(pidfile)), "", 0)
        assert stranger.poll() is None
        pidfile.write_text(f"{ours.pid}\n")
        assert netstate.pid_of(str(pidfile)) == ours.pid
        subprocess.Popen(["true"]).wait()
        ours.send_signal(signal.SIGTERM)
        ours.wait()
        assert netstate.pid_of(str(pidfile)) == 0
        stranger.kill()


def test_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[Path],
                     capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(netrecord, "place", lambda: tmp_path / "record")
    file = tmp_path / "plan.json"
    file.write_bytes(msgspec.json.encode(plan(files)))
    assert netexec.main(["up", str(file)]) == 0
    assert values(files) == "111"
    assert netexec.main(["down"]) == 0
    assert values(files) == "000"
    assert netexec.main(["down"]) == 0
    assert "nothing is up" in capsys.readouterr().out
    assert netexec.main([]) == 2
    file.write_text('{"mode": 1}')
    assert netexec.main(["up", str(file)]) == 1
    assert netexec.main(["up", str(tmp_path / "none")]) == 1


def test_a_record_that_is_spoilt_is_said(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(PiggyError) as caught:
        netrecord.read(tmp_path)
    assert "record.json can't be read" in caught.value.message


def test_words_as_one_would_type_them() -> None:
    assert shown(write("/proc/sys/a", "1")) == "echo 1 > /proc/sys/a"
    assert shown((KILL, "/run/x.pid")) == "kill $(cat /run/x.pid)"
    assert shown(("ip", "link", "add", "a b")) == "ip link add 'a b'"
    assert shown(("nft", "-f", "-"), "x\n") == "nft -f - <<'EOF'\nx\nEOF"


def test_a_probe_that_is_unknown_is_an_error() -> None:
    assert not netstate.holds(())
    with pytest.raises(PiggyError):
        netstate.holds(("flavour", "lo"))
