"""The short way to vmlinux on the fake kernel: the same images as make's, and make finds nothing to
do afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playground import Playground, finish
from test_kill import working_in

from tasks.config.project import EPOCH
from tasks.kbuild import make
from tasks.system.process import clean_env

LOADER = "arch/x86/boot/compressed"
FILES = {
    "vmlinux": "vmlinux",
    "System.map": "System.map",
    "Image": f"{LOADER}/vmlinux.bin",
    "piggy.gz": f"{LOADER}/vmlinux.bin.gz",  # or .xz
    "piggy.o": f"{LOADER}/piggy.o",
    "compressed_vmlinux": f"{LOADER}/vmlinux",
    "bzImage": "arch/x86/boot/bzImage",
}
LINKS = [name for name in FILES if name != "System.map"]
WORK = re.compile(
    r"^  (?:CC|AS|HOSTCC|AR|LD|NM|OBJCOPY|GZIP|XZKERN|VOFFSET|MKPIGGY|BUILD|UPD) .*",
    re.MULTILINE,
)


def plain_make(play: Playground, obj: Path) -> list[str]:
    """Run plain make, with our pins, in an object folder, and return the commands that it says."""
    prefix = re.search(
        r'^triple = "(.*)"', (play.top / "configs/machines/fake.toml").read_text(), re.MULTILINE
    )
    assert prefix
    said = subprocess.run(
        [
            "make",
            "-C",
            str(play.linux),
            f"O={obj}",
            "-j2",
            "ARCH=x86_64",
            f"CROSS_COMPILE={prefix[1]}-",
            "bzImage",
        ],
        env={**clean_env(make.pins(EPOCH)), "HOME": str(play.home)},
        text=True,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ).stdout
    return WORK.findall(said)


def way(play: Playground, task: str) -> str:
    """How the last run made a link: "short", or why make decided."""
    log = (play.here / "logs" / f"{task}.log").read_text()
    found = re.search(r"^# (the short way|make decides): (.*)$", log, re.MULTILINE)
    assert found
    return "short" if found[1] == "the short way" else found[2]


def as_make_does(play: Playground, tmp_path: Path, go_on: bool = False) -> bool:
    """Is every link what an independent make makes, from nothing, or from where it was?"""
    obj = tmp_path / "obj"
    if not go_on:
        shutil.rmtree(obj, ignore_errors=True)
        obj.mkdir()
    shutil.copy(play.images / "config", obj / ".config")
    plain_make(play, obj)
    files = dict(FILES)
    if "CONFIG_KERNEL_XZ=y" in (play.images / "config").read_text():
        files["piggy.gz"] = f"{LOADER}/vmlinux.bin.xz"
    return all(
        (obj / file).read_bytes() == (play.images / name).read_bytes()
        for name, file in files.items()
    )


def short(play: Playground, tmp_path: Path, *tasks: str, go_on: bool = False) -> None:
    """A run builds just these tasks, the short way; they are what make makes, and make finds
    nothing to do."""
    result = play.doit("bzImage")
    assert result.ran == list(tasks), result.why
    assert {task: way(play, task) for task in tasks} == dict.fromkeys(tasks, "short")
    assert as_make_does(play, tmp_path, go_on)
    assert plain_make(play, play.obj) == []
    assert play.doit("bzImage").ran == []


def code(path: str, number: int = 1) -> Callable[[Playground], None]:
    return lambda play: play.append(
        play.linux / path, f"int more_{number}(void) {{ return {number}; }}\n"
    )


@pytest.mark.parametrize(
    ("path", "tasks"),
    [
        ("kernel/panic.c", LINKS),
        ("lib/string.c", LINKS),
        ("drivers/null.c", LINKS),
        (f"{LOADER}/misc.c", ["compressed_vmlinux", "bzImage"]),
        ("arch/x86/boot/main.c", ["bzImage"]),
    ],
)
def test_code(built: Playground, tmp_path: Path, path: str, tasks: list[str]) -> None:
    code(path)(built)
    short(built, tmp_path, *tasks)
    code(path, 2)(built)
    short(built, tmp_path, *tasks)


def test_the_size_behind_a_compressed_kernel_is_the_present_one(
    built: Playground, tmp_path: Path
) -> None:
    """Make computes it when it expands the recipe, and the saved command has that of before."""
    built.edit(FRAGMENT, "CONFIG_KERNEL_GZIP=y", "CONFIG_KERNEL_XZ=y")
    built.doit("bzImage")
    for number in range(2):
        grow(number)(built)
        short(built, tmp_path, *LINKS)
    size = (built.images / "Image").stat().st_size
    assert (built.images / "piggy.gz").read_bytes()[-4:] == size.to_bytes(4, "little")


def test_a_boot_makefile_that_asks_the_shell_is_makes(built: Playground, tmp_path: Path) -> None:
    built.append(
        built.linux / LOADER / "Makefile", "LDFLAGS_vmlinux += --defsym s=$(shell wc -c <vmlinux)\n"
    )
    built.doit("bzImage")
    grow(0)(built)
    built.doit("bzImage")
    assert "asks the shell" in way(built, "compressed_vmlinux")
    assert as_make_does(built, tmp_path)


@pytest.mark.parametrize("by", ["short", "make"])
def test_a_symbol_of_the_loader_beside_a_comment(
    built: Playground, tmp_path: Path, by: str
) -> None:
    """Vmlinux stays as it is, and what the loader is made from has changed all the same."""
    built.append(
        built.linux / f"{LOADER}/misc.c", "#ifdef CONFIG_EXPERT\nint verbose = 1;\n#endif\n"
    )
    built.doit("bzImage")
    built.append(built.linux / "kernel/panic.c", "/* more */\n")
    built.append(FRAGMENT, "CONFIG_EXPERT=y\n")
    if by == "make":
        built.doit("kernel_config")
        (built.obj / "piggyback.state/vmlinux").unlink()
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    assert plain_make(built, built.obj) == []


def test_an_edit_of_the_loader_before_kill_9(built: Playground, tmp_path: Path) -> None:
    """What the loader takes from vmlinux is made beside the compressor, and may be the same; that
    makes no object new whose source the killed run had seen, but not the run that goes on."""
    stamps = built.here / "stamps"
    for number in range(3):
        last = f" + {number - 1}" if number else ""
        built.edit(
            built.linux / "kernel/panic.c", f"PANIC_TIMEOUT{last};", f"PANIC_TIMEOUT + {number};"
        )  # no size changes
        if number < 2:
            built.doit("jobs=2", "bzImage")
    code(f"{LOADER}/misc.c")(built)
    before = stamps.read_bytes()
    built.doit("jobs=2", "Image")
    stamps.write_bytes(before)  # they are written at the end
    built.doit("jobs=2", "bzImage")
    assert way(built, "piggy.gz") == "short"
    assert as_make_does(built, tmp_path)


def begun_early(play: Playground) -> set[str]:
    return {
        name
        for task in LINKS
        for name in re.findall(
            r"^# (\S+) was begun early$", (play.here / "logs" / f"{task}.log").read_text(), re.M
        )
    }


def test_what_is_begun_early_is_taken(built: Playground, tmp_path: Path) -> None:
    code("kernel/panic.c")(built)
    time.sleep(0.1)  # what changed in the moment in which it begins is compiled as ever
    built.doit("jobs=2", "bzImage")
    image = f"{LOADER}/vmlinux.bin"
    assert begun_early(built) == {"kernel/panic.o", image, f"{image}.gz"}
    assert as_make_does(built, tmp_path)
    assert os.listdir(built.obj / "piggyback.early") == []


def slow_gzip(play: Playground) -> None:
    """The compressor waits while HOME has a file named slow."""
    script = play.linux / "scripts/slow"
    script.write_text("#!/bin/sh\n[ ! -e $HOME/slow ] || sleep 50\nexec gzip -n -f -9\n")
    script.chmod(0o755)
    play.edit(
        play.linux / "scripts/Makefile.build",
        "| gzip -n -f -9 > $@",
        "| $(srctree)/scripts/slow > $@",
    )
    play.doit("bzImage")
    (play.home / "slow").touch()


@pytest.mark.parametrize("more", [(), ("-n", "2")])
def test_ctrl_c_ends_what_was_begun(
    built: Playground, tmp_path: Path, more: tuple[str, ...]
) -> None:
    slow_gzip(built)
    code("kernel/panic.c", 7)(built)
    image = built.images / "Image"
    before = image.stat().st_mtime_ns
    process = built.start(*more, "jobs=2", "bzImage")
    until = time.monotonic() + 120
    while image.stat().st_mtime_ns == before and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    finish(process, 45)
    assert working_in(built.top) == []
    folder = built.obj / "piggyback.early"
    assert not folder.exists() or os.listdir(folder) == []
    (built.home / "slow").unlink()
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    assert plain_make(built, built.obj) == []


def made_in(play: Playground, task: str) -> set[str]:
    """The loader's files that the last run of a task made by a saved command."""
    log = (play.here / "logs" / f"{task}.log").read_text()
    return set(re.findall(rf"^\$ .*?(?:-o |> ){LOADER}/(?:\.\./)?([\w.]+)", log, re.MULTILINE))


def grow(number: int) -> Callable[[Playground], None]:
    """An edit by which vmlinux ends elsewhere."""
    return lambda play: play.append(
        play.linux / "kernel/panic.c", f"int grown_{number}[100000] = {{ 1 }};\n"
    )


def test_what_the_loader_needs_of_vmlinux_is_made_beside_the_compressor(
    built: Playground, tmp_path: Path
) -> None:
    grow(1)(built)
    assert built.doit("jobs=2", "bzImage").ran == LINKS
    assert {"voffset.h", "misc.o"} <= made_in(built, "piggy.gz")
    assert made_in(built, "compressed_vmlinux").isdisjoint({"voffset.h", "misc.o"})
    assert as_make_does(built, tmp_path)
    assert plain_make(built, built.obj) == []
    grow(2)(built)  # nothing to spare
    assert built.doit("jobs=1", "bzImage").ran == LINKS
    assert {"voffset.h", "misc.o"} <= made_in(built, "compressed_vmlinux")
    grow(3)(built)  # not the one without the other
    code(f"{LOADER}/misc.c", 3)(built)
    assert built.doit("jobs=2", "bzImage").ran == LINKS
    assert {"voffset.h", "misc.o"} <= made_in(built, "compressed_vmlinux")
    assert as_make_does(built, tmp_path)
    assert plain_make(built, built.obj) == []


def test_a_failure_beside_the_compressor_is_that_of_the_later_link(
    built: Playground, tmp_path: Path
) -> None:
    misc = built.linux / LOADER / "misc.c"
    before, header = misc.read_text(), (built.obj / LOADER / "../voffset.h").read_text()
    misc.write_text(f'{before}_Static_assert(VO__end == {header.split()[2]}, "it grew");\n')
    built.doit("bzImage")
    grow(1)(built)
    result = built.doit("jobs=2", "bzImage", status=1)
    assert result.ran == [*LINKS[: LINKS.index("compressed_vmlinux")]]
    assert "it grew" in result.text
    log = (built.here / "logs" / "piggy.gz.log").read_text()
    assert "not made ahead for compressed_vmlinux" in log
    misc.write_text(before)
    built.doit("jobs=2", "bzImage")
    assert as_make_does(built, tmp_path)
    assert plain_make(built, built.obj) == []


def test_headers(built: Playground, tmp_path: Path) -> None:
    built.edit(built.linux / "include/linux/panic.h", "30", "31")
    short(built, tmp_path, *LINKS)
    built.append(
        built.linux / f"{LOADER}/misc.h", "static const int more __attribute__((used)) = 1;\n"
    )
    short(built, tmp_path, "compressed_vmlinux", "bzImage")


@pytest.mark.long
def test_a_comment_ends_where_it_makes_no_difference(built: Playground, tmp_path: Path) -> None:
    for path, task in (
        ("kernel/panic.c", "vmlinux"),
        ("include/linux/kernel.h", "vmlinux"),
        (f"{LOADER}/misc.c", "compressed_vmlinux"),
        ("arch/x86/boot/main.c", "bzImage"),
    ):
        built.append(built.linux / path, "/* more */\n")
        short(built, tmp_path, task)


def test_what_was_stale_before_a_comment_stays_so(built: Playground, tmp_path: Path) -> None:
    code("kernel/panic.c")(built)
    assert built.doit("vmlinux").ran == ["vmlinux"]
    built.append(built.linux / "kernel/printk.c", "/* more */\n")
    assert built.doit("vmlinux").ran == ["vmlinux"]
    assert way(built, "vmlinux") == "short"
    assert [line.split()[0] for line in plain_make(built, built.obj)][-1] == "BUILD"
    assert as_make_does(built, tmp_path) is False  # the images beyond vmlinux are those of before
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)


def comment_by_make(play: Playground, path: str) -> None:
    """Have make, not the short way, make vmlinux again after a comment."""
    play.append(play.linux / path, "/* more */\n")
    (play.obj / "piggyback.state" / "vmlinux").unlink()
    assert play.doit("vmlinux").ran == ["vmlinux"]
    assert way(play, "vmlinux") != "short"


def test_by_make_too_a_comment_ends_where_it_makes_no_difference(
    built: Playground, tmp_path: Path
) -> None:
    comment_by_make(built, "kernel/panic.c")
    assert built.doit().ran == []
    assert plain_make(built, built.obj) == []
    code("kernel/printk.c")(built)
    short(built, tmp_path, *LINKS)


def test_by_make_too_what_was_stale_before_a_comment_stays_so(
    built: Playground, tmp_path: Path
) -> None:
    code("kernel/panic.c")(built)
    assert built.doit("vmlinux").ran == ["vmlinux"]
    comment_by_make(built, "kernel/printk.c")
    assert [line.split()[0] for line in plain_make(built, built.obj)][-1] == "BUILD"
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)


def test_a_header_that_is_newly_included(built: Playground, tmp_path: Path) -> None:
    header = built.linux / "include/linux/unused.h"
    header.write_text("#define USED 1\n")
    built.append(built.linux / "kernel/printk.c", "#include <linux/unused.h>\nint used = USED;\n")
    short(built, tmp_path, *LINKS)
    header.write_text("#define USED 2\n")
    short(built, tmp_path, *LINKS)


def new_header(play: Playground) -> None:
    play.append("build/src/linux-6.1/include/linux/new.h", "#define NEW 1\n")
    play.append("build/src/linux-6.1/kernel/printk.c", "#include <linux/new.h>\nint new = NEW;\n")


def test_a_file_put_back_with_its_old_time(built: Playground, tmp_path: Path) -> None:
    path = built.linux / "kernel/panic.c"
    before, info = path.read_text(), path.stat()
    code("kernel/panic.c")(built)
    short(built, tmp_path, *LINKS)
    path.write_text(before)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    short(built, tmp_path, *LINKS)


FRAGMENT = "configs/kernel/fake-base.config"
SHIFT = "CONFIG_LOG_BUF_SHIFT=15\n"


@pytest.mark.parametrize("size", ["0", "100M"])
@pytest.mark.parametrize(
    "line", [SHIFT, "CONFIG_EXTRA=y\n", "CONFIG_EXPERT=y\n# CONFIG_PRINTK is not set\n"]
)
def test_a_symbol_that_goes_and_comes_back_before_anything_was_built(
    built: Playground, tmp_path: Path, size: str, line: str
) -> None:
    built.store_size = size
    built.doit("bzImage")
    before = (built.top / FRAGMENT).read_text()
    (built.top / FRAGMENT).write_text(before.replace("CONFIG_PRINTK=y\n", "") + line)
    assert built.doit("kernel_config").ran == ["kernel_config"]
    (built.top / FRAGMENT).write_text(before)
    assert built.doit("bzImage").ran == ["kernel_config"]
    code("kernel/panic.c")(built)
    short(built, tmp_path, *LINKS)


def test_a_symbol_that_comes_back_after_something_was_built(
    built: Playground, tmp_path: Path
) -> None:
    built.append(FRAGMENT, SHIFT)
    built.doit("kernel_config")
    assert plain_make(built, built.obj)
    built.edit(FRAGMENT, SHIFT, "")
    built.doit("bzImage")
    code("kernel/panic.c")(built)
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    assert plain_make(built, built.obj) == []


def by_hand(play: Playground) -> None:
    """Somebody has compiled an object by hand, with other flags."""
    record = play.obj / "kernel" / ".printk.o.cmd"
    record.write_text(record.read_text().replace(" -c -o ", " -DBY_HAND -c -o "))
    code("kernel/panic.c")(play)


def other_names(play: Playground) -> None:
    """Make was run without our pins; nothing was linked."""
    (play.obj / "include/generated/compile.h").write_text('#define LINUX_COMPILE_BY "me"\n')
    code("kernel/panic.c")(play)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda play: play.append(play.linux / "kernel/Makefile", "ccflags-y += -DX\n"),
            "Makefile changed",
        ),
        (
            lambda play: play.append(play.linux / "scripts/link-vmlinux.sh", "# more\n"),
            r"link-vmlinux\.sh changed",
        ),
        (by_hand, r"kernel/printk\.o was made by somebody else"),
        (other_names, r"compile\.h was made by somebody else"),
        (new_header, "other headers or makefiles are in .*/include/linux/"),
        (
            lambda play: code("kernel/panic.c")(play) or (play.obj / "piggyback.trace").unlink(),
            "make has not told yet",
        ),
        (
            lambda play: code("kernel/panic.c")(play) or (play.obj / "piggyback.running").touch(),
            "last run did not end well",
        ),
        (
            lambda play: code("kernel/panic.c")(play) or (play.obj / "vmlinux").write_text("?"),
            "vmlinux is not as it was left",
        ),
    ],
)
def test_make_decides(
    built: Playground, tmp_path: Path, change: Callable[[Playground], object], reason: str
) -> None:
    change(built)
    built.doit("bzImage")
    assert re.search(reason, way(built, "vmlinux"))
    assert as_make_does(built, tmp_path)
    code("lib/string.c", 3)(built)
    short(built, tmp_path, *LINKS, go_on=True)  # and what make said then is good for the next time


def test_make_decides_of_the_loaders_own_tools(built: Playground, tmp_path: Path) -> None:
    built.append(built.linux / "arch/x86/boot/tools/build.c", "int more;\n")
    built.doit("bzImage")
    assert "that the build itself runs" in way(built, "bzImage")
    assert as_make_does(built, tmp_path)


def test_a_header_that_goes_away(built: Playground, tmp_path: Path) -> None:
    built.edit(
        built.linux / "kernel/panic.c", "#include <linux/panic.h>\n", "#define PANIC_TIMEOUT 30\n"
    )
    (built.linux / "include/linux/panic.h").unlink()
    built.doit("bzImage")
    assert "panic.h is gone" in way(built, "vmlinux")
    assert as_make_does(built, tmp_path)


def test_an_error_is_the_compilers_own(built: Playground, tmp_path: Path) -> None:
    path = built.linux / "kernel/panic.c"
    before = path.read_text()
    path.write_text(f"{before}int wrong(void) {{ return nobody_declared_this(); }}\n")
    said = built.fails("bzImage")
    assert re.search("panic.c:.* error: .*nobody_declared_this", said)
    assert "make[" not in said
    assert built.fails("bzImage") == said
    path.write_text(f"{before}int right(void) {{ return 1; }}\n")
    short(built, tmp_path, *LINKS)


def test_an_error_that_is_taken_back(built: Playground, tmp_path: Path) -> None:
    path = built.linux / "kernel/panic.c"
    before = path.read_text()
    path.write_text(f"{before}int wrong(void) {{ return nobody_declared_this(); }}\n")
    built.fails("bzImage")
    path.write_text(before)
    short(built, tmp_path, "vmlinux")


def test_what_kbuild_checks_after_the_compiler(built: Playground, tmp_path: Path) -> None:
    path = built.linux / "kernel/panic.c"
    before = path.read_text()
    path.write_text(f"{before}int forbidden;\n")
    assert "local symbol 'forbidden' was exported" in built.fails("bzImage")
    path.write_text(before)
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)


def test_an_edit_while_it_compiles(built: Playground, tmp_path: Path) -> None:
    code("kernel/panic.c", 1)(built)
    built.pause("panic.o", "wait")
    process = built.start("bzImage")
    built.reached("panic.o")
    code("kernel/panic.c", 2)(built)
    built.resume()
    process.communicate(timeout=60)
    assert process.returncode == 0
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    assert built.doit("bzImage").ran == []


@pytest.mark.parametrize("then", ["go on", "put back"])
@pytest.mark.parametrize("everything", [False, True])
def test_kill_9(built: Playground, tmp_path: Path, then: str, everything: bool) -> None:
    path = built.linux / "kernel/panic.c"
    before, info = path.read_text(), path.stat()
    code("kernel/panic.c", 1)(built)
    code("lib/string.c", 2)(built)
    built.pause("panic.o")
    process = built.start("bzImage")
    built.reached("panic.o")
    log = built.here / "logs" / "vmlinux.log"
    assert not log.exists() or "make decides" not in log.read_text()
    for pid in [process.pid, *(working_in(built.top) if everything else [])]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=20)
    built.resume()
    if then == "put back":
        path.write_text(before)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    assert plain_make(built, built.obj) == []
    assert built.doit("bzImage").ran == []
