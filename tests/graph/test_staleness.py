"""What is built again after a change, and nothing else: real doit, real make and compiler, on the
fake sources."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playground import EVERYTHING, IMAGES, Kept, Playground, finish
from test_shortway import as_make_does

LINKS = ["Image", "piggy.gz", "piggy.o", "compressed_vmlinux", "bzImage"]
KERNEL = ["vmlinux", *LINKS]
OWNERS = {
    "System.map": "vmlinux",
    "config": "kernel_config",
    "miniconfig": "kernel_config",
    "rootfs.ext2": "rootfs",
    "busybox.links": "busybox",
    "busybox.config": "busybox_config",
    "initramfs.cpio.gz": "initramfs",
}
CONFIGURED = ["kernel_config", *KERNEL]
ROOT = ["rootfs", "initramfs"]
LOADER = ["compressed_vmlinux", "bzImage"]
Change = Callable[[Playground], object]


def settled(play: Playground) -> None:
    """Another run does nothing."""
    again = play.doit()
    assert again.ran == [], again.why
    assert "nothing to do" in again.text


def test_everything_is_built_once(kept: Kept, built: Playground) -> None:
    assert sorted(kept.first.ran) == sorted(EVERYTHING)
    assert {reason for reasons in kept.first.why.values() for reason in reasons} == {
        "not built yet"
    }
    settled(built)
    settled(built)


def in_tree(path: str, old: str, new: str) -> Change:
    return lambda play: play.edit(play.linux / path, old, new)


def longer(path: str, text: str) -> Change:
    return lambda play: play.append(path, text)


LINUX = "build/src/linux-6.1/"
LOAD = LINUX + "arch/x86/boot/compressed/"
ECHO = "build/src/busybox/coreutils/echo.c"
FAKE = "configs/machines/fake.toml"
BASE = "configs/kernel/fake-base.config"
ETC = "overlays/fake/etc/"


def touch_everything(play: Playground) -> None:
    for folder in (
        play.linux.resolve(),
        play.top / "overlays",
        play.top / "tasks",
        play.top / "configs",
    ):
        for path in folder.rglob("*"):
            path.touch()


def put_back(play: Playground) -> None:
    """Other content, same size, same time: what `cp -p` or `mv` of a kept copy leaves."""
    file = play.linux / "lib" / "string.c"
    state = file.stat()
    play.edit(file, "return p - s", "return s - p")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def put_back_header(play: Playground) -> None:
    file = play.linux / "include" / "linux" / "panic.h"
    play.edit(file, "30", "31")
    os.utime(file, (0, 0))


def put_back_boot(play: Playground) -> None:
    file = play.linux / "arch/x86/boot/compressed/misc.c"
    play.edit(file, "input_data[0]", "input_data[1]")
    os.utime(file, (0, 0))


def put_back_busybox(play: Playground) -> None:
    file = play.top / ECHO
    play.edit(file, '"-n"', '"-e"')
    os.utime(file, (0, 0))


def reorder(play: Playground) -> None:
    play.edit(FAKE, '["fake-base", "fake-serial"]', '["fake-serial", "fake-base"]')


def add_fragment(play: Playground) -> None:
    (play.top / "configs/kernel/fake-more.config").write_text("CONFIG_NETDEVICES=y\n")
    play.edit(FAKE, '"]\nchain', '", "fake-more"]\nchain')


def retarget(play: Playground) -> None:
    (play.top / ETC / "mtab").unlink()
    (play.top / ETC / "mtab").symlink_to("elsewhere")


def shadow(play: Playground) -> None:
    """A new header that the compiler finds before the one that it took."""
    (play.linux / "include/linux/level.h").write_text("#define LOGLEVEL_DEFAULT 4\n")


def kbuild_file(play: Playground) -> None:
    """Kbuild reads this file, and no longer the Makefile beside it."""
    (play.linux / "lib/Kbuild").write_text("obj-y := string.o unused.o\n")


def add_object(play: Playground) -> None:
    play.edit(play.linux / "lib/Makefile", "string.o", "string.o unused.o")


NOTHING: dict[str, Change] = {
    "unused C file": longer(LINUX + "lib/unused.c", "int more;\n"),
    "C file of a symbol that is off": longer(LINUX + "kernel/extra.c", "int more;\n"),
    "unused header": longer(LINUX + "include/linux/unused.h", "#define MORE\n"),
    "new file in the tree": longer(LINUX + "kernel/new.c", "int new;\n"),
    "everything touched": touch_everything,
    "makefile of an unused folder": longer(LINUX + "drivers/net/Makefile", "# more\n"),
    "editor's backup in an overlay": longer(ETC + "inittab~", "x"),
    "busybox file of a symbol that is off": longer("build/src/busybox/coreutils/tc.c", "int tc;\n"),
    "code of an action, a comment": longer("tasks/rootfs.py", "\n# more\n"),
    "description of the machine": lambda play: play.edit(FAKE, "a machine of", "the machine of"),
}
CHANGES: dict[str, dict[str, tuple[Change, list[str]]]] = {
    "kernel": {
        "used C file": (in_tree("kernel/panic.c", "printk(why)", "printk(why + 1)"), KERNEL),
        "used C file, a comment": (longer(LINUX + "kernel/panic.c", "/* more */\n"), ["vmlinux"]),
        "used assembler file": (
            in_tree("arch/x86/kernel/head.S", "jmp 1b", "hlt\n\tjmp 1b"),
            KERNEL,
        ),
        "file that adds to the release": (longer(LINUX + "localversion-x", "-x\n"), KERNEL),
        "used header": (in_tree("include/linux/panic.h", "30", "31"), KERNEL),
        "used header, a comment": (
            longer(LINUX + "include/linux/kernel.h", "/* more */\n"),
            ["vmlinux"],
        ),
        "new header before one in use": (shadow, KERNEL),
        "a header gone, with another one behind it": (
            lambda play: (play.linux / "include/linux/level.h").unlink(),
            KERNEL,
        ),
        "Kbuild beside a makefile": (kbuild_file, KERNEL),
        "linker script": (longer(LINUX + "scripts/link-vmlinux.sh", "# more\n"), KERNEL),
        "makefile of a used folder, a comment": (
            longer(LINUX + "kernel/Makefile", "# more\n"),
            ["vmlinux"],
        ),
        "new header that nobody includes": (
            longer(LINUX + "include/linux/new.h", "#define NEW\n"),
            ["vmlinux"],
        ),
        "Kbuild beside a makefile gone": (
            lambda play: (play.linux / "lib/Kbuild").unlink(),
            KERNEL,
        ),
        "makefile of a used folder, one more object": (add_object, KERNEL),
    },
    "older times": {
        "other content under the old time": (put_back, KERNEL),
        "header with an older time": (put_back_header, KERNEL),
    },
    "boot folder": {
        "boot file with an older time": (put_back_boot, LOADER),
        "makefile of the boot folder": (
            longer(LINUX + "arch/x86/boot/Makefile", "# more\n"),
            LOADER,
        ),
        "boot C file": (
            in_tree("arch/x86/boot/compressed/misc.c", "VO__end", "2 * VO__end"),
            LOADER,
        ),
        "boot C file, a comment": (longer(LOAD + "misc.c", "/* more */\n"), ["compressed_vmlinux"]),
        "boot header": (longer(LOAD + "misc.h", "/* more */\n"), ["compressed_vmlinux"]),
        "real-mode C file": (
            in_tree("arch/x86/boot/main.c", ";;)\n\t\t;", ';;)\n\t\t__asm__("hlt");'),
            ["bzImage"],
        ),
        "host program of the boot folder": (
            longer(LINUX + "arch/x86/boot/tools/build.c", "/* more */\n"),
            ["bzImage"],
        ),
        "host program that makes piggy.S": (
            longer(LOAD + "mkpiggy.c", "/* more */\n"),
            ["piggy.o"],
        ),
    },
    "busybox": {
        "busybox file with an older time": (put_back_busybox, ["busybox", *ROOT]),
        "busybox symbol": (
            longer("configs/busybox/fake.config", "# CONFIG_CAT is not set\n"),
            ["busybox_config", "busybox", *ROOT],
        ),
        "busybox file": (lambda play: play.edit(ECHO, "argv[2]", "argv[3]"), ["busybox", *ROOT]),
        "busybox file, a comment": (longer(ECHO, "/* more */\n"), ["busybox"]),
    },
    "configuration": {
        "fragment symbol added": (longer(BASE, "CONFIG_EXTRA=y\n"), CONFIGURED),
        "fragment symbol removed": (
            lambda play: play.edit(BASE, "CONFIG_EXT2_FS=y\n", ""),
            CONFIGURED,
        ),
        "fragment symbol turned off": (lambda play: play.edit(BASE, "ELF=y", "ELF=n"), CONFIGURED),
        "another compressor": (
            lambda play: play.edit(BASE, "_GZIP=y\nCONFIG_BLOCK", "_XZ=y\nCONFIG_BLOCK"),
            CONFIGURED,
        ),
        "fragment, a comment": (longer(BASE, "# more\n"), ["kernel_config"]),
        "fragments in another order": (reorder, ["kernel_config"]),
        "one more fragment": (add_fragment, CONFIGURED),
        "Kconfig default": (in_tree("init/Kconfig", "default 14", "default 15"), CONFIGURED),
        "Kconfig text": (
            in_tree("init/Kconfig", "Kernel log buffer size", "Size of the log"),
            ["kernel_config"],
        ),
    },
    "overlays and devices": {
        "overlay file": (longer(ETC + "inittab", "# more\n"), ROOT),
        "overlay file's mode": (lambda play: (play.top / ETC / "inittab").chmod(0o600), ROOT),
        "overlay file added": (longer(ETC + "motd", "hello\n"), ROOT),
        "overlay file deleted": (lambda play: (play.top / ETC / "init.d/rcS").unlink(), ROOT),
        "overlay folder, empty": (lambda play: (play.top / ETC / "empty").mkdir(), ROOT),
        "overlay link": (retarget, ROOT),
        "device table": (longer("configs/rootfs/fake.txt", "/dev/null c 666 0 0 1 3\n"), ROOT),
        "device table, a comment": (longer("configs/rootfs/fake.txt", "# more\n"), ROOT),
    },
    "code": {
        "code of an action": (
            lambda play: play.edit("tasks/rootfs.py", ' of it free",', ' of it unused",'),
            ["rootfs"],
        ),
    },
}


# A task runs only when what it is made from has changed, so which ones ran also says which outputs
# were the same.
@pytest.mark.parametrize("group", CHANGES)
def test_changes(built: Playground, group: str) -> None:
    """One after the other: after each, exactly the tasks in its list run; after the last, nothing
    any more."""
    for name, (change, expected) in CHANGES[group].items():
        before = built.digests()["config"]
        change(built)
        after = built.doit()
        assert sorted(after.ran) == sorted(expected), (name, after.why)
        if "kernel_config" in expected:
            assert (built.digests()["config"] == before) == (expected == ["kernel_config"]), name
    settled(built)


def test_what_nothing_is_made_from_makes_nothing_stale(built: Playground) -> None:
    for change in NOTHING.values():
        change(built)
    settled(built)


def delete(path: Path) -> None:
    path.unlink()


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    path.write_text("# something else\n")


def test_an_image_that_was_spoilt_is_made_again(built: Playground, kept: Kept) -> None:
    for image, spoil in zip(IMAGES, itertools.cycle((delete, halve, replace))):
        spoil(built.images / image)
        after = built.doit()
        assert after.ran == [OWNERS.get(image, image)], (image, after.why)
        assert built.digests() == kept.digests
    settled(built)


@pytest.mark.parametrize("spoil", [delete, halve, replace])
def test_all_images_spoilt(built: Playground, kept: Kept, spoil: Callable[[Path], None]) -> None:
    for image in IMAGES:
        spoil(built.images / image)
    assert set(built.doit().ran) == {OWNERS.get(image, image) for image in IMAGES}
    assert built.digests() == kept.digests
    settled(built)


def test_a_program_that_kconfig_asks_for_its_version(built: Playground) -> None:
    built.append(
        built.linux / "Kconfig",
        "\nconfig PAHOLE_VERSION\n\tint\n\tdefault $(shell,pahole 2>/dev/null || echo 0)\n",
    )
    assert "kernel_config" in built.doit().ran
    folder = built.home / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "pahole").write_text("#!/bin/sh\necho 124\n")
    (folder / "pahole").chmod(0o755)
    path = f"{folder}:{built.environ()['PATH']}"
    assert "CONFIG_PAHOLE_VERSION=0\n" in (built.images / "config").read_text()
    assert "kernel_config" in built.doit(PATH=path).ran
    assert "CONFIG_PAHOLE_VERSION=124\n" in (built.images / "config").read_text()
    (folder / "pahole").unlink()


def test_an_exported_header(built: Playground) -> None:
    header = next((built.linux / "include" / "uapi").rglob("*.h"))
    built.append(header, "#define PIGGYBACK_TEST 1\n")
    assert "toolchain" in built.doit().ran
    assert built.doit().ran == []


def test_a_new_header_that_is_found_before_the_old_one(built: Playground) -> None:
    built.append(built.linux / "init/main.c", "#include <linux/more.h>\nint more = MORE;\n")
    built.append(built.linux / "include/uapi/linux/more.h", "#define MORE 1\n")
    assert built.doit().ran == KERNEL
    built.append(built.linux / "include/linux/more.h", "#define MORE 2\n")
    assert built.doit().ran == KERNEL  # make alone would keep main.o
    settled(built)
    (built.linux / "include/linux/more.h").unlink()
    assert built.doit().ran == KERNEL
    settled(built)


@pytest.mark.parametrize("way", ["new", "moved", "there before"])
def test_a_new_folder_that_is_searched_before_the_old_one(built: Playground, way: str) -> None:
    """kernel/sub/a.h has #include "zz/z.h", found by -I in include/ until kernel/sub/zz/ comes."""
    for name, text in (
        ("include/zz/z.h", "#define ZED 1\n"),
        ("kernel/sub/a.h", '#include "zz/z.h"\n'),
        ("elsewhere/z.h", "#define ZED 2\n"),
    ):
        (built.linux / name).parent.mkdir(parents=True, exist_ok=True)
        (built.linux / name).write_text(text)
    if way == "there before":
        (built.linux / "kernel/sub/zz").mkdir()
    built.append(built.linux / "kernel/panic.c", '#include "sub/a.h"\nint zed = ZED;\n')
    assert built.doit().ran == KERNEL
    assert built.doit().ran == []
    first = built.digests()["vmlinux"]
    if way == "moved":
        (built.linux / "elsewhere").rename(built.linux / "kernel/sub/zz")
    else:
        (built.linux / "kernel/sub/zz").mkdir(exist_ok=True)
        (built.linux / "kernel/sub/zz/z.h").write_text("#define ZED 2\n")
    assert built.doit().ran == KERNEL  # make alone would keep panic.o
    assert built.digests()["vmlinux"] != first
    settled(built)
    shutil.rmtree(built.linux / "kernel/sub/zz")
    assert built.doit().ran == KERNEL
    assert built.digests()["vmlinux"] == first
    settled(built)


@pytest.mark.parametrize(
    ("tool", "words", "image"),
    [
        pytest.param("ld", "-Ttext=0x500000", "vmlinux", marks=pytest.mark.long),
        ("gcc", "-O1", "vmlinux"),
        ("objcopy", "--gap-fill=0xff", "bzImage"),
    ],
)
def test_another_program_under_a_tools_name(
    built: Playground, kept: Kept, triple: str, tool: str, words: str, image: str
) -> None:
    """It makes everything anew, though each command is the same."""
    folder = built.home / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / f"{triple}-{tool}"
    program.write_text(f'#!/bin/sh\nexec {shutil.which(program.name)} "$@" {words}\n')
    program.chmod(0o755)
    path = f"{folder}:{built.environ()['PATH']}"
    assert {"toolchain", "vmlinux"} <= set(built.doit(PATH=path).ran)
    assert built.digests()[image] != kept.digests[image]
    assert built.doit(PATH=path).ran == []
    program.unlink()
    built.doit()
    assert built.digests() == kept.digests


def test_what_makefiles_read(built: Playground, tmp_path: Path) -> None:
    """A makefile that another one names by a variable, or takes if it is there; sources that it
    looks for; a file that it reads by the shell."""
    lib = built.linux / "lib"
    (built.linux / "include/parts").mkdir()
    (built.linux / "include/parts/shared.mk").write_text("ccflags-y += -DONE=1\n")
    (built.linux / "include/parts/version").write_text("1\n")
    (lib / "parts").mkdir()
    built.append(
        lib / "Makefile",
        "common := $(srctree)/include/parts\n"
        "include $(common)/shared.mk\n"
        "-include $(srctree)/$(src)/local.mk\n"
        "ccflags-y += -DTWO=$(shell cat $(srctree)/include/parts/version)\n"
        "found := $(wildcard $(srctree)/$(src)/none/*.c $(srctree)/$(src)/parts/*.c)\n"
        "obj-y += $(patsubst $(srctree)/$(src)/%.c,%.o,$(found))\n"
        "obj-y += $(if $(wildcard $(srctree)/$(src)/added.c),added.o)\n",
    )
    built.append(
        lib / "string.c",
        "#ifndef THREE\n#define THREE 1\n#endif\nint more[] = { ONE, TWO, THREE };\n",
    )
    built.doit("bzImage")
    changes: dict[Path, str] = {
        built.linux / "include/parts/shared.mk": "ccflags-y += -DONE=2\n",
        built.linux / "include/parts/version": "2\n",
        lib / "local.mk": "ccflags-y += -DTHREE=2\n",
        lib / "parts/new.c": "int new = 1;\n",
        lib / "added.c": "int added = 1;\n",
    }
    for path, text in changes.items():
        path.write_text(text)
        assert "bzImage" in built.doit("bzImage").ran, path
        assert as_make_does(built, tmp_path), path
        assert built.doit("bzImage").ran == []


def test_a_link_turned_while_make_runs(built: Playground, tmp_path: Path) -> None:
    """A source is a link, and leads to another file, an old one, after the compiler read it."""
    source = built.linux / "kernel/linked.c"
    for number in (1, 2):
        (built.linux / f"kernel/{number}.inc").write_text(f"int number = {number};\n")
    source.symlink_to("1.inc")
    built.append(built.linux / "kernel/Makefile", "obj-y += linked.o\n")
    built.pause("vmlinux", "wait")
    process = built.start("bzImage")
    built.reached("vmlinux")
    source.unlink()
    source.symlink_to("2.inc")
    built.resume()
    said = finish(process)
    assert process.returncode == 0, said
    assert "bzImage" in built.doit("bzImage").ran
    assert as_make_does(built, tmp_path)
    assert built.doit("bzImage").ran == []


def test_a_source_that_goes_before_another(built: Playground, tmp_path: Path) -> None:
    """Kbuild takes pair.c, if there is one, before pair.S."""
    (built.linux / "lib/pair.S").write_text(".globl pair\n.data\npair: .long 1\n")
    built.append(built.linux / "lib/Makefile", "obj-y += pair.o\n")
    built.doit("bzImage")
    (built.linux / "lib/pair.c").write_text("int pair = 2;\n")
    os.utime(built.linux / "lib/pair.c", (0, 0))
    assert "bzImage" in built.doit("bzImage").ran
    assert as_make_does(built, tmp_path)
    assert built.doit("bzImage").ran == []
