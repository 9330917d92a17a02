from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tasks.cache.digests import Stamps
from tasks.kbuild import ledger
from tasks.kbuild.depfiles import Depfiles

OLD = 1_700_000_000


class Folder:
    """A tree with two sources and a header, an object folder with two objects, and what the ledger
    says of them."""

    def __init__(self, top: Path) -> None:
        self.obj, self.src, self.stamps = top / "obj", top / "src", Stamps(top / "stamps")
        self.obj.mkdir()
        self.src.mkdir()
        for name in ("a.c", "b.c", "x.h"):
            self.write(name, name)
        for name in ("a", "b"):
            (self.obj / f"{name}.o").write_text(name)
            (self.obj / f".{name}.o.cmd").write_text(
                f"cmd_{name}.o := cc\n\nsource_{name}.o := {self.src}/{name}.c\n\ndeps_{name}.o :="
                f" \\\n  {self.src}/x.h \\\n\n{name}.o: $(deps_{name}.o)\n\n$(deps_{name}.o):\n"
            )
        with ledger.kept(self.obj, self.src, self.stamps):
            pass
        self.settle()

    def write(self, name: str, text: str, when: int = OLD) -> None:
        (self.src / name).write_text(text)
        os.utime(self.src / name, (when, when))

    def settle(self) -> None:
        """Let the clock of the file system go on, so that what was written counts as written
        before."""
        time.sleep(0.06)

    def digests(self) -> dict[str, str]:
        return {Path(name).name: digest for name, digest in ledger._read(self.obj).digests.items()}

    def depfiles(self, *names: str) -> Depfiles:
        return Depfiles(
            self.obj, self.src, [f"{self.obj}/.{name}.o.cmd" for name in names] if names else None
        )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def record(folder: Folder, name: str) -> str:
    return f"{folder.obj}/.{name}.o.cmd"


def test_a_source_that_was_put_back_takes_its_objects_away(folder: Folder) -> None:
    folder.write("a.c", "other")
    made = [record(folder, "a")]
    with ledger.renewed(folder.obj, folder.stamps, folder.depfiles(), made) as possible:
        assert possible
        assert not (folder.obj / "a.o").exists()
        assert (folder.obj / "b.o").exists()
        assert not ledger.trusted(folder.obj)
    assert ledger.trusted(folder.obj)
    assert folder.digests()["a.c"] == folder.stamps.digest(folder.src / "a.c")


def test_nothing_is_written_where_nothing_changed(folder: Folder) -> None:
    before = (folder.obj / ledger.FILE).stat().st_mtime_ns
    with ledger.renewed(
        folder.obj, folder.stamps, folder.depfiles("a"), [record(folder, "a")]
    ) as possible:
        assert possible
        assert ledger.trusted(folder.obj)
    assert (folder.obj / ledger.FILE).stat().st_mtime_ns == before


def test_a_change_wants_all_records(folder: Folder) -> None:
    folder.write("x.h", "other")
    with ledger.renewed(folder.obj, folder.stamps, folder.depfiles("a"), []) as possible:
        assert not possible
    assert (folder.obj / "b.o").exists()


def test_an_edit_meanwhile_leaves_a_doubt(folder: Folder) -> None:
    folder.write("a.c", "one", OLD + 1)
    made = [record(folder, "a")]
    with ledger.renewed(folder.obj, folder.stamps, folder.depfiles(), made):
        folder.settle()
        folder.write("a.c", "two", OLD + 2)
        folder.write("b.c", "two", OLD + 2)  # of which nothing was made
    assert folder.digests()["a.c"] == ledger.UNSURE
    assert folder.digests()["b.c"] not in (ledger.UNSURE, folder.stamps.digest(folder.src / "b.c"))


def test_a_body_that_fails_is_not_trusted(folder: Folder) -> None:
    folder.write("a.c", "one", OLD + 1)
    with (
        pytest.raises(ZeroDivisionError),
        ledger.renewed(folder.obj, folder.stamps, folder.depfiles(), []),
    ):
        raise ZeroDivisionError
    assert not ledger.trusted(folder.obj)


def test_a_clock_that_was_set_back_is_not_trusted(folder: Folder) -> None:
    assert ledger.trusted(folder.obj)
    ahead = time.time() + 3600
    os.utime(folder.obj / ledger.CLOCK, (ahead, ahead))
    assert not ledger.trusted(folder.obj)


def test_records_one_by_one(folder: Folder) -> None:
    part, whole = folder.depfiles("b"), folder.depfiles()
    assert set(part.records) == {record(folder, "b")}
    assert part.given() == {f"{folder.src}/b.c", f"{folder.src}/x.h"}
    assert whole.naming({f"{folder.src}/x.h"}).keys() == {record(folder, "a"), record(folder, "b")}
    text = Path(record(folder, "b")).read_text()
    Path(record(folder, "b")).write_text(
        text.replace(f"  {folder.src}/x.h", f"  {folder.src}/a.c \\\n  gen/y.h")
    )
    part.refresh([record(folder, "b")])
    assert part.given() == {f"{folder.src}/b.c", f"{folder.src}/a.c"}
    assert part.made(record(folder, "b")) == ["gen/y.h"]
    part.save()
    assert folder.depfiles().given() == {f"{folder.src}/{name}" for name in ("a.c", "b.c", "x.h")}


def test_a_new_header_that_will_be_found_first_takes_objects_away(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / "src" / name / "include" / "linux").mkdir(parents=True)
        (tmp_path / "src" / name / "include" / "asm-generic").mkdir()
    (tmp_path / "src" / "second" / "include" / "linux" / "x.h").write_text("1")
    (tmp_path / "src" / "first" / "include" / "linux" / "y.h").write_text("1")
    (tmp_path / "src" / "first" / "include" / "asm-generic" / "c.h").write_text("1")
    obj, src, stamps = tmp_path / "obj", tmp_path / "src", Stamps(tmp_path / "stamps")
    obj.mkdir()
    for name, header in (
        ("a", "second/include/linux/x.h"),
        ("b", "first/include/linux/y.h"),
        ("c", "first/include/asm-generic/c.h"),
    ):
        (obj / f"{name}.o").write_text(name)
        (obj / f".{name}.o.cmd").write_text(
            f"cmd_{name}.o := cc\n\nsource_{name}.o := {src}/{header}\n\n"
            f"deps_{name}.o := \\\n\n{name}.o: $(deps_{name}.o)\n"
        )

    def objects() -> list[str]:
        with ledger.kept(obj, src, stamps):
            return sorted(path.name for path in obj.glob("*.o"))

    assert objects() == ["a.o", "b.o", "c.o"]
    time.sleep(0.06)
    (src / "first" / "include" / "linux" / "z.h").write_text("nobody has it")
    (src / "first" / "x.h").write_text("never asked for so")
    assert objects() == ["a.o", "b.o", "c.o"]
    time.sleep(0.06)
    (src / "first" / "include" / "linux" / "x.h").write_text("2")
    assert objects() == ["b.o", "c.o"]
    time.sleep(0.06)
    (src / "first" / "include" / "asm").mkdir()
    (src / "first" / "include" / "asm" / "c.h").write_text("2")
    assert objects() == ["b.o"]


BESIDE = ("new", "moved", "link", "in a folder that was there", "the folder of -I")


@pytest.mark.parametrize("way", BESIDE)
def test_a_new_folder_with_a_header_that_will_be_found_first(tmp_path: Path, way: str) -> None:
    """kernel/sub/a.h has #include "zz/z.h", found in include/ until kernel/sub/zz/ comes.

    Likewise <zz/z.h>, until the folder of -I before include/ comes.
    """
    src, obj, stamps = tmp_path / "src", tmp_path / "obj", Stamps(tmp_path / "stamps")
    for name in ("include/zz/z.h", "kernel/sub/a.h", "lib/b.h"):
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        (src / name).write_text("1")
    (tmp_path / "elsewhere" / "zz").mkdir(parents=True)
    (tmp_path / "elsewhere" / "zz" / "z.h").write_text("2")
    obj.mkdir()
    if way == "in a folder that was there":
        (src / "kernel/sub/zz").mkdir()
    for target, names in (("a", ("include/zz/z.h", "kernel/sub/a.h")), ("b", ("lib/b.h",))):
        (obj / f"{target}.o").write_text(target)
        deps = "".join(f"  {src / name} \\\n" for name in names)
        (obj / f".{target}.o.cmd").write_text(
            f"cmd_{target}.o := gcc -I{src}/drivers/first -I{src}/include -c -o {target}.o\n\n"
            f"source_{target}.o := {src / names[0]}\n\n"
            f"deps_{target}.o := \\\n{deps}\n{target}.o: $(deps_{target}.o)\n"
        )

    def objects() -> list[str]:
        with ledger.kept(obj, src, stamps):
            return sorted(path.name for path in obj.glob("*.o"))

    assert objects() == ["a.o", "b.o"]
    before = {path: stamps.digest(path) for path in Depfiles(obj, src).inputs(0)}
    time.sleep(0.06)
    (src / "lib/new").mkdir()
    (src / "lib/new/y.h").write_text("of no use")
    assert objects() == ["a.o", "b.o"]
    time.sleep(0.06)
    if way == "moved":
        (tmp_path / "elsewhere" / "zz").rename(src / "kernel/sub/zz")
    elif way == "link":
        (src / "kernel/sub/zz").symlink_to(tmp_path / "elsewhere" / "zz")
    else:
        new = src / ("drivers/first/zz" if way == "the folder of -I" else "kernel/sub/zz")
        new.mkdir(parents=True, exist_ok=True)
        (new / "z.h").write_text("2")
    changed = [path for path, digest in before.items() if stamps.digest(path) != digest]
    assert [path for path in changed if "/lib/" not in path]  # the task is stale
    assert objects() == ["b.o"]
