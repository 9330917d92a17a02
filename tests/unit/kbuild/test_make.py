from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from cmd_files import fixdep, put

from tasks.kbuild import make, records
from tasks.system.jobserver import Budget
from tasks.system.process import CommandError

NOW = 1_700_000_000_000_000_000  # ns; a marker's time in these tests
SECOND = 1_000_000_000


# Parsing.


def test_records_that_are_empty_or_odd_bytes(tmp_path: Path) -> None:
    path = tmp_path / ".x.o.cmd"
    for content in (b"", b"\n", b"\xff\xfe\x00", b"cmd_x.o :="):
        path.write_bytes(content)
        assert records.dependencies(str(path)) == set()
        assert records.command(str(path)) == ""
        assert not make._whole(str(path)) or content == b"\n"


def test_every_cut_of_a_record_is_noticed(tmp_path: Path) -> None:
    """Whatever a full disk or a kill leaves of a record, but for the whole, is no record."""
    text = fixdep("init/main.o", "/src/init/main.c", "/src/a.h", "include/b.h")
    path = put(tmp_path / ".main.o.cmd", text)
    assert make._whole(str(path))
    passed = []
    for length in range(len(text)):
        path.write_text(text[:length])
        if make._whole(str(path)):
            passed.append(text[length:])
    assert passed == []
    plain = "cmd_x.a := ar x.a\n"
    path.write_text(plain)
    assert make._whole(str(path))
    path.write_text(plain[:-1])
    assert not make._whole(str(path))
    objtool = "\n\na/x.o: $(wildcard ./tools/objtool/objtool)\n"
    path.write_text(GOOD + objtool)
    assert make._whole(str(path))
    path.write_text(GOOD[: GOOD.rindex("):")] + objtool)
    assert not make._whole(str(path))


def test_a_file_without_a_record_is_whole_if_something_whole_was_made_from_it(obj: Path) -> None:
    """As crc32table.h; randstruct_hash.h, which its command calls ./include/...; and the files of
    aicasm, of which one is named."""
    (obj / "include/generated").mkdir(parents=True)
    lines = GOOD.replace("/src/x.h", "a/named.h").replace(
        "cmd_a/x.o :=", "cmd_a/x.o := -o=./a/too.h"
    )
    put(obj / "a/x.o", when=NOW + 5 * SECOND)
    put(obj / "a/.x.o.cmd", lines, NOW + 6 * SECOND)
    kept = {"a/x.o", "a/.x.o.cmd"}
    for name, when in (
        ("a/named.h", NOW + 2 * SECOND),
        ("a/too.h", NOW + 2 * SECOND),
        ("a/beside.c", NOW + 2 * SECOND + 1_000_000),
        ("a/old.h", NOW - SECOND),
        ("System.map", NOW + 9 * SECOND),
        ("a/m.mod.c", NOW + 9 * SECOND),
        ("tools/objtool/objtool", NOW + 9 * SECOND),
        ("include/config/auto.conf", NOW + 9 * SECOND),
        ("include/generated/autoconf.h", NOW + 9 * SECOND),
    ):
        put(obj / name, when=when)
        kept.add(name)
    put(obj / "a/half.h", when=NOW + 9 * SECOND)
    assert after(obj) == kept


def test_a_make_that_failed_has_removed_what_was_half_done(obj: Path) -> None:
    (obj / "include/generated").mkdir(parents=True)
    put(obj / "piggyback.running", "failed", NOW)
    put(obj / "a/table.h", when=NOW + 9 * SECOND)
    assert after(obj) == {"a/table.h"}


# Closure, and what lies outside.


# Repair.


@pytest.fixture
def obj(tmp_path: Path) -> Path:
    put(tmp_path / "piggyback.running", "", NOW)
    return tmp_path


def after(obj: Path) -> set[str]:
    make.repair(obj)
    assert not (obj / "piggyback.running").exists()
    return {str(path.relative_to(obj)) for path in obj.rglob("*") if path.is_file()}


GOOD = fixdep("a/x.o", "/src/x.c", "/src/x.h")


@pytest.mark.parametrize("record", [GOOD, "cmd_a/x.o := gcc -c -o a/x.o\n"])
@pytest.mark.parametrize(("made", "said"), [(5, 6), (5, 5), (-9, 5), (-9, -8)])
def test_what_is_good_is_kept(obj: Path, record: str, made: int, said: int) -> None:
    put(obj / "a" / "x.o", when=NOW + made * SECOND)
    put(obj / "a" / ".x.o.cmd", record, NOW + said * SECOND)
    assert after(obj) == {"a/x.o", "a/.x.o.cmd"}


@pytest.mark.parametrize(
    ("made", "said", "text"),
    [
        (5, 4, GOOD),  # made anew, and killed before its record was
        (5, -4, GOOD),
        (5, 6, GOOD[:-20]),  # the record cut off
        (5, 6, ""),
        (0, 0, GOOD[:-1]),  # in the tick of the marker
        (
            -9,
            6,
            GOOD.split("\n\n")[0] + "\n",
        ),  # cut off behind the command: such a command comes with a list
    ],
)
@pytest.mark.parametrize("name", ["x.o", "piggy.S", "vmlinux", "z_before_or_after"])
def test_what_is_doubtful_goes_with_its_record(
    obj: Path, made: int, said: int, text: str, name: str
) -> None:
    put(obj / "a" / name, when=NOW + made * SECOND)
    put(obj / "a" / f".{name}.cmd", text, NOW + said * SECOND)
    put(obj / "a" / "good.o", when=NOW + SECOND)
    put(obj / "a" / ".good.o.cmd", GOOD, NOW + 2 * SECOND)
    assert after(obj) == {"a/good.o", "a/.good.o.cmd"}


def test_an_object_without_a_record(obj: Path) -> None:
    put(obj / "new.o", when=NOW + SECOND)
    put(obj / "old.o", when=NOW - SECOND)
    put(
        obj / "generated.h", when=NOW + SECOND
    )  # by filechk, which leaves no record and replaces whole
    put(obj / "piggyback.piggy.o", when=NOW + SECOND)  # ours
    assert after(obj) == {"old.o", "generated.h", "piggyback.piggy.o"}


def test_a_left_over_depfile(obj: Path) -> None:
    put(obj / "half.o", when=NOW + 5 * SECOND)  # the compiler was at it
    put(obj / ".half.o.d", when=NOW + 5 * SECOND)
    put(obj / ".half.o.cmd", GOOD, NOW - 50 * SECOND)
    put(obj / "fresh.o", when=NOW + 5 * SECOND)  # never made before
    put(obj / ".fresh.o.d", when=NOW + 5 * SECOND)
    put(
        obj / "done.cpio", when=NOW + 5 * SECOND
    )  # usr/initramfs_data.cpio: its depfile stays for good
    put(obj / ".done.cpio.d", when=NOW + 5 * SECOND)
    put(obj / ".done.cpio.cmd", "cmd_done.cpio := gen\n", NOW + 6 * SECOND)
    assert after(obj) == {".half.o.d", ".fresh.o.d", "done.cpio", ".done.cpio.d", ".done.cpio.cmd"}


def test_a_record_without_a_target(obj: Path) -> None:
    put(obj / ".cut.o.cmd", GOOD[:50], NOW + SECOND)
    put(obj / ".phony.cmd", "cmd_phony := :\n", NOW + SECOND)
    put(obj / ".old.cmd", GOOD[:50], NOW - SECOND)
    assert after(obj) == {".phony.cmd", ".old.cmd"}


def test_nothing_older_than_the_marker_is_touched(obj: Path) -> None:
    put(obj / "a.o", when=NOW - 5 * SECOND)  # newer than its record, but not of the killed run
    put(obj / ".a.o.cmd", GOOD[:60], NOW - 50 * SECOND)
    put(obj / "b.o", when=NOW - 5 * SECOND)
    put(obj / ".b.o.d", when=NOW - 5 * SECOND)
    before = {
        path: path.stat().st_mtime_ns
        for path in obj.rglob("*.*")
        if path.name != "piggyback.running"
    }
    after(obj)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_without_a_marker_nothing_is_looked_at(tmp_path: Path) -> None:
    put(tmp_path / "x.o")
    make.repair(tmp_path)
    assert (tmp_path / "x.o").exists()
    make.repair(tmp_path / "missing")


def test_a_dangling_link_and_a_folder_with_an_objects_name(obj: Path) -> None:
    (obj / "link.o").symlink_to("nothing")
    (obj / "folder.o").mkdir()
    assert after(obj) == set()
    assert not (obj / "link.o").is_symlink()
    assert (obj / "folder.o").is_dir()


# make.

MAKEFILE = """\
all: ; @echo "  CC      a.o"; echo "  LD      vmlinux"; echo "  note"; \\
	echo "O=$(O) V=$(X) E=$$KBUILD_BUILD_USER M=$$MAKEFLAGS"
fail: ; @echo "x.c:3:1: error: no such thing"; echo "  CC      b.o"; exit 1
input: ; @cat
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    put(tmp_path / "src" / "Makefile", MAKEFILE)
    return tmp_path


def run(tree: Path, goal: str, label: str = "x", **named: object) -> int:
    return make.run(
        tree / "src",
        tree / "obj",
        [goal],
        jobs=Budget(2),
        variables={"X": "a b"},
        env=make.pins(0),
        log=tree / "log",
        label=label,
        **named,
    )  # type: ignore[arg-type]


def test_make_counts_and_leaves_no_marker(tree: Path) -> None:
    assert run(tree, "all") == 2
    assert run(tree, "all", label="") == 0
    assert f"O={tree}/obj V=a b E=piggyback M=" in (tree / "log").read_text()
    assert list((tree / "obj").iterdir()) == []


def test_a_failed_make_shows_the_compilers_words_first_and_leaves_the_marker(tree: Path) -> None:
    for label in ("x", ""):
        with pytest.raises(CommandError) as caught:
            run(tree, "fail", label=label)
        if label:
            assert caught.value.message.splitlines() == [
                "'make' ended with status 2:",
                "    x.c:3:1: error: no such thing",
            ]
        assert (tree / "obj" / "piggyback.running").exists()
    put(tree / "obj" / "half.o")
    run(tree, "all")
    assert not (tree / "obj" / "half.o").exists()


def test_make_gets_its_input(tree: Path) -> None:
    run(tree, "input", label="", stdin="yes\n" * 3)
    assert (tree / "log").read_text().count("\nyes") == 3


def test_a_real_make_that_was_killed_is_mended(tmp_path: Path) -> None:
    """A compiler that writes slowly, killed with its make: what it left is newer than its sources,
    and would be taken."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    put(
        tmp_path / "src" / "Makefile",
        "x.o: ; @printf half > $(O)/x.o; echo there > $(O)/flag; sleep 300\n",
    )
    obj = tmp_path / "obj"
    obj.mkdir()
    (obj / "piggyback.running").touch()
    process = subprocess.Popen(
        ["make", "-C", str(tmp_path / "src"), f"O={obj}", "x.o"], start_new_session=True
    )
    while not (obj / "flag").exists():
        time.sleep(0.02)
    os.killpg(process.pid, 9)
    process.wait()
    assert (obj / "x.o").read_text() == "half"
    make.repair(obj)
    assert not (obj / "x.o").exists()


BOOT = {
    "Makefile": (
        'export FLAGS := -a\nbuild := -f Makefile.build obj\nboot-y = LOAD=$(load-y) NAME="a'
        ' b"\nload-y = 0x10\n'
    ),
    "Makefile.build": "build := -f Makefile.build obj\ninclude $(obj)/Makefile\n",
    "arch/boot/Makefile": (
        "suffix-y := gz\nFLAGS += -b\n"
        "$(obj)/../image.$(suffix-y): ; echo $(FLAGS) $(LOAD) $(NAME) > $@\n"
        "image.$(suffix-y): ; echo top $(FLAGS) $(LOAD) $(NAME) > $@\n"
    ),
}


@pytest.mark.parametrize(
    ("file", "found", "handed", "text"),
    [
        ("arch/boot/../image.$(suffix-y)", "arch/image.gz", "$(boot-y)", "-a -b 0x10 a b"),
        ("image.$(suffix-y)", "image.gz", "$(boot-y)", "top -a -b 0x10 a b"),
        ("image.gz", "image.gz", "", "top -a -b"),
    ],
)
def test_the_rules_that_ask_for_a_link(
    tmp_path: Path, file: str, found: str, handed: str, text: str
) -> None:
    """Names are expanded by the Makefile that makes the link, what is handed to it by the one
    above; what the former adds to an exported variable is added once."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    for name, content in BOOT.items():
        put(tmp_path / name, content)
    env = {
        "MAKEFILES": str(make.LINK_RULES),
        "sub_make_done": "1",
        "PIGGYBACK_DIR": "arch/boot",
        "PIGGYBACK_FILE": file,
        "PIGGYBACK_VARS": handed,
        "PIGGYBACK_SAY": str(tmp_path / "said"),
    }
    subprocess.run(
        ["make", "-s", "piggyback-link"], cwd=tmp_path, env={**os.environ, **env}, check=True
    )
    said = (tmp_path / "said").read_text().strip()
    assert (os.path.normpath(said), (tmp_path / said).read_text().strip()) == (found, text)


def test_the_pins_name_nobody_and_no_place() -> None:
    pins = make.pins(1767225600)
    assert pins["KBUILD_BUILD_TIMESTAMP"] == "Thu Jan  1 00:00:00 UTC 2026"
    assert pins["SOURCE_DATE_EPOCH"] == "1767225600"
    assert pins["LOCALVERSION"] == ""
    assert os.uname().nodename not in pins.values()


@pytest.mark.parametrize(
    ("arch", "left", "said"),
    [
        ("i386", ".config", ".config"),
        ("i386", "include/config/auto.conf", "include/config"),
        ("i386", "arch/x86/include/generated/asm/x.h", "arch/x86/include/generated"),
        ("i386", "arch/i386/include/generated/x", ""),
        ("arm", "arch/arm/include/generated/x", "arch/arm/include/generated"),
        ("arm", "arch/x86/include/generated/x", ""),
        ("arm", "include/generated/autoconf.h", ""),
    ],
)
def test_what_a_build_in_place_leaves_behind(
    tmp_path: Path, arch: str, left: str, said: str
) -> None:
    put(
        tmp_path / "Makefile",
        """\
SRCARCH \t:= $(ARCH)
# Additional ARCH settings for x86
ifeq ($(ARCH),i386)
        SRCARCH := x86
endif
outputmakefile:
\t@if [ -f $(srctree)/.config -o \\
\t\t -d $(srctree)/include/config -o \\
\t\t -d $(srctree)/arch/$(SRCARCH)/include/generated ]; then \\
\t\techo >&2 "***"; \\
\t\techo >&2 "*** The source tree is not clean, please run 'make mrproper'"; \\
""",
    )
    assert make.left_behind(tmp_path, arch) == ""
    put(tmp_path / left)
    assert make.left_behind(tmp_path, arch) == said


def test_a_makefile_that_asks_for_nothing(tmp_path: Path) -> None:
    put(tmp_path / "Makefile", "all:\n")
    put(tmp_path / "include/config/x")
    assert make.left_behind(tmp_path, "arm") == ""
    put(tmp_path / ".config")
    assert make.left_behind(tmp_path, "arm") == ".config"
