"""Files that go, or become something else, while make runs or after one that failed: real doit on
the fake kernel, held against a make from nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playground import Playground, finish
from test_ended import fails, play, stopped
from test_objects import PANIC, PRINTK, STRING, hide, right
from test_unseen import put

from tasks.system import files

__all__ = ["play"]  # the fixture
LEVEL = "include/linux/level.h"  # what `hide` makes
MAKE = "# make decides\n"
# The command of a header names a folder that never is.
NOWHERE = (
    "cmd_gen = echo '\\#define GEN 1' > $@; : -I$(srctree)/nowhere\n"
    "$(obj)/string.o: $(obj)/gen.h\n"
    "$(obj)/gen.h: FORCE\n\t$(call if_changed,gen)\ntargets += gen.h\n"
)


def meanwhile(play: Playground, change: Callable[[], object]) -> None:
    """Have make compile lib/string.o, the last object of vmlinux, and something change then."""
    play.append(play.linux / "lib/Makefile", MAKE)
    play.append(play.linux / STRING, "int more;\n")
    play.pause("string.o", "wait")
    process = play.start("jobs=1", "bzImage")
    play.reached("string.o")
    change()
    play.resume()
    finish(process)


def stays(play: Playground) -> bool:
    """Tell whether two makes leave lib/string.o as it was built."""
    play.doit("bzImage")
    made = files.changed(play.obj / "lib/string.o")
    for _ in range(2):
        play.append(play.linux / "kernel/Makefile", MAKE)
        play.doit("bzImage")
    return files.changed(play.obj / "lib/string.o") == made


def becomes(path: Path, what: str) -> None:
    """Have a header go, or something else take its place."""
    path.unlink()
    if what == "folder":
        path.mkdir()
        os.utime(path, (0, 0))
    elif what != "gone":
        path.symlink_to({"dangling": "nowhere", "link": "../uapi/linux/level.h"}[what])


@pytest.mark.parametrize("how", ["failed", "killed"])
@pytest.mark.parametrize("what", ["gone", "link", "dangling", "folder"])
def test_an_edited_header_after_a_make_that_did_not_end_well(
    play: Playground, tmp_path: Path, what: str, how: str
) -> None:
    """Make takes a target for up to date, a prerequisite of which is gone or older."""
    hide(play)
    play.doit("bzImage")
    play.append(play.linux / "lib/Makefile", MAKE)
    play.append(play.linux / LEVEL, "/* other */\nstatic const int other = 1;\n")
    stopped(play, how)
    becomes(play.linux / LEVEL, what)
    play.doit("bzImage")
    assert right(play, tmp_path)


@pytest.mark.parametrize("what", ["gone", "link", "dangling", "folder"])
def test_a_header_that_came_while_make_runs(play: Playground, tmp_path: Path, what: str) -> None:
    hide(play)
    meanwhile(play, lambda: becomes(play.linux / LEVEL, what))
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_what_a_link_leads_to_goes_while_make_runs(play: Playground, tmp_path: Path) -> None:
    hide(play)
    far = put(tmp_path / "far/level.h", (play.linux / LEVEL).read_text())
    (play.linux / LEVEL).unlink()
    (play.linux / LEVEL).symlink_to(far)
    meanwhile(play, far.unlink)
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_a_source_becomes_a_link_after_a_make_that_failed(play: Playground, tmp_path: Path) -> None:
    shutil.copy2(play.linux / PRINTK, play.linux / "kernel/was_printk")
    play.append(play.linux / "lib/Makefile", MAKE)
    play.append(play.linux / PRINTK, "int other;\n")
    fails(play)
    (play.linux / PRINTK).unlink()
    (play.linux / PRINTK).symlink_to("was_printk")
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_a_header_goes_while_the_short_way_runs(play: Playground) -> None:
    """A build from nothing fails then, and so must this one."""
    header = put(play.linux / "include/zz/z.h", "#define ZED 1\n")
    text = "#ifdef CONFIG_EXPERT\n#include <zz/z.h>\nint zed = ZED;\n#endif\n"
    play.append(play.linux / PANIC, text)
    play.append(play.linux / STRING, "#ifdef CONFIG_EXPERT\nint more;\n#endif\n")
    play.doit("bzImage")
    base = play.top / "configs/kernel/fake-base.config"
    base.write_text(base.read_text() + "CONFIG_EXPERT=y\n")
    play.pause("string.o", "wait")
    process = play.start("jobs=1", "bzImage")
    play.reached("string.o")
    header.unlink()
    play.resume()
    finish(process)
    play.fails("bzImage")


def test_what_only_a_text_names_goes_while_make_runs(play: Playground) -> None:
    blob = put(play.linux / "kernel/blob.bin", "one\n")
    play.append(play.linux / "kernel/Makefile", "ccflags-y += -I$(srctree)/kernel\n")
    play.append(play.linux / PANIC, 'asm(".incbin \\"blob.bin\\"");\n')
    meanwhile(play, blob.unlink)
    play.fails("bzImage")


def test_what_has_include_asks_for_goes_while_make_runs(play: Playground, tmp_path: Path) -> None:
    nine = put(play.linux / "kernel/errata/nine.h", "")
    put(play.linux / "kernel/errata/keep.h", "")
    text = '#if __has_include("errata/nine.h")\nint asked;\n#endif\n'
    play.append(play.linux / PANIC, text)
    meanwhile(play, nine.unlink)
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_a_prerequisite_without_a_record_goes_while_make_runs(play: Playground) -> None:
    table = put(play.linux / "kernel/table.txt", "#define TAB 1\n")
    play.append(
        play.linux / "kernel/Makefile",
        "$(obj)/panic.o: $(obj)/table.h\n"
        "$(obj)/table.h: $(srctree)/$(src)/table.txt\n\t@cp $< $@\n",
    )
    play.append(play.linux / PANIC, '#include "table.h"\nint tab = TAB;\n')
    meanwhile(play, table.unlink)
    play.fails("bzImage")


def test_a_folder_that_never_is(play: Playground) -> None:
    """A command names it: it is no file that went, nothing is made again, and results are kept."""
    play.store_size = "1G"
    play.append(play.linux / "lib/Makefile", NOWHERE)
    play.append(play.linux / STRING, '#include "gen.h"\nint gen = GEN;\n')
    assert stays(play)
    play.append(play.linux / PANIC, "int other;\n")
    play.doit("bzImage")
    play.edit(play.linux / PANIC, "int other;\n", "")
    assert "vmlinux" in play.doit("bzImage").restored


def test_a_header_behind_a_link_to_a_folder(play: Playground, tmp_path: Path) -> None:
    """link/../z.h is not z.h beside the link, but where that leads."""
    header = put(play.linux / "lib/deep/z.h", "#define ZED 1\n")
    put(play.linux / "lib/deep/folder/keep", "")
    (play.linux / "lib/link").symlink_to("deep/folder")
    play.append(play.linux / STRING, '#include "link/../z.h"\nint zed = ZED;\n')
    assert stays(play)
    header.write_text("#define ZED 2\n")
    play.doit("bzImage")
    assert right(play, tmp_path)
