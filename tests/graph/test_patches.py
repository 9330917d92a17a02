"""Patches: a copy of the kernel with them, of which an edit of one makes only that stale which it
touches; the unpacked tree stays as it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playground import Kept, Playground
from test_objects import compiled
from test_trees import listing

PANIC = """\
Louder.

--- a/kernel/panic.c
+++ b/kernel/panic.c
@@ -6,6 +6,6 @@ int panic_timeout = PANIC_TIMEOUT;
 void panic(const char *why)
 {
-\tprintk(why);
+\tprintk(why + 1);
 \tfor (;;)
 \t\tpanic_timeout--;
 }
"""
LEVEL = """\
diff --git a/include/linux/panic.h b/include/linux/panic.h
--- a/include/linux/panic.h
+++ b/include/linux/panic.h
@@ -1 +1 @@
-#define PANIC_TIMEOUT 30
+#define PANIC_TIMEOUT 31
"""


@pytest.fixture
def play(kept: Kept) -> Iterator[Playground]:
    """The project with a store of its own, built without patches."""
    with kept.state("unpatched", lambda play: play.doit("bzImage"), "1G") as play:
        yield play


@pytest.fixture
def folder(play: Playground) -> Path:
    """A folder of patches, with one in it."""
    folder = play.top / "configs" / "patches" / "mine"
    folder.mkdir(parents=True)
    (folder / "1-panic.patch").write_text(PANIC)
    return folder


def patched(play: Playground, *words: str) -> list[str]:
    """Build with the patches, and return the objects of vmlinux that were compiled for it."""
    for log in (play.here / "logs").glob("*.log"):
        log.unlink()
    play.doit("patches=mine", "bzImage", *words)
    return [name for name in compiled(play) if name != "usr/initramfs_data.o"]  # reads unrecorded


def images(play: Playground) -> list[bytes]:
    return [(play.images / name).read_bytes() for name in ("vmlinux", "bzImage", "config")]


def test_only_what_a_patch_touches(play: Playground, folder: Path, tmp_path: Path) -> None:
    before, plain = listing(play.linux.resolve()), images(play)
    text = play.doit("patches=mine", "plan", "bzImage").text
    assert "_patch:linux-6.1" in text, text
    assert "can't be told" not in text, text  # there is no copy of the tree yet
    assert patched(play) == ["kernel/panic.o"]  # the others from the store
    assert images(play) != plain
    assert play.doit("patches=mine", "bzImage").ran == []
    copy = play.here / "src" / "linux-6.1"
    assert os.path.samefile(copy / "init/main.c", play.linux / "init/main.c")  # ext4: a hard link

    (folder / "2-level.patch").write_text(LEVEL)
    text = play.doit("patches=mine", "why", "vmlinux").text
    assert "2-level.patch" in text, text
    text = play.doit("patches=mine", "plan", "bzImage").text
    assert " 1 of 16 objects, because of 1 file; include/linux/panic.h changed" in text, text
    assert patched(play) == ["kernel/panic.o"]
    assert play.doit("patches=mine", "bzImage").ran == []

    both = images(play)
    (folder / "1-panic.patch").write_text("Another message\n" + PANIC)
    assert play.doit("patches=mine", "bzImage").ran == ["_patch:linux-6.1"]
    assert images(play) == both
    (folder / "1-panic.patch").unlink()
    assert patched(play) == ["kernel/panic.o"]
    assert (copy / "kernel/panic.c").read_bytes() == (play.linux / "kernel/panic.c").read_bytes()

    play.doit("bzImage")
    assert images(play) == plain
    changed = {
        path
        for path, state in listing(play.linux.resolve()).items()
        if before[path][:3] != state[:3]
    }
    assert not changed
    assert "edited" not in play.doit("patches=mine", "verify").text

    # as a tree of one's own that was patched by hand
    mine = tmp_path / "mine"
    shutil.copytree(play.linux.resolve(), mine)
    play.edit(mine / "kernel/panic.c", "printk(why)", "printk(why + 1)")
    play.edit(mine / "include/linux/panic.h", "30", "31")
    play.doit(f"kernel_src={mine}", "bzImage")
    assert images(play) == both


def test_does_not_apply(play: Playground, folder: Path) -> None:
    plain = images(play)
    (folder / "2-level.patch").write_text(
        LEVEL.replace("-#define PANIC_TIMEOUT 30", "-#define X 30")
    )
    text = play.fails("patches=mine", "bzImage")
    assert "2-level.patch does not apply: hunk 1 of include/linux/panic.h (line 4" in text, text
    assert not (play.here / "src").exists()
    assert images(play) == plain
    text = play.fails("patches=his", "bzImage")
    assert "there are no patches 'his'" in text
    assert "kernel_src= names a tree of your own" in play.fails(
        "patches=mine", f"kernel_src={play.linux}", "bzImage"
    )


def test_edits_in_the_copy(play: Playground, folder: Path) -> None:
    """They are built, and never written over."""
    (folder / "2-level.patch").write_text(LEVEL)
    patched(play)
    panic = play.here / "src" / "linux-6.1" / "kernel/panic.c"
    edited = panic.read_text().replace("printk(why + 1)", "printk(why + 2)")
    panic.write_text(edited)
    assert "_patch:linux-6.1" not in play.doit("patches=mine", "bzImage").ran
    (folder / "2-level.patch").write_text(LEVEL.replace("31", "32"))
    assert patched(play) == ["kernel/panic.o"]
    assert panic.read_text() == edited
    (folder / "1-panic.patch").write_text(PANIC.replace("why + 1", "why + 3"))
    text = play.fails("patches=mine", "bzImage")
    assert "kernel/panic.c was edited" in text, text
    assert panic.read_text() == edited


def test_busybox(built: Playground) -> None:
    """The machine's file names its patches."""
    plain = (built.images / "busybox").read_bytes()
    folder = built.top / "configs" / "patches" / "box"
    folder.mkdir(parents=True)
    name, source = "coreutils/echo.c", built.top / "build/src/busybox/coreutils/echo.c"
    lines = source.read_text().splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if '"-n"' in line)
    old, new = lines[number], lines[number].replace('"-n"', '"-e"')
    (folder / "echo.patch").write_text(
        f"--- a/{name}\n+++ b/{name}\n@@ -{number + 1} +{number + 1} @@\n-{old}+{new}"
    )
    built.edit("configs/machines/fake.toml", "[busybox]\n", '[busybox]\npatches = ["box"]\n')
    assert built.doit().ran == [
        "_patch:busybox",
        "busybox_config",
        "busybox",
        "rootfs",
        "initramfs",
    ]
    assert (built.images / "busybox").read_bytes() != plain
    assert built.doit().ran == []
    built.edit("configs/machines/fake.toml", 'patches = ["box"]\n', "")
    built.doit()
    assert (built.images / "busybox").read_bytes() == plain
