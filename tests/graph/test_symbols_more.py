"""Changed symbols in less usual makefiles, on the fake kernel: the short way or not, the images are
make's, and make finds nothing to do afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import clocks
import pytest
from playground import Playground
from test_shortway import as_make_does, code, plain_make, way
from test_symbols import BASE, PANIC, READS, right, set_symbols, short
from test_symbols import play as play

KERNEL = "kernel/Makefile"
GENERATES = """\
$(obj)/panic.o: $(obj)/number.h
cmd_number = echo '\\#define NUMBER $(if $(CONFIG_EXPERT),1,2)' > $@
$(obj)/number.h: FORCE
	$(call if_changed,number)
targets += number.h
"""


@pytest.fixture
def kept_objects(play: Playground) -> Iterator[Playground]:
    """The same with a store of objects."""
    play.store_size = "1G"
    yield play
    play.store_size = "0"


@pytest.mark.long
def test_a_header_of_a_folder_that_make_looked_at(kept_objects: Playground, tmp_path: Path) -> None:
    """Objects of other folders that include it are taken from the store by its new content."""
    play = kept_objects
    play.append(play.linux / KERNEL, GENERATES)
    play.append(play.linux / PANIC, '#include "number.h"\nint panic_number = NUMBER;\n')
    play.append(
        play.linux / "lib/string.c", '#include "../kernel/number.h"\nint string_number = NUMBER;\n'
    )
    play.append(play.linux / "Makefile", "lib: kernel\n")
    play.doit("bzImage")
    code("drivers/null.c")(play)  # so that vmlinux is not in the store
    set_symbols(play, "EXPERT")
    assert short(play)
    assert right(play, tmp_path)
    code("drivers/null.c", 2)(play)
    set_symbols(play)
    assert short(play)
    assert right(play, tmp_path)


def test_a_symbol_taken_back_after_an_error(play: Playground, tmp_path: Path) -> None:
    """What is compiled after that is of the old value, and older than the symbol's next change."""
    source = play.linux / "lib/string.c"
    (play.linux / "kernel/deep/Makefile").write_text("obj-y := always.o\n")
    play.doit("bzImage")
    before = source.read_text()
    set_symbols(play, "EXPERT")
    play.append(source, "#error no\n")
    play.fails("bzImage")
    set_symbols(play)
    source.write_text(before)
    play.doit("bzImage")
    assert as_make_does(play, tmp_path)
    set_symbols(play, "EXPERT")
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_a_plain_make_of_another_configuration_between(play: Playground, tmp_path: Path) -> None:
    config = play.obj / ".config"
    config.write_text(config.read_text().replace("# CONFIG_EXPERT is not set", "CONFIG_EXPERT=y"))
    assert plain_make(play, play.obj) != []
    code("lib/string.c")(play)
    play.doit("bzImage")
    assert right(play, tmp_path)


@pytest.mark.long
def test_archives_two_levels_above(play: Playground, tmp_path: Path) -> None:
    net = play.linux / "drivers/mid"
    (net / "deep").mkdir(parents=True)
    (net / "deep/Makefile").write_text("obj-$(CONFIG_EXPERT) += more.o\nobj-y += always.o\n")
    (net / "deep/always.c").write_text("int net_always;\n")
    (net / "deep/more.c").write_text("int net_more;\n")
    (net / "mid.c").write_text("int net_mid;\n")
    (net / "Makefile").write_text(
        "obj-y += mid.o deep/\nccflags-$(CONFIG_EXPERT) += -DEXPERT_FLAG\n"
    )
    play.append(play.linux / "drivers/Makefile", "obj-y += mid/\n")
    play.doit("bzImage")
    for symbols in (["EXPERT"], []):
        set_symbols(play, *symbols)
        play.doit("bzImage")
        assert right(play, tmp_path)


def inherits(play: Playground) -> None:
    """Have flags go to the folders below, as scripts/Makefile.lib has them."""
    play.edit(
        play.linux / "scripts/Makefile.build",
        "c_flags =",
        "KBUILD_CFLAGS += $(subdir-ccflags-y)\nc_flags =",
    )
    play.append(play.linux / "kernel/deep/Makefile", "ccflags-y += $(MORE)\n")
    play.append(play.linux / "kernel/deep/always.c", "#ifdef MORE\nint deep_flag;\n#endif\n")


INDIRECT = "more-$(CONFIG_EXTRA) := -DMORE\nsubdir-ccflags-y += $(more-y)\n"
EXPORTED = "MORE := $(if $(CONFIG_EXTRA),-DMORE)\nexport MORE\n"


@pytest.mark.parametrize("lines", [INDIRECT, EXPORTED])
def test_flags_of_the_folders_below_by_another_variable(
    play: Playground, tmp_path: Path, lines: str
) -> None:
    inherits(play)
    play.append(play.linux / KERNEL, lines)
    play.doit("bzImage")
    set_symbols(play, "EXTRA")
    play.doit("bzImage")
    assert right(play, tmp_path)


@pytest.mark.parametrize(
    "line", ["subdir-ccflags-y += -DMORE\n", "export MORE := -DMORE\n", "KBUILD_CFLAGS += -DMORE\n"]
)
def test_flags_of_the_folder_above(play: Playground, tmp_path: Path, line: str) -> None:
    """A folder that is made alone has them, too."""
    inherits(play)
    play.append(play.linux / KERNEL, line)
    play.doit("bzImage")
    set_symbols(play, "EXPERT")
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_a_folder_below_that_is_in_no_archive(play: Playground, tmp_path: Path) -> None:
    play.append(play.linux / KERNEL, "subdir-$(CONFIG_EXPERT) += tool\n")
    (play.linux / "kernel/tool").mkdir()
    (play.linux / "kernel/tool/Makefile").write_text("hostprogs := tool\nalways-y := tool\n")
    (play.linux / "kernel/tool/tool.c").write_text("int main(void) { return 0; }\n")
    play.doit("bzImage")
    set_symbols(play, "EXPERT")
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_a_symbol_whose_name_make_computes(play: Playground, tmp_path: Path) -> None:
    play.append(play.linux / KERNEL, "which := RA\nobj-$(CONFIG_EXT$(which)) += more.o\n")
    play.edit(play.linux / KERNEL, "obj-$(CONFIG_EXTRA) += extra.o\n", "")
    (play.linux / "kernel/more.c").write_text("int computed_more;\n")
    play.doit("bzImage")
    set_symbols(play, "EXTRA")
    play.doit("bzImage")
    assert right(play, tmp_path)


@pytest.mark.parametrize("how", ["$(src)/part/Makefile", "kernel/part/rules.mk"])
def test_a_part_of_a_makefile(play: Playground, tmp_path: Path, how: str) -> None:
    """The folder of the part has no object, so its makefile is not known for one of a folder."""
    part = play.linux / "kernel/part"
    part.mkdir()
    (part / how.rpartition("/")[2]).write_text("obj-$(CONFIG_EXPERT) += part/more.o\n")
    (part / "more.c").write_text("int part_more;\n")
    if how.startswith("$(src)"):
        how = "$(srctree)/" + how
        how = how.replace("$(srctree)/$(src)", "$(addprefix $(srctree)/,$(src))")
    play.append(play.linux / KERNEL, f"include {how}\n")
    play.doit("bzImage")
    for symbols in (["EXPERT"], []):
        set_symbols(play, *symbols)
        play.doit("bzImage")
        assert right(play, tmp_path)


def test_a_makefile_that_two_folders_read(play: Playground, tmp_path: Path) -> None:
    play.append(play.linux / "kernel/deep/Makefile", "ccflags-$(CONFIG_EXPERT) += -DEXPERT_FLAG\n")
    play.append(
        play.linux / "lib/Makefile",
        "save := $(obj-y)\ninclude $(srctree)/kernel/deep/Makefile\nobj-y := $(save)\n",
    )
    play.append(play.linux / "lib/string.c", "#ifdef EXPERT_FLAG\nint string_flag;\n#endif\n")
    play.doit("bzImage")
    set_symbols(play, "EXPERT")
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_a_folder_that_is_called_for_a_goal_too(play: Playground, tmp_path: Path) -> None:
    """As arm64's vdso is, whose header all others include."""
    play.append(
        play.linux / KERNEL,
        GENERATES.replace("$(obj)/panic.o: $(obj)/number.h\n", ""),
    )
    play.append(play.linux / "lib/string.c", '#include "kernel/number.h"\nint number = NUMBER;\n')
    play.edit(
        play.linux / "Makefile",
        "prepare: outputmakefile",
        "header: scripts_basic\n\t@$(MAKE) $(build)=kernel kernel/number.h\n"
        "PHONY += header\nprepare: header outputmakefile",
    )
    play.edit(play.linux / "Makefile", "-Iinclude/generated", "-I. -Iinclude/generated")
    play.doit("bzImage")
    set_symbols(play, "EXPERT")
    play.doit("bzImage")
    assert right(play, tmp_path)


@pytest.mark.long
def test_objects_in_a_folder_below(play: Playground, tmp_path: Path) -> None:
    (play.linux / "kernel/sub").mkdir()
    (play.linux / "kernel/sub/more.c").write_text("int sub_more;\n" + READS.format("EXTRA", "sub"))
    play.append(play.linux / KERNEL, "obj-$(CONFIG_EXPERT) += sub/more.o\n")
    play.doit("bzImage")
    for symbols in (["EXPERT"], ["EXTRA"], ["EXTRA", "EXPERT"], []):
        set_symbols(play, *symbols)
        play.doit("bzImage")
        assert right(play, tmp_path)


def test_a_symbol_whose_name_the_preprocessor_puts_together(
    kept_objects: Playground, tmp_path: Path
) -> None:
    """As drivers/tty/serial/8250/8250_pci.c has it; make alone does not compile it again."""
    play = kept_objects
    play.append(play.linux / PANIC, "#define OF(x) CONFIG_##x\nint shift = OF(LOG_BUF_SHIFT);\n")
    play.doit("bzImage")
    base = play.top / BASE
    before = base.read_text()
    for shift, by_make in (("15", False), ("16", True)):
        base.write_text(f"{before}CONFIG_LOG_BUF_SHIFT={shift}\n")
        if by_make:
            (play.obj / "piggyback.state" / "vmlinux").unlink()
        play.doit("bzImage")
        assert (way(play, "vmlinux") == "short") is not by_make
        assert right(play, tmp_path)


def test_a_symbol_after_the_clock_was_set_back(play: Playground, tmp_path: Path) -> None:
    """Make compares times: what Kconfig touches is newer than what was made in the hour before."""
    clocks.shift(play.obj, 3600 * 10**9)
    set_symbols(play, "EXPERT")
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_a_symbol_of_busybox_after_the_clock_was_set_back(play: Playground) -> None:
    """What make derives from the configuration must stay older than it: make takes a time of
    before 1970 for one of the far future."""
    play.doit("busybox")
    clocks.shift(play.here / "busybox", 3600 * 10**9)
    play.append("configs/busybox/fake.config", "# CONFIG_FEATURE_FANCY_ECHO is not set\n")
    play.doit("busybox")
    assert b"strcmp" not in (play.here / "busybox/coreutils/echo.o").read_bytes()
