"""What lies in the object folders may be deleted or cut short: what is built next is right all the
same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playground import Kept, Playground
from test_shortway import as_make_does

from tasks.kbuild import manifest

BOOT = "arch/x86/boot"
LINKS = [
    f"{BOOT}/compressed/{name}" for name in ("vmlinux.bin", "vmlinux.bin.gz", "piggy.o", "vmlinux")
]
INTERMEDIATES = [
    *LINKS,
    "vmlinux",
    "System.map",
    f"{BOOT}/bzImage",
    f"{BOOT}/compressed/piggy.S",
    f"{BOOT}/setup.bin",
    "kernel/panic.o",
    "kernel/built-in.a",
    "init/version.o",
    ".config",
    "include/config/auto.conf",
    "include/generated/compile.h",
    "scripts/basic/fixdep",
]
RECORDS = [
    "kernel/.panic.o.cmd",
    ".vmlinux.cmd",
    f"{BOOT}/compressed/.piggy.S.cmd",
    "piggyback.Image",
    "piggyback.ledger",
    "piggyback.records",
    "piggyback.tree",
]
BETWEEN = [
    f"{BOOT}/compressed/piggy.S",
    f"{BOOT}/setup.bin",
    f"{BOOT}/setup.elf",
    f"{BOOT}/vmlinux.bin",
    f"{BOOT}/main.o",
    f"{BOOT}/voffset.h",
    "kernel/built-in.a",
    "include/generated/autoconf.h",
    "include/config/auto.conf",
    "include/generated/compile.h",
    "kernel/.panic.o.cmd",
]  # nothing of it is an image, and make sees only its time
OUTPUTS = ["vmlinux", "System.map", *LINKS, f"{BOOT}/bzImage"]


def change(play: Playground) -> None:
    """An edit after which everything of the kernel is built again."""
    play.edit(play.linux / "init/main.c", "no init", "no INIT")
    play.edit(play.linux / "arch/x86/boot/main.c", ";;", ";1;")
    play.edit(play.linux / "arch/x86/boot/compressed/misc.c", "VO__end", "3 * VO__end")


@pytest.fixture(scope="module")
def wanted(kept: Kept) -> dict[str, str]:
    """The images after that edit, when nothing was spoilt."""
    shutil.rmtree(kept.play.top)
    shutil.copytree(kept.bare, kept.play.top, symlinks=True)
    kept.play.doit("_unpack")
    change(kept.play)
    kept.play.doit()
    return kept.play.digests()


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("names", "spoil"),
    [
        (INTERMEDIATES, Path.unlink),
        (RECORDS, Path.unlink),
        (OUTPUTS, halve),
        (RECORDS, halve),
        (BETWEEN, halve),
        (["include/generated/autoconf.h"], Path.unlink),
    ],
    ids=[
        "intermediates deleted",
        "records deleted",
        "outputs halved",
        "records halved",
        "intermediates halved",
        "autoconf.h deleted",
    ],
)
def test_object_folder(
    built: Playground, wanted: dict[str, str], names: list[str], spoil: Callable[[Path], object]
) -> None:
    for name in names:
        spoil(built.obj / name)
    assert built.doit().ran == []  # the images are whole
    change(built)
    built.doit()
    assert built.digests() == wanted
    assert built.doit().ran == []


@pytest.mark.parametrize(
    "image", ["vmlinux", "System.map", "piggy.gz", "bzImage", "busybox", "busybox.links"]
)
def test_image_and_what_it_was_copied_from(built: Playground, kept: Kept, image: str) -> None:
    source = {"piggy.gz": LINKS[1], "bzImage": f"{BOOT}/bzImage"}.get(image, image)
    for spoil in (Path.unlink, halve):
        spoil(built.images / image)
        spoil((built.here / "busybox" if "busybox" in image else built.obj) / source)
        built.doit()
        assert built.digests() == kept.digests


def test_object_folders_gone(built: Playground, kept: Kept) -> None:
    shutil.rmtree(built.here / "kernel")
    shutil.rmtree(built.here / "busybox")
    assert built.doit().ran == []
    (built.images / "vmlinux").unlink()
    (built.images / "busybox").unlink()
    built.doit()
    assert built.digests() == kept.digests


def test_source_tree_gone(built: Playground, kept: Kept) -> None:
    shutil.rmtree(built.top / "build" / "src")
    built.doit()
    assert built.digests() == kept.digests
    built.doit()  # writes anew what it knows of the archives, which here are copies with new times
    assert built.doit().ran == []


def test_toolchain_gone(built: Playground, kept: Kept) -> None:
    for home in (built.top / "build" / "toolchains").iterdir():
        shutil.rmtree(home) if home.is_dir() else home.unlink()
    assert "toolchain" in built.doit().ran
    assert built.digests() == kept.digests
    assert built.doit().ran == []


def test_toolchain_spoilt(built: Playground, kept: Kept) -> None:
    (wrapper,) = (built.top / "build" / "toolchains").glob("*/bin/musl-gcc")
    wrapper.write_text("#!/bin/sh\nexit 1\n")
    assert "toolchain" in built.doit().ran
    assert built.digests() == kept.digests
    assert built.doit().ran == []


@pytest.mark.parametrize(
    "names",
    [["lib/string.o"], ["lib/string.o", "kernel/printk.o", "drivers/null.o"]],
    ids=["one", "several"],
)
def test_an_object_that_is_cut_short(
    built: Playground, wanted: dict[str, str], names: list[str]
) -> None:
    for name in names:
        halve(built.obj / name)
    change(built)
    built.doit()
    assert built.digests() == wanted


def test_what_the_short_way_made_is_known(built: Playground) -> None:
    """After edits that are built without make, all in the object folder is as it was left."""
    for number, path in enumerate(
        ["kernel/panic.c", f"{BOOT}/compressed/misc.c", "lib/string.c", f"{BOOT}/main.c"]
    ):
        built.append(built.linux / path, f"int more_{number}(void) {{ return {number}; }}\n")
        built.doit()
        built.append(built.linux / path, "/* more */\n")
        built.doit()
        before = {
            str(path): path.stat().st_mtime_ns for path in built.obj.rglob("*") if path.is_file()
        }
        assert manifest.purge(built.obj) == []
        assert {name for name in before if not Path(name).exists()} == set(), path


def test_what_kconfig_made_is_known(built: Playground) -> None:
    """After a configuration there and back, which make may have written files for, all is as it was
    left."""
    fragment = built.top / "configs" / "kernel" / "fake-base.config"
    text = fragment.read_text()
    for more in ("CONFIG_EXTRA=y\n", ""):
        fragment.write_text(text + more)
        built.doit("kernel_config")
    assert manifest.purge(built.obj) == []


def test_vmlinux_is_gone_from_the_object_folder(built: Playground, kept: Kept) -> None:
    """A link further down asks it for its symbols, and has to be made by make."""
    for name in ("vmlinux", "piggyback.trace"):
        (built.obj / name).unlink()
    built.append(built.linux / f"{BOOT}/compressed/misc.c", "/* more */\n")
    assert built.doit().ran == ["compressed_vmlinux"]
    assert built.digests() == kept.digests


@pytest.mark.parametrize("name", ["drivers/built-in.a", "lib/string.o"])
def test_what_is_emptied_before_an_edit_elsewhere(built: Playground, name: str) -> None:
    """The edit alone would be built without make, upon what is empty."""
    source = built.linux / "init/main.c"
    text = source.read_text()
    built.append(source, "int more = 1;\n")
    built.doit()
    good = built.digests()
    source.write_text(text)
    built.doit()
    (built.obj / name).write_bytes(b"")
    built.append(source, "int more = 1;\n")
    built.doit()
    assert built.digests() == good


def later(folder: Path) -> None:
    for path in folder.rglob("*"):
        info = path.lstat()
        os.utime(
            path, ns=(info.st_atime_ns, info.st_mtime_ns + 3600 * 10**9), follow_symlinks=False
        )


@pytest.mark.parametrize(
    "spoil",
    [
        later,
        lambda obj: shutil.rmtree(obj / "include" / "generated"),
        lambda obj: shutil.rmtree(obj / "include"),
        lambda obj: shutil.rmtree(obj / "scripts"),
        lambda obj: halve(obj / "include/generated/asm/errno.h"),
        lambda obj: (obj / "include/generated/asm/errno.h").unlink(),
        lambda obj: (obj / "scripts/basic/fixdep").unlink(),
    ],
    ids=[
        "all from the future",
        "generated",
        "include",
        "scripts",
        "header halved",
        "header deleted",
        "fixdep deleted",
    ],
)
@pytest.mark.parametrize(
    ("path", "old", "new", "ran"),
    [
        (f"{BOOT}/compressed/misc.c", "VO__end", "3 * VO__end", ["compressed_vmlinux", "bzImage"]),
        (
            f"{BOOT}/compressed/misc.h",
            "extern",
            "static const int more __attribute__((used)) = 7;\nextern",
            ["compressed_vmlinux", "bzImage"],
        ),
        (f"{BOOT}/main.c", "\t\t;", '\t\t__asm__("hlt");', ["bzImage"]),
    ],
    ids=["misc.c", "misc.h", "main.c"],
)
def test_the_links_find_what_is_made_on_the_way_to_vmlinux(
    built: Playground,
    spoil: Callable[[Path], object],
    path: str,
    old: str,
    new: str,
    ran: list[str],
) -> None:
    """Only the link is asked for, and its makefile has no rule for the generated headers."""
    spoil(built.obj)
    before = built.digests()
    built.edit(built.linux / path, old, new)
    assert built.doit().ran == ran
    after = built.digests()
    assert {name for name in after if after[name] != before[name]} <= {
        "compressed_vmlinux",
        "bzImage",
    }
    assert after["bzImage"] != before["bzImage"]


@pytest.mark.parametrize(
    ("name", "edited", "how"),
    [
        ("arch/x86/boot/setup.bin", "", "emptied"),
        ("arch/x86/boot/compressed/piggy.S", "arch/x86/boot/main.c", "gone"),
        pytest.param("kernel/built-in.a", "kernel/panic.c", "gone", marks=pytest.mark.long),
        pytest.param("kernel/built-in.a", "", "emptied", marks=pytest.mark.long),
    ],
)
def test_what_is_emptied_with_what_knows_the_files(
    built: Playground, tmp_path: Path, name: str, edited: str, how: str
) -> None:
    (built.obj / name).write_bytes(b"")
    (built.obj / "piggyback.made").unlink()
    if how == "emptied":
        (built.obj / "piggyback.made").write_bytes(b"")
    if edited:
        built.append(built.linux / edited, "int more_of_it = 7;\n")
    else:
        (built.images / "bzImage").unlink()
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    assert built.doit("bzImage").ran == []
