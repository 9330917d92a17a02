"""What makefiles and Kconfig files have the shell read: real doit on the fake kernel, held against
a make from nothing, and plain make has nothing left to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playground import Playground
from test_shortway import as_make_does, plain_make
from test_unseen import changed, put

BASE = "configs/kernel/fake-base.config"
MAKEFILE, PANIC, PRINTK = "kernel/Makefile", "kernel/panic.c", "kernel/printk.c"
CONFIGURATION = "cksum < include/config/auto.conf | cut -d' ' -f1"
COUNT = "unsigned count = COUNT;\n"


def filechk(file: str, command: str) -> str:
    """A header that make writes, at each run if need be, by a command of its own."""
    return (
        f'filechk_{file} = echo "\\#define COUNT $$({command})u"\n'
        f"$(obj)/{file}: FORCE\n\t$(call filechk,{file})\n$(obj)/printk.o: $(obj)/{file}\n"
    )


def counted(play: Playground, command: str, header: bool) -> None:
    """Have printk.o hold what a command prints, by a header that is written or by an option."""
    play.doit("_unpack:linux-6.1")
    if header:
        play.append(play.linux / MAKEFILE, filechk("count.h", command))
        play.append(play.linux / PRINTK, f'#include "count.h"\n{COUNT}')
    else:
        play.append(play.linux / MAKEFILE, f"CFLAGS_printk.o := -DCOUNT=$(shell {command})u\n")
        play.append(play.linux / PRINTK, COUNT)


def configured(play: Playground, line: str) -> None:
    base, name = play.top / BASE, line.partition("=")[0]
    kept = [each for each in base.read_text().splitlines() if not each.startswith(f"{name}=")]
    base.write_text("\n".join([*kept, line]) + "\n")


def nothing_left(play: Playground) -> bool:
    return plain_make(play, play.obj) == []


@pytest.mark.parametrize("header", [True, False])
def test_the_whole_configuration(built: Playground, tmp_path: Path, header: bool) -> None:
    counted(built, CONFIGURATION, header)
    with changed(built, tmp_path):
        configured(built, 'CONFIG_MODPROBE_PATH="/x"')
    assert nothing_left(built)


def test_the_whole_configuration_in_the_top_makefile(built: Playground, tmp_path: Path) -> None:
    built.doit("_unpack:linux-6.1")
    top = built.linux / "Makefile"
    rule = filechk("cfg.h", CONFIGURATION).replace("$(obj)/cfg.h: F", "include/generated/cfg.h: F")
    rule = rule[: rule.index("$(obj)/printk.o")]
    built.edit(top, "PHONY += prepare all", f"{rule}PHONY += prepare all")
    built.edit(top, "prepare: outputmakefile", "prepare: include/generated/cfg.h outputmakefile")
    built.append(built.linux / PRINTK, f'#include "cfg.h"\n{COUNT}')
    with changed(built, tmp_path):
        configured(built, 'CONFIG_MODPROBE_PATH="/x"')
    assert nothing_left(built)


@pytest.mark.parametrize(
    "how",
    [
        "$(words $(filter CONFIG_EXPER%,$(.VARIABLES)))",
        "$(shell grep -c ^CONFIG_EXPER include/config/auto.conf)",
    ],
)
def test_the_beginning_of_a_name(built: Playground, tmp_path: Path, how: str) -> None:
    built.doit("_unpack:linux-6.1")
    built.append(built.linux / MAKEFILE, f"CFLAGS_printk.o := -DCOUNT={how}\n")
    built.append(built.linux / PRINTK, COUNT)
    with changed(built, tmp_path):
        configured(built, "CONFIG_EXPERT=y")
    assert nothing_left(built)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("path", ["kernel/panic.c", "kernel/pan*.c"])
def test_a_source(built: Playground, tmp_path: Path, path: str, header: bool) -> None:
    counted(built, f"cat $(srctree)/{path} | grep -c int", header)
    with changed(built, tmp_path):
        built.append(built.linux / PANIC, "int more_code;\n")
    assert nothing_left(built)


def test_a_header(built: Playground, tmp_path: Path) -> None:
    counted(built, "grep -c int $(srctree)/include/linux/panic.h", False)
    with changed(built, tmp_path):
        built.append(built.linux / "include/linux/panic.h", "/* int */\n")
    assert nothing_left(built)


def test_sources_that_the_shell_lists(built: Playground, tmp_path: Path) -> None:
    built.doit("_unpack:linux-6.1")
    put(built.linux / "kernel/auto/a.c", "int auto_a;\n")
    put(
        built.linux / "kernel/auto/Makefile",
        "obj-y := $(patsubst %.c,%.o,$(shell cd $(srctree)/$(src) && ls *.c))\n",
    )
    built.append(built.linux / MAKEFILE, "obj-y += auto/\n")
    with changed(built, tmp_path):
        put(built.linux / "kernel/auto/b.c", "int auto_b;\n")
    assert nothing_left(built)


def test_a_file_that_the_shell_tests_for(built: Playground, tmp_path: Path) -> None:
    put(built.linux / "firmware/other", "x")
    counted(built, "test -e $(srctree)/firmware/opt && echo 2 || echo 1", False)
    with changed(built, tmp_path):
        put(built.linux / "firmware/opt", "x")
    assert nothing_left(built)


@pytest.mark.parametrize(
    ("command", "new"),
    [("ls $(srctree)/lib/*.c", "lib/x.c"), ("find $(srctree)/firmware -type f", "firmware/a/b")],
)
def test_a_file_that_the_shell_finds(
    built: Playground, tmp_path: Path, command: str, new: str
) -> None:
    """The result in the store is one of before, too."""
    put(built.linux / "firmware/a/a", "x")
    counted(built, f"{command} | wc -l", True)
    built.store_size = "100M"
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    put(built.linux / new, "int x;\n")
    shutil.rmtree(built.here)
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)


@pytest.mark.parametrize("path", ["firmware/value", "firmware/new", PANIC])
def test_a_file_that_a_kconfig_file_reads(built: Playground, tmp_path: Path, path: str) -> None:
    built.doit("_unpack:linux-6.1")
    put(built.linux / "firmware/value", "int\n")
    built.append(
        built.linux / "init/Kconfig",
        f"\nconfig VALUE\n\tint\n\tdefault $(shell,cat $(srctree)/{path} 2>/dev/null | wc -l)\n",
    )
    built.append(built.linux / PRINTK, "unsigned count = CONFIG_VALUE;\n")
    with changed(built, tmp_path), (built.linux / path).open("a") as stream:
        stream.write("int more_code;\n")
    assert nothing_left(built)
