"""Applying and undoing steps: what is recorded before, what is rolled back, what is left alone.

Files stand for links here, so net_up could not make these plans. test_trust.py has plans that it
could make.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from tasks.network import apply, state, trust
from tasks.network import plan as netplan
from tasks.network import record as netrecord
from tasks.network.record import Record
from tasks.network.steps import KILL, Plan, Step, shown, write
from tasks.system.errors import PiggyError
from tasks.system.terminal import printable

TOP = Path(__file__).parents[3]


def step(path: Path, value: str = "1", before: str = "0") -> Step:
    return Step(
        do=write(str(path), value),
        undo=(write(str(path), before),),
        holds=("file", str(path), value),
    )


@pytest.fixture(autouse=True)
def any_plan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_check" not in request.fixturenames:
        monkeypatch.setattr(trust, "check", lambda plan, folder: None)


@pytest.fixture
def real_check() -> None:
    """Use the real check of trust.py, which the other tests here do without."""


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
    apply.up(plan(files), folder, silent)
    assert values(files) == "111"
    record = netrecord.read(folder)
    assert record
    assert (record.complete, record.begun) == (True, 3)
    assert apply.down(folder, silent)
    assert values(files) == "000"
    assert not folder.exists()
    assert not apply.down(folder, silent)


def test_a_step_is_recorded_before_it_is_done(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = tmp_path / "record", []
    real = apply.do

    def watched(words: tuple[str, ...], stdin: str, patience: float) -> None:
        record = netrecord.read(folder)
        assert record
        seen.append((record.begun, record.complete, values(files)))
        real(words, stdin, patience)

    monkeypatch.setattr(apply, "do", watched)
    apply.up(plan(files), folder, silent)
    assert seen == [(1, False, "000"), (2, False, "100"), (3, False, "110")]


def test_what_fails_is_rolled_back(files: list[Path], tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(PiggyError) as caught:
        apply.up(plan(files, FAILS), tmp_path / "record", said.append)
    assert "'false' failed" in caught.value.message
    assert "everything was put back" in caught.value.message
    assert "failed at step 4 of 4" in said[0]
    assert values(files) == "000"
    assert not (tmp_path / "record").exists()


def test_what_holds_no_longer_is_not_undone(files: list[Path], tmp_path: Path) -> None:
    apply.up(plan(files), tmp_path / "record", silent)
    files[1].write_text("7\n")  # changed by another program
    apply.down(tmp_path / "record", silent)
    assert values(files) == "070"


def test_up_again_does_again_only_what_no_longer_holds(files: list[Path], tmp_path: Path) -> None:
    said: list[str] = []
    apply.up(plan(files), tmp_path / "record", silent)
    apply.up(plan(files), tmp_path / "record", said.append)
    assert "nothing to do" in said.pop()
    files[2].write_text("0\n")
    apply.up(plan(files), tmp_path / "record", said.append)
    assert [line.strip() for line in said] == [f"echo 1 > {files[2]}"]
    assert values(files) == "111"
    with pytest.raises(PiggyError) as caught:
        apply.up(plan(files, bridge="other0"), tmp_path / "record", silent)
    assert "another network of ours is up" in caught.value.message


def test_a_reboot_undid_everything(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "record"
    for path in files:
        path.write_text("1\n")  # set by another program after the reboot
    netrecord.write(folder, Record(boot="another", plan=plan(files), begun=3, complete=True))
    assert apply.down(folder, silent)
    assert values(files) == "111"
    assert not folder.exists()


def test_an_interrupted_one_is_undone_first(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "record"
    files[0].write_text("1\n")
    netrecord.write(folder, Record(boot=netrecord.boot_id(), plan=plan(files), begun=2))
    said: list[str] = []
    apply.up(plan(files[1:]), folder, said.append)
    assert "interrupted" in said[0]
    assert values(files) == "011"


def test_what_cant_be_undone_keeps_the_record(files: list[Path], tmp_path: Path) -> None:
    stuck = Step(do=("true",), undo=(("false",),), holds=("file", str(files[0]), "1"))
    folder = tmp_path / "record"
    steps = (step(files[0], before="1"), stuck, step(files[1]))
    apply.up(Plan(mode="nat", bridge="b", taps=(), steps=steps), folder, silent)
    with pytest.raises(PiggyError) as caught:
        apply.down(folder, silent)
    assert "false" in caught.value.message
    assert values(files[1:2]) == "0"  # the other steps are undone nevertheless
    assert netrecord.read(folder)


def test_ctrl_c_between_steps_rolls_back(files: list[Path], tmp_path: Path) -> None:
    stop = Step(do=("sh", "-c", f"kill -INT {os.getpid()}"))
    steps = (step(files[0]), stop, step(files[1]))
    with pytest.raises(PiggyError) as caught:
        apply.up(Plan(mode="nat", bridge="b", taps=(), steps=steps), tmp_path / "r", silent)
    assert "interrupted" in caught.value.message
    assert values(files) == "000"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_hang_up_does_not_stop_it(files: list[Path], tmp_path: Path) -> None:
    hang_up = Step(do=("sh", "-c", f"kill -HUP {os.getpid()}"))
    steps = (step(files[0]), hang_up, step(files[1]))
    apply.up(Plan(mode="nat", bridge="b", taps=(), steps=steps), tmp_path / "r", silent)
    assert values(files) == "110"


def test_a_switch_of_a_link_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    apply.do(write("/proc/sys/net/ipv4/conf/no-such-link/forwarding", "1"), "", 0)
    with pytest.raises(PiggyError):
        apply.do(write(str(tmp_path / "no" / "file"), "1"), "", 0)


def test_patience_tries_again(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f"echo x >>{count}; [ $(wc -l <{count}) -ge 3 ]"
    apply.do(("sh", "-c", script), "", 5)
    with pytest.raises(PiggyError):
        apply.do(("sh", "-c", "echo no such thing; exit 2"), "", 0)


def test_a_daemon_is_ended_by_its_pidfile_and_a_stranger_is_not(tmp_path: Path) -> None:
    pidfile = tmp_path / "d.pid"
    code = "import time; print(1, flush=True); time.sleep(60)"
    with (
        subprocess.Popen(
            [sys.executable, "-c", code, f"--pid-file={pidfile}"], stdout=subprocess.PIPE
        ) as ours,
        subprocess.Popen(["sleep", "60"]) as stranger,
    ):
        assert ours.stdout
        ours.stdout.read(1)
        pidfile.write_text(f"{stranger.pid}\n")
        assert state.pid_of(str(pidfile)) == 0
        apply.do((KILL, str(pidfile)), "", 0)
        assert stranger.poll() is None
        pidfile.write_text(f"{ours.pid}\n")
        assert state.pid_of(str(pidfile)) == ours.pid
        reaper = threading.Thread(target=ours.wait)
        reaper.start()
        apply.do((KILL, str(pidfile)), "", 0)
        reaper.join()
        assert ours.returncode == -signal.SIGTERM
        assert state.pid_of(str(pidfile)) == 0
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("content", ["", "x", "-1", "0", "1", "9" * 5000, "\0", None])
def test_a_pidfile_of_another_form_names_no_process(tmp_path: Path, content: str | None) -> None:
    pidfile = tmp_path / "d.pid"
    if content is None:
        os.mkfifo(pidfile)
    else:
        pidfile.write_text(content)
    assert state.pid_of(str(pidfile)) == 0
    apply.do((KILL, str(pidfile)), "", 0)


def test_the_program(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(netrecord, "place", lambda: tmp_path / "record")
    hand_in(monkeypatch, msgspec.json.encode(plan(files)))
    assert apply.main(["up"]) == 0
    assert values(files) == "111"
    assert apply.main(["down"]) == 0
    assert values(files) == "000"
    assert apply.main(["down"]) == 0
    assert "nothing is up" in capsys.readouterr().out
    assert apply.main([]) == 2
    hand_in(monkeypatch, b'{"mode": 1}')
    assert apply.main(["up"]) == 1
    assert capsys.readouterr().err.startswith(
        "the plan on standard input can't be read: Expected `str`"
    )
    assert apply.main(["up", str(tmp_path / "plan.json")]) == 2


def hand_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False)
    )


def test_a_plan_that_is_not_ours_is_not_carried_out(
    real_check: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(netrecord, "place", lambda: tmp_path / "record")
    ours = netplan.nat(state.State(), netplan.Request(run_dir=str(tmp_path / "record")))
    for bad in (plan(files), msgspec.structs.replace(ours, steps=(step(files[0]), *ours.steps))):
        hand_in(monkeypatch, msgspec.json.encode(bad))
        assert apply.main(["up"]) == 1
        assert "this" in (said := capsys.readouterr().err)
        assert "it is not carried out" in said
    assert values(files) == "000"
    assert not (tmp_path / "record").exists()


def test_a_planted_record_is_not_undone(
    real_check: None, tmp_path: Path, files: list[Path]
) -> None:
    folder = tmp_path / "record"
    files[0].write_text("1\n")
    netrecord.write(
        folder, Record(boot=netrecord.boot_id(), plan=plan(files), begun=1, complete=True)
    )
    with pytest.raises(PiggyError, match="is no plan of net_up's"):
        apply.down(folder, silent)
    assert values(files) == "100"
    assert (folder / "record.json").exists()


@pytest.mark.parametrize(
    "content",
    [b"{}", b"", b"null", b"[" * 100_000, b"\xff\xfe", b'{"boot": "\x1b[2J"}', b"7" * 9999],
)
def test_a_record_that_is_spoilt_is_said(real_check: None, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(PiggyError) as caught:
        netrecord.read(tmp_path)
    assert "record.json can't be read" in caught.value.message
    assert printable(str(caught.value)) == str(caught.value)


def good(folder: Path) -> Path:
    """Write a record that net_up could have made."""
    made = netplan.nat(state.State(), netplan.Request(run_dir=str(folder)))
    netrecord.write(
        folder, Record(boot=netrecord.boot_id(), plan=made, begun=len(made.steps), complete=True)
    )
    return folder / "record.json"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("fifo", "record.json can't be read: it is no regular file"),
        ("folder", "can't be read: it is no regular file"),
        ("link", "can't be read: Too many levels"),
        ("linked folder", "is no folder"),
        ("writable", "can be written to by others (mode 0666)"),
        ("writable folder", "others (mode 0777)"),
        ("writable parent", "others (mode 0777)"),
        ("other's", "belongs to user 4321"),
        ("other's folder", "belongs to user 4321"),
        ("count", "-1 of 10 steps"),
    ],
)
def test_who_can_have_written_a_record(
    real_check: None, tmp_path: Path, how: str, said: str
) -> None:
    if "other" in how and "writ" not in how and os.geteuid():
        pytest.skip("only root can give a file away")
    folder = tmp_path / "run" / "1"
    file = good(folder)
    assert netrecord.read(folder)
    what = folder if "folder" in how else folder.parent if "parent" in how else file
    if how == "fifo":
        file.unlink()
        os.mkfifo(file)
    elif how == "folder":
        file.unlink()
        file.mkdir()
    elif "link" in how:
        what.rename(tmp_path / "aside")
        what.symlink_to(tmp_path / "aside")
    elif "writable" in how:
        what.chmod(0o666 if what == file else 0o777)
    elif "other's" in how:
        os.chown(what, 4321, 4321)
    else:
        file.write_text(file.read_text().replace('"begun": 10', '"begun": -1'))
    with pytest.raises(PiggyError) as caught:
        netrecord.read(folder)
    assert said in caught.value.message
    if "writable f" in how or "linked" in how:
        with pytest.raises(PiggyError):
            netrecord.write(folder, Record(boot="x", plan=plan([])))


def test_only_files_of_ours_are_removed_with_the_record(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    file = good(folder)
    for name in ("leases", "dnsmasq.pid"):
        (folder / name).touch()
    (folder / "mine.txt").write_text("precious")
    netrecord.remove(folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    assert not file.exists()


def test_words_as_one_would_type_them() -> None:
    assert shown(write("/proc/sys/a", "1")) == "echo 1 > /proc/sys/a"
    assert shown((KILL, "/run/x.pid")) == "kill $(cat /run/x.pid)"
    assert shown(("ip", "link", "add", "a b")) == "ip link add 'a b'"
    assert shown(("nft", "-f", "-"), "x\n") == "nft -f - <<'EOF'\nx\nEOF"


def test_a_probe_that_is_unknown_is_an_error() -> None:
    assert not state.holds(())
    with pytest.raises(PiggyError):
        state.holds(("flavour", "lo"))
