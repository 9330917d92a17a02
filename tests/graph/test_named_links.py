"""Files that a symbol names, where links of the file system lead to them, and those that a link of
the chain has and vmlinux has not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playground import Playground

BASE = "configs/kernel/fake-base.config"
BOOT = "arch/x86/boot/compressed"


@pytest.fixture
def here(built: Playground) -> Path:
    """An empty folder for what symbols name."""
    folder = built.home / "named"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def changed(play: Playground, path: Path, image: str = "vmlinux") -> None:
    """Build with one content of a file and with another one: each is in the image."""
    for text in ("the first text", "the second text"):
        path.write_text(f"{text}\n")
        ran = play.doit("bzImage").ran
        assert text.encode() in (play.images / image).read_bytes(), (text, ran)
        assert play.doit("bzImage").ran == []


def test_a_list_names_a_link(built: Playground, here: Path) -> None:
    """usr/gen_init_cpio opens what it leads to."""
    (here / "init").symlink_to("one")
    (here / "one").touch()
    (here / "list").write_text(f"file /init {here}/init 755 0 0\n")
    built.append(BASE, f'CONFIG_INITRAMFS_SOURCE="{here}/list"\n')
    changed(built, here / "one")
    (here / "two").write_text("the third text\n")
    (here / "init").unlink()
    (here / "init").symlink_to("two")
    built.doit("bzImage")
    assert b"the third text" in (built.images / "vmlinux").read_bytes()


def test_two_dots_after_a_link(built: Playground, here: Path) -> None:
    """They lead away from where the link leads: in a list, and in a symbol's own value."""
    for name in ("a/b", "a/fw", "fw"):
        (here / name).mkdir(parents=True)
    (here / "link").symlink_to("a/b")
    for path in (here / "x", here / "fw" / "x.bin"):
        path.write_text("not this\n")
    for path in (here / "a" / "x", here / "a" / "fw" / "x.bin"):
        path.write_text("this\n")
    (here / "list").write_text(f"file /init {here}/link/../x 755 0 0\n")
    built.append(
        BASE,
        f'CONFIG_INITRAMFS_SOURCE="{here}/list"\nCONFIG_EXTRA_FIRMWARE="x.bin"\n'
        f'CONFIG_EXTRA_FIRMWARE_DIR="{here}/link/../fw"\n',
    )
    changed(built, here / "a" / "x")
    changed(built, here / "a" / "fw" / "x.bin")


def test_build_is_a_link(built: Playground) -> None:
    """A relative name is one of make's, which runs in the object folder's real place."""
    real = built.home / "deep" / "er" / "build"
    shutil.rmtree(built.home / "deep", ignore_errors=True)
    real.parent.mkdir(parents=True)
    shutil.move(built.top / "build", real)
    (built.top / "build").symlink_to(real)
    for base in (built.top, real.parent):
        (base / "root").mkdir()
        (base / "root" / "init").write_text("not this\n")
    built.append(BASE, 'CONFIG_INITRAMFS_SOURCE="../../../../root"\n')
    try:
        changed(built, real.parent / "root" / "init")
    finally:
        (built.top / "build").unlink()
        shutil.move(real, built.top / "build")


@pytest.fixture
def loader(built: Playground, tmp_path: Path) -> Path:
    """What a symbol names and the loader alone has, as x86's has EFI_SBAT_FILE since 6.16."""
    sbat = tmp_path / "sbat.csv"
    folder = built.linux / BOOT
    built.append(built.linux / "init/Kconfig", '\nconfig EFI_SBAT_FILE\n\tstring "SBAT"\n')
    (folder / "sbat.S").write_text(f'\t.section .rodata\n\t.incbin "{sbat}"\n')
    objects = "$(obj)/vmlinux: $(obj)/head_64.o"
    built.edit(
        folder / "Makefile",
        objects,
        '$(obj)/sbat.o: $(subst ",,$(CONFIG_EFI_SBAT_FILE))\n'
        + objects.replace(": ", ": $(obj)/sbat.o "),
    )
    built.append(folder / "Makefile", "targets += sbat.o\n")
    built.append(BASE, f'CONFIG_EFI_SBAT_FILE="{sbat}"\n')
    return sbat


def test_a_file_that_a_link_alone_has(built: Playground, loader: Path) -> None:
    changed(built, loader, "bzImage")


def test_the_store_tells_apart_what_a_link_alone_has(built: Playground, loader: Path) -> None:
    built.store_size = "100M"
    for text in ("the first text", "the second text", "the first text"):
        loader.write_text(f"{text}\n")
        shutil.rmtree(built.here)
        result = built.doit("bzImage")
        assert text.encode() in (built.images / "bzImage").read_bytes(), result.restored
    assert "bzImage" in result.restored
