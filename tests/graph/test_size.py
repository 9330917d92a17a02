"""`doit size` on the fake kernel, whose vmlinux and images are real ELF files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from playground import Playground


def sizes(play: Playground, *words: str) -> dict[str, Any]:
    """What `doit size --json` says."""
    found: dict[str, Any] = json.loads(play.doit("size", "--json", *words).text)
    return found


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, size and time of each file below a folder."""
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            info = os.lstat(os.path.join(where, name))
            found[os.path.join(where, name)] = (info.st_ino, info.st_size, info.st_mtime_ns)
    return found


def test_each_byte_of_the_images_is_on_a_line_and_the_folder_is_left_alone(
    built: Playground,
) -> None:
    before = state(built.obj)
    found = sizes(built)
    assert state(built.obj) == before
    assert found["notes"] == []
    for kind, name in (("raw", "Image"), ("booted", "bzImage")):
        assert found[kind]["name"] == name
        size = (built.images / name).stat().st_size
        assert sum(row["size"] for row in found[kind]["rows"]) == size == found["files"][name]
        other = [row["size"] for row in found[kind]["rows"] if row["object"] in ("(other)", "")]
        assert other == ([2] if kind == "booted" else [])  # tools/build writes a signature
    piggy = (built.images / "piggy.gz").stat().st_size
    assert sum(row["about"] for row in found["raw"]["rows"]) == piggy
    packed = [row for row in found["booted"]["rows"] if row["object"].startswith("(piggy.gz)/")]
    assert sum(row["size"] for row in packed) == piggy
    assert next(row for row in found["raw"]["rows"] if row["name"] == "panic")["object"] == (
        "kernel/panic.o"
    )
    assert any(row["object"].startswith("(compressed_vmlinux)/") for row in found["booted"]["rows"])
    shares = {one["symbol"]: one["own"] for one in found["symbols"]}
    assert sum(shares.values()) == found["files"]["Image"]


def test_folders_files_and_functions_can_be_named(built: Playground) -> None:
    lines = [
        line.split() for line in built.doit("size", "kernel/panic.o", "--all").text.split("\n")
    ]
    assert lines[0][0] == "panic.o"
    total = int(lines[0][1].replace(",", ""))
    assert sum(int(line[1].replace(",", "")) for line in lines[1:] if line) == total
    assert "there is no 'kernel/panik.o' in Image. Did you mean 'panic.o'?" in built.fails(
        "size", "kernel/panik.o"
    )
    assert "option --dept" in built.fails("size", "kernel", "--deptz=3")
    said = built.fails("size", "piggy.gz")
    assert "'piggy.gz' is not taken apart" in said
    for word in re.findall(r"'doit size (\w+)'", said):
        built.doit("size", word)
    said = built.fails("size", "nowhere")
    for word in re.findall(r"the folders; (.*) can be named", said)[0].split(", "):
        # a fake busybox has no map of the linker's
        assert f"no '{word}'" not in built.doit("size", word, status=None).text
    (built.images / "busybox").unlink()
    for word in ("busybox", "applets"):
        said = built.fails("size", word)
        assert "'busybox' is not built yet" in said
        assert "'doit busybox' builds it" in said


def test_limits_decide_the_exit_status(built: Playground) -> None:
    size = (built.images / "bzImage").stat().st_size
    built.doit("size", f"--limit={size}")
    said = built.doit("size", f"--limit={size - 1}", status=1).text
    assert f"bzImage has {size:,} B, 1 B more than its limit of {size - 1:,} B" in said
    assert "is no size" in built.doit("size", "--limit=12X", status=125).text
    assert "there is no 'nowhere'" in built.doit("size", "nowhere", "--limit=1", status=125).text
    assert "there is no image 'bzImag'" in built.doit("size", "--limit=bzImag=5", status=125).text
    for words in (
        ("--limti=5",),
        ("kernel", "--limti=5"),
        ("--limit",),
        ("--limit=1", "--depth=x"),
        ("--limit=1", "machine=nosuch"),
        ("--limit=1", "jobs=-1"),
        ("--limit=1", "nosuch=1"),
        ("--against=/bin/sh", "--limit=1"),
    ):
        text = built.doit("size", *words, status=125).text
        assert "Traceback" not in text
        assert "ERROR: " in text or "size failed: " in text
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            ["doit", "size", f"--limit={size}"],
            cwd=built.top,
            env=built.environ(),
            stdout=full,
            check=False,
        )
    assert done.returncode == 125
    built.append("configs/machines/fake.toml", "\n[limits]\nvmlinux = 100\nbusybox = '64M'\n")
    said = built.doit("size", status=1).text
    assert "vmlinux has" in said
    assert "busybox has" not in said
    assert "there is no 'nowhere'" in built.doit("size", "nowhere", status=125).text
    assert "Did you mean 'rootfs'?" in built.doit("size", "rootsf", status=125).text
    (built.images / "bzImage").unlink()
    said = built.doit("size", "--limit=900K", status=125).text
    assert "bzImage has a limit, and is not built" in said


def test_a_kernel_that_does_not_build_is_not_too_large(built: Playground) -> None:
    built.append(built.linux / "kernel" / "panic.c", "this is no C\n")
    assert "vmlinux failed" in built.doit("bzImage", "size", "--limit=1", status=125).text


def test_before_anything_is_built(fresh: Playground) -> None:
    said = fresh.doit("size", "--limit=900K", status=125).text
    assert "is not built yet" in said
    assert "'doit bzImage' builds it" in said


def test_what_grew_is_named_with_its_object_and_symbol(built: Playground) -> None:
    built.doit("size")
    old = built.home / "old"
    old.mkdir()
    for name in ("vmlinux", "config"):
        (old / name).write_bytes((built.images / name).read_bytes())
    built.append(
        built.linux / "kernel" / "panic.c",
        "int piggy_table[100] = {1};\nint piggy(int a) { return piggy_table[a]; }\n",
    )
    assert any("is not up to date" in note for note in sizes(built)["notes"])
    assert (
        "add/remove: 0/0 grow/shrink: 0/0 up/down: 0/0 (0)"
        in built.doit("size", "--against", str(old)).text
    )
    built.append("configs/kernel/fake-serial.config", "CONFIG_LOG_BUF_SHIFT=15\n")
    built.doit()
    said = built.doit("size", "--against", str(old)).text
    assert "add/remove: 2/0 " in said
    table = next(line for line in said.splitlines() if line.startswith("piggy_table "))
    assert table.split() == ["piggy_table", "-", "400", "+400", "kernel/panic.o"]
    assert "  CONFIG_LOG_BUF_SHIFT: 14 -> 15\n" in said
    found = sizes(built, f"--against={old}")["against"]
    assert found["totals"][1] - found["totals"][0] == sum(
        (one["new"] or 0) - (one["old"] or 0) for one in found["symbols"]
    )
    assert "names no build" in built.fails("size", "--against=nothing-like-it")
    for same in ("fake", "build/fake", "build/fake/images/vmlinux", "build/fake/kernel/6.1"):
        assert "up/down: 0/0 (0)" in built.doit("size", f"--against={same}").text
    assert "there is no vmlinux in build" in built.fails("size", "--against=build")
    for other in ("/bin/sh", "build/fake/images/busybox", "build/fake/kernel/6.1/init/main.o"):
        assert "is no vmlinux with its symbols" in built.fails("size", f"--against={other}")


def test_an_earlier_vmlinux_of_the_store_can_be_compared_with(built: Playground) -> None:
    built.store_size = "1G"
    built.append(built.linux / "kernel" / "panic.c", "int piggy = 1;\n")
    built.doit()
    built.append(built.linux / "kernel" / "panic.c", "int piggies[8] = {1};\n")
    built.doit()
    said = built.doit("size", "--against", "store").text
    line = next(line for line in said.splitlines() if line.startswith("piggies "))
    assert line.split()[1:4] == ["-", "32", "+32"]
    assert "its configuration is not known" in said
    assert "has 1 earlier vmlinux\n" in built.fails("size", "--against", "store:2")


def test_a_vmlinux_from_the_store_is_told_by_names_where_the_folder_has_another_state(
    built: Playground,
) -> None:
    built.store_size = "1G"
    source = built.linux / "kernel" / "panic.c"
    before = source.read_text()
    built.append(source, "int piggy = 1;\n")
    built.doit()
    source.write_text(before + "int piggies[8] = {1};\n")
    built.doit()
    source.write_text(before + "int piggy = 1;\n")
    built.doit()  # from the store
    found = sizes(built)
    assert "has another state" in found["notes"][0]
    assert sum(row["size"] for row in found["raw"]["rows"]) == found["files"]["Image"]
    assert next(row for row in found["raw"]["rows"] if row["name"] == "panic")["object"] == (
        "kernel/panic.o"
    )


def test_a_commit_that_was_measured_can_be_compared_with(built: Playground) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@invalid"]
        return subprocess.run(
            ["git", *identity, *words], cwd=built.top, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    git("commit", "-qm", "nothing", "--allow-empty")
    git("add", "configs")
    git("commit", "-qm", "first")
    built.doit("size")
    built.append("configs/kernel/fake-serial.config", "CONFIG_LOG_BUF_SHIFT=15\n")
    built.doit()
    built.doit("size")  # not as committed: it is not the commit's
    assert "  CONFIG_LOG_BUF_SHIFT: 14 -> 15\n" in built.doit("size", "--against", "HEAD").text
    git("commit", "-qam", "second")
    assert "CONFIG_LOG_BUF_SHIFT" not in built.doit("size", "--against", "HEAD").text
    assert "  CONFIG_LOG_BUF_SHIFT: 14 -> 15\n" in built.doit("size", "--against", "HEAD~").text
    assert (
        "has no build/pc/images/vmlinux" in built.doit("size", "--against", "pc", status=125).text
    )


def test_the_history_has_the_sizes_of_each_build_and_what_changed(built: Playground) -> None:
    def flipped(old: str, new: str) -> int:
        built.edit("configs/kernel/fake-serial.config", f"_SHIFT={old}", f"_SHIFT={new}")
        built.doit()
        return (built.images / "vmlinux").stat().st_size

    built.store_size = "1G"
    built.append("configs/kernel/fake-serial.config", "CONFIG_LOG_BUF_SHIFT=14\n")
    before = (built.images / "vmlinux").stat().st_size
    after, more = flipped("14", "15"), flipped("15", "16")
    assert flipped("16", "15") == after  # from the store
    first, *rest = built.doit("size", "--history").text.splitlines()[1:]
    assert first.split()[2] == f"{before:,}"
    assert [line.split()[2] for line in rest] == [f"{size:,}" for size in (after, more, after)]
    assert "CONFIG_LOG_BUF_SHIFT 14 -> 15 (configs/kernel/fake-serial.config:4)" in rest[0]
    last = sizes(built, "--history")["history"][-1]
    assert last["sizes"]["vmlinux"] == after
    assert last["changes"][0]["after"] == "15"


def test_git_bisect_finds_the_commit_that_grew(built: Playground, tmp_path: Path) -> None:
    """In a checkout of the user's own; a commit that does not compile is skipped."""
    tree = tmp_path / "linux"
    subprocess.run(["cp", "-a", built.linux.resolve(), tree], check=True)
    (tree / ".piggyback-source").unlink()

    def git(*words: str) -> str:
        author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", *author, *words],
            cwd=tree,
            env=built.environ(PIGGYBACK_KERNEL_SRC=str(tree)),
            text=True,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ).stdout

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "as it was")
    for subject, text in (
        ("one", "int one = 1;"),
        ("two", "int two = 1;"),
        ("no C", "int ("),
        ("three", "int three = 1;"),
        ("a table", "int four[4096] = { 1 };"),
        ("five", "int five = 1;"),
    ):
        panic = tree / "kernel" / "panic.c"
        before = panic.read_text().replace("int (", "")
        panic.write_text(f"{before}{text}\n")
        git("commit", "-q", "-a", "-m", subject)
    most = (built.images / "Image").stat().st_size + 8192
    git("bisect", "start", "HEAD", "HEAD~6")
    size = f"doit bzImage || exit 125; doit size --limit=Image={most}"
    said = git("bisect", "run", "sh", "-c", f"cd {built.top} && {{ {size}; }}")
    assert re.search("is the first bad commit(?s:.*)^    a table$", said, re.MULTILINE), said
    assert re.search("panic.c:.* error: ", said)


def test_the_files_of_the_root_filesystem_are_compared(built: Playground) -> None:
    shutil.copytree(built.here, built.here.with_name("before"), symlinks=True)
    (built.top / "overlays" / "fake" / "piggy").write_bytes(b"p" * 777)
    for words in (["rootfs", "--against=fake"], ["rootfs"], ["--json"], [], ["--limit=rootfs=9M"]):
        assert "rootfs is not up to date" in built.doit("size", *words).text, words
    assert "is not up to date" not in built.doit("size", "kernel", "bzImage").text
    built.doit()
    said = built.doit("size", "rootfs", "--against=build/before").text
    line = next(line for line in said.splitlines() if line.startswith("piggy "))
    assert line.split() == ["piggy", "-", "777", "+777"]
    assert said.splitlines()[0] == "add/remove: 1/0 grow/shrink: 0/0 up/down: 777/0 (777)"
    found = sizes(built, "--against=build/before")["against"]["others"]["rootfs"]
    assert (
        sum((one["new"] or 0) - (one["old"] or 0) for one in found["symbols"] + found["rest"])
        == (built.images / "rootfs.ext2").stat().st_size
        - (built.here.with_name("before") / "images" / "rootfs.ext2").stat().st_size
    )
    vmlinux = built.fails("size", "rootfs", "--against=build/before/images/vmlinux")
    assert "build/before/images/vmlinux has no rootfs" in vmlinux
    assert "names no build" in built.fails("size", "busybox", "--against=nothing-like-it")
    assert "and not about 'kernel'" in built.fails("size", "kernel", "--against=fake")
    assert "busybox_unstripped.map" in built.fails("size", "applets", "--against=fake")
