"""Inputs that no record names: real doit, make and compiler."""

from __future__ import annotations

from pathlib import Path

from playground import Playground
from test_shortway import as_make_does, plain_make


def test_a_generated_header_of_which_only_the_loader_has_something(
    built: Playground, tmp_path: Path
) -> None:
    """As x86's asm-offsets.h, which make writes without a record: vmlinux stays as it is."""
    makefile, source = built.linux / "Makefile", built.linux / "kernel/offsets.c"
    built.edit(makefile, "prepare: outputmakefile", "prepare: include/generated/offsets.h")
    built.append(
        makefile,
        "ifeq ($(sub_make_done),1)\nfilechk_offsets = cat $<\n"
        "include/generated/offsets.h: $(srctree)/kernel/offsets.c outputmakefile FORCE\n"
        "\t$(call filechk,offsets)\nendif\n",
    )
    source.write_text("#define OFFSET 1\n")
    for path in ("main.c", "compressed/misc.c"):
        built.append(
            built.linux / "arch/x86/boot" / path, '#include "offsets.h"\nint at = OFFSET;\n'
        )
    built.doit("bzImage")
    source.write_text("#define OFFSET 2\n")
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    assert plain_make(built, built.obj) == []


def test_a_new_source_for_which_a_makefile_looks(built: Playground, tmp_path: Path) -> None:
    built.append(
        built.linux / "lib/Makefile",
        "found := $(wildcard $(srctree)/$(src)/found_*.c)\n"
        "obj-y += $(patsubst $(srctree)/$(src)/%.c,%.o,$(found))\n",
    )
    built.doit("bzImage")
    (built.linux / "lib/found_one.c").write_text("int found_one;\n")
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    assert plain_make(built, built.obj) == []
