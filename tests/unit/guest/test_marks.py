"""Marks at which a boot halts: their text, and the plug-in that reads it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.guest import marks
from tasks.guest.marks import Halted, Marks
from tasks.guest.screen import Refused
from tasks.guest.serial import GuestError
from tasks.system.errors import PiggyError


def test_marks_are_written_in_hexadecimal() -> None:
    found = Marks(at=(0xC0100000, 16), enter=(32,), back=(48, 64))
    assert found.text == "at c0100000\nat 10\nenter 20\nback 30 40\n"


@pytest.mark.parametrize(("said", "version"), [("7.2.22 (Debian)", 1), ("10.0.2", 2)])
def test_the_plugin_is_compiled_for_the_interface_of_this_qemu(
    tmp_path: Path, said: str, version: int
) -> None:
    if not shutil.which("cc"):
        pytest.skip("cc is not installed")
    qemu = tmp_path / "qemu"
    qemu.write_text(f"#!/bin/sh\necho 'QEMU emulator version {said}'\n")
    qemu.chmod(0o755)
    made = marks.plugin(str(qemu), tmp_path / "lib")
    assert made.name == f"marks-{version}.so"
    before = made.stat().st_mtime_ns
    assert marks.plugin(str(qemu), tmp_path / "lib").stat().st_mtime_ns == before


class Monitor:
    """QEMU's monitor, with memory from 0x1000 to 0x2000."""

    def __init__(self, base: int = 0) -> None:
        self.base = base
        self.data = (b"\0" * 0xFF0 + b"over the end of ").ljust(0x1000, b"\0")

    def __call__(self, command: str, **words: object) -> object:
        if command == "human-monitor-command":
            return (
                "EAX=c0100000 EBX=00000002\nEIP=c0100010 EFL=00000046\n x10/a0   0000000000000005\n"
            )
        start, size = words["val"], words["size"]
        assert isinstance(start, int)
        assert isinstance(size, int)
        assert -(1 << 63) <= start < 1 << 63, "QEMU: Parameter 'val' is out of range"
        start -= self.base
        if not 0x1000 <= start < start + size <= 0x2000:
            raise Refused("Invalid addr")
        Path(str(words["filename"])).write_bytes(self.data[start - 0x1000 :][:size])
        return {}


def test_registers_and_strings_of_a_halted_guest(tmp_path: Path) -> None:
    guest = Halted(Monitor(), tmp_path, b"")
    assert guest.registers() == {
        "EAX": 0xC0100000,
        "EBX": 2,
        "EIP": 0xC0100010,
        "EFL": 0x46,
        "x10/a0": 5,
    }
    assert guest.text(0x1FF0) == "over the end of "  # the next page is not there
    assert guest.text(0x1FF5) == "the end of "
    assert guest.text(0x5000) == ""


def test_the_memory_of_a_kernel_of_64_bits(tmp_path: Path) -> None:
    guest = Halted(Monitor(base=0xFFFF888000000000 - (1 << 64)), tmp_path, b"")
    assert guest.text(0xFFFF888000001FF5) == "the end of "
    assert guest.memory(0xFFFF888000003000, 8) == b""


def test_a_qemu_that_refuses_the_plugin_says_why(tmp_path: Path) -> None:
    """Its monitor's socket is there before."""
    script = (
        "import socket, sys; name = sys.argv[1].split(':')[1].split(',')[0]\n"
        "socket.socket(socket.AF_UNIX).bind(name); sys.exit('marks.so: file too short')"
    )

    def command(serial: str, extra: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", script, extra[-1]]

    with (
        pytest.raises(PiggyError, match="ended: marks.so: file too short") as caught,
        marks.boot(command, tmp_path / "marks.so", Marks(()), tmp_path / "log", 60),
    ):
        pass
    assert "--enable-plugins" in caught.value.hint


# A QEMU with a monitor, and what it does then; `console` is the guest's serial line.
FAKE = """
import json, os, socket, sys, threading, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1].split(":", 1)[1].split(",")[0])
listener.listen()
console = open(sys.argv[2].split(":", 1)[1] + ".out", "w")
client = listener.accept()[0]
def say(**what):
    client.sendall(json.dumps(what).encode() + b"\\n")
def answer():
    while asked := client.recv(4096):  # no end of line follows a command
        say(**{"return": {}, "id": json.loads(asked).get("id")})
version = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}
say(QMP={"version": version, "capabilities": []})
threading.Thread(target=answer, daemon=True).start()
time.sleep(0.5)
"""


@pytest.mark.parametrize(
    ("does", "words"),
    [
        (
            "while True: print('still waiting', file=console, flush=True); time.sleep(0.1)",
            "no shell answered within 2 s",
        ),
        ("print('qemu: fatal', file=sys.stderr); os.abort()", "was killed by SIGABRT"),
        ("sys.exit('qemu: no memory left')", "ended with status 1: no memory left"),
        ("print('a word', file=console, flush=True)", "the guest reset or switched itself off"),
        (
            "print('Kernel panic - not syncing: no', file=console, flush=True)",
            "kernel panic: no",
        ),
    ],
)
def test_how_a_counted_boot_may_fail(tmp_path: Path, does: str, words: str) -> None:
    def command(serial: str, extra: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", FAKE + does, extra[-1], serial]

    library, log = tmp_path / "marks.so", tmp_path / "log"
    with (
        pytest.raises(GuestError, match=words),
        marks.boot(command, library, Marks(()), log, 2) as (halts, _),
    ):
        next(halts)


def test_an_oops_is_a_failure_though_the_boot_goes_on(tmp_path: Path) -> None:
    marks.sound(b"Linux version 6.1\r\n", tmp_path / "log")
    with pytest.raises(GuestError, match="kernel oops: BUG: unable to handle"):
        marks.sound(b"BUG: unable to handle page fault at 0\r\n# ", tmp_path / "log")
