"""What a symbol means by the makefiles, read roughly."""

from __future__ import annotations

from pathlib import Path

import pytest
from cmd_files import put

from tasks.kbuild.makefiles import Makefiles

MAKEFILE = """\
obj-y = sys.o \\
	panic.o
obj-$(CONFIG_IPC) += msg.o \\
	sem.o  # both
obj-$(CONFIG_MOD) += mod.o
obj-$(CONFIG_NET) += net/
obj-$(CONFIG_BIG) += big.o
big-y := big-one.o $(call word,two.o)
big-$(CONFIG_IPC) += big-ipc.o
ifdef CONFIG_SPECIAL
CFLAGS_sys.o += -O0
obj-y += special.o
endif
ifeq ($(CONFIG_A)$(CONFIG_B),yy)
ccflags-y += -DAB
endif
"""
FILES = ("sys", "panic", "msg", "sem", "mod", "big-one", "big-ipc", "special", "net/core", "net/v4")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    put(tmp_path / "kernel" / "Makefile", MAKEFILE)
    put(tmp_path / "kernel" / "net" / "Makefile", "obj-y := core.o\nobj-$(CONFIG_V4) += v4.o\n")
    put(tmp_path / "Makefile", "ifdef CONFIG_SMALL\nKBUILD_CFLAGS += -Os\nelse\nX = 1\nendif\n")
    put(tmp_path / "arch" / "x86" / "Makefile", "KBUILD_AFLAGS-$(CONFIG_FRAME) += -g\n")
    for name in FILES:
        put(tmp_path / "kernel" / f"{name}.{'S' if name == 'panic' else 'c'}")
    return tmp_path


@pytest.mark.parametrize(
    ("on", "symbols", "objects"),
    [
        (["IPC"], ["IPC"], ["msg", "sem"]),
        ([], ["IPC"], []),
        (["NET"], ["NET"], ["net/core"]),
        (["NET", "V4"], ["NET"], ["net/core", "net/v4"]),
        (["BIG"], ["BIG"], ["big-one"]),
        (["BIG", "IPC"], ["BIG"], ["big-ipc", "big-one"]),
        (["SPECIAL"], ["SPECIAL"], ["special"]),
        (["OTHER"], ["OTHER"], []),
    ],
)
def test_objects_that_come(
    tree: Path, on: list[str], symbols: list[str], objects: list[str]
) -> None:
    found = Makefiles(tree, dict.fromkeys(on, "y")).coming(["kernel"], symbols)
    assert sorted(found) == [f"kernel/{name}.o" for name in objects]


def test_a_module_is_no_object_of_the_kernel_proper(tree: Path) -> None:
    assert Makefiles(tree, {"MOD": "m"}).coming(["kernel"], ["MOD"]) == set()
    assert Makefiles(tree, {"MOD": "y"}).coming(["kernel"], ["MOD"]) == {"kernel/mod.o"}


@pytest.mark.parametrize(
    ("symbol", "found"),
    [
        ("SMALL", {""}),
        ("FRAME", {""}),
        ("SPECIAL", {"kernel/sys.o"}),
        ("B", {"kernel"}),
        ("IPC", set()),
    ],
)
def test_what_gets_other_flags(tree: Path, symbol: str, found: set[str]) -> None:
    assert Makefiles(tree, {}).steered(["kernel"], [symbol]) == found


def test_folders_that_name_each_other_end(tree: Path) -> None:
    put(tree / "kernel" / "net" / "Makefile", "obj-y := core.o ../ ../net/\n")
    found = Makefiles(tree, {"NET": "y"}).coming(["kernel"], ["NET"])
    assert "kernel/net/core.o" in found
