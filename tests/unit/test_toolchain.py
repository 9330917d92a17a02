from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks import toolchain
from tasks.kit.errors import PiggyError
from tasks.kit.stamps import Stamps

TRIPLE = "odd_cpu-linux-gnu"
GCC = """\
#!/bin/sh
case $1 in
--version) echo "odd-gcc 12.2"; echo "more";;
-print-prog-name=cc1) echo HERE/lib/cc1;;
-print-prog-name=*) echo "TRIPLE-${1#*=}";;
-print-file-name=libgcc.a) echo HERE/lib/libgcc.a;;
esac
"""
CC = """\
#!/bin/sh
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done
cat > "$out" <<'END'
#!/bin/sh
BODY
END
chmod +x "$out"
"""


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def gcc(bin_folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    for name in ("lib/cc1", "lib/libgcc.a"):
        (tmp_path / name).touch()
    for name in ("as", "ld"):
        program(bin_folder / f"{TRIPLE}-{name}", "#!/bin/sh\n")
    return program(bin_folder / f"{TRIPLE}-gcc", GCC.replace("HERE", str(tmp_path)).replace("TRIPLE", TRIPLE))


def job(tmp_path: Path, arch: str = "") -> Any:
    """A job for a machine whose programs run here, unless `arch` says otherwise."""
    own = toolchain.RUNS.get(platform.machine(), ("",))[0]
    (tmp_path / "build" / "toolchains").mkdir(parents=True, exist_ok=True)
    machine = SimpleNamespace(arch=arch or own, triple=TRIPLE, cflags="-march=odd  -O2")
    project = SimpleNamespace(machine=machine, build=tmp_path / "build", stamps=Stamps(tmp_path / "s"))
    return SimpleNamespace(log=tmp_path / "log", project=project)


def test_the_compiler_and_the_files_that_are_its_identity(gcc: Path, tmp_path: Path) -> None:
    prefix, version, parts = toolchain.compiler(TRIPLE)
    assert prefix == f"{TRIPLE}-"
    assert version == "odd-gcc 12.2"
    tools = f"{tmp_path}/bin/{TRIPLE}-"
    assert parts == [str(gcc), f"{tmp_path}/lib/cc1", f"{tools}as", f"{tools}ld", f"{tmp_path}/lib/libgcc.a"]


def test_links_of_the_distribution_are_followed(gcc: Path) -> None:
    gcc.rename(gcc.with_name("real-gcc-12"))
    gcc.symlink_to("real-gcc-12")
    _, _, parts = toolchain.compiler(TRIPLE)
    assert parts[0].endswith("/real-gcc-12")


def test_no_compiler() -> None:
    with pytest.raises(PiggyError) as caught:
        toolchain.compiler("no_such-linux-gnu")
    assert caught.value.message == "the cross compiler no_such-linux-gnu-gcc is not installed"
    assert "package gcc-no-such-linux-gnu on Debian" in caught.value.hint


def test_a_compiler_in_a_relative_folder_of_path_is_not_taken(gcc: Path, tmp_path: Path, bin_folder: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "bin:.:/usr/bin:/bin")
    with pytest.raises(PiggyError, match="is not installed"):
        toolchain.compiler(TRIPLE)


@pytest.mark.parametrize(("gone", "question"), [
    ("lib/cc1", "-print-prog-name=cc1"), (f"bin/{TRIPLE}-as", "-print-prog-name=as"),
    (f"bin/{TRIPLE}-ld", "-print-prog-name=ld"), ("lib/libgcc.a", "-print-file-name=libgcc.a")])
def test_an_incomplete_compiler(gcc: Path, tmp_path: Path, gone: str, question: str) -> None:
    (tmp_path / gone).unlink()
    with pytest.raises(PiggyError) as caught:
        toolchain.compiler(TRIPLE)
    assert caught.value.message == f"{gcc} is incomplete: '{gcc} {question}' finds nothing"


def test_a_compiler_that_says_nothing(gcc: Path) -> None:
    gcc.write_text("#!/bin/sh\n")
    with pytest.raises(PiggyError, match="is incomplete"):
        toolchain.compiler(TRIPLE)


def test_the_digest_of_a_folder(tmp_path: Path) -> None:
    base = tmp_path / "include"
    (base / "linux").mkdir(parents=True)
    (base / "linux" / "a.h").write_text("a")
    seen = {toolchain.digest_of(base)}
    shutil.copytree(base, tmp_path / "copy")
    assert toolchain.digest_of(tmp_path / "copy") in seen
    for change in (lambda: (base / "linux" / "a.h").write_text("b"), lambda: (base / "linux" / "a.h").rename(base / "a.h"),
                   lambda: (base / "b.h").write_text(""), lambda: (base / "a.h").rename(base / "ab.h")):
        change()
        assert toolchain.digest_of(base) not in seen
        seen.add(toolchain.digest_of(base))


def test_a_toolchain_is_intact_only_with_every_key_file_as_it_was(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in toolchain.KEY_FILES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    assert not toolchain.intact(home)
    (home / toolchain.SEAL).write_text(toolchain.seal(home))
    assert toolchain.intact(home)
    assert not toolchain.intact(tmp_path / "missing")
    for name in toolchain.KEY_FILES:
        (home / name).write_text("")
        assert not toolchain.intact(home)
        (home / name).unlink()
        assert not toolchain.intact(home)
        (home / name).write_text(name)
        assert toolchain.intact(home)


def test_the_words_for_musl(tmp_path: Path) -> None:
    words = toolchain.configure_words(job(tmp_path).project, "/usr/bin/odd-")
    assert words == [f"--target={TRIPLE}", "--disable-shared", "--enable-wrapper=gcc", "CC=/usr/bin/odd-gcc",
                     "CROSS_COMPILE=/usr/bin/odd-", "CFLAGS=-Os -pipe -march=odd -O2"]


@pytest.mark.parametrize(("body", "elf", "said"), [
    ("echo probe ok", "LOAD", ""),
    ("echo probe ok", "INTERP", "what it links with -static is not static"),
    ("echo probe", "LOAD", "the program that it makes does not run here (status 0)"),
    ("echo probe ok; exit 3", "LOAD", "the program that it makes does not run here (status 3)"),
    ("kill -SEGV $$", "LOAD", "the program that it makes does not run here (status -11)"),
])
def test_the_probe(tmp_path: Path, bin_folder: Path, body: str, elf: str, said: str) -> None:
    cc = program(bin_folder / "cc", CC.replace("BODY", body))
    program(bin_folder / "readelf", f"#!/bin/sh\necho {elf}\n")
    if not said:
        toolchain.probe(job(tmp_path), str(cc))
    else:
        with pytest.raises(PiggyError) as caught:
            toolchain.probe(job(tmp_path), str(cc))
        assert caught.value.message == f"the toolchain for {TRIPLE} was refused: {said}"
        assert f"log: {tmp_path}/log" in caught.value.hint
    assert list((tmp_path / "build" / "toolchains").iterdir()) == []


def test_the_probes_program_is_not_run_where_it_can_not(tmp_path: Path, bin_folder: Path) -> None:
    cc = program(bin_folder / "cc", CC.replace("BODY", "exit 1"))
    program(bin_folder / "readelf", "#!/bin/sh\necho LOAD\n")
    toolchain.probe(job(tmp_path, arch="alien"), str(cc))


def test_a_compiler_that_can_not_link_gives_its_own_first_error(tmp_path: Path, bin_folder: Path) -> None:
    cc = program(bin_folder / "cc", "#!/bin/sh\necho note; echo 'ld: cannot find crt1.o: No such file'; exit 1\n")
    with pytest.raises(PiggyError) as caught:
        toolchain.probe(job(tmp_path), str(cc))
    assert caught.value.message.endswith("it can't compile and link a static program")
    assert caught.value.hint.splitlines()[0] == "ld: cannot find crt1.o: No such file"


def test_the_record(tmp_path: Path) -> None:
    project = SimpleNamespace(here=tmp_path)
    assert toolchain.record(project) == tmp_path / "toolchain.json"  # type: ignore[arg-type]
    text = '{"id": "x", "provider": "distro", "prefix": "/p-", "cc": "/c", "version": "v"}'
    (tmp_path / "toolchain.json").write_text(text)
    assert toolchain.read(project).prefix == "/p-"  # type: ignore[arg-type]


def test_the_exported_headers_of_a_users_own_tree(tmp_path: Path) -> None:
    tree = tmp_path / "linux"
    for name in ("include/uapi/linux/a.h", "arch/x86/include/uapi/asm/b.h", "include/linux/private.h",
                 "include/uapi/linux/Kbuild"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    project: Any = SimpleNamespace(kernel_src=tree, stamps=Stamps(tmp_path / "s"))
    before = toolchain.uapi_state(project)
    assert sorted(before) == ["arch/x86/include/uapi/asm/b.h", "include/uapi/linux/a.h"]
    (tree / "include/uapi/linux/a.h").write_text("other")
    assert toolchain.uapi_state(project) != before
