from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tasks.kbuild import saved
from tasks.kbuild.saved import Unfamiliar

LISTS = """
source_{0} := /src/kernel/panic.c

deps_{0} := \\
    $(wildcard include/config/SMP) \\
  /src/include/linux/kconfig.h \\
  include/generated/autoconf.h \\

{0}: $(deps_{0})

$(deps_{0}):
"""
COMPILE = (
    "cmd_kernel/panic.o := gcc -Wp,-MMD,kernel/.panic.o.d -c -o kernel/panic.o"
    " /src/kernel/panic.c  \n"
)


def put(folder: Path, target: str, text: str) -> str:
    where = folder / os.path.dirname(target)
    where.mkdir(parents=True, exist_ok=True)
    record = where / f".{os.path.basename(target)}.cmd"
    record.write_text(text)
    return str(record)


@pytest.mark.parametrize("word", ["cmd", "savedcmd"])
def test_a_record_of_fixdep(tmp_path: Path, word: str) -> None:
    text = COMPILE.replace("cmd_", f"{word}_", 1) + LISTS.format("kernel/panic.o")
    command = saved.read(put(tmp_path, "kernel/panic.o", text))
    assert command.target == "kernel/panic.o"
    assert command.key == f"{word}_kernel/panic.o :="
    assert (
        command.command
        == "gcc -Wp,-MMD,kernel/.panic.o.d -c -o kernel/panic.o /src/kernel/panic.c  "
    )
    assert (command.lists, command.compiles, command.source, command.tail) == (
        True,
        True,
        "/src/kernel/panic.c",
        "",
    )
    assert (command.record, command.depfile) == ("kernel/.panic.o.cmd", "kernel/.panic.o.d")


def test_a_record_of_a_command_alone(tmp_path: Path) -> None:
    text = "cmd_lib/lib.a := rm -f lib/lib.a; ar cDPrsT lib/lib.a lib/ctype.o ./lib//x.o\n"
    command = saved.read(put(tmp_path, "lib/lib.a", text))
    assert (command.lists, command.compiles, command.source) == (False, False, "")
    assert {"lib/lib.a", "lib/ctype.o", "lib/x.o"} <= command.words()


def test_a_target_that_is_spelt_in_a_roundabout_way(tmp_path: Path) -> None:
    text = (
        "cmd_arch/x86/boot/compressed/../voffset.h := nm vmlinux >"
        " arch/x86/boot/compressed/../voffset.h\n"
    )
    command = saved.read(put(tmp_path, "arch/x86/boot/voffset.h", text))
    assert command.target == "arch/x86/boot/compressed/../voffset.h"
    assert command.record == "arch/x86/boot/compressed/../.voffset.h.cmd"
    assert "arch/x86/boot/voffset.h" in command.words()


def test_what_objtool_adds_is_kept(tmp_path: Path) -> None:
    tail = "\nkernel/panic.o: $(wildcard ./tools/objtool/objtool)\n"
    text = COMPILE + LISTS.format("kernel/panic.o") + tail
    assert saved.read(put(tmp_path, "kernel/panic.o", text)).tail == tail
    alone = (
        "cmd_vmlinux.o := ld -r -o vmlinux.o vmlinux.a\n\nvmlinux.o: $(wildcard"
        " ./tools/objtool/objtool)\n"
    )
    assert (
        saved.read(put(tmp_path, "vmlinux.o", alone)).tail.strip()
        == "vmlinux.o: $(wildcard ./tools/objtool/objtool)"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "cmd_kernel/panic.o :=\n",
        "cmd_kernel/panic.o := \n",
        "source_x := y\n",
        COMPILE.rstrip("\n"),
        COMPILE + "another line of the command\n",
        COMPILE + LISTS.format("kernel/panic.o") + "#SYMVER panic 0x12345678\n",
        COMPILE + LISTS.format("kernel/panic.o") + "    $(wildcard include/ksym/panic.h) \\\n",
        COMPILE + LISTS.format("kernel/other.o"),
        COMPILE + LISTS.format("kernel/panic.o")[:-20],
        "cmd_kernel/panic.o := gcc $(c_flags) -c x.c\n",
        "cmd_kernel/panic.o := gcc $x\n",
        "cmd_kernel/panic.o := echo $\n",
        "cmd_kernel/pa'nic.o := gcc -c x.c\n",
        "cmd_kernel/$x.o := gcc -c x.c\n",
    ],
)
def test_what_is_not_understood(tmp_path: Path, text: str) -> None:
    with pytest.raises(Unfamiliar):
        saved.read(put(tmp_path, "kernel/panic.o", text))


def test_a_record_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(Unfamiliar):
        saved.read(str(tmp_path / ".x.cmd"))
    (tmp_path / ".x.cmd").write_bytes(b"cmd_x := \xff\n")
    with pytest.raises(Unfamiliar):
        saved.read(str(tmp_path / ".x.cmd"))


def test_what_make_would_have_expanded() -> None:
    text = "sed -e 's/x$$/$(pound)define \\1/' $$(ar t a) $$$$"
    assert saved.unescaped(text) == "sed -e 's/x$/#define \\1/' $(ar t a) $$"


def replayed(folder: Path, target: str, text: str, check: str = "") -> int:
    """Put a record there, run what it says, and return the shell's exit status."""
    command = saved.read(put(folder, target, text))
    return subprocess.run(["sh", "-c", command.script(check)], cwd=folder, check=False).returncode


def test_a_command_writes_its_record_again(tmp_path: Path) -> None:
    text = "cmd_a.h := printf '%s\\n' 'it''s' \"$(pound)define A $$((1+2))\" > a.h;\n"
    assert replayed(tmp_path, "a.h", text) == 0
    assert (tmp_path / "a.h").read_text() == "its\n#define A 3\n"
    assert (tmp_path / ".a.h.cmd").read_text() == text
    assert (tmp_path / ".a.h.cmd").stat().st_mtime_ns >= (tmp_path / "a.h").stat().st_mtime_ns


def test_fixdep_gets_what_kbuild_gives_it(tmp_path: Path) -> None:
    fixdep = tmp_path / "scripts" / "basic" / "fixdep"
    fixdep.parent.mkdir(parents=True)
    fixdep.write_text('#!/bin/sh\ntest -f "$1" && printf \'%s|%s|%s\\n\' "$1" "$2" "$3"\n')
    fixdep.chmod(0o755)
    said = "echo 'a $$x $(pound)' > k/a,b.o; echo k/a.o: x.c > k/.a_b.o.d; : -c x.c"
    text = f"cmd_k/a,b.o := {said}\n" + LISTS.format("k/a,b.o")
    assert replayed(tmp_path, "k/a,b.o", text) == 0
    assert (tmp_path / "k" / "a,b.o").read_text() == "a $x #\n"
    assert (tmp_path / "k" / ".a,b.o.cmd").read_text() == f"k/.a_b.o.d|k/a,b.o|{said}\n"
    assert not (tmp_path / "k" / ".a_b.o.d").exists()


def test_a_command_that_fails_in_the_middle_writes_no_record(tmp_path: Path) -> None:
    text = "cmd_a := false; echo x > a\n"
    assert replayed(tmp_path, "a", text) != 0
    assert not (tmp_path / "a").exists()
    assert replayed(tmp_path, "b", "cmd_b := echo x > b\n", check="test 1 = 2 #") != 0
