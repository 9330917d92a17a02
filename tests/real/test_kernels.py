"""Every pinned kernel on a PC and on an ARM board, and every compressor: the chain held against
plain make's, and booted.

For each machine and kernel one build of ours and one of plain make's; the compressors come on top
of those of 6.1. That takes some six minutes for each machine and kernel on two idle cores.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.config import pins, project
from tests.real.conftest import TOP, Checkout, edited, lay_out

pytestmark = [pytest.mark.real, pytest.mark.long]
MACHINES = ("pc", "versatile")
KERNELS = sorted(
    (
        name.removeprefix("linux-")
        for name in pins.load(TOP / "configs" / "sources.toml")
        if name.startswith("linux-")
    ),
    key=lambda version: [int(part) for part in version.split(".")],
)
MAGIC = {
    "gzip": b"\x1f\x8b",
    "xz": b"\xfd7zXZ\x00",
    "lz4": b"\x02\x21\x4c\x18",
    "zstd": b"\x28\xb5\x2f\xfd",
}
PANIC = "Kernel panic - not syncing: %s"


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project for all machines and kernels, as users have it, and beside it plain make's object
    folders."""
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "plain").mkdir()
    yield lay_out(folder / "checkout").top
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(
    scope="module",
    params=[(machine, kernel) for machine in MACHINES for kernel in KERNELS],
    ids="-".join,
)
def built(request: pytest.FixtureRequest, top: Path) -> Checkout:
    """Each machine with each kernel in turn."""
    return build(top, *request.param)


def build(top: Path, machine: str, kernel: str) -> Checkout:
    checkout = Checkout(top, machine=machine, version=kernel)
    checkout.doit()
    return checkout


def chain(built: Checkout) -> list[str]:
    """vmlinux, and the links after it."""
    return ["vmlinux", *project.load(built.top, {"MACHINE": built.machine}, {}).chain]


def made_otherwise(built: Checkout) -> list[str]:
    """Plain make builds all that is bootable; return the links that are not as doit made them."""
    initrd = f"INITRD={built.images.absolute() / 'initramfs.cpio.gz'}"
    goals = [name for name in chain(built) if name.endswith("Image") and name != "Image"]
    return built.made_otherwise(
        built.top.parent / "plain" / f"{built.machine}-{built.version}", initrd, *goals
    )


def outputs(built: Checkout) -> dict[str, bytes]:
    return {name: (built.images / name).read_bytes() for name in ("System.map", *chain(built))}


def test_every_link_is_what_plain_make_makes(built: Checkout) -> None:
    assert made_otherwise(built) == []


def test_it_boots(built: Checkout) -> None:
    said = built.doit("qemu_test")
    assert re.search(rf"=== uname ok: Linux piggyback {re.escape(built.version)}\.\d", said)
    for check in ("shell", "mount", "disk", "nic", "poweroff"):
        assert f"=== {check} ok" in said


def test_a_second_run_does_nothing(built: Checkout) -> None:
    assert "nothing to do" in built.doit()


def test_an_edit_comes_through(built: Checkout) -> None:
    before, panic = outputs(built), built.kernel / "kernel" / "panic.c"
    with edited(panic, PANIC, PANIC.replace("not syncing", "not  syncing")):
        assert built.ran() == chain(built)
        assert b"panic - not  syncing" in outputs(built)["Image"]
    assert built.ran() == chain(built)
    assert outputs(built) == before
    with edited(panic, "/*", "/* a comment;"):
        assert built.ran() == ["vmlinux"]
    assert built.ran() == ["vmlinux"]


def test_lost_outputs_come_back(built: Checkout) -> None:
    before = outputs(built)
    for name in ("System.map", "piggy.o"):
        (built.images / name).unlink()
    assert built.ran() == ["vmlinux", "piggy.o"]
    assert outputs(built) == before


def test_make_finds_nothing_to_compile_after_us(built: Checkout) -> None:
    said = built.make(
        built.obj.absolute(),
        project.load(built.top, {"MACHINE": built.machine}, {}).machine.kernel.image,
    )
    assert not [line for line in said.splitlines() if re.match(r"  (CC|AS|LD|AR) ", line)]
    assert "nothing to do" in built.doit()


@pytest.fixture(scope="module", params=MACHINES)
def compressed(request: pytest.FixtureRequest, top: Path) -> Checkout:
    """Each machine with 6.1 and the compressor that its file names."""
    return build(top, request.param, "6.1")


@pytest.mark.parametrize("compressor", MAGIC)
def test_every_compressor(compressed: Checkout, compressor: str) -> None:
    """Each in turn; what the architecture can't unpack is refused before anything is built."""
    folder = compressed.obj.joinpath("piggyback.Image").read_text().split("/")[1]  # of arch/
    text = (compressed.kernel / "arch" / folder / "Kconfig").read_text()
    machine = compressed.top / "configs" / "machines" / f"{compressed.machine}.toml"
    named = next(f'"{name}"' for name in MAGIC if f'"{name}"' in machine.read_text())
    with edited(machine, named, f'"{compressor}"'):
        if not re.search(rf"select HAVE_KERNEL_{compressor.upper()}\b", text):
            said = compressed.doit("kernel_config", status=1)
            assert f"CONFIG_KERNEL_{compressor.upper()}=y did not take" in said
            return
        compressed.doit()
        assert (compressed.images / "piggy.gz").read_bytes().startswith(MAGIC[compressor])
        assert made_otherwise(compressed) == []
        assert "=== poweroff ok" in compressed.doit("qemu_test")
