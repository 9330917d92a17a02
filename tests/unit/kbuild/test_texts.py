"""What sources say, and no .cmd file: names put together, files that only the assembler reads."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cmd_files import fixdep, put

from tasks.cache.digests import Stamps
from tasks.kbuild import ledger, texts
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.texts import Text, Texts
from tasks.system import files

OLD = 10**18


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("#define ON(x) IS_ENABLED(CONFIG_##x)", [""]),
        ("#define ON(x) CONFIG_SERIAL_8250_ ## x", ["SERIAL_8250_"]),
        ("#define ON(x) CONFIG_A_\\\n\t##x ? CONFIG_B_ \\\n ##x", ["A_", "B_"]),
        ("#define HAS(p, x) p##_##x\nint a = HAS(CONFIG, A);", [""]),
        ("#define SET(x) AK4613_CONFIG_##x", []),
        ('/* CONFIG */ int CONFIGURE, A_CONFIG; char s[] = "CONFIG"; // CONFIG', []),
        ("#define NAME(x) x##_CONFIG CONFIG_PANIC_TIMEOUT + a##b", []),
    ],
)
def test_beginnings(tmp_path: Path, text: str, begins: list[str]) -> None:
    path = str(written(tmp_path / "a.c", text))
    for _ in range(2):  # it is remembered
        known = Texts(tmp_path)
        for _ in range(2):
            assert known.of(path) == Text(pasted=begins)
            assert known.of(f"{tmp_path}/none.c") == texts.NOTHING
        known.save()


def written(path: Path, text: str) -> Path:
    """Write a source, and wait until what is found of it is remembered."""
    put(path, text, OLD)
    time.sleep(files.RACY_NS / 1e9)
    return path


def test_an_edit_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path / "a.c", "#define ON(x) CONFIG_A_##x")
    known = Texts(tmp_path)
    assert known.of(str(path)) == Text(pasted=["A_"])
    known.save()
    assert texts._read(tmp_path / texts.FILE)[str(path)][4] == Text(pasted=["A_"])
    put(path, "#define ON(x) CONFIG_B_##x", OLD)
    assert Texts(tmp_path).of(str(path)) == Text(pasted=["B_"])


def test_a_source_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    for name in ("a.c", "b.c"):
        path = written(tmp_path / name, "int a;")
        known = Texts(tmp_path)
        known.of(str(path))
        known.save()
        (tmp_path / "a.c").unlink(missing_ok=True)
    assert [*texts._read(tmp_path / texts.FILE)] == [str(tmp_path / "b.c")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('.incbin "a/b.bin"', Text(read=["a/b.bin"])),
        ('asm(".INCBIN\\t\\"b c\\", 4\\n\\t.include \\"x.s\\"");', Text(read=["b c", "x.s"])),
        ('#define B(n) asm(".incbin \\"" n "\\"")\nB("b.bin")', Text(read=["b.bin"])),
        ('#embed "b.bin"\n# embed <c>', Text(read=["b.bin", "c"])),
        ('#if __has_include("a/a.h") || __has_include (<b.h>)', Text(read=["a/a.h", "b.h"])),
        ('#define N "a.h"\n#if __has_include(N)', Text(read=["a.h"])),
        ('#ifdef __has_include\n#endif\nchar s[] = "a.h";', Text()),
        ('/* .incbin "a" */ char s[] = "a.h";', Text()),
        ('#include "../x.h"\n#define Y <a/../y.h>\n', Text(upward=['"../x.h', "<a/../y.h"])),
        ('#include "x.h" /* ../y.h */\nint included;\n', Text()),
        ("#pragma GCC system_header\n#include <a.h>", Text(pasted=[""], system=True)),
        ("// #pragma GCC system_header", Text()),
        ('.incbin "b\udcff.bin"', Text()),
    ],
)
def test_what_a_source_says(text: str, said: Text) -> None:
    assert texts.of_text(os.fsencode(text)) == said


def test_the_files_of_symbols_old_and_new() -> None:
    paths = ["A_X", "A", "B_X", "a/x.h", "a.h", "b/x.h"]
    assert texts.matching(["A_"], paths) == {"A_X", "a/x.h"}
    assert texts.matching([""], paths) == {*paths}


def test_the_object_is_older_than_the_symbol(tmp_path: Path) -> None:
    tree, obj = tmp_path / "src", tmp_path / "obj"
    for name, text in (("a", "#define ON(x) CONFIG_A_##x\n"), ("b", "int b;\n")):
        source = put(tree / f"{name}.c", text)
        put(obj / f"k/{name}.o", when=OLD)
        put(obj / f"k/.{name}.o.cmd", fixdep(f"k/{name}.o", str(source)))
    for symbol, when in (("A_X", OLD - 1), ("B_X", OLD + 1), ("SMP", OLD - 1)):
        put(obj / "include/config" / symbol, when=when)
    records = {name: f"{obj}/k/.{name}.o.cmd" for name in "ab"}
    known = Depfiles(obj, tree)
    assert known.reading(["A_X", "B_X"]) == {records["a"]: ["A_X"]}
    assert known.reading(["A_X", "SMP"]) == {records["a"]: ["A_X", "SMP"], records["b"]: ["SMP"]}
    assert known.reading([]) == {}
    for when, left in ((OLD - 1, True), (OLD + 1, False)):
        os.utime(obj / "include/config/A_X", ns=(when, when))
        with ledger.kept(obj, tree, Stamps(tmp_path / "stamps")):
            assert (obj / "k/a.o").exists() is left
            assert (obj / "k/b.o").exists()


def test_a_name_that_another_macro_goes_on_with(tmp_path: Path) -> None:
    def begins(text: str, name: str = "a.c") -> list[str]:
        source = put(tmp_path / name, text)
        return Texts(tmp_path).of(str(source)).pasted

    assert begins("int a = PASTE(CONFIG_, X);\n") == [""]
    assert begins("int a = PASTE(CONFIG_A_, X);\n", "b.c") == ["A_"]
    assert begins("int a = CONFIG_A_X + XCONFIG_;\n", "c.c") == []
    assert begins('/* CONFIG_A_* */ char a[] = "CONFIG_"; // CONFIG_\n', "d.c") == []
    assert begins("#define CONFIG_ 1\n", "scripts/kconfig/lkc.h") == []
