"""A record without its paths: the same list of names gives it back, in any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.kbuild import object_key, saved
from tasks.kbuild.object_key import Hiding, Roots
from tasks.kbuild.saved import Unfamiliar

HERE = Roots("/a/src/linux", "/a/obj", "/a/sdk")
THERE = Roots("/b/linux", "/b/c/obj", "/b/tools")
COMMAND = (
    "/a/sdk/bin/x-gcc -Wp,-MMD,kernel/.panic.o.d -nostdinc -I/a/src/linux/include -I./include"
    " -D__KERNEL__ -fmacro-prefix-map=/a/src/linux/= -DKBUILD_MODNAME='\"panic\"' -c"
    " -o kernel/panic.o /a/src/linux/kernel/panic.c  "
)


def text(command: str = COMMAND, tail: str = "") -> str:
    return (
        f"savedcmd_kernel/panic.o := {command}\n\n"
        "source_kernel/panic.o := /a/src/linux/kernel/panic.c\n\n"
        "deps_kernel/panic.o := \\\n"
        "    $(wildcard include/config/SMP) \\\n"
        "  /a/src/linux/include/linux/kernel.h \\\n"
        "    $(wildcard include/config/foo/bar.h) \\\n"
        "  include/generated/bounds.h \\\n"
        "\nkernel/panic.o: $(deps_kernel/panic.o)\n\n$(deps_kernel/panic.o):\n" + tail
    )


def parsed(tmp_path: Path, content: str) -> saved.Saved:
    path = tmp_path / ".panic.o.cmd"
    path.write_text(content)
    return saved.read(str(path))


def names(tmp_path: Path, content: str) -> list[str]:
    return object_key.names_of(parsed(tmp_path, content), content, HERE)


@pytest.mark.parametrize("tail", ["", "\nkernel/panic.o: $(wildcard ./tools/objtool/objtool)\n"])
def test_a_record_comes_back_in_another_folder(tmp_path: Path, tail: str) -> None:
    content = text(tail=tail)
    found = names(tmp_path, content)
    assert object_key.record_of(found, HERE) == content
    there = content.replace("/a/src/linux", "/b/linux").replace("/a/sdk", "/b/tools")
    assert object_key.record_of(found, THERE) == there
    assert not [name for name in found if "/a/" in name]


def test_symbols_are_known_by_their_files() -> None:
    """From the file of an old kernel, foo/bar.h, the name can't be told: FOO_bar has it, too."""
    smp = object_key.symbol_file("$(wildcard include/config/SMP)")
    assert smp == "include/config/SMP"
    old = object_key.symbol_file("$(wildcard include/config/foo/bar.h)")
    assert old == "include/config/foo/bar.h"
    assert object_key.symbol_file("include/linux/kernel.h") == ""


def test_objtool_is_a_program_of_its_own(tmp_path: Path) -> None:
    content = text(f"{COMMAND} ; ./tools/objtool/objtool --mcount --uaccess kernel/panic.o")
    assert names(tmp_path, content)
    assert object_key.unrecorded(parsed(tmp_path, content)) == [object_key.OBJTOOL]
    assert object_key.unrecorded(parsed(tmp_path, text())) == []


def test_a_symbol_that_the_command_names(tmp_path: Path) -> None:
    command = COMMAND.replace("-c ", "-DCONFIG_A=1 -DB=CONFIG_B -D 'C(x)=x + CONFIG_C' -c ")
    found = object_key.unrecorded(parsed(tmp_path, text(command)))
    assert found == ["#CONFIG_B", "#CONFIG_C"]


@pytest.mark.parametrize(
    "command",
    [
        COMMAND.replace("-D__KERNEL__ ", ""),
        COMMAND + "; objcopy kernel/panic.o",
        COMMAND + "| cat",
        COMMAND.replace("-c ", "-c @file "),
        COMMAND.replace("-c ", "-c '@file' "),
        COMMAND.replace("-c ", "-c --specs=file "),
        COMMAND.replace("-c ", "-c '-specs=a file' "),
        COMMAND.replace("-c ", "-c -DHAS=CONFIG "),
        COMMAND.replace("-c ", "-c -D'HAS(x)=CONFIG_##x' "),
        COMMAND.replace("-c ", "-fplugin=x.so -c "),
        COMMAND.replace("-c ", "-flto -c "),
        COMMAND.replace("-c ", "-gsplit-dwarf -c "),
        COMMAND.replace("-c ", "-fprofile-use=x -c "),
        COMMAND.replace("-c ", "`date` -c "),
        COMMAND.replace("-c ", "-march=native -c "),
        COMMAND.replace("-c ", "-mtune=native -c "),
        COMMAND.replace("-c ", "-Wa,macros.s -c "),
        COMMAND.replace("-c ", "-Wa,-x,@list -c "),
        COMMAND.replace("-c ", "-Wp,@list -c "),
        COMMAND.replace("-c ", "-fsanitize-ignorelist=scripts/list.txt -c "),
        COMMAND.replace("-c ", "-frandomize-layout-seed-file=scripts/seed -c "),
        COMMAND.replace("-c ", "-isystem /a/src/linux/drivers/net/include -c "),
        COMMAND.replace("-c ", "-idirafter ./include -c "),
        COMMAND.replace("-o kernel/panic.o", "-o kernel/other.o"),
        COMMAND + "; ./tools/objtool/objtool --x kernel/panic.o; rm x",
    ],
)
def test_what_does_more_than_compile_is_left_out(tmp_path: Path, command: str) -> None:
    with pytest.raises(Unfamiliar):
        names(tmp_path, text(command))


def test_a_record_with_words_of_ours_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(Unfamiliar):
        names(tmp_path, text(COMMAND.replace("-c ", "-I<tree> -c ")))


@pytest.mark.parametrize(
    "option",
    [
        *("-march=i586", "-Wa,-mtune=generic32", "-ffile-prefix-map=/a/src/linux/=", "-std=gnu11"),
        "-isystem /a/sdk/lib/gcc/x/12/include",
    ],
)
def test_ordinary_options_are_taken(tmp_path: Path, option: str) -> None:
    assert names(tmp_path, text(COMMAND.replace("-c ", f"{option} -c ")))


@pytest.mark.parametrize(
    "change",
    [
        {0: "cmd_kernel/panic.o := gcc $(shell touch /tmp/x) -o kernel/panic.o"},
        {0: "cmd_kernel/panic.o := gcc\nx: ; touch /tmp/x"},
        {0: "all:= := gcc"},
        {1: "a b"},
        {2: "$(shell touch /tmp/x)"},
        {3: "x\n\nall: ; touch /tmp/x"},
        {3: "$(wildcard $(shell x))"},
        {-1: "\nkernel/panic.o: $(shell x)\n"},
        {-1: "\ninclude /tmp/x\n"},
    ],
)
def test_names_that_make_must_not_read(tmp_path: Path, change: dict[int, str]) -> None:
    found = names(tmp_path, text())
    assert object_key.record_of(found, HERE)
    for number, name in change.items():
        found[number] = name
    with pytest.raises(Unfamiliar):
        object_key.record_of(found, HERE)


def test_names_that_are_too_few() -> None:
    with pytest.raises(Unfamiliar):
        object_key.record_of(["cmd_x.o := gcc", "x.c"], HERE)


def test_debug_information_holds_paths(tmp_path: Path) -> None:
    assert not object_key.placed(parsed(tmp_path, text()), b"x", HERE)
    assert object_key.placed(parsed(tmp_path, text()), HERE.tree.encode(), HERE)
    for option in ("-g", "-g3", "-ggdb", "-gdwarf-5"):
        record = parsed(tmp_path, text(COMMAND.replace("-c ", f"{option} -c ")))
        assert object_key.placed(record, b"x", HERE)


@pytest.mark.parametrize(
    ("option", "placed"),
    [
        ("-DTREE='\"{}\"'", True),
        ("-D TREE={}", True),
        ("-Wa,--defsym,x={}", True),
        ("-I{}/include -I {}/lib", False),
        ("-isystem {}/sys -iquote{}/quote", False),
        ("-include {}/linux/kconfig.h", False),
        ("-fmacro-prefix-map={}/= -Wp,-MMD,{}/x.d", False),
        ("-DTREE=tree", False),
    ],
)
def test_a_command_that_tells_a_path(tmp_path: Path, option: str, placed: bool) -> None:
    """The object may have its length alone."""
    for root in (HERE.tree, HERE.obj):
        command = COMMAND.replace("-c ", f"{option.replace('{}', root)} -c ")
        assert object_key.placed(parsed(tmp_path, text(command)), b"x", HERE) == placed


def hiding(top: Path, deps: list[str]) -> list[str]:
    command = f"gcc -I{top}/arch/include -I ./include -isystem {top}/uapi -c -o a.o {top}/k/a.c"
    return Hiding(str(top)).of(command, f"{top}/k/a.c", deps)


def test_headers_that_would_hide_one(tmp_path: Path) -> None:
    read = [f"{tmp_path}/uapi/linux/a.h", "include/linux/b.h", f"{tmp_path}/k/own.h"]
    assert hiding(tmp_path, read) == []
    for name in ("arch/include/linux/a.h", "include/linux/a.h", "k/linux/b.h", "uapi/linux/b.h"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert hiding(tmp_path, read) == [
        f"{tmp_path}/arch/include/linux/a.h",
        f"{tmp_path}/k/linux/b.h",
        "include/linux/a.h",
    ]
    # what was read itself hides nothing
    assert "include/linux/a.h" not in hiding(tmp_path, [*read, "include/linux/a.h"])


def test_a_header_without_a_folder_is_hidden_from_beside(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "b.h").touch()
    assert hiding(tmp_path, ["include/b.h"]) == [f"{tmp_path}/k/b.h"]


def test_a_header_beside_the_one_that_includes_hides(tmp_path: Path) -> None:
    """kernel/sub/a.h has #include "zz/z.h", found by -I until kernel/sub/zz/z.h comes."""
    read = [f"{tmp_path}/k/sub/a.h", f"{tmp_path}/uapi/zz/z.h"]
    assert hiding(tmp_path, read) == []
    (tmp_path / "k/sub/zz").mkdir(parents=True)
    (tmp_path / "k/sub/zz/z.h").touch()
    assert hiding(tmp_path, read) == [f"{tmp_path}/k/sub/zz/z.h"]


def test_the_object_folder_itself_is_looked_in(tmp_path: Path) -> None:
    (tmp_path / "first/gen").mkdir(parents=True)
    (tmp_path / "first/gen/a.h").touch()
    command = f"gcc -I{tmp_path}/first -I. -c -o a.o a.c"
    found = Hiding(str(tmp_path)).of(command, "a.c", ["gen/a.h"])
    assert found == [f"{tmp_path}/first/gen/a.h"]


def test_a_header_beside_a_source_in_the_object_folder_itself_hides(tmp_path: Path) -> None:
    (tmp_path / "b.h").touch()
    command = "gcc -Iinclude -c -o a.o a.c"
    assert Hiding(str(tmp_path)).of(command, "a.c", ["include/b.h"]) == ["b.h"]


def test_flags_are_those_of_the_kind_of_source() -> None:
    env = {"KBUILD_CPPFLAGS": "-D__KERNEL__", "KBUILD_CFLAGS": "-Os -m32", "KBUILD_AFLAGS": "-m32"}
    assert object_key.flags(env, "a.c") == {"-D__KERNEL__", "-Os", "-m32"}
    assert object_key.flags(env, "a.S") == {"-D__KERNEL__", "-m32"}
