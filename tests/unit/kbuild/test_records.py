from __future__ import annotations

import os
from pathlib import Path

import pytest
from cmd_files import fixdep, put

from tasks.kbuild import depfiles, record_names, records
from tasks.kbuild.depfiles import Depfiles
from tasks.system.errors import PiggyError


@pytest.mark.parametrize("word", ["cmd", "savedcmd"])
def test_a_fixdep_record(tmp_path: Path, word: str) -> None:
    names = (
        "/src/init/main.c",
        "/src/include/linux/kconfig.h",
        "include/generated/autoconf.h",
        "../../x/y.h",
        "arch/x86/include/generated/asm/a+b~c@d.h",
        "/src/include/linux/compiler.h",
    )
    record = put(tmp_path / "init" / ".main.o.cmd", fixdep("init/main.o", *names, word=word))
    assert records.dependencies(str(record)) == set(names)
    assert records.command(str(record)).startswith("gcc -Wp,-MMD,init/.main.o.d ")
    assert records.command(str(record)).endswith("/src/init/main.c")


@pytest.mark.parametrize("word", ["cmd", "savedcmd"])
def test_a_record_without_dependencies(tmp_path: Path, word: str) -> None:
    record = put(
        tmp_path / ".vmlinux.a.cmd",
        f"{word}_vmlinux.a := rm -f vmlinux.a; ar cDPrST vmlinux.a ./built-in.a\n",
    )
    assert records.dependencies(str(record)) == set()
    assert records.command(str(record)) == "rm -f vmlinux.a; ar cDPrST vmlinux.a ./built-in.a"


def test_a_source_alone_and_old_ways_of_saying_symbols(tmp_path: Path) -> None:
    text = (
        "cmd_a.o := gcc -c -o a.o a.S\n\nsource_a.o := /src/a.S\n\ndeps_a.o := \\\n"
        "    $(wildcard include/config/smp.h) \\\n  $(wildcard include/config/x86/32.h) \\\n\n"
        "a.o: $(deps_a.o)\n\n$(deps_a.o):\n"
    )
    assert records.dependencies(str(put(tmp_path / ".a.o.cmd", text))) == {"/src/a.S"}


def test_a_command_with_make_in_it(tmp_path: Path) -> None:
    text = "savedcmd_a/b.h := echo '$(pound)define A \"$$x\"' > a/b.h; cmd_x := y\n"
    assert (
        records.command(str(put(tmp_path / ".b.h.cmd", text)))
        == "echo '$(pound)define A \"$$x\"' > a/b.h; cmd_x := y"
    )


def test_all_records_below_a_folder(tmp_path: Path) -> None:
    for name in ("a/.x.o.cmd", "a/b/.y.cmd", ".z.cmd", "a/plain.cmd", "a/.x.o.d", "a/x.o"):
        put(tmp_path / name)
    found = sorted(os.path.relpath(name, tmp_path) for name in records.below(tmp_path))
    assert found == [".z.cmd", "a/.x.o.cmd", "a/b/.y.cmd"]


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """vmlinux <- Image <- piggy <- loader, as in arch/x86/boot/compressed."""
    obj = tmp_path / "obj"
    boot = "arch/x86/boot/compressed"
    put(obj / ".vmlinux.cmd", "cmd_vmlinux := scripts/link-vmlinux.sh ld vmlinux.a\n")
    put(obj / ".vmlinux.a.cmd", "cmd_vmlinux.a := ar vmlinux.a init/main.o\n")
    put(
        obj / boot / ".vmlinux.bin.cmd",
        f"cmd_{boot}/vmlinux.bin := objcopy -R .note vmlinux {boot}/vmlinux.bin\n",
    )
    put(
        obj / boot / ".vmlinux.bin.gz.cmd",
        f"cmd_{boot}/vmlinux.bin.gz := cat {boot}/vmlinux.bin | gzip > {boot}/vmlinux.bin.gz\n",
    )
    put(
        obj / boot / ".piggy.S.cmd",
        f"cmd_{boot}/piggy.S := {boot}/mkpiggy {boot}/vmlinux.bin.gz > {boot}/piggy.S\n",
    )
    put(
        obj / boot / ".piggy.o.cmd",
        fixdep(f"{boot}/piggy.o", f"{boot}/piggy.S", "/src/include/x.h"),
    )
    put(
        obj / boot / ".mkpiggy.cmd",
        fixdep(f"{boot}/mkpiggy", f"/src/{boot}/mkpiggy.c", "/usr/include/stdio.h"),
    )
    put(
        obj / boot / ".vmlinux.cmd",
        f"cmd_{boot}/vmlinux := ld -T {boot}/vmlinux.lds ./{boot}/piggy.o"
        f" {boot}/../compressed/head.o -o {boot}/vmlinux\n",
    )
    put(obj / boot / ".head.o.cmd", fixdep(f"{boot}/head.o", f"/src/{boot}/head.S"))
    return obj


def closure(obj: Path, target: str, *stop: str) -> list[str]:
    return sorted(
        os.path.relpath(path, obj).replace("arch/x86/boot/compressed/", "")
        for path in records.closure(obj, target, stop)
    )


def test_the_closure_of_each_link(chain: Path) -> None:
    boot = "arch/x86/boot/compressed"
    assert closure(chain, f"{boot}/piggy.o", "vmlinux") == [
        ".mkpiggy.cmd",
        ".piggy.S.cmd",
        ".piggy.o.cmd",
        ".vmlinux.bin.cmd",
        ".vmlinux.bin.gz.cmd",
    ]
    assert closure(chain, f"{boot}/piggy.o", "vmlinux", f"./{boot}/vmlinux.bin.gz") == [
        ".mkpiggy.cmd",
        ".piggy.S.cmd",
        ".piggy.o.cmd",
    ]
    assert closure(chain, f"{boot}/vmlinux", f"{boot}/piggy.o") == [".head.o.cmd", ".vmlinux.cmd"]
    assert closure(chain, f"{boot}/vmlinux.bin") == [
        ".vmlinux.a.cmd",
        ".vmlinux.bin.cmd",
        ".vmlinux.cmd",
    ]
    assert closure(chain, "nothing") == []


def test_a_target_made_from_itself_ends(tmp_path: Path) -> None:
    put(tmp_path / ".a.cmd", "cmd_a := sed b > a\n")
    put(tmp_path / ".b.cmd", "cmd_b := sed a > b\n")
    assert closure(tmp_path, "a") == [".a.cmd", ".b.cmd"]


def test_the_files_outside_the_object_folder(tmp_path: Path) -> None:
    obj, src = tmp_path / "build" / "obj", tmp_path / "src"
    for name in (
        "init/main.c",
        "include/a.h",
        "scripts/link.sh",
        "lib/table.uni",
        "include/odd,name+x~1.h",
    ):
        put(src / name)
    put(obj / "include" / "generated.h")
    put(tmp_path / "build" / "beside.h")
    put(
        obj / "init" / ".main.o.cmd",
        fixdep(
            "init/main.o",
            f"{src}/init/main.c",
            f"{src}/include/../include/a.h",
            "include/generated.h",
            f"{obj}/include/generated.h",
            "../beside.h",
            f"{src}/include/gone.h",
            f"{src}/include/odd,name+x~1.h",
        ),
    )
    put(
        obj / ".vmlinux.cmd",
        f"cmd_vmlinux := sh {src}/scripts/link.sh {src}/lib/table.uni; {src}/scripts; echo"
        f" {src}x/no\n",
    )
    found = Depfiles(obj, src).files()
    given = (
        "init/main.c",
        "include/a.h",
        "include/odd,name+x~1.h",
        "scripts/link.sh",
        "lib/table.uni",
    )
    assert found == sorted([f"{tmp_path}/build/beside.h", *(f"{src}/{name}" for name in given)])


def test_the_makefiles_of_the_folders_that_were_built_in(tmp_path: Path) -> None:
    obj, src = tmp_path / "obj", tmp_path / "src"
    for name in (
        "Makefile",
        "Kbuild",
        "init/Makefile",
        "init/main.c",
        "arch/x86/Makefile",
        "arch/x86/Makefile_32.cpu",
        "arch/arm/Makefile",
        "arch/x86/boot/Makefile",
        "drivers/Makefile",
        "scripts/Makefile.build",
        "scripts/link-vmlinux.sh",
        "scripts/kconfig/x.c",
        "init/Kconfig",
        "init/table.bc",
        "init/main.c~",
        "arch/x86/include/asm/Kbuild",
        "include/asm-generic/Kbuild",
        "arch/x86/entry/syscalls/Makefile",
        "arch/arm/include/asm/Kbuild",
        "lib/vdso/Makefile",
        "drivers/table.bc",
    ):
        put(src / name)
    put(
        src / "init/Makefile",
        "obj-y := main.o\n  include $(srctree)/lib/vdso/Makefile\n-include $(obj)/other\n",
    )
    for name in ("init/.main.o.cmd", "arch/x86/boot/.setup.cmd"):
        put(obj / name)
    found = [
        os.path.relpath(path, src) for path in records.makefiles(obj, src, list(records.below(obj)))
    ]
    assert found == sorted(
        [
            "Makefile",
            "Kbuild",
            "init/Makefile",
            "arch/x86/Makefile",
            "arch/x86/Makefile_32.cpu",
            "arch/x86/boot/Makefile",
            "scripts/Makefile.build",
            "scripts/link-vmlinux.sh",
            "init/table.bc",
            "arch/x86/include/asm/Kbuild",
            "include/asm-generic/Kbuild",
            "lib/vdso/Makefile",
            "arch/x86/entry/syscalls/Makefile",
        ]
    )


def test_the_kconfig_files(tmp_path: Path) -> None:
    obj, src = tmp_path / "obj", tmp_path / "src"
    for name in ("Kconfig", "init/Kconfig", "arch/x86/Kconfig.cpu", "lib/Kconfig"):
        put(src / name)
    put(
        obj / "include/config/auto.conf.cmd",
        "deps_config := \\\n\tinit/Kconfig \\\n\t$(srctree)/lib/Kconfig \\\n\tgone/Kconfig \\\n"
        f"\t{src}/arch/x86/Kconfig.cpu \\\n\tKconfig \n\ninclude/config/auto.conf: $(deps_config)\n"
        'ifneq "$(ARCH)" "x86"\ninclude/config/auto.conf: FORCE\nendif\n\n$(deps_config): ;\n',
    )
    assert [os.path.relpath(path, src) for path in records.kconfig_files(obj, src)] == [
        "Kconfig",
        "arch/x86/Kconfig.cpu",
        "init/Kconfig",
        "lib/Kconfig",
    ]
    put(obj / "include/config/auto.conf.cmd", "")
    assert records.kconfig_files(obj, src) == []
    with pytest.raises(PiggyError, match="auto.conf.cmd is missing after make syncconfig"):
        records.kconfig_files(tmp_path, src)


@pytest.mark.parametrize(
    ("line", "symbol"),
    [
        ("$(wildcard include/config/MODULE_UNLOAD)", "MODULE_UNLOAD"),
        ("$(wildcard include/config/module/unload.h)", "MODULE_UNLOAD"),
        ("$(wildcard include/config/smp.h)", "SMP"),
        ("$(wildcard include/config/X86_32)", "X86_32"),
    ],
)
def test_symbols_of_a_record(tmp_path: Path, line: str, symbol: str) -> None:
    record = tmp_path / ".a.o.cmd"
    record.write_text(
        f"cmd_a.o := gcc -c a.c\n\ndeps_a.o := \\\n    {line} \\\n  include/linux/a.h \\\n"
    )
    assert records.symbols(str(record)) == {symbol}


def test_what_is_part_of_a_module() -> None:
    assert records.of_module("cmd_a.o := gcc -DMODULE -c a.c", "/x/.a.o.cmd")
    assert records.of_module("cmd_a.ko := ld", "/x/.a.ko.cmd")
    assert not records.of_module("cmd_a.o := gcc -DKBUILD_MODNAME=a -c a.c", "/x/.a.o.cmd")


def test_the_programs_that_modules_are_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit of modpost changes modules, though no module's own record names it."""
    monkeypatch.chdir(tmp_path)
    src, obj = tmp_path / "src", Path("obj")
    source = put(src / "scripts" / "mod" / "modpost.c")
    for target in ("scripts/mod/modpost", "tools/objtool/check.o", "drivers/scripts/x.o"):
        path = obj / target
        path.parent.mkdir(parents=True)
        put(path.with_name(f".{path.name}.cmd"), f"cmd_{target} := gcc -o {target} {source}\n")
    known = Depfiles(obj, src)
    tools = known.of_tools()
    assert sorted(tools) == [
        "obj/scripts/mod/.modpost.cmd",
        "obj/tools/objtool/.check.o.cmd",
    ]
    assert str(source) in known.inputs(tools)


def test_a_record_written_anew_with_the_same_text_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj, src = tmp_path / "obj", tmp_path / "src"
    put(src / "a.c", "")
    record = obj / ".a.o.cmd"
    text = f"cmd_a.o := gcc -c -o a.o {src}/a.c\n\nsource_a.o := {src}/a.c\n"
    put(record, text)
    first = Depfiles(obj, src)
    parsed: list[str] = []
    of = record_names.of
    monkeypatch.setattr(
        record_names, "of", lambda path, *args: parsed.append(path) or of(path, *args)
    )
    record.write_text(text)
    os.utime(record, ns=(1, 1))
    known = Depfiles(obj, src)
    assert known.given() == first.given() == {f"{src}/a.c"}
    assert not parsed
    assert known.records[str(record)].when == 1
    record.write_text(text.replace("a.c", "other.c"))
    assert Depfiles(obj, src).given() == {f"{src}/other.c"}
    assert parsed


def test_a_cache_of_another_form_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj, src = tmp_path / "obj", tmp_path / "src"
    put(src / "a.c", "")
    put(obj / ".a.o.cmd", f"cmd_a.o := gcc -c -o a.o {src}/a.c\n\nsource_a.o := {src}/a.c\n")
    monkeypatch.setattr(record_names, "located", lambda top, name: f"{top}/elsewhere")
    monkeypatch.setattr(depfiles, "FORM", depfiles.FORM - 1)
    assert not Depfiles(obj, src).given()
    monkeypatch.undo()
    assert Depfiles(obj, src).given() == {f"{src}/a.c"}


def test_programs_below_tools_have_makefiles_of_their_own(tmp_path: Path) -> None:
    obj, src = tmp_path / "obj", tmp_path / "src"
    names = ("tools/build/Makefile.build", "tools/scripts/Makefile.include")
    for name in (*names, "tools/build/fixdep.c"):
        put(src / name)
    put(obj / "init" / ".main.o.cmd")
    assert records.makefiles(obj, src, list(records.below(obj))) == []
    put(obj / "tools" / "objtool" / ".check.o.cmd")
    found = records.makefiles(obj, src, list(records.below(obj)))
    assert found == [f"{src}/{name}" for name in names]


def test_where_a_name_with_two_dots_leads(tmp_path: Path) -> None:
    (tmp_path / "tree/deep/folder").mkdir(parents=True)
    (tmp_path / "tree/link").symlink_to("deep/folder")
    (tmp_path / "place").symlink_to("tree")
    top = str(tmp_path / "tree")
    assert records.located(top, "deep/../x.h") == f"{top}/x.h"
    assert records.located(top, "link/../x.h") == f"{top}/deep/x.h"
    assert records.located(top, "link/..") == f"{top}/deep"
    assert records.located(top, "deep/..") == top
    assert records.located(top, "../place/deep/../x.h") == f"{tmp_path}/place/x.h"
    assert records.located(top, "none/../x.h") == f"{top}/x.h"
    assert records.located(top, "../../x.h") == os.path.normpath(f"{top}/../../x.h")
