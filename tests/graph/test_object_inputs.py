"""What an object is made from, and neither fixdep nor the compiler's list of headers tells: real
doit on the fake kernel, held against a make from nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playground import Playground
from test_objects import BASE, PANIC, elsewhere, play, right
from test_shortway import as_make_does

from tasks.kbuild.depfiles import PLACED

__all__ = ["play"]
MAKEFILE = "kernel/Makefile"
Change = Callable[[Playground], object]
# A rule that marks the object after the saved command.
MARKS = """
cmd_cc_o_c_marked = $(cmd_cc_o_c)
cmd_mark = printf x > $@.x; $(OBJCOPY) --add-section .data.mark=$@.x \\
	--set-section-flags .data.mark=alloc,data $@
"""
BY_NAME = f"""{MARKS}
define rule_cc_o_c_marked
	$(call cmd_and_fixdep,cc_o_c_marked)
	$(call cmd,mark)
endef
$(obj)/panic.o: $(srctree)/$(src)/panic.c FORCE
	$(call if_changed_rule,cc_o_c_marked)
"""
BY_RECIPE = f"""{MARKS}
$(obj)/panic.o: $(srctree)/$(src)/panic.c FORCE
	$(call if_changed_dep,cc_o_c_marked)
	$(if $(newer-prereqs),$(call cmd,mark))
"""


def put(play: Playground, name: str, text: str) -> None:
    path = play.linux / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def compiled(play: Playground, flags: str, text: str) -> None:
    """Have panic.o compiled with more flags and with more text."""
    play.append(play.linux / MAKEFILE, f"CFLAGS_panic.o := {flags}\n")
    play.append(play.linux / PANIC, text)


def flipped(play: Playground) -> None:
    play.append(BASE, "CONFIG_LOG_BUF_SHIFT=17\n")


def checked(play: Playground, tmp_path: Path, prepare: Change, change: Change) -> None:
    """Build, change something, and build again, as make does from nothing."""
    play.doit("_unpack:linux-6.1")
    prepare(play)
    play.doit("bzImage")
    assert as_make_does(play, tmp_path)
    change(play)
    play.doit("bzImage")
    assert right(play, tmp_path)
    assert play.doit("bzImage").ran == []


def checked_with_the_store(
    play: Playground, tmp_path: Path, prepare: Change, change: Change
) -> None:
    """Build, change something, and build from nothing what the store does not have."""
    prepare(play)
    play.doit("bzImage")
    assert as_make_does(play, tmp_path)
    change(play)
    shutil.rmtree(play.top / "build" / "fake")
    play.doit("bzImage")
    assert as_make_does(play, tmp_path)


# rules of a folder's own -------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [BY_NAME, BY_RECIPE])
def test_an_edit_under_a_rule_with_another_step(
    built: Playground, tmp_path: Path, rule: str
) -> None:
    def prepare(play: Playground) -> None:
        play.append(play.linux / MAKEFILE, rule)

    checked(
        built, tmp_path, prepare, lambda play: play.append(play.linux / PANIC, "int more_code;\n")
    )
    log = (built.here / "logs" / "vmlinux.log").read_text()
    assert "has a rule of its own" in log


def test_another_step_with_the_store(play: Playground, tmp_path: Path) -> None:
    checked_with_the_store(
        play,
        tmp_path,
        lambda play: play.append(play.linux / MAKEFILE, BY_NAME),
        lambda play: play.edit(play.linux / MAKEFILE, "printf x", "printf y"),
    )


def test_a_first_step_with_the_store(play: Playground, tmp_path: Path) -> None:
    """The store has the object without it, of the same command."""
    checked_with_the_store(
        play,
        tmp_path,
        lambda play: play.append(play.linux / PANIC, "int more_code;\n"),
        lambda play: play.append(play.linux / MAKEFILE, BY_NAME),
    )


# symbols -----------------------------------------------------------------------------------------


def by_option(play: Playground) -> None:
    compiled(play, "-DSHIFT=CONFIG_LOG_BUF_SHIFT", "int shift = SHIFT;\n")


def by_part_in_an_option(play: Playground) -> None:
    compiled(play, "-D'HAS(x)=CONFIG_\\#\\#x'", "int shift = HAS(LOG_BUF_SHIFT);\n")


def by_parameter(play: Playground) -> None:
    text = "#define HAS(p, x) p##_##x\nint shift = HAS(CONFIG, LOG_BUF_SHIFT);\n"
    play.append(play.linux / PANIC, text)


def by_file_of_options(play: Playground) -> None:
    put(play, "kernel/flags", "-DSHIFT=CONFIG_LOG_BUF_SHIFT\n")
    compiled(play, "@$(srctree)/kernel/flags", "int shift = SHIFT;\n")


def by_unlisted_header(play: Playground) -> None:
    put(play, "kernel/sys/sysh.h", "#define SHIFT CONFIG_LOG_BUF_SHIFT\n")
    compiled(play, "-isystem $(srctree)/kernel/sys", "#include <sysh.h>\nint shift = SHIFT;\n")


UNTOLD = [by_option, by_part_in_an_option, by_parameter, by_file_of_options, by_unlisted_header]


@pytest.mark.parametrize("how", UNTOLD)
def test_a_symbol_that_no_record_has(built: Playground, tmp_path: Path, how: Change) -> None:
    checked(built, tmp_path, how, flipped)


@pytest.mark.parametrize("how", UNTOLD)
def test_a_symbol_that_no_record_has_with_the_store(
    play: Playground, tmp_path: Path, how: Change
) -> None:
    checked_with_the_store(play, tmp_path, how, flipped)


# places ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
def test_the_length_of_a_path(play: Playground, tmp_path: Path, whole: bool) -> None:
    """The object does not hold the path; neither its result serves another place, nor vmlinux."""
    compiled(play, "-DTREE='\"$(srctree)\"'", "int length = sizeof(TREE);\n")
    play.doit("bzImage")
    assert (play.obj / PLACED).exists()
    copy = elsewhere(play, tmp_path)
    if whole:
        shutil.rmtree(copy.top / "build" / "store")
        shutil.copytree(play.top / "build" / "store", copy.top / "build" / "store")
    copy.doit("bzImage")
    assert as_make_does(copy, tmp_path)
    play.edit(play.linux / MAKEFILE, "-DTREE='\"$(srctree)\"'", "-DTREE=1")
    play.doit("bzImage")
    assert not (play.obj / PLACED).exists()


# files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["-isystem ", "-isystem", "-idirafter "])
def test_an_edit_of_a_header_of_an_unlisted_folder(
    built: Playground, tmp_path: Path, option: str
) -> None:
    def prepare(play: Playground) -> None:
        put(play, "kernel/sys/sysh.h", "#include <sub/more.h>\n#include <linux/deep.h>\n")
        put(play, "kernel/sys/sub/more.h", "#define COUNT 1\n")
        put(play, "include/linux/deep.h", "#define DEEP 1\n")
        text = "#include <sysh.h>\nunsigned count = COUNT, deep = DEEP;\n"
        compiled(play, f"{option}$(srctree)/kernel/sys", text)

    def change(play: Playground) -> None:
        play.edit(play.linux / "kernel/sys/sub/more.h", "1", "2")

    checked(built, tmp_path, prepare, change)
    built.edit(built.linux / "include/linux/deep.h", "1", "2")
    built.doit("bzImage")
    assert right(built, tmp_path)


def test_a_header_that_hides_one_of_an_unlisted_folder(built: Playground, tmp_path: Path) -> None:
    def prepare(play: Playground) -> None:
        put(play, "kernel/after/w.h", "#define COUNT 1\n")
        text = "#include <w.h>\nunsigned count = COUNT;\n"
        compiled(play, "-idirafter $(srctree)/kernel/after", text)

    checked(built, tmp_path, prepare, lambda play: put(play, "include/w.h", "#define COUNT 2\n"))


def test_an_edit_below_a_header_that_calls_itself_the_systems(
    built: Playground, tmp_path: Path
) -> None:
    def prepare(play: Playground) -> None:
        put(play, "include/linux/inmost.h", "#define COUNT 1\n")
        put(play, "include/linux/inner.h", "#include <linux/inmost.h>\n")
        outer = "#pragma GCC system_header\n#include <linux/inner.h>\n"
        put(play, "include/linux/outer.h", outer)
        text = "#include <linux/outer.h>\nunsigned count = COUNT;\n"
        play.append(play.linux / PANIC, text)

    def change(play: Playground) -> None:
        play.edit(play.linux / "include/linux/inmost.h", "1", "2")

    checked(built, tmp_path, prepare, change)


@pytest.mark.parametrize("option", ["@{}", "'@{}'", "-Wa,@{}"])
def test_an_edit_of_a_file_of_options(built: Playground, tmp_path: Path, option: str) -> None:
    value = "--defsym COUNT={}\n" if "-Wa" in option else "-DCOUNT={}\n"
    text = (
        'asm(".data\\n.globl count\\ncount: .long COUNT\\n.text");\n'
        if "-Wa" in option
        else "unsigned count = COUNT;\n"
    )

    def prepare(play: Playground) -> None:
        put(play, "kernel/options", value.format(1))
        compiled(play, option.format("$(srctree)/kernel/options"), text)

    checked(built, tmp_path, prepare, lambda play: put(play, "kernel/options", value.format(2)))


@pytest.mark.parametrize("option", ["@{}", "'@{}'"])
def test_an_edit_of_a_file_of_options_with_the_store(
    play: Playground, tmp_path: Path, option: str
) -> None:
    def prepare(play: Playground) -> None:
        put(play, "kernel/options", "-DCOUNT=1\n")
        compiled(play, option.format("$(srctree)/kernel/options"), "unsigned count = COUNT;\n")

    checked_with_the_store(
        play, tmp_path, prepare, lambda play: put(play, "kernel/options", "-DCOUNT=2\n")
    )


@pytest.mark.parametrize(
    "include",
    [
        "include kernel/own.mk",
        "include $(wildcard $(srctree)/kernel/*.mk)",
        "own := $(srctree)/kernel\ninclude $(own)/own.mk",
    ],
)
def test_a_step_in_another_makefile(built: Playground, tmp_path: Path, include: str) -> None:
    def prepare(play: Playground) -> None:
        put(play, "kernel/own.mk", BY_NAME)
        play.append(play.linux / MAKEFILE, f"{include}\n")

    def change(play: Playground) -> None:
        play.edit(play.linux / "kernel/own.mk", "printf x", "printf y")

    checked(built, tmp_path, prepare, change)


@pytest.mark.parametrize("own", ["kernel", "$(place)"])
def test_a_first_step_in_another_makefile_with_the_store(
    play: Playground, tmp_path: Path, own: str
) -> None:
    def change(play: Playground) -> None:
        put(play, "kernel/own.mk", BY_NAME)
        play.append(play.linux / MAKEFILE, f"place := kernel\ninclude {own}/own.mk\n")

    checked_with_the_store(
        play, tmp_path, lambda play: play.append(play.linux / PANIC, "int more_code;\n"), change
    )


def test_a_symbol_of_another_step(built: Playground, tmp_path: Path) -> None:
    def prepare(play: Playground) -> None:
        step = BY_NAME.replace("printf x", "printf x$(CONFIG_LOG_BUF_SHIFT)")
        play.append(play.linux / MAKEFILE, step)

    checked(built, tmp_path, prepare, flipped)


def test_a_script_of_another_step(built: Playground, tmp_path: Path) -> None:
    def prepare(play: Playground) -> None:
        put(play, "kernel/mark.sh", "printf x\n")
        step = BY_NAME.replace("printf x", "sh $(srctree)/kernel/mark.sh")
        play.append(play.linux / MAKEFILE, step)

    def change(play: Playground) -> None:
        play.edit(play.linux / "kernel/mark.sh", "printf x", "printf y")

    checked(built, tmp_path, prepare, change)


def test_a_nul_in_the_name_of_a_makefile(built: Playground, tmp_path: Path) -> None:
    def prepare(play: Playground) -> None:
        with (play.linux / MAKEFILE).open("ab") as stream:
            stream.write(b"-include $(srctree)/kernel/a\0b\n")

    checked(
        built, tmp_path, prepare, lambda play: play.append(play.linux / PANIC, "int more_code;\n")
    )


def test_a_folders_make_that_writes_a_file_without_a_record(
    built: Playground, tmp_path: Path
) -> None:
    built.doit("_unpack:linux-6.1")
    put(built, "kernel/table", "1\n")
    built.append(
        built.linux / MAKEFILE,
        "$(obj)/extra.o: $(obj)/made\n$(obj)/made: $(srctree)/kernel/table\n\tcp $< $@\n",
    )
    built.doit("bzImage")
    built.append(BASE, "CONFIG_EXTRA=y\n")
    built.doit("bzImage")
    assert right(built, tmp_path)


def test_what_an_object_that_is_off_was_made_from(play: Playground) -> None:
    """It lies there still, and its prerequisite goes: results are kept all the same."""
    panic, base = play.linux / PANIC, play.top / BASE
    on, off = "CONFIG_EXTRA=y\n", "# CONFIG_EXTRA is not set\n"
    play.doit("_unpack:linux-6.1")
    put(play, "kernel/table", "1\n")
    play.append(play.linux / MAKEFILE, "$(obj)/extra.o: $(srctree)/kernel/table\n")
    play.append(base, on)
    play.doit("bzImage")
    play.edit(base, on, off)
    play.doit("bzImage")
    play.append(panic, "int more_code;\n")
    play.doit("bzImage")
    put(play, "kernel/table", "2\n")
    play.doit("bzImage")
    play.edit(base, off, on)
    play.doit("bzImage")
    play.edit(base, on, off)
    assert "vmlinux" in play.doit("bzImage").restored
    (play.linux / "kernel/table").unlink()
    play.doit("bzImage")
    play.append(panic, "int other_code;\n")
    result = play.doit("bzImage")
    assert "vmlinux" in result.ran
    assert "is not kept" not in result.text
