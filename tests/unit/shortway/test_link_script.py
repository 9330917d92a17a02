"""What vmlinux is made after, but not from; and what its script has make do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.kbuild.saved import Saved
from tasks.kbuild.trace import Said
from tasks.shortway.link_script import calls_make_for_nothing, unread

SCRIPT = """#!/bin/sh
# it reads vmlinux.o never
	if is_enabled CONFIG_LTO_CLANG || is_enabled CONFIG_X86_KERNEL_IBT; then
		# Use vmlinux.o instead of performing the slow LTO link again.
		objs=vmlinux.o
		libs=
	else
		objs=vmlinux.a
	fi
"""
EDGES = {
    "vmlinux": ["vmlinux.o", "/tree/scripts/link-vmlinux.sh"],
    "vmlinux.o": ["vmlinux.a"],
    "vmlinux.symvers": ["vmlinux.o"],
    "modules.builtin": ["modules.builtin.modinfo"],
    "modules.builtin.modinfo": ["vmlinux.o"],
    "vmlinux.a": ["built-in.a"],
}
COMMAND = 'link-vmlinux.sh "ld" "-m elf_i386" "";  true'


def found(
    top: Path, script: str = SCRIPT, config: str = "", command: str = COMMAND, old: bool = False
) -> set[str]:
    (top / "scripts").mkdir()
    (top / "scripts/link-vmlinux.sh").write_text(script)
    (top / "include/config").mkdir(parents=True)
    (top / "include/config/auto.conf").write_text(f"CONFIG_PRINTK=y\n{config}")
    edges = {**EDGES, "vmlinux": ["vmlinux.a"]} if old else EDGES
    return unread(top, top, Said({}, edges), Saved("vmlinux", "cmd_vmlinux :=", command, command))


def test_it_is_vmlinux_o_and_what_is_made_from_that(tmp_path: Path) -> None:
    assert found(tmp_path) == {
        "vmlinux.o",
        "vmlinux.symvers",
        "modules.builtin",
        "modules.builtin.modinfo",
    }


@pytest.mark.parametrize(
    "case",
    [
        {"config": "CONFIG_MODULES=y\n"},
        {"config": "CONFIG_LTO_CLANG=y\n"},
        {"config": "CONFIG_X86_KERNEL_IBT=y\n"},
        {"command": 'link-vmlinux.sh "ld"; make -f arch/x86/Makefile.postlink vmlinux'},
        {"script": f"{SCRIPT}\nnm vmlinux.o\n"},
        {"script": SCRIPT.replace("if is_enabled CONFIG_LTO_CLANG ||", "if")},
        {"script": "objs=vmlinux.o\n"},
        {"old": True},
    ],
)
def test_any_other_case_is_unknown(tmp_path: Path, case: dict[str, str]) -> None:
    assert found(tmp_path, **case) == set()


MAKE = '${MAKE} -f "${srctree}/scripts/Makefile.build" obj=init init/version-timestamp.o\n'
STAMPED = {"init/version-timestamp.o": []}


@pytest.mark.parametrize(
    ("script", "edges", "nothing"),
    [
        (f"# use $MAKE\n{MAKE}", STAMPED, True),
        (f"# use $MAKE\n{MAKE}", {}, False),
        (f"{MAKE}{MAKE}", STAMPED, False),
        (f"${{MAKE}} other\n{MAKE}", STAMPED, False),
        ("${MAKE} init/version-timestamp.o\n", STAMPED, False),
        ("", STAMPED, False),
    ],
)
def test_what_make_is_called_for(
    tmp_path: Path, script: str, edges: dict[str, list[str]], nothing: bool
) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/link-vmlinux.sh").write_text(f"#!/bin/sh\n{script}")
    assert calls_make_for_nothing(tmp_path, Said({}, edges)) is nothing


def test_without_the_script_make_is_called(tmp_path: Path) -> None:
    assert not calls_make_for_nothing(tmp_path, Said({}, STAMPED))
