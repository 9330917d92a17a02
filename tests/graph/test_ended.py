"""A make that did not end well, and what comes then: real doit on the fake kernel."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import clocks
import pytest
from playground import Kept, Playground, finish
from test_kill import killed
from test_named import old_time
from test_objects import (
    INCBIN,
    PANIC,
    PRINTK,
    STRING,
    _prepare,
    compiled,
    elsewhere,
    hide,
    right,
)

from tasks.cache.store import Store
from tasks.kbuild import ledger, left
from tasks.system import files

HOUR = 3600 * 10**9


@pytest.fixture
def play(kept: Kept) -> Iterator[Playground]:
    """As in test_objects.py, and without the store."""
    with kept.state("objects", _prepare, "1G") as play:
        play.store_size = "0"
        yield play


def nothing_built(play: Playground) -> None:
    shutil.rmtree(play.obj)
    shutil.rmtree(play.images)


def fails(play: Playground) -> None:
    """Have make fail at lib/string.c, after all of kernel/, and mend that."""
    play.edit(play.linux / STRING, "#include", "#error no\n#include")
    play.fails("jobs=1", "bzImage")
    play.edit(play.linux / STRING, "#error no\n#include", "#include")


def stopped(play: Playground, how: str) -> None:
    """Have a make end otherwise than well, with objects of kernel/ made."""
    if how == "killed":
        killed(play, "vmlinux")
    else:
        fails(play)
    assert (play.obj / "kernel/printk.o").exists()


@pytest.mark.parametrize("how", ["failed", "killed"])
def test_a_header_hides_another_after_a_first_make_that_did_not_end_well(
    play: Playground, tmp_path: Path, how: str
) -> None:
    """Nothing was written down yet of what its objects were made from."""
    nothing_built(play)
    stopped(play, how)
    hide(play)
    play.doit("bzImage")
    assert right(play, tmp_path)


@pytest.mark.parametrize("how", ["failed", "killed"])
def test_what_a_make_compiled_that_did_not_end_well(
    play: Playground, tmp_path: Path, how: str
) -> None:
    play.store_size = "1G"
    nothing_built(play)
    play.edit(play.linux / PRINTK, "#include", "int other;\n#include")
    stopped(play, how)
    if how == "killed":
        play.doit("bzImage")
        assert "kernel/printk.o" not in compiled(play)
    copy = elsewhere(play, tmp_path)
    copy.doit("bzImage")
    assert compiled(copy) == [INCBIN]
    assert right(copy, tmp_path)


@pytest.mark.parametrize("how", ["failed", "killed"])
def test_another_header_is_renamed_after_a_first_make_that_did_not_end_well(
    play: Playground, tmp_path: Path, how: str
) -> None:
    """Its folder has a new time by that, and nothing in it that is new."""
    (play.linux / "include/linux/level.h").write_text("#include <uapi/linux/level.h>\n")
    nothing_built(play)
    stopped(play, how)
    aside = play.linux / "include/linux/aside"
    aside.write_text("/* other */\n")
    aside.rename(play.linux / "include/linux/unused.h")
    play.doit("bzImage")
    assert "kernel/printk.o" not in compiled(play)
    assert right(play, tmp_path)


def test_an_editor_looks_at_a_header_while_make_runs(play: Playground, tmp_path: Path) -> None:
    """Its swap file gives the folder a new time; what is compiled is for the store all the same."""
    play.store_size = "1G"
    play.append(play.linux / "lib/Makefile", "# make decides\n")
    play.append(play.linux / PRINTK, "int other;\n")
    play.append(play.linux / STRING, "int more;\n")
    play.edit(play.linux / PRINTK, "<linux/level.h>", "<uapi/linux/level.h>")
    (play.linux / "include/linux/level.h").write_text("/* not read, but would be */\n")
    play.pause("string.o", "wait")
    process = play.start("jobs=1", "bzImage")
    play.reached("string.o")
    swap = play.linux / "include/linux/.x.swp"
    swap.write_text("?")
    swap.unlink()
    play.resume()
    finish(process)
    copy = elsewhere(play, tmp_path)
    copy.doit("bzImage")
    assert compiled(copy) == [INCBIN]


def test_a_header_that_hides_another_comes_while_make_runs(
    play: Playground, tmp_path: Path
) -> None:
    """What was compiled without it is not for the store."""
    play.store_size = "1G"
    play.append(play.linux / "lib/Makefile", "# make decides\n")
    play.append(play.linux / PRINTK, "int other;\n")
    play.append(play.linux / STRING, "int more;\n")
    play.pause("string.o", "wait")
    process = play.start("jobs=1", "bzImage")
    play.reached("string.o")
    hide(play)
    play.resume()
    finish(process)
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_data_that_no_record_names_has_other_content_under_its_old_time(
    play: Playground, tmp_path: Path
) -> None:
    """Only make said who reads it, in the run before the one that failed."""
    text = play.linux / "kernel/text"
    text.write_text("one")
    play.append(play.linux / "kernel/Makefile", "$(obj)/panic.o: $(srctree)/$(src)/text\n")
    incbin = f'__asm__(".section .rodata\\n.incbin \\"{text}\\"\\n.previous");\n'
    play.append(play.linux / PANIC, incbin)
    play.doit("bzImage")
    play.append(play.linux / "lib/Makefile", "# make decides\n")
    fails(play)
    old_time(text, "two")
    play.doit("bzImage")
    assert right(play, tmp_path)


@pytest.mark.parametrize("how", ["failed", "killed"])
def test_an_edit_gets_an_old_time_before_its_object_is_made(
    play: Playground, tmp_path: Path, how: str
) -> None:
    """A make that did not come to the object has seen the edit."""
    play.append(play.linux / "lib/Makefile", "# make decides\n")
    info = (play.linux / STRING).stat()
    play.append(play.linux / STRING, "int more;\n")
    if how == "killed":
        play.append(play.linux / PRINTK, "int other;\n")
        killed(play, "printk.o", "jobs=1")
    else:
        play.edit(play.linux / PRINTK, "#include", "#error no\n#include")
        play.fails("jobs=1", "bzImage")
        play.edit(play.linux / PRINTK, "#error no\n#include", "#include")
    os.utime(play.linux / STRING, ns=(info.st_atime_ns, info.st_mtime_ns))
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_the_clock_goes_back_after_a_first_make_that_was_killed(
    play: Playground, tmp_path: Path
) -> None:
    play.store_size = "1G"
    play.edit(play.linux / PRINTK, "#include", "int other;\n#include")
    nothing_built(play)
    killed(play, "vmlinux")
    clocks.shift(play.obj, HOUR)
    for file, kind, field in (
        (left.FILE, left._Make, "started"),
        (ledger.FILE, ledger._Ledger, "since"),
    ):
        one = files.decoded(play.obj / file, kind, kind())
        setattr(one, field, getattr(one, field) + HOUR)
        (play.obj / file).write_bytes(files.packed(one))
    play.edit(play.linux / PANIC, "printk(why)", "printk(why + 1)")
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_another_tree_comes_to_the_place_of_one_whose_first_make_was_killed(
    play: Playground, tmp_path: Path
) -> None:
    other = play.linux.with_name("other")
    shutil.copytree(play.linux.resolve(), other, symlinks=True)
    play.edit(other / PANIC, "printk(why)", "printk(why + 1)")
    nothing_built(play)
    stopped(play, "killed")
    place = play.linux.resolve()
    place.rename(place.with_name("aside"))
    other.rename(place)
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_a_folder_that_a_failed_make_began_to_search(play: Playground, tmp_path: Path) -> None:
    for name in ("inc", "over"):
        (play.linux / "kernel" / name).mkdir()
    (play.linux / "kernel/inc/deep.h").write_text("#define DEEP 1\n")
    makefile = play.linux / "kernel/Makefile"
    play.append(makefile, "ccflags-y += -I$(srctree)/$(src)/inc\n")
    play.append(play.linux / PANIC, "#include <deep.h>\nint deep = DEEP;\n")
    play.doit("bzImage")
    play.append(makefile, "ccflags-y := -I$(srctree)/$(src)/over -I$(srctree)/$(src)/inc\n")
    fails(play)
    (play.linux / "kernel/over/deep.h").write_text("#define DEEP 2\n")
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_the_short_way_is_killed_with_a_new_object(play: Playground, tmp_path: Path) -> None:
    """Nothing was written down yet of what it was made from."""
    folder = play.linux / "include/zz"
    folder.mkdir()
    (folder / "z.h").write_text("#define ZED 1\n")
    play.append(play.linux / "kernel/extra.c", "#include <zz/z.h>\nint zed = ZED;\n")
    play.doit("bzImage")
    base = play.top / "configs/kernel/fake-base.config"
    base.write_text(base.read_text() + "CONFIG_EXTRA=y\n")
    killed(play, "string.o")
    assert (play.obj / "kernel/extra.o").exists()
    old_time(folder / "z.h", "#define ZED 2\n")
    play.doit("bzImage")
    assert right(play, tmp_path)


def test_what_the_loaders_make_left_is_in_no_list_of_vmlinux(play: Playground) -> None:
    play.store_size = "1G"
    loader = play.linux / "arch/x86/boot/compressed"
    play.append(loader / "misc.c", "int other;\n")
    play.append(loader.parent / "header.S", "\t.byte 7\n")
    nothing_built(play)
    killed(play, "setup.elf")
    play.append(play.linux / "lib/Makefile", "# make decides\n")
    play.doit("vmlinux")
    results = Store(play.top / "build" / "store", 1 << 30).results()
    lists = [result.values.get("targets", ()) for _, _, result in results]
    of_vmlinux = [one for one in lists if isinstance(one, list) and "kernel/panic.o" in one]
    assert of_vmlinux
    assert not [name for one in of_vmlinux for name in one if "/boot/" in name]
