from __future__ import annotations

import pytest

from tasks import kernel

RECORDS = ("/o/kernel/.panic.o.cmd", "/o/arch/arm/boot/.zImage.cmd", "/o/arch/arm/boot/compressed/.head.o.cmd",
           "/o/arch/arm/boot/dts/.versatile-pb.dtb.cmd", "/o/arch/mips/boot/dts/mti/.malta.dtb.cmd",
           "/o/arch/mips/boot/dts/mti/.malta.dtb.S.cmd", "/o/arch/mips/boot/dts/mti/.malta.dtb.o.cmd",
           "/o/arch/x86/boot/startup/.gdt_idt.o.cmd")
EXPECTED = (True, False, False, False, True, True, True, True)


@pytest.mark.parametrize(("record", "expected"), list(zip(RECORDS, EXPECTED, strict=True)))
def test_what_is_part_of_vmlinux(record: str, expected: bool) -> None:
    assert kernel.in_vmlinux(record, RECORDS) is expected
