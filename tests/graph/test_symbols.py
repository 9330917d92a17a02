"""The short way after a changed configuration, on the fake kernel: the same images as make's, and
make finds nothing to do afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playground import Kept, Playground
from test_objects import compiled
from test_shortway import LINKS, as_make_does, code, plain_make, way

BASE = "configs/kernel/fake-base.config"
PANIC = "kernel/panic.c"
READS = "#ifdef CONFIG_{0}\nint has_{0}_in_{1};\n#endif\n"


def _prepare(play: Playground) -> None:
    play.doit("_unpack:linux-6.1")
    play.append(play.linux / PANIC, READS.format("EXPERT", "panic"))
    deep = play.linux / "kernel/deep"
    deep.mkdir()
    (deep / "Makefile").write_text("obj-y := always.o\nobj-$(CONFIG_EXPERT) += more.o\n")
    (deep / "always.c").write_text("int deep_always;\n")
    (deep / "more.c").write_text("int deep_more;\n")
    play.append(play.linux / "kernel/Makefile", "obj-y += deep/\n")
    play.doit("bzImage")


@pytest.fixture
def play(kept: Kept) -> Iterator[Playground]:
    """The project with symbols that objects and folders use, built."""
    with kept.state("symbols", _prepare) as play:
        yield play


def set_symbols(play: Playground, *symbols: str) -> None:
    base = play.top / BASE
    lines = [
        line
        for line in base.read_text().splitlines()
        if not re.match("CONFIG_(EXTRA|EXPERT|LOCALVERSION|NETDEVICES)=", line)
    ]
    lines += [f"CONFIG_{symbol}" if "=" in symbol else f"CONFIG_{symbol}=y" for symbol in symbols]
    base.write_text("\n".join(lines) + "\n")


def right(play: Playground, tmp_path: Path) -> bool:
    """Are the images what make makes, does make find nothing to do, and do we?"""
    assert plain_make(play, play.obj) == []
    assert play.doit("bzImage").ran == []
    return as_make_does(play, tmp_path)


def short(play: Playground) -> bool:
    """Build; did every link of the chain go the short way?"""
    for log in (play.here / "logs").glob("*.log"):
        log.unlink()
    assert "vmlinux" in play.doit("bzImage").ran
    ways = {name: way(play, name) for name in LINKS if (play.here / f"logs/{name}.log").exists()}
    assert ways == dict.fromkeys(LINKS, "short")
    return True


def test_a_symbol_costs_its_objects(play: Playground, tmp_path: Path) -> None:
    set_symbols(play, "EXTRA")
    assert short(play)
    assert compiled(play) == ["kernel/extra.o"]
    assert right(play, tmp_path)
    set_symbols(play, "EXTRA", "EXPERT")
    assert short(play)
    assert compiled(play) == ["kernel/deep/more.o", "kernel/panic.o"]
    assert right(play, tmp_path)
    set_symbols(play)  # both lists get shorter, one below the other
    assert short(play)
    assert compiled(play) == ["kernel/panic.o"]
    assert right(play, tmp_path)


def test_an_edit_with_a_symbol(play: Playground, tmp_path: Path) -> None:
    set_symbols(play, "EXTRA")
    code("lib/string.c")(play)
    assert short(play)
    assert compiled(play) == ["kernel/extra.o", "lib/string.o"]
    assert right(play, tmp_path)


def test_what_is_dropped_is_no_input_of_the_short_way(play: Playground, tmp_path: Path) -> None:
    set_symbols(play, "EXTRA")
    assert short(play)
    set_symbols(play)
    assert short(play)
    play.append(play.linux / "kernel/extra.c", "#error not of this kernel\n")
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_from_the_folders_own_state(play: Playground, tmp_path: Path) -> None:
    """After a configuration came back from the store, the folder has still the other one."""
    play.store_size = "1G"
    set_symbols(play, "EXTRA")
    play.doit("bzImage")
    set_symbols(play, "EXPERT")
    assert short(play)
    set_symbols(play, "EXTRA")
    assert "vmlinux" in play.doit("bzImage").restored
    set_symbols(play, "EXTRA", "EXPERT")
    assert short(play)
    assert compiled(play) == []  # each of them was compiled before
    assert right(play, tmp_path)


@pytest.mark.long
def test_an_edit_after_a_configuration_came_back(play: Playground, tmp_path: Path) -> None:
    play.store_size = "1G"
    set_symbols(play, "EXTRA")
    play.doit("bzImage")
    set_symbols(play, "EXPERT")
    assert short(play)
    set_symbols(play, "EXTRA")
    play.doit("bzImage")
    code(PANIC, 7)(play)
    assert short(play)
    assert compiled(play) == ["kernel/panic.o"]
    assert right(play, tmp_path)


def test_an_error_between(play: Playground, tmp_path: Path) -> None:
    """A folder was made for a symbol before the error that ends the run; then all is taken back."""
    set_symbols(play, "EXTRA")
    before = (play.linux / "lib/string.c").read_text()
    play.append(play.linux / "lib/string.c", "#error no\n")
    play.fails("bzImage")
    set_symbols(play)
    (play.linux / "lib/string.c").write_text(before)
    play.doit("bzImage")
    assert as_make_does(play, tmp_path)
    code("lib/string.c")(play)
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_flags_of_one_folder(play: Playground, tmp_path: Path) -> None:
    play.append(play.linux / "kernel/Makefile", "ccflags-$(CONFIG_EXTRA) += -DEXTRA_FLAG\n")
    play.doit("bzImage")
    set_symbols(play, "EXTRA")
    assert short(play)
    assert compiled(play) == ["kernel/extra.o", "kernel/panic.o", "kernel/printk.o"]
    assert right(play, tmp_path)


@pytest.mark.parametrize(
    ("symbol", "where", "line"),
    [
        ("EXPERT", "Makefile", "KBUILD_CFLAGS += $(if $(CONFIG_EXPERT),-DFLAG)\n"),
        ("EXPERT", "scripts/link-vmlinux.sh", "# CONFIG_EXPERT\n"),
        ("EXPERT", "arch/x86/Makefile", "KBUILD_CFLAGS += $(if $(CONFIG_EXPERT),-DFLAG)\n"),
        ("EXTRA", "kernel/Makefile", "subdir-ccflags-$(CONFIG_EXTRA) += -DX\n"),
        ("EXTRA", "kernel/Makefile", "ifdef CONFIG_EXTRA\nexport X := y\nendif\n"),
        ('LOCALVERSION="-x"', "kernel/Makefile", ""),
    ],
)
def test_make_decides(play: Playground, tmp_path: Path, symbol: str, where: str, line: str) -> None:
    play.append(play.linux / where, line)
    play.doit("bzImage")
    set_symbols(play, symbol)
    play.doit("bzImage")
    name = symbol.partition("=")[0]
    assert f"CONFIG_{name} is used in" in way(play, "vmlinux")
    assert right(play, tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "on = $(CONFIG_$1)\nobj-$(call on,EXTRA) += unused.o\n",
        "obj-$(firstword $(foreach one,$(addprefix CONFIG_,EXTRA),$($(one)))) += unused.o\n",
    ],
)
def test_a_symbol_whose_name_make_puts_together(
    play: Playground, tmp_path: Path, line: str
) -> None:
    play.append(play.linux / "lib/Makefile", line)
    play.doit("bzImage")
    set_symbols(play, "EXTRA")
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_a_makefile_that_a_symbol_brings_in(play: Playground, tmp_path: Path) -> None:
    """By a variable, so that only make can tell which one it is."""
    (play.linux / "include/parts").mkdir()
    brought = play.linux / "include/parts/extra.mk"
    brought.write_text("ccflags-y += -DFLAG=1\n")
    play.append(
        play.linux / "lib/Makefile",
        "parts := $(srctree)/include/parts\nifdef CONFIG_EXTRA\ninclude $(parts)/extra.mk\nendif\n",
    )
    play.append(play.linux / "lib/string.c", "#ifdef FLAG\nint flag = FLAG;\n#endif\n")
    play.doit("bzImage")
    set_symbols(play, "EXTRA")
    assert short(play)
    brought.write_text("ccflags-y += -DFLAG=2\n")
    assert "bzImage" in play.doit("bzImage").ran
    assert right(play, tmp_path)


def test_another_folder_below(play: Playground, tmp_path: Path) -> None:
    play.append(play.linux / "kernel/Makefile", "obj-$(CONFIG_EXTRA) += new/\n")
    (play.linux / "kernel/new").mkdir()
    (play.linux / "kernel/new/Makefile").write_text("obj-y := new.o\n")
    (play.linux / "kernel/new/new.c").write_text("int in_new;\n")
    play.doit("bzImage")
    for symbols in (["EXTRA"], [], ["EXTRA"]):
        set_symbols(play, *symbols)
        play.doit("bzImage")
        assert right(play, tmp_path)
