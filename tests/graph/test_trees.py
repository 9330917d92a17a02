"""A kernel tree of the user's own: built out of tree, never written to, its edits seen, shared by
machines in turn."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from playground import MACHINE, Kept, Playground
from test_shortway import as_make_does, way


def listing(tree: Path) -> dict[str, tuple[int, int, int, int]]:
    """Everything in a tree: kind and mode, size, and both times that a change would leave."""
    return {
        str(path): (state.st_mode, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        for path in (tree, *tree.rglob("*"))
        for state in (path.lstat(),)
    }


@pytest.fixture
def tree(built: Playground, tmp_path: Path) -> Path:
    """A checkout of the user's own, of the kernel that the project has, too."""
    mine = tmp_path / "my-linux"
    subprocess.run(["cp", "-a", built.linux.resolve(), mine], check=True)
    (mine / ".piggyback-source").unlink()
    (mine / ".git").mkdir()
    (mine / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    return mine


def test_same_images_and_nothing_written(built: Playground, kept: Kept, tree: Path) -> None:
    before = listing(tree)
    source = f"kernel_src={tree}"
    first = built.doit(source)
    assert "vmlinux" in first.ran
    assert built.digests() == kept.digests
    assert built.doit(source).ran == []
    assert listing(tree) == before
    shutil.copy(tree / "kernel" / "panic.c", tree / "kernel" / "other.c")
    built.edit(tree / "kernel" / "panic.c", "printk(why)", "printk(why + 1)")
    before = listing(tree)
    after = built.doit(source)
    assert after.ran == ["vmlinux", "Image", "piggy.gz", "piggy.o", "compressed_vmlinux", "bzImage"]
    assert built.doit(source).ran == []
    assert listing(tree) == before
    built.doit()  # back to the pinned tree, whose objects are still there
    assert built.digests() == kept.digests


def test_read_only(built: Playground, kept: Kept, tree: Path) -> None:
    subprocess.run(["chmod", "-R", "a-w", tree], check=True)
    built.plain = True
    try:
        built.doit(f"kernel_src={tree}")
    finally:
        built.plain = False
    assert built.digests() == kept.digests
    subprocess.run(["chmod", "-R", "u+w", tree], check=True)


def test_exported_header(built: Playground, tree: Path) -> None:
    """What user space sees of the tree is an input of the toolchain, and so of busybox."""
    source = f"kernel_src={tree}"
    built.doit(source)
    (tree / "include/uapi/linux/piggy.h").write_text("#define PIGGY_UAPI 2\n")
    built.edit(
        "build/src/busybox/coreutils/echo.c",
        "#include",
        'const char *uapi = "uapi " _UAPI(PIGGY_UAPI);\n#include',
    )
    built.edit(
        "build/src/busybox/coreutils/echo.c",
        "const char",
        "#include <linux/piggy.h>\n#define __UAPI(x) #x\n"
        "#define _UAPI(x) __UAPI(x)\n__attribute__((used)) const char",
    )
    assert {"toolchain", "busybox", "rootfs"} <= set(built.doit(source).ran)
    assert b"uapi 2" in (built.images / "busybox").read_bytes()
    assert built.doit(source).ran == []


def test_two_machines_in_turn(built: Playground, kept: Kept, tree: Path, triple: str) -> None:
    other = MACHINE.format(triple=triple).replace('"fake-serial"]', '"fake-serial", "fake-extra"]')
    (built.top / "configs/machines/other.toml").write_text(other)
    (built.top / "configs/kernel/fake-extra.config").write_text("CONFIG_EXTRA=y\n")
    source = f"kernel_src={tree}"
    before = listing(tree)
    history = built.top / "build/other/logs/history.jsonl"
    built.doit(source)
    built.doit(source, "machine=other")
    built.doit(
        source
    )  # reads what the other wrote anew of the archives, which here are copies with new times
    assert '"toolchain", "result": "ok"' in history.read_text()
    assert len(list((built.top / "build/toolchains").glob("[0-9a-f]*"))) == 1  # shared
    assert b"extra" in (built.top / "build/other/images/System.map").read_bytes()
    lines = len(history.read_text().splitlines())
    for _ in range(2):
        assert built.doit(source).ran == []
        assert "nothing to do" in built.doit(source, "machine=other").text
    assert len(history.read_text().splitlines()) == lines
    assert listing(tree) == before
    assert built.digests() == kept.digests
    built.append(tree / "kernel/panic.c", "/* more */\n")
    assert built.doit(source).ran == ["vmlinux"]
    built.doit(source, "machine=other")
    assert '"vmlinux", "result": "ok"' in history.read_text().splitlines()[lines]


def test_tree_by_another_name(built: Playground, tree: Path) -> None:
    """A relative path, and a symbolic link that is turned to another tree."""
    built.doit(f"kernel_src={tree}")
    assert built.doit(f"kernel_src={os.path.relpath(tree, built.top)}").ran == []
    second = tree.with_name("second")
    shutil.copytree(tree, second, symlinks=True)
    built.edit(second / "kernel/panic.c", "printk(why)", "printk(why + 1)")
    link = tree.with_name("link")
    link.symlink_to(tree.name)
    built.doit(f"kernel_src={link}")
    one = built.digests()["bzImage"]
    link.unlink()
    link.symlink_to(second.name)
    built.doit(f"kernel_src={link}")
    assert built.digests()["bzImage"] != one
    assert built.doit(f"kernel_src={link}").ran == []


def test_busybox_tree(built: Playground, kept: Kept, tmp_path: Path) -> None:
    mine = tmp_path / "busybox"
    subprocess.run(["cp", "-a", (built.top / "build/src/busybox").resolve(), mine], check=True)
    before = listing(mine)
    built.doit(f"busybox_src={mine}")
    assert built.digests() == kept.digests
    assert built.doit(f"busybox_src={mine}").ran == []
    assert listing(mine) == before
    built.edit(mine / "coreutils/echo.c", '"-n"', '"-e"')
    assert built.doit(f"busybox_src={mine}").ran == ["busybox", "rootfs", "initramfs"]


def test_unwritable_build(built: Playground) -> None:
    """As somebody who may not write into the build folder."""
    built.append(built.linux / "kernel/panic.c", "/* more */\n")
    subprocess.run(["chmod", "-R", "a-w", built.top / "build"], check=True)
    built.plain = True
    try:
        text = built.fails()
    finally:
        built.plain = False
        subprocess.run(["chmod", "-R", "u+w", built.top / "build"], check=True)
    assert "build/" in text
    assert len(text.splitlines()) <= 4, text


@pytest.mark.long
def test_moved_beside_it(built: Playground, tree: Path, tmp_path: Path) -> None:
    """The project in another place, and the tree where it was: what is known of the object folder
    has that folder's path. lib/size.h is an input of string.o by its record alone."""
    (tree / "lib/more.c").write_text("int more(int n) { return n; }\n")
    built.append(
        tree / "lib/Makefile",
        "obj-y += more.o\ntargets += size.h\n"
        r"cmd_size = printf 'enum { SIZE = %d };\n' 0x$$($(NM) -S $< | sed -n"
        " 's/.* \\(.*\\) T more$$/\\1/p') > $@\n"
        "$(obj)/size.h: $(obj)/more.o FORCE\n\t$(call if_changed,size)\n"
        "$(obj)/string.o: | $(obj)/size.h\n",
    )
    built.append(tree / "lib/string.c", '#include "size.h"\nint size_of_more = SIZE;\n')
    words = [f"kernel_src={tree}", "bzImage"]
    built.doit(*words)
    moved = Playground(tmp_path / "moved", built.home)
    moved.linux = tree
    subprocess.run(["mv", built.top, moved.top], check=True)
    try:
        for number in range(3):
            moved.doit(*words)
            (tree / "lib/more.c").write_text(f"int more(int n) {{ return n{' / n' * number}; }}\n")
            moved.doit(*words)
            assert as_make_does(moved, tmp_path)
            assert moved.doit(*words).ran == []
        assert way(moved, "vmlinux") == "short"
    finally:
        subprocess.run(["mv", moved.top, built.top], check=True)
