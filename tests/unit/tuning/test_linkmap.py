"""Linkers' maps, as GNU ld and lld write them."""

from __future__ import annotations

import pytest

from tasks.tuning import linkmap
from tasks.tuning.linkmap import FILL, Input

GNU = """\
Archive member included to satisfy reference by file (symbol)

init/main.o                   (--whole-archive)

Discarded input sections

 .comment       0x00000000       0x26 init/main.o

Memory Configuration

Linker script and memory map

                0xc041c880                        jiffies = jiffies_64

.text           0xc0100000   0x231ba0 load address 0x00100000
                0xc0100000                        _text = .
 *(.head.text)
 .head.text     0xc0100000      0x2ca arch/x86/kernel/head_32.o
                0xc0100000                startup_32
 *fill*         0xc01002ca        0x6 cccc
 .text          0xc01002d0        0x0 arch/x86/kernel/ebda.o
 .text          0xc01002d0       0x1f lib/lib.a(dump_stack.o)

.x86_cpu_dev.init_long
                0xc046b934       0x28
 .rodata.str1.1
                0xc03668a0      0x60f init/main.o
                                0x665 (size before relaxing)
                0xc0366eaf        0x4 LONG 0x0
 .text.very_long_name
                0xc0366fb0       0x10 linker stubs
 .text.stub     0xc0366fc0       0x10 linker stubs
 COMMON         0xc0367000        0x8 /opt/lib/libc.a(errno.lo)
"""
LLD = """\
             VMA              LMA     Size Align Out     In      Symbol
               0                0        0     1 . = 0x100000
          100000             8000       70    32 .text
          100000           100000        0     1 _text = .
          100000           100000       60    32         vmlinux.a(kernel/panic.o):(.text)
          100000           100000       30     1                 panic
          100060           100060       10     1         <internal>:(.text)
          100070           100070       10     4 .rodata
          100070           100070       10     4         init/main.o:(.rodata)
"""


def test_gnu_ld() -> None:
    assert linkmap.parse(GNU) == [
        Input(".text", ".head.text", 0xC0100000, 0x2CA, "arch/x86/kernel/head_32.o"),
        Input(".text", FILL, 0xC01002CA, 6, ""),
        Input(".text", ".text", 0xC01002D0, 0x1F, "lib/dump_stack.o"),
        Input(".x86_cpu_dev.init_long", ".rodata.str1.1", 0xC03668A0, 0x60F, "init/main.o"),
        Input(".x86_cpu_dev.init_long", "COMMON", 0xC0367000, 8, "/opt/lib/errno.lo"),
    ]


def test_lld() -> None:
    assert linkmap.parse(LLD) == [
        Input(".text", ".text", 0x100000, 0x60, "kernel/panic.o"),
        Input(".rodata", ".rodata", 0x100070, 0x10, "init/main.o"),
    ]


def test_what_is_no_map_has_no_parts() -> None:
    assert linkmap.parse("") == []
    assert linkmap.parse("\x7fELF\n .text 0xzz\n") == []


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("kernel/panic.o", "kernel/panic.o"),
        ("./kernel/panic.o", "kernel/panic.o"),
        ("lib/lib.a(string.o)", "lib/string.o"),
        ("vmlinux.a(kernel/panic.o)", "kernel/panic.o"),
        (".tmp_vmlinux.kallsyms2.o", linkmap.KALLSYMS),  # 6.1
        (".tmp_vmlinux2.kallsyms.o", linkmap.KALLSYMS),  # 6.12
        (".tmp_kallsyms2.o", linkmap.KALLSYMS),  # 5.10
        (".vmlinux.export.o", ".vmlinux.export.o"),
    ],
)
def test_objects_are_named_as_kbuild_names_them(word: str, path: str) -> None:
    assert linkmap.path_of(word) == path
