"""Symbols whose names the preprocessor puts together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cmd_files import fixdep, put

from tasks.cache.digests import Stamps
from tasks.kbuild import ledger, pasted
from tasks.kbuild.depfiles import Depfiles

OLD = 10**18


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("#define ON(x) IS_ENABLED(CONFIG_##x)", [""]),
        ("#define ON(x) CONFIG_SERIAL_8250_ ## x", ["SERIAL_8250_"]),
        ("#define ON(x) CONFIG_A_\\\n\t##x ? CONFIG_B_ \\\n ##x", ["A_", "B_"]),
        ("#define SET(x) AK4613_CONFIG_##x", []),
        ("#define NAME(x) x##_CONFIG CONFIG_PANIC_TIMEOUT + a##b", []),
    ],
)
def test_beginnings(tmp_path: Path, text: str, begins: list[str]) -> None:
    path = str(put(tmp_path / "a.c", text))
    expected = {path: begins} if begins else {}
    assert pasted.beginnings(tmp_path, [path, f"{tmp_path}/none.c"]) == expected
    assert pasted.beginnings(tmp_path, [path]) == expected  # remembered


def test_an_edit_is_seen(tmp_path: Path) -> None:
    path = put(tmp_path / "a.c", "#define ON(x) CONFIG_A_##x", OLD)
    pasted.beginnings(tmp_path, [str(path)])
    put(path, "#define ON(x) CONFIG_B_##x", OLD)
    assert pasted.beginnings(tmp_path, [str(path)]) == {str(path): ["B_"]}


def test_a_source_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    first, second = put(tmp_path / "a.c", "int a;"), put(tmp_path / "b.c", "int b;")
    pasted.beginnings(tmp_path, [str(first)])
    first.unlink()
    pasted.beginnings(tmp_path, [str(second)])
    assert [*pasted._read(tmp_path / pasted.FILE)] == [str(second)]


def test_the_files_of_symbols_old_and_new() -> None:
    paths = ["A_X", "A", "B_X", "a/x.h", "a.h", "b/x.h"]
    assert pasted.matching(["A_"], paths) == {"A_X", "a/x.h"}
    assert pasted.matching([""], paths) == {*paths}


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
        found = pasted.beginnings(tmp_path, [str(source)]).get(str(source), [])
        source.unlink()
        return found

    assert begins("int a = PASTE(CONFIG_, X);\n") == [""]
    assert begins("int a = PASTE(CONFIG_A_, X);\n", "b.c") == ["A_"]
    assert begins("int a = CONFIG_A_X + XCONFIG_;\n", "c.c") == []
    assert begins('/* CONFIG_A_* */ char a[] = "CONFIG_"; // CONFIG_\n', "d.c") == []
    assert begins("#define CONFIG_ 1\n", "scripts/kconfig/lkc.h") == []
