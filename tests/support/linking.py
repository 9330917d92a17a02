"""A small program like a kernel: objects in two folders, tables, strings, a linker script."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCES = {
    "init/main.c": """
        extern int shared(int); static int counter = 5; char log[3000];
        static const char text[] = "main says hello";
        __attribute__((noinline)) static int helper(int a) { return a * counter + text[a & 7]; }
        int start(int a) { log[a & 63] = 1; return helper(a) + shared(a); }
        __attribute__((section(".init.text"))) int setup(void) { return counter++; }
    """,
    "kernel/panic.c": """
        const char *why(int a) { return a ? "a reason that both have" : "panic"; }
        __attribute__((noinline)) static int helper(int a) { return a ^ 0x55; }
        int shared(int a) { return helper(a) + 17; }
        __attribute__((used, section("__table"))) static int entry = 9;
        __attribute__((used, aligned(64))) static int aligned = 3;
    """,
    "kernel/other.c": """
        const char *because(int a) { return a ? "a reason that both have" : "another one"; }
        __attribute__((used, section("__table"))) static int entry = 10;
    """,
}
SCRIPT = """
ENTRY(start)
PHDRS { text PT_LOAD; data PT_LOAD; }
SECTIONS {
    . = 0x100000;
    start_kernel = .;
    .text : AT(0x8000) { _text = .; *(.text .text.*) . = ALIGN(32); LONG(0x12345678) } :text
    .rodata : { *(.rodata .rodata.*) }
    __table : { *(__table) QUAD(0) }
    . = ALIGN(4096);
    .data : { *(.data .data.*) } :data
    . = ALIGN(256);
    __init_begin = .;
    .init.text : { *(.init.text) }
    __init_end = .;
    .bss : { *(.bss) *(COMMON) }
    _end = .;
    /DISCARD/ : { *(.comment) *(.note*) *(.eh_frame) }
}
"""


@dataclass(frozen=True)
class Linked:
    """The files: the program with its symbols, its map, and its two kinds of Image."""

    top: Path
    program: Path
    plan: Path
    binary: Path
    stripped: Path

    @property
    def objects(self) -> list[str]:
        return [name.replace(".c", ".o") for name in SOURCES]


def link(top: Path, *more: str, sources: dict[str, str] = SOURCES) -> Linked:
    """Compile and link it in a folder; `more`: options of the linker."""
    for name, text in sources.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        run(top, "gcc", *FLAGS, "-c", name, "-o", name.replace(".c", ".o"))
    (top / "script.lds").write_text(SCRIPT)
    objects = [name.replace(".c", ".o") for name in sources]
    run(
        top, "ld", "-T", "script.lds", "-z", "noexecstack", "--build-id=none", *more,
        "-Map=program.map", "-o", "program", *objects,
    )  # fmt: skip
    run(top, "objcopy", "-O", "binary", "program", "program.bin")
    run(top, "objcopy", "-S", "program", "program.stripped")
    return Linked(
        top, top / "program", top / "program.map", top / "program.bin", top / "program.stripped"
    )


FLAGS = ["-O2", "-ffreestanding", "-fno-pie", "-fno-stack-protector", "-fcommon", "-fno-inline"]


def run(top: Path, *argv: str) -> None:
    subprocess.run(argv, cwd=top, check=True, capture_output=True)
