"""Which symbol brings in an object, by Makefiles as the kernel has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.kbuild.brought_in import BroughtIn

MAKEFILES = {
    "Makefile": "core-y := init/\ndrivers-$(CONFIG_SAMPLES) += samples/\n",
    "arch/x86/Makefile": "drivers-$(CONFIG_PCI) += arch/x86/pci/\n",
    "arch/x86/pci/Makefile": "obj-y := common.o\n",
    "Kbuild": (
        "obj-y += init/ drivers/ arch/$(SRCARCH)/\nobj-$(CONFIG_NET)\t+= net/ # the network\n"
    ),
    "drivers/Makefile": "obj-$(CONFIG_ATA) += ata/\nobj-y += base/\n",
    "drivers/ata/Makefile": (
        "obj-$(CONFIG_ATA) += libata.o\n"
        "libata-y := core.o \\\n\tscsi.o\n"
        "libata-$(CONFIG_ATA_SFF) += sff.o\n"
        "obj-$(CONFIG_ATA_PIIX) += ata_piix.o\n"
        "ifeq ($(CONFIG_ATA_ACPI),y)\nlibata-objs += acpi.o\nelse\nlibata-y += plain.o\nendif\n"
    ),
    "net/Makefile": (
        "obj-y := socket.o\nobj-$(CONFIG_INET) += ipv4/\n"
        "obj-$(subst m,y,$(CONFIG_IPV6)) += ipv6/hashtables.o\n"
        "ccflags-$(CONFIG_DEBUG) += none.o\n"
    ),
    "net/ipv4/Makefile": (
        "obj-y := tcp.o\nobj-$(CONFIG_OFF) += tcp.o\nifdef CONFIG_SYSCTL\nobj-y += s.o\nendif\n"
    ),
    "init/Makefile": "obj-$(CONFIG_OFF) += main.o\nobj-$(CONFIG_ON) += main.o\n",
}
ON = dict.fromkeys(("NET", "INET", "ATA", "ATA_SFF", "ATA_ACPI", "PCI", "IPV6", "SYSCTL"), "y")


@pytest.fixture
def tree(tmp_path: Path) -> BroughtIn:
    for name, text in MAKEFILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return BroughtIn(tmp_path, {**ON, "ON": "y", "ATA_PIIX": "m", "OFF": "n"}, "x86")


@pytest.mark.parametrize(
    ("path", "symbols"),
    [
        ("drivers/ata/core.o", ["ATA"]),
        ("drivers/ata/scsi.o", ["ATA"]),
        ("drivers/ata/sff.o", ["ATA_SFF", "ATA"]),
        ("drivers/ata/acpi.o", ["ATA_ACPI", "ATA"]),
        ("drivers/ata/plain.o", ["ATA"]),
        ("drivers/ata/ata_piix.o", ["ATA_PIIX", "ATA"]),
        ("drivers/base/core.o", []),
        ("net/socket.o", ["NET"]),
        ("net/ipv4/tcp.o", ["INET", "NET"]),
        ("net/ipv4/s.o", ["SYSCTL", "INET", "NET"]),
        ("net/ipv6/hashtables.o", ["IPV6", "NET"]),
        ("net/none.o", ["NET"]),
        ("arch/x86/pci/common.o", ["PCI"]),
        ("init/main.o", ["ON"]),
        ("nowhere/at/all.o", []),
    ],
)
def test_an_object_takes_its_own_symbol_and_its_folders(
    tree: BroughtIn, path: str, symbols: list[str]
) -> None:
    assert tree.chain(path) == symbols
