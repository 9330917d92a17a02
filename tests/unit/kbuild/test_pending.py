"""Which objects come next, and how long that takes, by records alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cmd_files import fixdep, put

from tasks.cache.digests import Stamps
from tasks.graph.history import Work
from tasks.kbuild import ledger, manifest, seconds, trace
from tasks.kbuild.pending import Pending
from tasks.system import crowd

AUTO = "CONFIG_64BIT=y\nCONFIG_NAME=a b\n"
CONFIG = {"64BIT": "y", "NAME": '"a b"', "OFF": "n"}
OBJECTS = {"kernel/a.o": ["a.c", "one.h"], "kernel/b.o": ["b.c", "one.h", "two.h"]}


class Box:
    """A tree, and an object folder as make left it a minute ago."""

    def __init__(self, top: Path) -> None:
        self.tree, self.obj, self.stamps = top / "tree", top / "obj", Stamps(top / "stamps")
        ago = time.time_ns() - 60 * 1_000_000_000
        put(self.tree / "kernel" / "Makefile", "obj-$(CONFIG_NEW) += new.o\n")
        for name in ("a.c", "b.c", "one.h", "two.h", "new.c"):
            put(self.tree / "kernel" / name, when=ago - 1)
        put(self.obj / "include/config/auto.conf", AUTO, when=ago - 1)
        with ledger.kept(self.obj, self.tree, self.stamps):
            for target, names in OBJECTS.items():
                put(self.obj / target, when=ago)
                full = [str(self.tree / "kernel" / name) for name in names]
                symbols = ("SMP",) if target == "kernel/a.o" else ("64BIT",)
                put(Path(trace.record_of(self.obj, target)), fixdep(target, *full, symbols=symbols))
        edges = {**dict.fromkeys(OBJECTS, list[str]()), "vmlinux": [*OBJECTS]}
        trace.write(self.obj, trace.Trace({"vmlinux": trace.Said({}, edges)}))
        manifest.keep(self.obj)

    def edit(self, name: str, old: bool = False) -> None:
        path = self.tree / "kernel" / name
        when = path.stat().st_mtime_ns
        path.write_text("edited")
        if old:
            os.utime(path, ns=(when, when))

    def of(self, **more: str) -> list[str]:
        return self.pending(**more).of("vmlinux")

    def pending(self, **more: str) -> Pending:
        return Pending(self.tree, self.obj, self.stamps, {**CONFIG, **more}, None)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_nothing(box: Box) -> None:
    assert box.of() == []
    assert box.pending().of("bzImage") == []


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("name", "objects"),
    [("a.c", ["kernel/a.o"]), ("two.h", ["kernel/b.o"]), ("one.h", ["kernel/a.o", "kernel/b.o"])],
)
def test_an_edit(box: Box, name: str, objects: list[str], old: bool) -> None:
    box.edit(name, old)
    assert box.of() == objects


def test_a_symbol_that_one_object_reads(box: Box) -> None:
    assert box.of(SMP="y") == ["kernel/a.o"]
    assert box.of(**{"64BIT": "n"}) == ["kernel/b.o"]
    assert box.of(OTHER="y") == []


def test_an_object_that_comes_with_a_symbol(box: Box) -> None:
    assert box.of(NEW="y") == ["kernel/new.o"]


def test_other_flags(box: Box) -> None:
    put(box.tree / "kernel" / "Makefile", "CFLAGS_b.o := -O$(CONFIG_LEVEL)\n")
    assert box.of(LEVEL="2") == ["kernel/b.o"]
    put(box.tree / "Makefile", "ifdef CONFIG_LEVEL\nKBUILD_CFLAGS += -O\nendif\n")
    assert box.of(LEVEL="2") == ["kernel/a.o", "kernel/b.o"]


def test_objects_after_a_make_that_failed(box: Box) -> None:
    for target in ("arch/x86/boot/main.o", "scripts/mod/file.o"):
        put(box.obj / target, when=1)
        put(Path(trace.record_of(box.obj, target)), fixdep(target, str(box.tree / "kernel/a.c")))
    trace.write(box.obj, trace.Trace())
    box.edit("one.h")
    assert box.of() == [*OBJECTS]
    assert box.pending().of("bzImage") == []


def test_an_object_that_is_gone(box: Box) -> None:
    (box.obj / "kernel/a.o").unlink()
    assert box.of() == ["kernel/a.o"]


def test_an_object_that_was_never_measured_costs_by_the_files_that_it_reads(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "at_start", lambda: 1.0)
    names = [str(box.tree / "kernel" / f"{number}.h") for number in range(200)]
    for target, count, took in (("kernel/c.o", 50, 0.5), ("kernel/d.o", 150, 1.5)):
        put(Path(trace.record_of(box.obj, target)), fixdep(target, *names[:count]))
        seconds.learn(box.obj, {target: took}, Work())
    put(Path(trace.record_of(box.obj, "kernel/e.o")), fixdep("kernel/e.o", *names[:100]))
    pending = box.pending()
    assert pending.cost("kernel/d.o") == pytest.approx(1.5, rel=0.3)
    assert pending.cost("kernel/e.o") == pytest.approx(1.0, rel=0.3)
    assert pending.cost("kernel/none.o") == pytest.approx(1.0, rel=0.3)
