"""Several machines in one run: a row for each, whatever becomes of the others."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from playground import FAKE, Playground, finish

HOW = (
    "boot=initramfs",
    "accel=tcg",
)  # the fake kernel has no disk driver, and its guest needs no KVM


@pytest.fixture
def emulator(tmp_path: Path, built: Playground) -> str:
    """A PATH with the QEMU that the fake machine names."""
    program = tmp_path / "fake-qemu"
    program.write_text((FAKE / "qemu").read_text().replace("@PYTHON@", sys.executable))
    program.chmod(0o755)
    return f"{tmp_path}:{built.environ()['PATH']}"


def another(play: Playground, name: str, *changes: tuple[str, str]) -> None:
    """Add a machine that is the fake one but for some changes of its file."""
    text = (play.top / "configs" / "machines" / "fake.toml").read_text()
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (play.top / "configs" / "machines" / f"{name}.toml").write_text(text)


def matrix(play: Playground, path: str, *words: str, status: int = 0, **env: str) -> str:
    """Run `doit matrix`, which takes its time for machines that have to be built; return what it
    said."""
    process = play.start("matrix", *HOW, *words, PATH=path, **env)
    said = finish(process, 300)
    assert process.returncode == status, said
    assert "Traceback" not in said
    return said


def rows(play: Playground) -> dict[str, dict]:
    return json.loads((play.top / "build" / "matrix.json").read_text())


def test_each_machine_has_its_row_whatever_becomes_of_the_others(
    built: Playground, emulator: str
) -> None:
    whole = (built.top / "configs" / "machines" / "fake.toml").read_text()
    another(built, "nocc", ('triple = "x86_64-', 'triple = "sparc128-'))
    another(built, "broken", ('"fake-serial"', '"fake-serial", "fake-broken"'))
    (built.top / "configs" / "kernel" / "fake-broken.config").write_text("CONFIG_BROKEN_CODE=y\n")
    another(built, "panics", ('machine = "none"', 'machine = "none"\nappend = "crash"'))
    another(built, "noqemu", ('binary = "fake-qemu"', 'binary = "qemu-system-nowhere"'))
    another(built, "typo", ("arch =", "arhc ="))
    another(built, "bare", (whole[whole.index("[qemu]") :], ""))
    said = matrix(built, emulator, "machines=nocc,broken,typo,panics,noqemu,bare,fake", status=1)

    found = rows(built)
    assert {name: row["result"] for name, row in found.items()} == {
        "bare": "built",
        "broken": "failed",
        "fake": "booted",
        "nocc": "failed",
        "noqemu": "failed",
        "panics": "failed",
        "typo": "failed",
    }
    assert (
        found["nocc"]["error"]
        == "sparc128-linux-gnu-gcc is not installed (package gcc-sparc128-linux-gnu)"
    )
    assert "vmlinux failed: 'make' ended with status 2: " in found["broken"]["error"]
    assert "broken.c:5" in found["broken"]["error"]
    assert found["panics"]["error"].startswith("qemu_test failed: init ended with status 1")
    assert found["noqemu"]["error"] == (
        "built, not booted: qemu-system-nowhere is not installed (package qemu-system-nowhere)"
    )
    assert (
        found["typo"]["error"]
        == "configs/machines/typo.toml: unknown key 'arhc'. Did you mean 'arch'?"
    )
    assert "7 machines failed: nocc, broken, typo, panics, noqemu" in said.replace("5 of ", "")

    for name in ("fake", "bare", "panics", "noqemu"):
        row, images = found[name], built.top / "build" / name / "images"
        root = "rootfs.ext2" if name == "bare" else "initramfs.cpio.gz"
        assert row["sizes"] == {
            size: os.path.getsize(images / file)
            for size, file in (
                ("vmlinux", "vmlinux"),
                ("image", "bzImage"),
                ("busybox", "busybox"),
                ("rootfs", root),
            )
        }
        assert (row["arch"], row["kernel"], row["image"]) == ("x86_64", "6.1.0", "bzImage")
    assert found["broken"]["sizes"] is None
    boot = json.loads((built.here / "logs" / "boot.json").read_text())
    assert found["fake"]["ready"] == boot["ready"] > 0
    assert found["fake"]["accel"] == boot["accel"] == "tcg"
    assert not (built.top / "build" / "panics" / "logs" / "boot.json").exists()
    assert found["fake"]["build"] is None  # it was built before
    assert found["panics"]["build"] > 0

    shown = (built.top / "build" / "matrix.md").read_text().splitlines()
    assert len(shown) == 2 + len(found)
    assert {line.count("|") for line in shown} == {11}
    line = next(line for line in shown if line.startswith("| fake |"))
    assert f"bzImage {os.path.getsize(built.images / 'bzImage'):,} |" in line
    assert line.endswith("| booted (tcg) |")
    assert [text.split()[0] for text in said.splitlines() if "  x86_64  " in text] == [
        "nocc",
        "broken",
        "panics",
        "noqemu",
        "bare",
        "fake",
    ]  # the table, in the order that was asked for
    log = (built.top / "build" / "broken" / "logs" / "matrix.log").read_text()
    assert log.startswith(
        f"$ {sys.executable} -m doit accel=tcg boot=initramfs machine=broken qemu_test\n"
    )
    assert "broken.c:5" in log


@pytest.mark.long
def test_rows_stay_as_long_as_their_machines_do(built: Playground, emulator: str) -> None:
    another(built, "one")
    another(built, "two")
    matrix(built, emulator, "machines=one,two,one")
    first = rows(built)
    assert sorted(first) == ["one", "two"]
    (built.top / "configs" / "machines" / "two.toml").unlink()
    matrix(built, emulator, "machines=fake")
    assert {name: row if name == "one" else ... for name, row in rows(built).items()} == {
        "fake": ...,
        "one": first["one"],
    }
    matrix(built, emulator, PIGGYBACK_MACHINES="one")
    again = rows(built)["one"]
    assert again["build"] == first["one"]["build"] > 0  # nothing was built this time
    assert again["date"] >= first["one"]["date"]
    (built.top / "build" / "matrix.json").write_text("{garbage")
    matrix(built, emulator, "machines=one")
    assert list(rows(built)) == ["one"]


def test_settings_are_passed_on(built: Playground, emulator: str) -> None:
    said = matrix(
        built, emulator, "machines=fake", "append=crash with a space", "initramfs=none", status=1
    )
    assert "init ended with status 1" in said
    assert (built.images / "initramfs.cpio").exists()
    assert rows(built)["fake"]["sizes"]["rootfs"] == os.path.getsize(
        built.images / "initramfs.cpio"
    )


def test_a_name_that_is_no_machines_is_an_error_before_anything_is_done(built: Playground) -> None:
    said = built.fails("matrix", "machines=fake,fak")
    assert "command line: there is no machine 'fak'. Did you mean 'fake'?" in said
    assert not (built.top / "build" / "matrix.json").exists()


def test_interrupted_it_stops_all_and_keeps_what_was_finished(
    built: Playground, emulator: str
) -> None:
    another(built, "slow")
    built.pause("vmlinux")
    process = built.start("matrix", "machines=fake,slow,bare", *HOW, PATH=emulator)
    another(built, "bare")
    try:
        built.reached("vmlinux")
        process.send_signal(signal.SIGINT)
        said = finish(process)
    finally:
        built.resume()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "booted (tcg)" in said
    assert {name: row["result"] for name, row in rows(built).items()} == {"fake": "booted"}
    until = time.monotonic() + 10
    while left := processes_of(built.top):
        assert time.monotonic() < until, left
        time.sleep(0.05)
    built.doit("machine=slow", "vmlinux")  # nobody holds its lock


def processes_of(top: Path) -> list[str]:
    """The command lines that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(top) in line:
            found.append(line)
    return found
