from __future__ import annotations

import platform
from pathlib import Path

import pytest
import skips

from tasks.system.errors import PiggyError
from tasks.toolchains import probe
from tasks.toolchains.probe import Facts
from tests.unit.conftest import program

CC = """\
#!/bin/sh
case $1 in
-E) cat <<'END'
ANSWER
END
exit ;;
-dumpmachine) echo odd-linux; exit ;;
esac
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done
cat > "$out" <<'END'
#!/bin/sh
BODY
END
chmod +x "$out"
"""
ANSWER = "piggy: for yes\npiggy: libc uClibc-ng 1 . 0 . 54\npiggy: code 393664"


def compiler(
    folder: Path, body: str = "echo probe ok", answer: str = ANSWER, elf: str = "LOAD"
) -> str:
    program(folder / "readelf", f"#!/bin/sh\necho {elf}\n")
    return str(program(folder / "cc", CC.replace("BODY", body).replace("ANSWER", answer)))


def own() -> str:
    """An ARCH whose programs this host runs."""
    return probe.RUNS.get(platform.machine(), ("",))[0]


def ask(cc: str, tmp_path: Path, arch: str = "") -> Facts:
    return probe.probe(cc, arch=arch or own(), scratch=tmp_path / "scratch", log=tmp_path / "log")


def test_what_it_finds(tmp_path: Path, bin_folder: Path) -> None:
    facts = ask(compiler(bin_folder), tmp_path)
    assert facts == Facts("uClibc-ng 1.0.54", "6.1.192", "runs here")
    assert facts.series == (6, 1)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("body", "elf", "said"),
    [
        ("echo probe ok", "INTERP", "what it links with -static is not static"),
        ("echo probe", "LOAD", "the program that it makes does not run here (status 0)"),
        ("echo probe ok; exit 3", "LOAD", "the program that it makes does not run here (status 3)"),
        ("kill -SEGV $$", "LOAD", "the program that it makes does not run here (status -11)"),
    ],
)
def test_what_it_refuses(tmp_path: Path, bin_folder: Path, body: str, elf: str, said: str) -> None:
    cc = compiler(bin_folder, body, elf=elf)
    with pytest.raises(PiggyError) as caught:
        ask(cc, tmp_path)
    assert caught.value.message == f"the toolchain {cc} was refused: {said}"
    assert f"log: {tmp_path}/log" in caught.value.hint
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_program_for_another_processor_is_not_run(tmp_path: Path, bin_folder: Path) -> None:
    assert (
        ask(compiler(bin_folder, "exit 1"), tmp_path, arch="alien").ran
        == "to be run at the first boot"
    )


def test_qemus_user_mode(tmp_path: Path, bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "RUNS", {})
    monkeypatch.setitem(probe.USER_MODE, "arm", "qemu-odd")
    cc = compiler(bin_folder)
    assert ask(cc, tmp_path, arch="arm").ran == "to be run at the first boot"
    program(bin_folder / "qemu-odd-static", '#!/bin/sh\nexec "$@"\n')
    assert ask(cc, tmp_path, arch="arm").ran == "runs in qemu-odd-static"


def test_for_another_processor(tmp_path: Path, bin_folder: Path) -> None:
    cc = compiler(bin_folder, answer=ANSWER.replace("yes", "no"))
    with pytest.raises(PiggyError) as caught:
        ask(cc, tmp_path, arch="arm64")
    assert (
        caught.value.message
        == f"the toolchain {cc} makes programs for odd-linux, not for ARCH=arm64"
    )


def test_without_a_libc(tmp_path: Path, bin_folder: Path) -> None:
    with pytest.raises(PiggyError, match="it finds no libc with the kernel's headers"):
        ask(compiler(bin_folder, answer="cc.c:1:10: fatal error: stdio.h: No such file"), tmp_path)


def test_a_compiler_that_can_not_link_gives_its_own_first_error(
    tmp_path: Path, bin_folder: Path
) -> None:
    cc = compiler(bin_folder).replace("/cc", "/cc2")
    program(
        Path(cc),
        "#!/bin/sh\n[ $1 != -E ] || { echo 'piggy: for yes'; echo 'piggy: code 393664'; exit 0; }\n"
        "echo note; echo 'ld: cannot find crt1.o: No such file'; exit 1\n",
    )
    with pytest.raises(PiggyError) as caught:
        ask(cc, tmp_path)
    assert caught.value.message.endswith("it can't compile and link a static program")
    assert caught.value.hint.splitlines()[0] == "ld: cannot find crt1.o: No such file"


def test_the_hosts_own_compiler(tmp_path: Path) -> None:
    """A real preprocessor takes the questions as C."""
    if platform.machine() != "x86_64":
        skips.this_host("no x86_64")
    if not Path("/usr/include/linux/version.h").exists():
        pytest.skip("the kernel headers of the host's libc are not installed")
    facts = ask("gcc", tmp_path, arch="x86_64")
    assert facts.libc.startswith(("glibc 2.", "musl"))
    with pytest.raises(PiggyError, match="not for ARCH=arm64"):
        ask("gcc", tmp_path, arch="arm64")
