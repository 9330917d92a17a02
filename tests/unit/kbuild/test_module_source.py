from __future__ import annotations

from pathlib import Path

import pytest

from tasks.kbuild import module_source
from tasks.system.errors import PiggyError


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A module, and what lies around it."""
    project = tmp_path / "project"
    put(project / "mod" / "Kbuild", "obj-m := mod.o\n")
    put(
        project / "mod" / "mod.c",
        '/* see above.. and so on */\nint f(int, ...);\n#include "mod.h"\n',
    )
    put(project / "mod" / "mod.h")
    for name in ("mod.o", ".mod.o.cmd", "mod.ko", "Module.symvers"):
        put(project / "mod" / name)
    put(project / "common" / "common.h")
    put(project / "common" / "part.c", '#include "part.h"\n')
    put(project / "common" / "part.h")
    put(project / "common" / "part.o")
    put(project / "common" / "deep" / "deep.h")
    put(project / "unrelated" / "x.c")
    return project / "mod"


def test_a_folder_of_its_own(top: Path, tmp_path: Path) -> None:
    assert sorted(module_source.files(top)) == ["Kbuild", "mod.c", "mod.h"]
    work = module_source.copy(module_source.files(top), "mod", tmp_path / "copy")
    assert work == tmp_path / "copy" / "mod"
    assert sorted(path.name for path in work.iterdir()) == ["Kbuild", "mod.c", "mod.h"]


ALL = ["../common/common.h", "../common/deep/deep.h", "../common/part.c", "../common/part.h"]
BESIDE = ["../common/common.h", "../common/part.c", "../common/part.h"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ccflags-y := -I$(src)/../common", ALL),
        ("ccflags-y := -I$(src)/../common/", ALL),
        ("ccflags-y := -I$(M)/../common -DX", ALL),
        ("ccflags-y := -I../common", ALL),
        ("COMMON = ../common\nccflags-y := -I$(src)/$(COMMON)", ALL),
        ("ccflags-y := -I$(src)/sub/../../common/deep", ["../common/deep/deep.h"]),
        ("mod-y := a.o ../common/part.o", BESIDE),
        ("ccflags-y := -I$(src)/../../project/common", ALL),
        ("ccflags-y := -include ../common/common.h", BESIDE),
        ("include $(src)/../common/part.h", BESIDE),
        ("# as in ../common", []),
        ("ccflags-y := -I$(src)/../nowhere", []),
        ("x := a..b ... common..", []),
    ],
)
def test_what_a_makefile_names_above(top: Path, line: str, found: list[str]) -> None:
    put(top / "Kbuild", f"obj-m := mod.o\n{line}\n")
    assert [name for name in module_source.files(top) if name.startswith("..")] == found


def test_what_a_source_includes_from_above(top: Path, tmp_path: Path) -> None:
    put(top / "sub" / "x.c", '#include "../../common/common.h"\n')
    put(top.parent / "common" / "common.h", '#include "../more/more.h"\n')
    put(top.parent / "more" / "more.h")
    found = module_source.files(top)
    assert [name for name in found if name.startswith("..")] == [*BESIDE, "../more/more.h"]
    work = module_source.copy(found, "mod", tmp_path / "copy")
    assert (work / "sub" / "../../common/common.h").read_text() == '#include "../more/more.h"\n'
    assert (work.parent / "more" / "more.h").is_file()
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["above1"]


def test_links_are_followed_and_nothing_is_a_link_in_the_copy(top: Path, tmp_path: Path) -> None:
    (top / "sub").symlink_to("../common")
    (top / "loop").symlink_to(".")
    (top / "again").mkdir()
    (top / "again" / "up").symlink_to("..")
    (top / "file.h").symlink_to("../common/part.h")
    (top / "dangling.h").symlink_to("nowhere")
    found = module_source.files(top)
    assert sorted(found) == [
        "Kbuild",
        "file.h",
        "mod.c",
        "mod.h",
        "sub/common.h",
        "sub/deep/deep.h",
        "sub/part.c",
        "sub/part.h",
    ]
    work = module_source.copy(found, "mod", tmp_path / "copy")
    assert not any(path.is_symlink() for path in (tmp_path / "copy").rglob("*"))
    (work / "sub" / "part.c").write_text("changed")
    assert (top / "sub" / "part.c").read_text() == '#include "part.h"\n'


def test_all_that_is_above_may_be_too_much(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(top / "Kbuild", "ccflags-y := -I$(src)/..\n")
    assert "../unrelated/x.c" in module_source.files(top)
    monkeypatch.setattr(module_source, "MOST", 3)
    with pytest.raises(
        PiggyError, match="Kbuild names .*/project, which has more than 3 files"
    ) as error:
        module_source.files(top)
    assert "../common" in error.value.hint


@pytest.mark.parametrize("name", ["my module", "a:b", "x%y", "a$b"])
def test_a_name_that_make_can_not_work_with(name: str) -> None:
    with pytest.raises(PiggyError, match="in the name"):
        module_source.check_name(Path("/x") / name, "command line: src=x")
    module_source.check_name(Path("/x y") / "module-1.0_a+b", "command line")
