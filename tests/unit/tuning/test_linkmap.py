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
               0                0   100000     1 . = 0x100000
          100000             8000       c4    16 .text
          100000             8000        0     1         _text = .
          100000             8000       41    16         vmlinux.a(init/main.o):(.text)
          100000             8000       16     1                 helper
          100020             8020       21     1                 start
          100050             8050       39    16         vmlinux.a(kernel/panic.o):(.text)
          100050             8050        6     1                 helper
          100060             8060       11     1                 why
          100080             8080        9     1                 shared
          100090             8090       11    16         vmlinux.a(kernel/other.o):(.text)
          100090             8090       11     1                 because
          1000a1             80a1       1f     1         . = ALIGN(32)
          1000c0             80c0        4     1         LONG(0x12345678)
          1000d0             80d0       3a    16 .rodata
          1000d0             80d0       10    16         vmlinux.a(init/main.o):(.rodata)
          1000d0             80d0       10     1                 text
          1000e0             80e0       2a     1         <internal>:(.rodata.str1.1)
          10010c             810c       10     4 __table
          10010c             810c        4     4         vmlinux.a(kernel/panic.o):(__table)
          10010c             810c        4     1                 entry
          100110             8110        4     4         vmlinux.a(kernel/other.o):(__table)
          100110             8110        4     1                 entry
          100114             8114        8     1         QUAD(0)
          10011c             811c      ee4     1 . = ALIGN(4096)
          101000             9000       44    64 .data
          101000             9000        4     4         vmlinux.a(init/main.o):(.data)
          101000             9000        4     1                 counter
          101040             9040        4    64         vmlinux.a(kernel/panic.o):(.data)
          101040             9040        4     1                 aligned
          101044             9044        0     1         vmlinux.a(kernel/other.o):(.data)
          101044             9044       bc     1 . = ALIGN(256)
"""  # of LLD 22


def test_gnu_ld() -> None:
    assert linkmap.parse(GNU) == [
        Input(".text", ".head.text", 0xC0100000, 0x2CA, "arch/x86/kernel/head_32.o"),
        Input(".text", FILL, 0xC01002CA, 6, ""),
        Input(".text", ".text", 0xC01002D0, 0x1F, "lib/dump_stack.o"),
        Input(".x86_cpu_dev.init_long", ".rodata.str1.1", 0xC03668A0, 0x60F, "init/main.o"),
        Input(".x86_cpu_dev.init_long", "COMMON", 0xC0367000, 8, "/opt/lib/errno.lo"),
    ]


def test_lld() -> None:
    found = linkmap.parse(LLD)
    assert [part for part in found if part.name != FILL] == [
        Input(".text", ".text", 0x100000, 0x41, "init/main.o"),
        Input(".text", ".text", 0x100050, 0x39, "kernel/panic.o"),
        Input(".text", ".text", 0x100090, 0x11, "kernel/other.o"),
        Input(".rodata", ".rodata", 0x1000D0, 0x10, "init/main.o"),
        Input(".rodata", ".rodata.str1.1", 0x1000E0, 0x2A, linkmap.STRINGS),
        Input("__table", "__table", 0x10010C, 4, "kernel/panic.o"),
        Input("__table", "__table", 0x100110, 4, "kernel/other.o"),
        Input(".data", ".data", 0x101000, 4, "init/main.o"),
        Input(".data", ".data", 0x101040, 4, "kernel/panic.o"),
    ]
    assert [(part.address, part.size) for part in found if part.name == FILL and part.section] == [
        (0x100041, 0xF),
        (0x100089, 0x7),
        (0x1000A1, 0x1F),
        (0x10011C, 0xEE4),
        (0x101004, 0x3C),
        (0x101044, 0xBC),
    ]


def test_what_is_no_map_has_no_parts() -> None:
    assert linkmap.parse("") == []
    assert linkmap.parse("\x7fELF\n .text 0xzz\n") == []
    assert linkmap.parse("   \n .text 0x1 0x2\n .text 0x1 0x.2 a.o\n .text  0x10 0x2g a.o\n") == []
    assert linkmap.parse(LLD.partition("\n")[0] + "\n x y z u .text\n 1 1 1 q a.o:(.text)\n") == []


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
