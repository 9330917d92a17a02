"""A counted boot of the PC's real kernel."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.real.conftest import Checkout

pytestmark = pytest.mark.real


def counted(pc: Checkout, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        pc.doit("boot=initramfs", "boot_profile", "--json", *words).splitlines()[-1]
    )
    return found


def test_two_boots_are_equal_to_the_instruction_and_each_bar_has_its_reason(pc: Checkout) -> None:
    pc.doit("boot=initramfs", "initramfs")
    first, second = counted(pc), counted(pc, "--against=last")
    assert second["against"]["changes"] == []
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
    assert any(bar["kind"] == "probe" for bar in first["bars"])
    total = first["instructions"]
    pc.doit("boot=initramfs", "boot_profile", f"--limit={total}")
    said = pc.doit("boot=initramfs", "boot_profile", f"--limit={total - 1}", status=1)
    assert "1 more than its limit" in said
