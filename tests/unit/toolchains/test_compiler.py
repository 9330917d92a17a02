from __future__ import annotations

from pathlib import Path

import pytest

from tasks.system.errors import PiggyError
from tasks.toolchains import compiler, record
from tests.unit.conftest import program

TRIPLE = "odd_cpu-linux-gnu"
GCC = """\
#!/bin/sh
case $1 in
--version) echo "odd-gcc 12.2"; echo "more";;
-dumpmachine) echo odd_cpu-linux-gnu;;
-print-prog-name=cc1) echo HERE/lib/cc1;;
-print-prog-name=*) echo "TRIPLE-${1#*=}";;
-print-file-name=libgcc.a) echo HERE/lib/libgcc.a;;
-print-file-name=libc.a) echo HERE/lib/libc.a;;
-print-file-name=*) echo "${1#*=}";;
-print-sysroot) echo HERE/sysroot;;
esac
"""


@pytest.fixture
def gcc(bin_folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    for name in ("lib/cc1", "lib/libgcc.a", "lib/libc.a"):
        (tmp_path / name).touch()
    for name in ("as", "ld", "objcopy"):
        program(bin_folder / f"{TRIPLE}-{name}", "#!/bin/sh\n")
    return program(
        bin_folder / f"{TRIPLE}-gcc", GCC.replace("HERE", str(tmp_path)).replace("TRIPLE", TRIPLE)
    )


def test_the_compiler_and_the_files_that_are_its_identity(gcc: Path, tmp_path: Path) -> None:
    version, parts = compiler.compiler(f"{TRIPLE}-", "")
    assert version == "odd-gcc 12.2"
    here = f"{tmp_path}/bin/{TRIPLE}-"
    lib = f"{tmp_path}/lib"
    assert parts == [
        str(gcc),
        f"{lib}/cc1",
        f"{here}as",
        f"{here}ld",
        f"{lib}/libgcc.a",
        f"{lib}/specs",  # which is not there, and may come
        f"{here}objcopy",
    ]
    assert record.ident("1", "", "2") == record.ident("1", "2")


def test_at_an_absolute_place(gcc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{gcc.parent}:/usr/bin:/bin")
    assert compiler.compiler(str(gcc)[:-3], "")[1][0] == str(gcc)


def test_links_of_the_distribution_are_followed(gcc: Path) -> None:
    gcc.rename(gcc.with_name("real-gcc-12"))
    gcc.symlink_to("real-gcc-12")
    assert compiler.compiler(f"{TRIPLE}-", "")[1][0].endswith("/real-gcc-12")


def test_buildroots_wrapper_and_the_real_driver(gcc: Path) -> None:
    real = program(gcc.with_name(f"{gcc.name}.br_real"), "#!/bin/sh\n")
    wrapper = gcc.rename(gcc.with_name("toolchain-wrapper"))
    gcc.symlink_to(wrapper.name)
    assert compiler.compiler(f"{TRIPLE}-", "")[1][:2] == [str(wrapper), str(real)]


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("no_such-", "the cross compiler no_such-gcc is not installed"),
        ("/opt/x/no_such-", "there is no compiler /opt/x/no_such-gcc"),
    ],
)
def test_no_compiler(prefix: str, said: str) -> None:
    with pytest.raises(PiggyError) as caught:
        compiler.compiler(prefix, "do this")
    assert (caught.value.message, caught.value.hint) == (said, "do this")


def test_a_compiler_in_a_relative_folder_of_path_is_not_taken(
    gcc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "bin:.:/usr/bin:/bin")
    with pytest.raises(PiggyError, match="is not installed"):
        compiler.compiler(f"{TRIPLE}-", "")


@pytest.mark.parametrize(
    ("gone", "question"),
    [
        ("lib/cc1", "-print-prog-name=cc1"),
        (f"bin/{TRIPLE}-as", "-print-prog-name=as"),
        (f"bin/{TRIPLE}-ld", "-print-prog-name=ld"),
        ("lib/libgcc.a", "-print-file-name=libgcc.a"),
    ],
)
def test_an_incomplete_compiler(gcc: Path, tmp_path: Path, gone: str, question: str) -> None:
    (tmp_path / gone).unlink()
    with pytest.raises(PiggyError) as caught:
        compiler.compiler(f"{TRIPLE}-", "")
    assert caught.value.message == f"{gcc} is incomplete: '{gcc} {question}' finds nothing"


def test_a_compiler_that_says_nothing(gcc: Path) -> None:
    gcc.write_text("#!/bin/sh\n")
    with pytest.raises(PiggyError, match="is incomplete"):
        compiler.compiler(f"{TRIPLE}-", "")


def test_the_files_of_its_libc(gcc: Path, tmp_path: Path) -> None:
    header = tmp_path / "sysroot/usr/include/linux/version.h"
    header.parent.mkdir(parents=True)
    header.touch()
    assert compiler.libc_parts(str(gcc)) == sorted([str(tmp_path / "lib/libc.a"), str(header)])


def test_the_prefix_in_a_folder(gcc: Path, tmp_path: Path) -> None:
    assert compiler.prefix_in(tmp_path) == str(gcc)[:-3]
    (gcc.parent / "odd-linux-gcc").symlink_to(gcc.name)  # a shorter name of the same compiler
    assert compiler.prefix_in(tmp_path) == str(gcc)[:-3]
    assert compiler.prefix_in(tmp_path / "bin") == str(gcc)[:-3]
    program(gcc.parent / "arm-linux-gcc", "#!/bin/sh\necho arm-linux\n")
    with pytest.raises(
        PiggyError, match="has more than one compiler: arm-linux-gcc, odd-linux-gcc"
    ):
        compiler.prefix_in(tmp_path)
    with pytest.raises(PiggyError, match="holds no cross compiler"):
        compiler.prefix_in(tmp_path / "lib")
