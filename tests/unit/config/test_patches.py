"""Which folders of patches are in force, and where the tree then lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from shipped import load, refused

from tasks.config import project
from tasks.system.errors import PiggyError

TOP = Path(__file__).parents[3]


@pytest.fixture
def folder(top: Path) -> Path:
    folder = top / "configs" / "patches" / "mine"
    folder.mkdir(parents=True)
    (folder / "a.patch").touch()
    return folder


def in_machine(top: Path, table: str, line: str) -> None:
    path = top / "configs" / "machines" / "pc.toml"
    path.write_text(path.read_text().replace(f"[{table}]\n", f"[{table}]\n{line}\n"))


def test_places(top: Path, folder: Path) -> None:
    plain = load(top).layout
    assert plain.kernel_patches == plain.busybox_patches == ()
    found = load(top, patches="mine").layout
    assert found.kernel_patches == (Path("configs/patches/mine"),)
    assert str(found.kernel_src) == "build/pc/src/linux-6.1"
    assert found.kernel_place.endswith("/build/pc/src/linux-6.1")
    assert str(found.kernel_obj) == "build/pc/kernel/6.1-patched"
    assert str(found.busybox_src) == "build/src/busybox"


def test_machine_first_then_the_setting(top: Path, folder: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.patch"
    one.touch()
    in_machine(top, "kernel", 'patches = ["mine"]')
    in_machine(top, "busybox", 'patches = ["mine"]')
    found = load(top, patches=f" {one} , {folder}").layout
    assert found.kernel_patches == (Path("configs/patches/mine"), one, folder)
    assert str(found.busybox_src) == "build/pc/src/busybox"


def test_folder_of_a_release(top: Path, folder: Path) -> None:
    (folder / "6.1").mkdir()
    (folder / "6.1" / "series").touch()
    assert load(top, patches="mine").layout.kernel_patches == (Path("configs/patches/mine/6.1"),)
    assert load(top, patches="mine", kernel="6.12").layout.kernel_patches == (
        Path("configs/patches/mine"),
    )
    (folder / "a.patch").unlink()
    error = refused(top, patches="mine", kernel="6.12")
    assert "has no series and no *.patch for 6.12; it has some for 6.1" in error.message


def test_an_optional_one_is_passed_over_where_it_has_nothing_for_the_kernel(
    top: Path, folder: Path
) -> None:
    (folder / "6.1").mkdir()
    (folder / "6.1" / "a.patch").touch()
    (folder / "a.patch").unlink()
    assert load(top, patches="mine?").layout.kernel_patches == (Path("configs/patches/mine/6.1"),)
    assert load(top, patches="mine?", kernel="6.12").layout.kernel_patches == ()
    assert "there are no patches 'mime'" in refused(top, patches="mime?").message
    in_machine(top, "kernel", 'patches = ["mine?"]')
    assert load(top, kernel="6.12").layout.kernel_patches == ()


def test_refused(top: Path, folder: Path) -> None:
    assert (
        "there are no patches 'mime'. Did you mean 'mine'?" in refused(top, patches="mime").message
    )
    assert "'README' is no folder" in refused(top, patches=str(_file(top / "README"))).message
    (folder / "a.patch").unlink()
    assert "configs/patches/mine has no series" in refused(top, patches="mine").message
    (folder / "6.1").mkdir()
    (folder / "6.1" / "a.patch").touch()
    in_machine(top, "busybox", 'patches = ["mine"]')
    assert refused(top).message == (
        "configs/machines/pc.toml: busybox.patches: configs/patches/mine has no series and no"
        " *.patch for busybox; it has some for 6.1"
    )
    in_machine(top, "kernel", 'patches = ["gone"]')
    assert refused(top).message.startswith("configs/machines/pc.toml: kernel.patches")


def _file(path: Path) -> Path:
    path.touch()
    return Path(path.name)


def test_tree_of_the_users_own(top: Path, folder: Path, tmp_path: Path) -> None:
    """It is built as it is; to ask for patches on it on the same command line is an error."""
    mine = str(tmp_path / "linux")
    Path(mine).mkdir()
    (tmp_path / "linux" / "Makefile").touch()
    in_machine(top, "kernel", 'patches = ["mine"]')
    assert load(top, kernel_src=mine).layout.kernel_patches == ()
    assert "kernel_src= names a tree" in refused(top, kernel_src=mine, patches="mine").message
    # wherever the tree was named
    with pytest.raises(PiggyError, match="kernel_src= names a tree"):
        project.load(top, {"PIGGYBACK_KERNEL_SRC": str(mine)}, {"patches": "nosuch"})
