"""Each object is compiled once for what it was compiled from: real doit on the fake kernel."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playground import Kept, Playground
from test_shortway import as_make_does, plain_make

from tasks.cache.store import Store
from tasks.kbuild import objects

BASE = "configs/kernel/fake-base.config"
PANIC = "kernel/panic.c"
PRINTK = "kernel/printk.c"
STRING = "lib/string.c"
INCBIN = "usr/initramfs_data.o"  # reads a file that no record names
READS = "#ifdef CONFIG_{0}\nstatic int has_{0} __attribute__((used));\n#endif\n"


def _prepare(play: Playground) -> None:
    play.doit("_unpack:linux-6.1")
    play.append(play.linux / PANIC, READS.format("EXTRA"))
    play.append(play.linux / PRINTK, READS.format("EXPERT"))
    play.append(play.linux / STRING, READS.format("EXTRA") + READS.format("EXPERT"))
    play.doit("bzImage")


@pytest.fixture
def play(kept: Kept) -> Iterator[Playground]:
    """The project with two symbols that objects read, built with a store of its own."""
    with kept.state("objects", _prepare, "1G") as play:
        yield play


def configured(play: Playground, *symbols: str) -> list[str]:
    """Build with these symbols on, and return the objects that were compiled for it."""
    base = play.top / BASE
    lines = [
        line
        for line in base.read_text().splitlines()
        if not re.match("CONFIG_(EXTRA|EXPERT)=", line)
    ]
    base.write_text("\n".join([*lines, *(f"CONFIG_{symbol}=y" for symbol in symbols)]) + "\n")
    for log in (play.here / "logs").glob("*.log"):
        log.unlink()
    play.doit("bzImage")
    return compiled(play)


def compiled(play: Playground) -> list[str]:
    """The objects of vmlinux that the last run compiled, in order of their names."""
    log = play.here / "logs" / "vmlinux.log"
    text = log.read_text() if log.exists() else ""
    ours = re.findall(r"^\$ .* -D__KERNEL__ .*-c -o (\S+\.o) ", text, re.MULTILINE)
    return sorted(ours + re.findall(r"^  (?:CC|AS) +(\S+)$", text, re.MULTILINE))


def right(play: Playground, tmp_path: Path) -> bool:
    """Are the images what make makes, and does make find nothing to do in our folder?"""
    return as_make_does(play, tmp_path) and plain_make(play, play.obj) == []


def test_four_configurations_compile_each_distinct_object_once(
    play: Playground, tmp_path: Path
) -> None:
    panic, printk, string = "kernel/panic.o", "kernel/printk.o", "lib/string.o"
    assert configured(play, "EXTRA") == ["kernel/extra.o", panic, string]
    assert configured(play, "EXTRA", "EXPERT") == [printk, string]
    assert configured(play, "EXPERT") == [string]
    assert right(play, tmp_path)


def elsewhere(play: Playground, tmp_path: Path) -> Playground:
    """A copy of the project in another folder, with the objects of the store and nothing of the
    machine built."""
    copy = Playground(tmp_path / "elsewhere", play.home)
    shutil.copytree(play.top, copy.top, symlinks=True)
    shutil.rmtree(copy.top / "build" / "fake")
    for _, place, result in Store(copy.top / "build" / "store", 1 << 30).results():
        if result.task != objects.TASK:
            place.unlink()
    copy.store_size = "1G"
    return copy


def test_another_folder_compiles_what_no_record_tells(play: Playground, tmp_path: Path) -> None:
    copy = elsewhere(play, tmp_path)
    copy.doit("bzImage")
    assert compiled(copy) == [INCBIN]
    assert right(copy, tmp_path)
    for name in ("vmlinux", "bzImage"):
        assert (copy.images / name).read_bytes() == (play.images / name).read_bytes()


def test_a_header_beside_the_one_that_includes_it(play: Playground, tmp_path: Path) -> None:
    """kernel/sub/a.h has #include "zz/z.h", found by -I in include/ until kernel/sub/zz/ comes."""
    for folder in ("kernel/sub", "include/zz"):
        (play.linux / folder).mkdir()
    (play.linux / "include/zz/z.h").write_text("#define ZED 1\n")
    (play.linux / "kernel/sub/a.h").write_text('#include "zz/z.h"\n')
    play.append(play.linux / PANIC, '#include "sub/a.h"\nint zed = ZED;\n')
    play.doit("bzImage")
    (play.linux / "kernel/sub/zz").mkdir()
    (play.linux / "kernel/sub/zz/z.h").write_text("#define ZED 2\n")
    copy = elsewhere(play, tmp_path)
    copy.doit("bzImage")
    assert compiled(copy) == ["kernel/panic.o", INCBIN]
    assert as_make_does(copy, tmp_path)


def test_a_header_beside_one_that_the_short_way_brought(play: Playground, tmp_path: Path) -> None:
    """As above, in one folder: make never looked at what the edited source reads since."""
    play.store_size = "0"
    for folder in ("kernel/sub", "include/zz"):
        (play.linux / folder).mkdir()
    (play.linux / "include/zz/z.h").write_text("#define ZED 1\n")
    (play.linux / "kernel/sub/a.h").write_text('#include "zz/z.h"\n')
    play.doit("bzImage")
    play.append(play.linux / PANIC, '#include "sub/a.h"\nint zed = ZED;\n')
    play.doit("bzImage")
    assert "the short way" in (play.here / "logs" / "vmlinux.log").read_text()
    (play.linux / "kernel/sub/zz").mkdir()
    (play.linux / "kernel/sub/zz/z.h").write_text("#define ZED 2\n")
    play.doit("bzImage")
    assert as_make_does(play, tmp_path)


def test_what_was_laid_for_a_make_that_failed_goes_later(play: Playground, tmp_path: Path) -> None:
    configured(play, "EXTRA")
    configured(play)
    shutil.rmtree(play.obj)
    shutil.rmtree(play.images)
    play.edit(play.linux / PRINTK, "#include", "#error no\n#include")
    play.fails("bzImage")
    assert (
        play.obj / "kernel/extra.o"
    ).exists()  # of the goal, once, and not of this configuration
    play.edit(play.linux / PRINTK, "#error no\n#include", "int other;\n#include")
    play.doit("bzImage")
    assert not (play.obj / "kernel/extra.o").exists()
    assert right(play, tmp_path)


def hide(play: Playground) -> None:
    """Have a new header precede the one of the same name that kernel/printk.c reads."""
    hiding = play.linux / "include" / "linux" / "level.h"
    uapi = play.linux / "include" / "uapi" / "linux" / "level.h"
    assert uapi.exists()
    hiding.write_text(uapi.read_text().replace("LOGLEVEL_DEFAULT", "LOGLEVEL_DEFAULT 3 //"))


def test_a_header_that_hides_another_is_seen(play: Playground, tmp_path: Path) -> None:
    configured(play, "EXTRA")
    configured(play)
    hide(play)
    assert "kernel/printk.o" in configured(play, "EXTRA")
    assert right(play, tmp_path)


def test_an_edit_is_compiled_and_its_way_back_is_not(play: Playground, tmp_path: Path) -> None:
    configured(play, "EXTRA")
    play.edit(play.linux / PANIC, "printk(why)", "printk(why + 1)")
    assert "kernel/panic.o" in configured(play, "EXPERT")
    play.edit(play.linux / PANIC, "printk(why + 1)", "printk(why)")
    assert configured(play, "EXTRA", "EXPERT") == ["lib/string.o"]
    assert right(play, tmp_path)


def test_what_another_file_is_read_into_is_compiled(play: Playground, tmp_path: Path) -> None:
    text = play.linux / "kernel" / "text"
    text.write_text("one")
    play.append(
        play.linux / PANIC, f'__asm__(".section .rodata\\n.incbin \\"{text}\\"\\n.previous");\n'
    )
    play.doit("bzImage")
    configured(play, "EXTRA")
    assert "kernel/panic.o" in configured(play, "EXPERT")
    assert right(play, tmp_path)


def test_damage_is_found_by_digest(play: Playground, tmp_path: Path) -> None:
    configured(play, "EXTRA")
    for blob in (play.top / "build" / "store" / "blobs").rglob("*"):
        if blob.is_file():
            blob.chmod(0o644)
            blob.write_bytes(bytes(blob.stat().st_size))
    assert configured(play, "EXPERT") == ["kernel/panic.o", "kernel/printk.o", "lib/string.o"]
    assert right(play, tmp_path)


def test_flags_that_a_symbol_adds_are_heeded(play: Playground, tmp_path: Path) -> None:
    play.append(play.linux / "arch/x86/Makefile", "KBUILD_CFLAGS += $(if $(CONFIG_EXPERT),-O1)\n")
    configured(play, "EXTRA")
    configured(play, "EXPERT")
    everything = compiled(play)
    assert len(everything) > 4
    assert right(play, tmp_path)
    play.append(play.top / BASE, "CONFIG_LOG_BUF_SHIFT=15\n")
    # with -O1 and EXTRA nothing was compiled before, but main.c reads neither
    assert configured(play, "EXTRA", "EXPERT") == sorted(
        ["init/main.o", "kernel/extra.o", "kernel/panic.o", "lib/string.o"]
    )
    assert configured(play, "EXTRA") == ["init/main.o", INCBIN]
    assert right(play, tmp_path)


def test_the_line_says_what_it_did(play: Playground) -> None:
    configured(play, "EXTRA")
    base = play.top / BASE
    base.write_text(base.read_text() + "CONFIG_EXPERT=y\n")
    assert re.search(r"^  objects +0 of 2 from the store, 2 compiled$", play.doit().text, re.M)
    configured(play, "EXPERT")
    play.edit(play.linux / PANIC, "printk(why)", "printk(why + 1)")
    base.write_text(base.read_text() + "CONFIG_EXTRA=y\n")
    assert re.search(
        r"^  objects +\d+ of \d+ from the store, \d+ compiled$", play.doit().text, re.M
    )
