"""The patches that come with the project, on the PC's real kernel: -m long, as each object is
compiled another way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.real.conftest import lay_out
from tests.real.test_size import whole

pytestmark = [pytest.mark.real, pytest.mark.long]


def test_section_garbage_collection(tmp_path: Path) -> None:
    """7 % of the image and more go, the guest passes, each byte has its line, and an edit of one
    patch compiles what it touches."""
    pc = lay_out(tmp_path / "checkout")
    pc.doit("bzImage")
    before = (pc.images / "bzImage").stat().st_size
    pc.env["PIGGYBACK_PATCHES"] = "gc-sections-x86,no-poison"
    pc.env["PIGGYBACK_FRAGMENTS"] = "gc-sections"
    pc.doit("qemu_test")
    assert (pc.images / "bzImage").stat().st_size < 0.93 * before
    whole(pc, "bzImage")
    patch = pc.top / "configs/patches/no-poison/6.1/no-poison.patch"
    patch.write_text(re.sub(r", -1, what\)", ", 256, what)", patch.read_text()))
    assert "1 file; arch/x86/mm/init.c changed" in pc.doit("plan")
    assert pc.ran()[:2] == ["_patch:linux-6.1", "vmlinux"]
    log = (pc.top / "build/pc/logs/vmlinux.log").read_text()
    assert re.findall(r"-c -o (\S+\.o) ", log) == ["arch/x86/mm/init.o"]
    found = json.loads(pc.doit("floor", "--json", "--step=1024").splitlines()[-1])
    assert sum(found["users_kib"].values()) == found["floor_kib"] < 9 << 10


@pytest.mark.parametrize(
    ("words", "most"),
    [
        ("fragments=tiny,isa,noinitrd,gc-sections nic=ne2000", 850_000),
        ("fragments=tiny,isa,noinitrd,gc-sections,printk nic=ne2000", 1_000_000),
        ("fragments=tiny,isa,nonet,noinitrd,gc-sections,printk net=none", 660_000),
    ],
)
def test_the_smallest_kernels_pass(tmp_path: Path, words: str, most: int) -> None:
    """What docs/size.md says of them; 789,584 is known of Linux 2.6.33, without a network."""
    pc = lay_out(tmp_path / "checkout")
    pc.doit("patches=gc-sections-x86,oz", *words.split(), "qemu_test")
    assert (pc.images / "bzImage").stat().st_size <= most
