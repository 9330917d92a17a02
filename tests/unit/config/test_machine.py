from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tasks.config import machine, toml
from tasks.config.machine import LINKS
from tasks.system.errors import PiggyError

TOP = Path(__file__).parents[3]
SHIPPED = sorted(path.stem for path in (TOP / "configs" / "machines").glob("*.toml"))
TEXT = """\
description = "x"
arch = "arm"
triple = "arm-linux-gnueabi"
[kernel]
fragments = ["base", "console"]
chain = "arm"
image = "zImage"
[busybox]
fragments = ["static"]
[rootfs]
overlays = ["base"]
"""
CHAINS = """\
[arm]
Image = { dir = "arch/arm/boot", file = "Image", after = "vmlinux" }
zImage = { dir = "arch/arm/boot", file = "zImage", after = "Image" }
[arm.bootpImage]
dir = "arch/arm/boot"
file = "bootpImage"
after = "zImage"
optional = true
takes = { I = "initramfs" }
"""
NO_LINK = "no optional link of configs/chains.toml [arm]. Did you mean 'bootpImage'?"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for name in ("machines", "kernel", "busybox", "rootfs"):
        (tmp_path / "configs" / name).mkdir(parents=True)
    for name in (
        "kernel/base.config",
        "kernel/console.config",
        "busybox/static.config",
        "rootfs/devices.txt",
    ):
        (tmp_path / "configs" / name).touch()
    (tmp_path / "overlays" / "base").mkdir(parents=True)
    (tmp_path / "configs" / "machines" / "board.toml").write_text(TEXT)
    (tmp_path / "configs" / "chains.toml").write_text(CHAINS)
    return tmp_path


def refused(top: Path, text: str = TEXT, chains: str = CHAINS) -> str:
    (top / "configs" / "machines" / "board.toml").write_text(text)
    (top / "configs" / "chains.toml").write_text(chains)
    with pytest.raises(PiggyError) as caught:
        machine.load(top, "board")
    return caught.value.message


def test_a_good_machine(top: Path) -> None:
    model, chain = machine.load(top, "board")
    assert (model.arch, model.kernel.base, model.busybox.base, model.rootfs.devices) == (
        "arm",
        "allnoconfig",
        "defconfig",
        "devices",
    )
    assert list(chain) == ["Image", "zImage"]
    assert model.qemu is None


def test_the_chain_stands_in_the_order_of_the_pipeline(top: Path) -> None:
    lines = CHAINS.splitlines()
    (top / "configs" / "chains.toml").write_text("\n".join([lines[0], lines[2], lines[1]]))
    assert list(machine.load(top, "board")[1]) == ["Image", "zImage"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"console"',
            '"consol"',
            "configs/kernel/consol.config does not exist. Did you mean 'console'?",
        ),
        (
            '"static"',
            '"statik"',
            "configs/busybox/statik.config does not exist. Did you mean 'static'?",
        ),
        (
            'overlays = ["base"]',
            'overlays = ["bas"]',
            "overlays/bas does not exist. Did you mean 'base'?",
        ),
        (
            'overlays = ["base"]',
            'devices = "device"',
            "configs/rootfs/device.txt does not exist. Did you mean 'devices'?",
        ),
        (
            'chain = "arm"',
            'chain = "amr"',
            "there is no chain 'amr' in configs/chains.toml. Did you mean 'arm'?",
        ),
        (
            '"zImage"',
            '"bzImage"',
            "'kernel.image' is 'bzImage', which its chain does not have. Did you mean 'zImage'?",
        ),
        ("arch =", "arhc =", "unknown key 'arhc'. Did you mean 'arch'?"),
        (
            'fragments = ["base", "console"]',
            "fragment = []",
            "unknown key 'kernel.fragment'. Did you mean 'fragments'?",
        ),
        (
            'fragments = ["base", "console"]',
            'fragments = "base"',
            "Expected `array`, got `str` for 'kernel.fragments'",
        ),
        (
            'fragments = ["static"]',
            'base = "defconfg"',
            "Invalid enum value 'defconfg' for 'busybox.base'",
        ),
        ('triple = "arm-linux-gnueabi"\n', "", "Object missing required field `triple`"),
        (
            "image =",
            'links = ["bootpImag"]\nimage =',
            f"'kernel.links' names 'bootpImag', which is {NO_LINK}",
        ),
        (
            "image =",
            'links = ["Image"]\nimage =',
            f"'kernel.links' names 'Image', which is {NO_LINK}",
        ),
        (
            "[kernel]",
            'userspace = false\n[kernel]\nlinks = ["bootpImage"]',
            "'bootpImage' takes the initramfs, which a machine with 'userspace = false' lacks",
        ),
        (
            "[kernel]",
            'userspace = false\n[qemu]\nbinary = "q"\nmachine = "m"\n[kernel]',
            "a machine with 'userspace = false' has nothing to boot into, so it can't have [qemu]",
        ),
        (
            'image = "zImage"',
            'image = "bootpImage"',
            "'kernel.image' is 'bootpImage', which its chain does not have. Did you mean 'Image'?",
        ),
        (
            'image = "zImage"',
            'image = "zImage"\nboots = {Imag = []}',
            "'kernel.boots' is 'Imag', which its chain does not have. Did you mean 'Image'?",
        ),
        (
            'image = "zImage"',
            'image = "zImage"\nboots = {Image = ["consol"]}',
            "configs/kernel/consol.config does not exist. Did you mean 'console'?",
        ),
        (
            "[rootfs]",
            '[limits]\nzImge = "2M"\n[rootfs]',
            "'limits' names 'zImge', which is no image. Did you mean 'zImage'?",
        ),
        (
            "[rootfs]",
            '[limits]\nzImage = "900KB"\n[rootfs]',
            "'limits' gives zImage '900KB', which is no size",
        ),
        (
            "[rootfs]",
            "[limits]\nzImage = -1\n[rootfs]",
            "'limits' gives zImage '-1', which is no size",
        ),
        (
            "[rootfs]",
            "[limits]\nfloppy = 1_474_560\n[rootfs]",
            "'limits' names 'floppy', which is no image.",
        ),
        ("[rootfs]", "[qemu]\nbinary = 3\n[rootfs]", "Expected `str`, got `int` for 'qemu.binary'"),
    ],
)
def test_every_reference_and_key_is_checked(top: Path, old: str, new: str, said: str) -> None:
    assert TEXT.count(old) == 1
    assert refused(top, TEXT.replace(old, new)) == f"configs/machines/board.toml: {said}"


def test_an_optional_link_is_there_for_who_asks(top: Path) -> None:
    path = top / "configs" / "machines" / "board.toml"
    path.write_text(TEXT.replace('image = "zImage"', 'image = "zImage"\nlinks = ["bootpImage"]'))
    assert list(machine.load(top, "board")[1]) == ["Image", "zImage", "bootpImage"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "zImage =",
            "zImagee =",
            "configs/chains.toml [arm]: unknown link 'zImagee'. Did you mean 'zImage'?",
        ),
        (
            'after = "Image"',
            'after = "Imag"',
            (
                "configs/chains.toml [arm]: 'zImage' comes after 'Imag', which is not in the chain."
                " Did you mean 'Image'?"
            ),
        ),
        (
            'file = "zImage"',
            'fil = "zImage"',
            "configs/chains.toml: unknown key 'arm.zImage.fil'. Did you mean 'file'?",
        ),
        (
            'after = "vmlinux"',
            'after = "zImage"',
            "configs/chains.toml [arm]: 'Image' comes after 'zImage', a later link",
        ),
        (
            'after = "Image"',
            'after = "zImage"',
            "configs/chains.toml [arm]: 'zImage' comes after 'zImage', a later link",
        ),
    ],
)
def test_every_link_is_checked(top: Path, old: str, new: str, said: str) -> None:
    assert CHAINS.count(old) == 1
    assert refused(top, chains=CHAINS.replace(old, new)).startswith(said)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_machines_load(name: str) -> None:
    model, chain = machine.load(TOP, name)
    assert model.description
    for start in (model.kernel.image, *chain):
        link, steps = start, 0
        while link != "vmlinux":  # every link leads back to vmlinux
            link, steps = chain[link].after, steps + 1
            assert steps <= len(chain)


def test_there_are_machines() -> None:
    assert "pc" in SHIPPED


@pytest.mark.parametrize("kind", ["kernel", "busybox"])
def test_each_fragment_is_used_by_a_machine_or_says_what_it_is_for(kind: str) -> None:
    used = {
        name
        for shipped in SHIPPED
        for name in getattr(machine.load(TOP, shipped)[0], kind).fragments
    }
    for path in (TOP / "configs" / kind).glob("*.config"):
        assert path.stem in used or path.read_text().startswith("# "), (
            f"{path} is used by nothing and explains nothing"
        )


def test_every_chain_holds_known_links_and_safe_paths() -> None:
    chains = toml.read(TOP / "configs" / "chains.toml")
    for chain in chains.values():
        assert set(chain) <= set(LINKS)
        for link in chain.values():
            assert link["dir"].startswith("arch/")
            assert not os.path.normpath(f"{link['dir']}/{link['file']}").startswith((".", "/"))


def test_a_copy_of_the_configuration_elsewhere_loads(tmp_path: Path) -> None:
    for name in ("configs", "overlays"):
        shutil.copytree(TOP / name, tmp_path / name)
    assert machine.load(tmp_path, "pc") == machine.load(TOP, "pc")


DISPLAY = (
    TEXT
    + """\
[display.vga]
fragments = ["console"]
overlays = ["base"]
console = "tty0"
"""
)


def test_displays(top: Path) -> None:
    (top / "configs" / "machines" / "board.toml").write_text(DISPLAY)
    assert machine.load(top, "board")[0].display == {
        "vga": machine.Display(fragments=("console",), overlays=("base",), console="tty0")
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '[display.vga]\nfragments = ["console"]',
            '[display.vga]\nfragments = ["consoel"]',
            "configs/kernel/consoel.config does not exist. Did you mean 'console'?",
        ),
        (
            'overlays = ["base"]\nconsole',
            'overlays = ["bsae"]\nconsole',
            "overlays/bsae does not exist. Did you mean 'base'?",
        ),
        ("display.vga", "display.none", "no display can be called 'none'"),
        ("console =", "konsole =", "unknown key 'display.vga.konsole'. Did you mean 'console'?"),
    ],
)
def test_mistakes_in_a_display(top: Path, old: str, new: str, said: str) -> None:
    assert DISPLAY.count(old) == 1
    assert refused(top, DISPLAY.replace(old, new)) == f"configs/machines/board.toml: {said}"
