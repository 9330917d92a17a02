"""Commands that are begun early: taken only if nothing could make a difference."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.kbuild.saved import Saved, unescaped
from tasks.kbuild.trace import Said, Trace
from tasks.shortway import early
from tasks.shortway.early import Early
from tasks.system.jobserver import Budget
from tasks.system.process import stop

CC = """#!/bin/sh
# cc -Wp,-MMD,DEPFILE -c -o OBJECT SOURCE
depfile=${1#-Wp,-MMD,}
echo "$(cat "$5" header.h) $COLOUR" >"$4"
printf '%s: \\\\\\n %s header.h\\n' "$4" "$5" >"$depfile"
echo "compiled $5"
[ ! -e slow ] || sleep 60
[ ! -e broken ]
"""
TEXT = "cc -Wp,-MMD,.a.o.d -c -o a.o {source}"
LOADER = "arch/x86/boot/compressed"


class Box:
    """An object folder with a compiler, and a source that is a minute old."""

    def __init__(self, top: Path, jobs: int = 2) -> None:
        self.obj, self.source = top / "obj", top / "a.c"
        (self.obj / LOADER).mkdir(parents=True)
        (top / "bin").mkdir()
        (top / "bin/cc").write_text(CC)
        (top / "bin/cc").chmod(0o755)
        self.env = {"PATH": f"{top}/bin:{os.environ['PATH']}", "COLOUR": "red"}
        for path in (self.source, self.obj / "header.h", top / "other.c"):
            path.write_text(path.name)
        time.sleep(0.03)  # a change in the tick in which it begins counts
        self.jobs = Budget(jobs)
        self.early = Early(self.obj, self.jobs)

    def command(self, text: str = TEXT, target: str = "a.o") -> Saved:
        text = text.format(source=self.source)
        return Saved(target, f"cmd_{target} :=", text, unescaped(text), True, str(self.source))

    def left(self) -> list[str]:
        folder = self.obj / early.FOLDER
        return os.listdir(folder) if folder.exists() else []

    def free(self) -> int:
        """The number of tokens that nobody holds; each begun command has ended."""
        claimed = []
        for _ in range(50):
            while give_back := self.jobs.claim():
                claimed.append(give_back)
            if len(claimed) == self.jobs.size:
                break
            time.sleep(0.1)
        for give_back in claimed:
            give_back()
        return len(claimed)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_compilation_is_taken(box: Box) -> None:
    box.early.compile(box.command(), box.env)
    assert not (box.obj / "a.o").exists()
    result = box.early.take(box.command(), box.env)
    assert result
    assert result.output == f"compiled {box.source}\n"
    assert (box.obj / "a.o").read_text() == "a.cheader.h red\n"
    assert "header.h" in (box.obj / ".a.o.d").read_text()
    assert box.left() == []
    assert box.free() == 2
    assert box.early.take(box.command(), box.env) is None  # once


def later(path: Path) -> None:
    """A file that is replaced by one with the old time."""
    when = path.stat().st_mtime_ns
    path.write_text("other")
    os.utime(path, ns=(when, when))


def turn(path: Path) -> None:
    """A link to an old file in the place of a file."""
    path.unlink()
    path.symlink_to("other.c")


@pytest.mark.parametrize(
    "change",
    [
        lambda box: turn(box.source),
        lambda box: box.source.write_text("edited"),
        lambda box: (box.obj / "header.h").write_text("edited"),
        lambda box: later(box.source),
        lambda box: (box.obj / "header.h").unlink(),
        lambda box: box.env.update(COLOUR="blue"),
    ],
)
def test_a_change_meanwhile(box: Box, change: Callable[[Box], object]) -> None:
    box.early.compile(box.command(), box.env)
    time.sleep(0.3)
    change(box)
    assert box.early.take(box.command(), box.env) is None
    assert not (box.obj / "a.o").exists()
    assert box.left() == []


def test_a_change_right_before(box: Box) -> None:
    """File times step by a jiffy: what changed in the one of the beginning may be of before."""
    box.source.write_text("edited")
    box.early.compile(box.command(), box.env)
    assert box.early.take(box.command(), box.env) is None


def test_a_file_that_only_make_knows(box: Box) -> None:
    (box.obj / "blob").write_text("one")
    box.early.compile(box.command(), box.env, ["blob"])
    (box.obj / "blob").write_text("another")
    assert box.early.take(box.command(), box.env) is None
    box.early.compile(box.command(), box.env, ["blob"])
    assert box.early.take(box.command(), box.env)
    box.early.compile(box.command(), box.env, ["missing"])
    assert box.early.take(box.command(), box.env) is None
    assert box.free() == 2


def test_in_another_thread_nothing_begins(box: Box) -> None:
    """The child would end with that thread."""
    thread = threading.Thread(target=box.early.compile, args=[box.command(), box.env])
    thread.start()
    thread.join()
    assert box.left() == []


def test_an_interrupt_while_it_is_waited_for(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    (box.obj / "slow").touch()
    box.early.compile(box.command(), box.env)
    (begun,) = box.early._begun.values()
    process = begun.process

    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "wait", interrupted)
    monkeypatch.setattr(begun.ends, "close", lambda: (monkeypatch.undo(), stop(process)))
    with pytest.raises(KeyboardInterrupt):
        box.early.take(box.command(), box.env)
    assert box.left() == []
    assert box.free() == 2


def test_a_disk_without_hard_links(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*names: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", refused)
    strip, _ = compress(box)
    assert box.early.take(strip, box.env) is None


def test_another_command(box: Box) -> None:
    box.early.compile(box.command(), box.env)
    assert box.early.take(box.command(TEXT.replace("-c", "-O2 -c")), box.env) is None
    assert box.left() == []


def test_an_error_is_left_to_the_command_itself(box: Box) -> None:
    (box.obj / "broken").touch()
    box.early.compile(box.command(), box.env)
    assert box.early.take(box.command(), box.env) is None
    assert not (box.obj / "a.o").exists()


def test_drop_ends_what_runs(box: Box) -> None:
    (box.obj / "slow").touch()
    box.early.compile(box.command(), box.env)
    started = time.monotonic()
    box.early.drop()
    assert time.monotonic() - started < 30
    assert box.early.take(box.command(), box.env) is None
    assert box.left() == []
    assert box.free() == 2


@pytest.mark.parametrize(
    "text",
    [
        "cc -Wp,-MMD,.a.o.d -gsplit-dwarf -c -o a.o {source}",
        "cc -Wp,-MMD,.a.o.d --coverage -c -o a.o {source}",
        "cc -Wp,-MMD,.a.o.d -fstack-usage -c -o a.o {source}",
        "cc -c -o a.o {source}",
        "cc -Wp,-MMD,.a.o.d -c -o ./a.o {source}",
        "cc -Wp,-MMD,.a.o.d -c -o a.o {source}; mv a.o.tmp a.o",
    ],
)
def test_other_forms_are_not_begun(box: Box, text: str) -> None:
    box.early.compile(box.command(text), box.env)
    assert box.left() == []


def test_nothing_begins_without_a_free_token(box: Box, tmp_path: Path) -> None:
    held = [box.jobs.claim(), box.jobs.claim()]
    box.early.compile(box.command(), box.env)
    assert box.left() == []
    for give_back in held:
        assert give_back
        give_back()
    box.early.compile(box.command(), box.env)
    assert box.left()
    box.early.drop()


def test_one_processor_has_no_time_for_it(tmp_path: Path) -> None:
    box = Box(tmp_path, jobs=1)
    box.early.compile(box.command(), box.env)
    assert box.left() == []


STRIP = f"objcopy -S vmlinux {LOADER}/vmlinux.bin"
PACK = (
    rf"{{ cat {LOADER}/vmlinux.bin | rev; printf \\001\\002\\003\\004; }} > {LOADER}/vmlinux.bin.xz"
)
PACK_NOW = PACK.replace(r"\\001\\002\\003\\004", r"\\006\\000\\000\\000")


def compress(box: Box) -> tuple[Saved, Saved]:
    (box.obj.parent / "bin/objcopy").write_text('#!/bin/sh\ncut -c 1-5 "$2" >"$3"\n')
    (box.obj.parent / "bin/objcopy").chmod(0o755)
    (box.obj / "vmlinux").write_text("kernel!\n")
    strip = Saved(f"{LOADER}/vmlinux.bin", "cmd_x :=", STRIP, STRIP)
    pack = Saved(f"{LOADER}/vmlinux.bin.xz", "cmd_x :=", PACK, PACK)
    box.early.compress([(strip, box.env), (pack, {**box.env, "COLOUR": "blue"})])
    return strip, Saved(pack.target, pack.key, PACK_NOW, PACK_NOW)


def test_the_compressor_has_begun(box: Box) -> None:
    strip, pack = compress(box)
    box.early.drop(later=False)  # a task ends
    assert box.early.take(strip, box.env)
    assert (box.obj / strip.target).read_text() == "kerne\n"
    assert box.early.take(pack, {**box.env, "COLOUR": "blue"})
    assert (box.obj / pack.target).read_bytes() == b"enrek\n\6\0\0\0"
    assert box.left() == []


def test_another_kernel_is_compressed_anew(box: Box) -> None:
    strip, pack = compress(box)
    (box.obj / "vmlinux").write_text("another\n")
    assert box.early.take(strip, box.env) is None
    (box.obj / strip.target).write_text("anoth\n")
    assert box.early.take(pack, {**box.env, "COLOUR": "blue"}) is None


def test_what_a_killed_run_left_goes(box: Box) -> None:
    (box.obj / early.FOLDER).mkdir()
    (box.obj / early.FOLDER / "9-z.o").touch()
    box.early.compile(box.command(), box.env)
    assert box.early.take(box.command(), box.env)
    assert box.left() == []


def test_the_links_to_the_compressed_kernel(tmp_path: Path) -> None:
    (tmp_path / LOADER).mkdir(parents=True)
    for name, text in (("vmlinux.bin", STRIP), ("vmlinux.bin.xz", PACK)):
        record = tmp_path / LOADER / f".{name}.cmd"
        record.write_text(f"cmd_{LOADER}/{name} := {text}\n")
    image, packed = f"{LOADER}/vmlinux.bin", f"{LOADER}/vmlinux.bin.xz"
    goals = {
        "Image": Said({"A": "1"}, {image: ["vmlinux", "/src/script"]}),
        "piggy.gz": Said({"A": "2"}, {packed: [image]}),
    }
    links = [("Image", image), ("piggy.gz", packed)]
    found = early.commands_of(tmp_path, Trace(goals), "vmlinux", links)
    assert [command.text for command, _ in found] == [STRIP, PACK]
    assert [env["A"] for _, env in found] == ["1", "2"]
    goals["piggy.gz"].edges[packed].append(f"{LOADER}/vmlinux.relocs")
    assert early.commands_of(tmp_path, Trace(goals), "vmlinux", links) == []


def test_the_object_of_a_source(tmp_path: Path) -> None:
    tree, obj = tmp_path / "tree", tmp_path / "obj"
    (tree / "kernel").mkdir(parents=True)
    (obj / "kernel").mkdir(parents=True)
    source = tree / "kernel/a.c"
    source.touch()
    lists = f"\nsource_kernel/a.o := {source}\n\ndeps_kernel/a.o := \\\n\nkernel/a.o: "
    lists += "$(deps_kernel/a.o)\n\n$(deps_kernel/a.o):\n"
    (obj / "kernel/.a.o.cmd").write_text(f"cmd_kernel/a.o := cc -c -o kernel/a.o\n{lists}")
    found = early.object_of(obj, str(source), str(tree))
    assert found
    assert found.target == "kernel/a.o"
    assert early.object_of(obj, str(tree / "kernel/b.c"), str(tree)) is None
    assert early.object_of(obj, str(tree / "kernel/a.h"), str(tree)) is None
    assert early.object_of(obj, str(tmp_path / "other/a.c"), str(tree)) is None
