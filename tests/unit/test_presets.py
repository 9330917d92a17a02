"""The presets: each line has a reason, and each machine takes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks import busybox, kernel_config
from tasks.config import project
from tasks.kconfig import fragments

TOP = Path(__file__).parents[2]
KERNEL = TOP / "configs" / "kernel"
OPTIONAL = re.compile(r"CONFIG_\w+=\S+  # optional: \w")


@pytest.mark.parametrize("name", ["lean", "tiny", "fast", "pc-small", "microvm"])
def test_each_line_has_a_reason(name: str) -> None:
    path = KERNEL / f"{name}.config"
    lines = path.read_text().splitlines()
    numbers = [request.line for request in fragments.parse(path)]
    assert len(numbers) >= 5
    for number in numbers:
        line = lines[number - 1]
        assert re.search(r"\S  # \w", line), line
        # what is asked for may be lacking on a machine; what is to be off is off there anyway
        everywhere = name not in ("pc-small", "microvm")
        assert OPTIONAL.match(line) or line.startswith("# CONFIG_") or not everywhere, line


def test_tiny_comes_on_top_of_lean_and_of_the_machine() -> None:
    its = project.load(TOP, {}, {"fragments": "tiny,printk"})
    names = [path.stem for path in kernel_config.fragment_paths(its)]
    assert names[-3:] == ["lean", "tiny", "printk"]
    assert names[0] == "base"
    assert kernel_config.optional_paths(its) == frozenset()
    both = kernel_config.optional_paths(project.load(TOP, {}, {"fragments": "tiny?"}))
    assert {path.stem for path in both} == {"lean", "tiny"}
    some = kernel_config.optional_paths(project.load(TOP, {}, {"fragments": "lean,tiny?"}))
    assert {path.stem for path in some} == {"tiny"}


def test_nonet_switches_off_what_other_fragments_switch_on_for_a_network() -> None:
    off = {request.symbol for request in fragments.parse(KERNEL / "nonet.config")}
    cards = ("e1000", "e1000e", "ibmveth", "ne2000", "ne2k-pci", "pcnet32", "virtio-net", "smc91x")
    shared = {"ISA", "GPIOLIB"}  # not the network's alone
    for name in ("net", *cards):
        asked = {request.symbol for request in fragments.parse(KERNEL / f"{name}.config")}
        assert asked - shared <= off, name


def test_isa_switches_off_how_the_pc_powers_off_by_pci() -> None:
    """Its driver is one of PCI; a request that can't take is an error."""
    off = {
        request.symbol for request in fragments.parse(KERNEL / "isa.config") if request.value == "n"
    }
    names = ("piix4-poweroff-x86", "ata-piix", "ne2k-pci", "pci")
    asked = {one.symbol for name in names for one in fragments.parse(KERNEL / f"{name}.config")}
    only_pci = {
        symbol for symbol in asked if re.search(r"PCI|PIIX|POWER_RESET|COMPILE_TEST", symbol)
    }
    assert len(only_pci) >= 6
    assert only_pci <= off


@pytest.mark.parametrize("name", ["gzip", "xz", "lz4", "zstd"])
def test_a_compressor_takes_the_place_of_the_machines(name: str) -> None:
    """fragments=gzip on a machine whose file asks for xz, and so on."""
    for machine in ("pc", "versatile"):
        its = project.load(TOP, {}, {"machine": machine, "fragments": name})
        asked = fragments.merge(kernel_config.fragment_paths(its)).requests
        chosen = [one for one in ("GZIP", "XZ", "LZ4", "ZSTD") if not off(asked, f"KERNEL_{one}")]
        assert chosen == [name.upper()]


@pytest.mark.parametrize("name", ["lean", "xz", "lz4", "zstd"])
def test_the_only_compressor_may_stay_on(name: str) -> None:
    """32-bit PowerPC has gzip alone (arch/powerpc/Kconfig), so Kconfig does not switch it off."""
    requests = fragments.parse(KERNEL / f"{name}.config")
    assert [one.optional for one in requests if one.text == "CONFIG_KERNEL_GZIP=n"] == [True]


def off(asked: dict[str, fragments.Request], symbol: str) -> bool:
    return symbol not in asked or asked[symbol].value == "n"


def test_busybox_fragments_come_in_place_of_the_machines() -> None:
    its = project.load(TOP, {}, {"busybox_fragments": "tiny,comfort"})
    assert [path.stem for path in busybox.fragment_paths(its)] == ["static", "tiny", "comfort"]
    assert busybox.base(its) == "allnoconfig"
    plain = project.load(TOP, {}, {})
    assert [path.stem for path in busybox.fragment_paths(plain)] == ["static", "network"]
    assert busybox.base(plain) == "defconfig"


def test_fast_patches_each_kernel_for_which_there_is_the_patch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(TOP)
    words = {"machine": "pc", "fragments": "fast"}
    found = project.load(TOP, {}, words).layout.kernel_patches
    assert found == (Path("configs/patches/no-poison/6.1"),)
    assert project.load(TOP, {}, {**words, "kernel": "6.12"}).layout.kernel_patches == ()
    assert project.load(TOP, {}, {**words, "patches": ""}).layout.kernel_patches == ()
    assert project.load(TOP, {}, {"machine": "pc"}).layout.kernel_patches == ()
