from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tasks.buildroot import tree
from tasks.buildroot.tree import Download, Facts

FAKE = Path(__file__).parents[2] / "support" / "fake" / "buildroot"


def facts(*downloads: Download, packages: dict[str, str] | None = None) -> Facts:
    return Facts("2026.02.3", "odd-linux", packages or {}, {}, list(downloads), {})


def test_the_command(tmp_path: Path) -> None:
    assert tree.argv(tmp_path, Path("/o"), ["all"], {"BR2_JLEVEL": "2"}) == [
        "make",
        "-C",
        str(tmp_path),
        "O=/o",
        "--no-print-directory",
        "BR2_JLEVEL=2",
        "all",
    ]


def test_what_is_missing(tmp_path: Path) -> None:
    found = facts(
        Download("gcc-final", "gcc/gcc.tar"),
        Download("host-gcc", "gcc/gcc.tar"),
        Download("m4", "m4/m4.tar"),
    )
    assert tree.missing(found, tmp_path) == [
        Download("gcc-final", "gcc/gcc.tar"),
        Download("m4", "m4/m4.tar"),
    ]
    (tmp_path / "gcc").mkdir()
    (tmp_path / "gcc" / "gcc.tar").touch()
    assert tree.missing(found, tmp_path) == [Download("m4", "m4/m4.tar")]


def test_the_files_that_count(tmp_path: Path) -> None:
    source = tmp_path / "tree"
    shutil.copytree(FAKE, source)
    for name in (
        "support/testing/run",
        "toolchain/toolchain-external/x.mk",
        "package/gcc/14.3.0/a.patch",
        "package/busybox/b.mk",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    found = tree.recipe_files(
        source, facts(packages={"host-gcc-final": "package/gcc/gcc-final", "x": ""})
    )
    names = {str(path.relative_to(source)) for path in found}
    assert {
        "Makefile",
        "support/step",
        "package/Makefile.in",
        "package/gcc/14.3.0/a.patch",
        "package/gcc/gcc-initial/gcc-initial.mk",
    } <= names
    assert not names & {
        "support/testing/run",
        "toolchain/toolchain-external/x.mk",
        "package/busybox/b.mk",
        "package/uclibc/uclibc.mk",
    }
    digest = tree.tree_digest(source, found)
    shutil.move(source, tmp_path / "elsewhere")
    moved = [tmp_path / "elsewhere" / path.relative_to(source) for path in found]
    assert tree.tree_digest(tmp_path / "elsewhere", moved) == digest
    moved[0].write_text("other")
    assert tree.tree_digest(tmp_path / "elsewhere", moved) != digest


@pytest.mark.parametrize(
    "change",
    [
        lambda base: (base / "a").write_text("22"),
        lambda base: (base / "a").rename(base / "c"),
        lambda base: (base / "sub" / "new").touch(),
        lambda base: (base / "link").unlink(),
    ],
)
def test_a_folders_digest_and_its_cheap_state(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    base = tmp_path / "base"
    (base / "sub").mkdir(parents=True)
    (base / ".git").mkdir()
    (base / "a").write_text("1")
    (base / "link").symlink_to("a")
    digest, state = tree.folder_digest(base), tree.folder_state(base)
    (base / ".git" / "index").write_text("git's own")
    os.utime(base / "sub")
    assert (tree.folder_digest(base), tree.folder_state(base)) == (digest, state)
    change(base)
    assert tree.folder_digest(base) != digest
    assert tree.folder_state(base) != state


def test_one_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("1")
    before = tree.folder_digest(tmp_path / "f")
    (tmp_path / "f").write_text("2")
    assert tree.folder_digest(tmp_path / "f") != before
