from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.kbuild import unrecorded


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_what_a_configuration_is_made_by(tmp_path: Path) -> None:
    """Its own Kconfig files are known already."""
    for name in (
        "Makefile",
        "arch/x86/Makefile",
        "arch/x86/Makefile_32.cpu",
        "arch/arm/Makefile",
        "init/Makefile",
        "arch/x86/configs/own_defconfig",
        "arch/x86/configs/other_defconfig",
        "arch/x86/configs/more.config",
        "scripts/Makefile.compiler",
        "scripts/Kbuild.include",
        "scripts/kconfig/conf.c",
        "scripts/basic/fixdep.c",
        "scripts/kconfig/.gitignore",
        "scripts/link-vmlinux.sh",
        "scripts/min-version.sh",
    ):
        put(tmp_path / name)
    put(tmp_path / "scripts" / "cc-version.sh", "min=$($(dirname $0)/min-version.sh gcc)\n")
    init = put(
        tmp_path / "init" / "Kconfig",
        "config CC\n\tdef_bool $(shell,$(srctree)/scripts/cc-version.sh $(CC))\n",
    )
    arch = put(tmp_path / "arch" / "x86" / "Kconfig")
    cpu = put(tmp_path / "arch" / "arm" / "mach-x" / "Kconfig")
    found = unrecorded.kconfig(tmp_path, [str(init), str(arch), str(cpu)], "own_defconfig")
    assert [os.path.relpath(path, tmp_path) for path in found] == sorted(
        [
            "Makefile",
            "arch/x86/Makefile",
            "arch/x86/Makefile_32.cpu",
            "arch/x86/configs/own_defconfig",
            "arch/x86/configs/more.config",
            "scripts/Makefile.compiler",
            "scripts/Kbuild.include",
            "scripts/kconfig/conf.c",
            "scripts/basic/fixdep.c",
            "scripts/cc-version.sh",
            "scripts/min-version.sh",
        ]
    )


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ({}, False),
        ({"SMP": "y"}, False),
        ({"MODULE_SIG": "y"}, True),
        ({"EXTRA_FIRMWARE": '""'}, False),
        ({"EXTRA_FIRMWARE": '"a.bin"'}, True),
        ({"LOCALVERSION_AUTO": "n"}, False),
        ({"LOCALVERSION_AUTO": "y"}, True),
    ],
)
def test_what_no_record_tells(values: dict[str, str], answer: bool) -> None:
    assert unrecorded.unrecorded(values) is answer


@pytest.mark.parametrize(
    ("config", "symbols"),
    [
        (b"CONFIG_A=y\n# CONFIG_IKHEADERS is not set\n", []),
        (b"CONFIG_IKHEADERS=m\nCONFIG_A=y\n", ["IKHEADERS"]),
        (
            b"CONFIG_LOCALVERSION_AUTO=y\nCONFIG_IKHEADERS=y",
            ["LOCALVERSION_AUTO", "IKHEADERS"],
        ),
        (b'CONFIG_MY_LOCALVERSION_AUTO=y\nCONFIG_IKHEADERS_X="y"\n', []),
    ],
)
def test_what_only_make_can_tell(tmp_path: Path, config: bytes, symbols: list[str]) -> None:
    (tmp_path / ".git").mkdir()
    found = unrecorded.looked_at(config, tmp_path)
    assert [what.rpartition("CONFIG_")[2].rstrip(")") for what in found] == symbols


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, False),
        ("tree/.git", True),  # a checkout; of a worktree it is a file
        ("tree/.hg", True),
        ("tree/.scmversion", True),
        (".svn", True),
        (".git", False),  # the tree lies in a checkout of something else
        ("tree/sub/.git", False),
    ],
)
def test_only_a_checkout_has_a_version_of_its_own(
    tmp_path: Path, found: str | None, expected: bool
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    if found:
        put(tmp_path / found)
    (tmp_path / "link").symlink_to("tree")
    assert unrecorded.versioned(tmp_path / "link") is expected
    assert (
        unrecorded.looked_at(b"CONFIG_LOCALVERSION_AUTO=y\nCONFIG_IKHEADERS=y\n", tree)
        == [
            "git's name of the kernel (CONFIG_LOCALVERSION_AUTO)",
            "all headers (CONFIG_IKHEADERS)",
        ][not expected :]
    )


def test_the_files_that_give_a_version(tmp_path: Path) -> None:
    tree, obj = tmp_path / "tree", tmp_path / "obj"
    put(tree / "Makefile")
    assert unrecorded.version_files(tree, obj) == []
    made = [put(tree / "localversion-rt", "-rt1"), put(obj / "localversion", "-mine")]
    put(tree / "localversion-rt~")
    assert unrecorded.version_files(tree, obj) == made


def test_generated_headers(tmp_path: Path) -> None:
    """The configuration's own is left out, and what a folder generates for itself."""
    for name in (
        "include/generated/asm-offsets.h",
        "include/generated/uapi/linux/version.h",
        "include/generated/autoconf.h",
        "include/generated/.asm-offsets.h.cmd",
        "arch/x86/include/generated/asm/rwonce.h",
        "arch/x86/boot/voffset.h",
    ):
        put(tmp_path / name, name.upper())
    text = unrecorded.generated(tmp_path, lambda path: path.read_text())
    assert text.split() == [
        word
        for name in (
            "arch/x86/include/generated/asm/rwonce.h",
            "include/generated/asm-offsets.h",
            "include/generated/uapi/linux/version.h",
        )
        for word in (name.upper(), name)
    ]


def test_where_makefiles_look_for_files(tmp_path: Path) -> None:
    put(tmp_path / "net/certs/a.hex")
    put(tmp_path / "net/parts/a.c")
    put(tmp_path / "net/more/a.c")
    put(tmp_path / "arch/x/b.c")
    put(tmp_path / "arch/y/local.mk")
    put(tmp_path / "arch/z/VERSION")
    makefile = put(
        tmp_path / "net/Makefile",
        "$(obj)/certs.c: $(wildcard $(srctree)/$(src)/certs/*.hex)\n"
        "obj-y := $(patsubst %.c,%.o,$(wildcard $(srctree)/$(src)/*.c) $(wildcard $(obj)/*.c))\n"
        "all := $(wildcard $(srctree)/arch/x/?.c) $(wildcard $(srctree)/none/*.c)\n"
        "not := $(wildcard $(srctree)/arch/x/b.c) $(wildcard $(srctree)/arch/$(ARCH)/*.c)\n"
        "both := $(wildcard $(obj)/*.c $(src)/parts/*.c \\\n\t$(src)/more/new.c)\n"
        "-include $(srctree)/arch/y/local.mk $(srctree)/arch/z/local.mk\n"
        "ccflags-y += -DV=$(shell cat $(srctree)/arch/z/VERSION) -I$(srctree)/arch/x\n",
    )
    assert unrecorded.searched(str(tmp_path), [str(makefile)]) == {
        f"{tmp_path}/net/certs/*",
        f"{tmp_path}/net/certs/a.hex",
        f"{tmp_path}/net/*",
        f"{tmp_path}/arch/x/*",
        f"{tmp_path}/arch/x/b.c",
        f"{tmp_path}/net/parts/*",
        f"{tmp_path}/net/more/*",
        f"{tmp_path}/arch/y/local.mk",
        f"{tmp_path}/arch/z/*",
        f"{tmp_path}/arch/z/VERSION",
    }
