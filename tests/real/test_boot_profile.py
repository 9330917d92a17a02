"""A counted boot of the PC's real kernel."""

from __future__ import annotations

import json
import os
import re
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tasks import qemu
from tasks.config import project
from tasks.guest import boot, marks, screen
from tasks.kconfig import dotconfig
from tasks.system.process import child
from tasks.tuning import boot_points, count, elf
from tests.real.conftest import Checkout, edited, lay_out

pytestmark = pytest.mark.real


def counted(pc: Checkout, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        pc.doit("boot=initramfs", "boot_profile", "--json", *words).splitlines()[-1]
    )
    return found


def test_two_boots_are_equal_to_the_instruction_and_each_bar_has_its_reason(
    pc: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    pc.doit("boot=initramfs", "initramfs")
    # the other build is this one, booted once more
    first, second = counted(pc), counted(pc, "--against=pc")
    against = {"instructions": first["instructions"], "bars": first["bars"], "changes": []}
    assert second["against"] == against
    assert [bar["instructions"] for bar in first["bars"]] == [
        bar["instructions"] for bar in second["bars"]
    ]
    phases = [bar for bar in first["bars"] if bar["depth"] == 0]
    assert sum(bar["instructions"] for bar in phases) == first["instructions"]
    names = {bar["name"]: bar for bar in first["bars"]}
    assert {"firmware", "decompression", "start_kernel", "start scripts", "shell"} <= set(names)
    card = names["ne2k_pci_init"]
    assert card["object"] == "drivers/net/ethernet/8390/ne2k-pci.o"
    assert card["symbol"] == "NE2K_PCI"
    assert card["reason"].startswith("configs/kernel/ne2k-pci.config:")
    assert names["/bin/sh /etc/init.d/rcS"]["kind"] == "program"
    probe = next(bar for bar in first["bars"] if bar["name"].startswith("ne2k-pci "))
    assert (probe["kind"], probe["symbol"]) == ("probe", "NE2K_PCI")
    assert probe["reason"] == card["reason"]
    total = first["instructions"]
    pc.doit("boot=initramfs", "boot_profile", f"--limit={total}")
    said = pc.doit("boot=initramfs", "boot_profile", f"--limit={total - 1}", status=1)
    assert "1 more than its limit" in said
    monkeypatch.chdir(pc.top)
    assert count.total(project.load(pc.top, {"MACHINE": "pc"}, {"boot": "initramfs"})) == total


SLOW = """#!/bin/sh
[ "$1" = start ] || exit 0
sleep 1
i=0
while [ $i -lt 1000 ]; do i=$((i + 1)); done
"""


def test_a_delay_in_a_start_script_is_found_by_name(pc: Checkout, tmp_path: Path) -> None:
    counted(pc)
    script = tmp_path / "late" / "etc" / "init.d" / "S99late"
    script.parent.mkdir(parents=True)
    script.write_text(SLOW)
    script.chmod(0o755)
    late = counted(pc, f"overlays={tmp_path}/late", "--against=last")
    programs = [one for one in late["against"]["changes"] if one["kind"] == "program"]
    own = "/bin/sh /etc/init.d/S99late start"
    # what init and rcS take is that of what they start
    found = [one for one in programs if one["name"].split()[-1] not in ("/init", "/etc/init.d/rcS")]
    assert (found[0]["name"], found[0]["old"]) == (own, None)
    assert found[0]["new"] > 1000 * 5000
    bars = {bar["name"]: bar for bar in late["bars"]}
    assert bars["sleep 1"]["reason"].endswith("/S99late:3")
    # to the tick, 10 ms: it is no work
    assert bars["sleep 1"]["slept"] >= 980
    assert bars["sleep 1"]["instructions"] < bars[own]["instructions"] / 2


def test_a_delay_in_an_initcall_is_found_by_name(pc: Checkout) -> None:
    counted(pc)
    line = 'mem_class = class_create(THIS_MODULE, "mem");'
    delay = "{ volatile int left = 1000000; while (left) left--; }"
    with edited(pc.kernel / "drivers" / "char" / "mem.c", line, f"{delay}\n\t{line}"):
        slow = counted(pc, "--against=last")
    pc.doit()  # the others' images again
    calls = [one for one in slow["against"]["changes"] if one["kind"] == "initcall"]
    calls.sort(key=lambda one: one["old"] - one["new"])  # what unpacks the archive meanwhile moves
    first, second = calls[:2]
    assert first["name"] == "chr_dev_init"
    assert first["reason"].startswith("drivers/char/mem.o")
    assert first["new"] - first["old"] > 2_000_000 + 2 * (second["new"] - second["old"])


def undisturbed(argv: Sequence[str], folder: Path) -> tuple[int, str]:
    """Boot a kernel that panics, and return QEMU's own count of instructions when it restarts, as
    its state has it, and what the kernel said, with its times."""
    extra = ["-action", "reboot=shutdown,shutdown=pause"]
    extra += ["-qmp", f"unix:{folder}/qmp,server=on,wait=off"]
    with child([*argv, *extra]):
        until = time.monotonic() + 120
        while not (folder / "qmp").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        with screen.monitor(folder / "qmp") as ask:
            while ask("query-status")["status"] == "running":
                assert time.monotonic() < until
                time.sleep(0.1)
            ask("xen-save-devices-state", filename=str(folder / "state"), live=False)
    state = (folder / "state").read_bytes()
    # vmstate_icount_timers in softmmu/cpu-timers.c: version, bias, instructions. The bias, what the
    # clock jumped over, is no measure: QEMU may let it jump once more while the processor stops.
    _, _, count = struct.unpack_from(">iqq", state, state.index(b"timer/icount") + 12)
    return count, (folder / "console").read_text()


def test_the_guest_does_not_notice_that_it_is_halted(
    pc: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pc.doit("boot=initramfs", "initramfs")
    monkeypatch.chdir(pc.top)
    words = {"boot": "initramfs", "append": "rdinit=/none root=/dev/none printk.time=1"}
    here = project.load(pc.top, {"MACHINE": "pc"}, words)
    kernel = elf.read(pc.images / "vmlinux")
    config = dotconfig.read_config(pc.images / "config")
    points = boot_points.points(kernel, config, "i386", here.image)
    assert here.machine.qemu
    library = marks.plugin(here.machine.qemu.binary, tmp_path)
    (tmp_path / "marks").write_text(points.marks.text)
    files = [tmp_path / name for name in ("records", "answers")]
    for path in files:
        os.mkfifo(path)
    records, answers = (os.open(path, os.O_RDWR) for path in files)
    halts = []

    def answer() -> None:
        while record := os.read(records, 16):
            halts.append(record)
            os.write(answers, b".")

    threading.Thread(target=answer, daemon=True).start()
    found = []
    for name in ("without", "with"):
        (tmp_path / name).mkdir()
        more = f"marks={tmp_path}/marks,records={files[0]},answers={files[1]}"
        plugin = ["-plugin", f"file={library},{more}"] if name == "with" else []
        argv = boot.command(
            here,
            qemu.gathered(here),
            "tcg",
            interactive=False,
            trial=True,
            serial=f"file:{tmp_path / name / 'console'}",
            extra=[*marks.COUNTED, *plugin],
        )
        found.append(undisturbed(argv, tmp_path / name))
    assert found[0] == found[1]
    assert re.search(r"^\[ +\d+\.\d{6}\] .*Kernel panic", found[0][1], re.MULTILINE)
    assert len(halts) > 200


@pytest.mark.long
def test_the_preset_fast_keeps_its_word(tmp_path: Path) -> None:
    """docs/boot.md: 40 million instructions for bzImage, 25 for vmlinux, and the guest passes."""
    pc = lay_out(tmp_path / "checkout")
    pc.env["PIGGYBACK_FRAGMENTS"] = "fast"
    for image, most in (("bzImage", "40M"), ("vmlinux", "25M")):
        pc.doit(f"image={image}", "boot_profile", f"--limit={most}")
        pc.doit(f"image={image}", "qemu_test")
