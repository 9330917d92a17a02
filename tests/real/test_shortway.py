"""The short way on the PC's real kernel: edits, an error, and kill -9, each held against plain
make's result."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.real.conftest import Checkout, edited

pytestmark = pytest.mark.real
BOOT = "arch/x86/boot"
WORK = re.compile(
    r"^  (?:CC|AS|LD|AR|OBJCOPY|GZIP|NM|MODPOST|VOFFSET|MKPIGGY|BUILD|HOSTCC|UPD) .*", re.MULTILINE
)


@pytest.fixture(scope="module")
def second(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object folder for plain make alone, which is brought up to date after each edit."""
    return Path(shutil.copytree(plain, tmp_path_factory.mktemp("second") / "obj", symlinks=True))


def logs(pc: Checkout) -> Path:
    return pc.top / "build" / pc.machine / "logs"


def ways(pc: Checkout) -> dict[str, str]:
    """Run doit, and return how each link that it made was made: "short", or why make decided."""
    said = {}
    for task in pc.ran("bzImage"):
        found = re.search(
            r"^# (the short way|make decides): (.*)$",
            (logs(pc) / f"{task}.log").read_text(),
            re.MULTILINE,
        )
        said[task] = (
            "none" if found is None else "short" if found[1] == "the short way" else found[2]
        )
    return said


def work(pc: Checkout) -> list[str]:
    """What plain make finds to do in our own object folder."""
    return WORK.findall(pc.make(pc.obj, "bzImage"))


SHORT = ["vmlinux", "Image", "piggy.gz", "piggy.o", "compressed_vmlinux", "bzImage"]


@pytest.mark.parametrize(
    ("path", "old", "new", "tasks"),
    [
        pytest.param(  # test_store.py has this edit, too
            "kernel/panic.c",
            "Kernel panic - not syncing: %s",
            "Kernel panic - not  syncing: %s",
            SHORT,
            marks=pytest.mark.long,
        ),
        (
            "lib/string.c",
            "#include",
            "int piggyback(int x);\nint piggyback(int x) { return x * 7; }\n#include",
            SHORT,
        ),
        pytest.param(
            "lib/ctype.c",
            "#include",
            "extern const int piggyback;\nconst int piggyback = 7;\n#include",
            SHORT,
            marks=pytest.mark.long,
        ),
        pytest.param(  # as above
            "include/linux/reboot.h",
            "SYS_DOWN\t0x0001",
            "SYS_DOWN\t0x0005",
            SHORT,
            marks=pytest.mark.long,
        ),
        pytest.param(
            "arch/x86/kernel/verify_cpu.S",
            "verify_cpu)\n",
            "verify_cpu)\n\tnop\n",
            SHORT,
            marks=pytest.mark.long,
        ),
        pytest.param(
            "arch/x86/realmode/rm/reboot.S",
            "(machine_real_restart_asm)\n",
            "(machine_real_restart_asm)\n\tnop\n",
            SHORT,
            marks=pytest.mark.long,
        ),
        pytest.param("kernel/panic.c", "/*", "/* a comment", SHORT[:1], marks=pytest.mark.long),
        pytest.param(
            "include/linux/reboot.h", "/*", "/* a comment", SHORT[:1], marks=pytest.mark.long
        ),
        pytest.param(  # as above
            f"{BOOT}/compressed/misc.c",
            "inappropriately aligned",
            "badly aligned",
            SHORT[4:],
            marks=pytest.mark.long,
        ),
        pytest.param(
            f"{BOOT}/main.c",
            "Unable to boot - please",
            "Unable to boot; please",
            SHORT[5:],
            marks=pytest.mark.long,
        ),
    ],
)
def test_the_short_way(
    pc: Checkout, second: Path, path: str, old: str, new: str, tasks: list[str]
) -> None:
    """The links that an edit concerns are made without make, are what make makes, and make finds
    nothing to do."""
    before = [(pc.images / name).read_bytes() for name in SHORT]  # which make was seen to make, too
    with edited(pc.kernel / path, old, new):
        said = ways(pc)
        assert set(said.values()) <= {"short"}, said
        assert list(said) == tasks
        assert pc.made_otherwise(second, "bzImage") == []
        assert work(pc) == []
    (pc.kernel / path).touch()  # plain make would not see a file that is put back with its old time
    pc.doit("bzImage")
    assert [(pc.images / name).read_bytes() for name in SHORT] == before


@pytest.mark.long  # most objects are compiled once more
def test_modules_and_a_table_of_symbols(pc: Checkout, tmp_path: Path) -> None:
    """The link begins with the last table, beside what modpost looks at; an exported symbol, of
    which that makes a source, has it made once more."""
    own = pc.top / "configs/kernel/local/pc.config"
    own.parent.mkdir(exist_ok=True)
    own.write_text("CONFIG_KALLSYMS=y\nCONFIG_KALLSYMS_ALL=y\nCONFIG_MODULES=y\n")
    pc.doit("bzImage")
    second = Path(shutil.copytree(pc.obj, tmp_path / "obj", symlinks=True))
    before = [(pc.images / name).read_bytes() for name in SHORT]
    more = "int piggyback(int x);\nint piggyback(int x) { return x * 7; }\n"
    panic = pc.kernel / "kernel/panic.c"
    for new in (more, f"{more}EXPORT_SYMBOL(piggyback);\n", more.replace("7", "77")):
        with edited(panic, "void panic(", f"{new}void panic("):
            said = ways(pc)
            assert set(said.values()) == {"short"}, said
            assert pc.made_otherwise(second, "bzImage") == []
            assert work(pc) == []
    pc.doit("bzImage")
    assert [(pc.images / name).read_bytes() for name in SHORT] == before
    own.unlink()
    pc.doit()


def test_an_error_is_reported_the_short_way_and_mended(pc: Checkout) -> None:
    panic = pc.kernel / "kernel" / "panic.c"
    before = panic.read_text()
    panic.write_text(f"{before}int wrong(void) {{ return nobody_declared_this; }}\n")
    said = pc.doit("bzImage", status=1)
    assert re.search("panic.c:.* error: .*nobody_declared_this", said)
    assert "make[" not in said
    panic.write_text(f"{before}/* mended */\n")
    assert list(ways(pc)) == ["vmlinux"]
    panic.write_text(before)
    assert ways(pc) == {"vmlinux": "short"}
    assert work(pc) == []


@pytest.mark.parametrize(
    "step",
    [*(pytest.param(step, marks=pytest.mark.long) for step in (0, 1, 3)), 5],
)
def test_kill_9_on_the_short_way(pc: Checkout, second: Path, step: int) -> None:
    """Killed after so many commands of it; the next run finishes, and gives what make gives."""
    log = logs(pc) / "vmlinux.log"
    panic = pc.kernel / "kernel" / "panic.c"
    panic.write_text(panic.read_text().replace("not syncing", f"not{' ' * (step + 2)}syncing", 1))
    log.unlink(missing_ok=True)
    process = subprocess.Popen(
        pc.argv("bzImage"),
        cwd=pc.top,
        env=pc.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and (
        not log.exists() or len(re.findall(r"^\$ ", log.read_text(), re.MULTILINE)) < step
    ):
        time.sleep(0.005)
    process.kill()
    process.wait(20)
    assert "make decides" not in log.read_text()
    pc.doit("bzImage")
    assert pc.made_otherwise(second, "bzImage") == []
    panic.write_text(re.sub("not +syncing", "not syncing", panic.read_text(), count=1))
    pc.doit("bzImage")
    assert ways(pc) == {}
