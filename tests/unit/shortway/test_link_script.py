"""What vmlinux is made after, but not from; and what its script has make do."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tasks.kbuild.saved import Saved
from tasks.kbuild.trace import Said
from tasks.shortway.link_script import OURS, calls_make_for_nothing, unread, with_last_table

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
    top: Path,
    script: str = SCRIPT,
    config: str = "",
    command: str = COMMAND,
    edges: dict[str, list[str]] = EDGES,
) -> set[str]:
    (top / "scripts").mkdir()
    (top / "scripts/link-vmlinux.sh").write_text(script)
    (top / "include/config").mkdir(parents=True)
    (top / "include/config/auto.conf").write_text(f"CONFIG_PRINTK=y\n{config}")
    return unread(top, top, Said({}, edges), Saved("vmlinux", "cmd_vmlinux :=", command, command))


def test_it_is_vmlinux_o_and_what_is_made_from_that(tmp_path: Path) -> None:
    assert found(tmp_path) == {
        "vmlinux.o",
        "vmlinux.symvers",
        "modules.builtin",
        "modules.builtin.modinfo",
    }


def test_what_modpost_makes_for_the_link_is_read(tmp_path: Path) -> None:
    export = ".vmlinux.export.o"
    edges = {**EDGES, "vmlinux": [*EDGES["vmlinux"], export], export: ["vmlinux.symvers"]}
    assert export not in found(tmp_path, config="CONFIG_MODULES=y\n", edges=edges)


@pytest.mark.parametrize(
    "case",
    [
        {"config": "CONFIG_LTO_CLANG=y\n"},
        {"config": "CONFIG_X86_KERNEL_IBT=y\n"},
        {"command": 'link-vmlinux.sh "ld"; make -f arch/x86/Makefile.postlink vmlinux'},
        {"script": f"{SCRIPT}\nnm vmlinux.o\n"},
        {"script": SCRIPT.replace("if is_enabled CONFIG_LTO_CLANG ||", "if")},
        {"script": "objs=vmlinux.o\n"},
        {"edges": {**EDGES, "vmlinux": ["vmlinux.a"]}},
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


SIZE = '$(${CONFIG_SHELL} "${srctree}/scripts/file-size.sh" ${kallsymso'
STEPS = f"""\
	kallsyms_step 1
	kallsyms_step 2

	# step 3
	size1={SIZE}_prev}})
	size2={SIZE}}})

	if [ $size1 -ne $size2 ] || [ -n "${{KALLSYMS_EXTRA_PASS}}" ]; then
		kallsyms_step 3
	fi
echo "vmlinux: $0" > .vmlinux.d
"""
STEPS_6_12 = f"""\
	true > .tmp_vmlinux.kallsyms0.syms
	kallsyms .tmp_vmlinux.kallsyms0.syms .tmp_vmlinux0.kallsyms
	vmlinux_link .tmp_vmlinux1
	# strip
	sysmap_and_kallsyms .tmp_vmlinux1
	size1={SIZE}}})

	vmlinux_link .tmp_vmlinux2
	sysmap_and_kallsyms .tmp_vmlinux2
	size2={SIZE}}})
	if [ $size1 -ne $size2 ] || kallsymso_changed || \\
		[ -n "${{KALLSYMS_EXTRA_PASS}}" ]; then
		vmlinux_link .tmp_vmlinux3
		sysmap_and_kallsyms .tmp_vmlinux3
	fi
echo "vmlinux: $0" > .vmlinux.d
"""
LISTED = "CONFIG_KALLSYMS=y\nCONFIG_X86=y\n"
CALL = "/tree/scripts/link-vmlinux.sh"


def begun(
    top: Path,
    steps: str = STEPS,
    config: str = LISTED,
    tables: tuple[int, ...] = (1, 2),
    call: str = CALL,
    table: str = ".tmp_vmlinux.kallsyms%d.o",
) -> str:
    (top / "scripts").mkdir()
    (top / "scripts/link-vmlinux.sh").write_text(steps)
    (top / "include/config").mkdir(parents=True)
    (top / "include/config/auto.conf").write_text(config)
    for when, number in enumerate(tables):
        path = top / (table % number)
        path.touch()
        os.utime(path, (when, when))
    text = f'{call} "ld" "-m elf_i386";  true'
    return with_last_table(top, top, text)


@pytest.mark.parametrize("tables", [(1, 2), (2, 3), (2, 1)])
def test_the_newest_table_stands_for_the_first_step(
    tmp_path: Path, tables: tuple[int, ...]
) -> None:
    assert begun(tmp_path, tables=tables) == f'sh {OURS} "ld" "-m elf_i386";  true'
    text = (tmp_path / OURS).read_text()
    assert "kallsyms_step 1" not in text
    assert f"mv -f .tmp_vmlinux.kallsyms{tables[-1]}.o .tmp_vmlinux.kallsyms1.o" in text
    assert f'echo "vmlinux: {CALL}" >' in text


def test_the_script_of_6_12(tmp_path: Path) -> None:
    """An empty table begins its first link, which BTF needs, too."""
    table = ".tmp_vmlinux%d.kallsyms.o"
    assert begun(tmp_path, STEPS_6_12, table=table).startswith(f"sh {OURS} ")
    text = (tmp_path / OURS).read_text()
    assert "mv -f .tmp_vmlinux2.kallsyms.o .tmp_vmlinux1.kallsyms.o" in text
    assert not re.search(
        "kallsyms0|vmlinux_link .tmp_vmlinux1|sysmap_and_kallsyms .tmp_vmlinux1", text
    )


@pytest.mark.parametrize(
    "case",
    [
        {"tables": ()},
        {
            "steps": STEPS_6_12,
            "config": f"{LISTED}CONFIG_DEBUG_INFO_BTF=y\n",
            "table": ".tmp_vmlinux%d.kallsyms.o",
        },
        {"config": "CONFIG_X86=y\n"},
        {"config": "CONFIG_KALLSYMS=y\nCONFIG_PPC64=y\n"},
        {"steps": STEPS.replace("kallsyms_step 2", "kallsyms_step 2 more")},
        {"steps": STEPS.replace("-ne", "-gt")},
        {"steps": STEPS.replace("$0", "$1")},
        {"call": "/tree/scripts/link.sh"},
        {"call": "MAP=1 /tree/scripts/link-vmlinux.sh"},
    ],
)
def test_an_unknown_script_runs_as_it_is(tmp_path: Path, case: dict[str, Any]) -> None:
    assert begun(tmp_path, **case) == f'{case.get("call", CALL)} "ld" "-m elf_i386";  true'
    assert not (tmp_path / OURS).exists()
