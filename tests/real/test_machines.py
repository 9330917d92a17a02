"""Every other machine that QEMU has, for real: built, booted and held against plain make. An hour
and more: -m long."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks import image
from tasks.config import project
from tasks.config.project import Project
from tests.real.conftest import TOP, Checkout, lay_out

pytestmark = [pytest.mark.real, pytest.mark.long]
ELSEWHERE = {"pc", "versatile"}  # the default run builds and boots them
BUILD = 7200  # seconds that a machine may take from nothing
# What Kbuild says each time, though it does no work for it.
ALWAYS = re.compile(r"  (GEN     Makefile|CALL    |CHK     |DESCEND |Kernel: .* is ready)")


def has_qemu(path: Path) -> bool:
    return "qemu" in tomllib.loads(path.read_text())


NAMES = sorted(
    path.stem
    for path in (TOP / "configs" / "machines").glob("*.toml")
    if path.stem not in ELSEWHERE and has_qemu(path)
)


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One project for all of them, so that the sources are unpacked once."""
    folder = tmp_path_factory.mktemp("machines") / "checkout"
    lay_out(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=NAMES)
def machine(request: pytest.FixtureRequest, top: Path) -> Iterator[Checkout]:
    """A machine, built from nothing: all that doit makes by default, and every link of its
    chain."""
    checkout = Checkout(top, machine=request.param)
    checkout.doit(*everything(checkout), timeout=BUILD)
    yield checkout
    shutil.rmtree(top / "build" / checkout.machine, ignore_errors=True)


def model(checkout: Checkout) -> Project:
    return project.load(checkout.top, {"MACHINE": checkout.machine}, {})


def everything(checkout: Checkout) -> list[str]:
    known = model(checkout)
    return list(dict.fromkeys([*known.goals, *known.chain]))


def by_hand(checkout: Checkout) -> list[str]:
    """The words for plain make: the ends of the chain, or vmlinux, and what they take."""
    known = model(checkout)
    ends = [
        name for name in known.chain if name not in {link.after for link in known.chain.values()}
    ] or ["vmlinux"]
    taken = {
        variable: path
        for link in known.chain.values()
        for variable, path in image.taken(known, link).items()
    }
    trees = [f"{name}.dtb" for name in known.machine.kernel.dtbs]
    return [
        *(f"{variable}={checkout.top / path}" for variable, path in taken.items()),
        *ends,
        *trees,
    ]


def test_it_boots_and_passes_its_checks(machine: Checkout) -> None:
    qemu = model(machine).machine.qemu
    assert qemu is not None
    said = machine.doit("qemu_test")
    for check in (
        "shell",
        "uname",
        "mount",
        "free",
        "disk",
        "clock",
        "poweroff",
        *(["nic"] if qemu.nic else []),
    ):
        assert f"=== {check} ok" in said
    if qemu.disk:
        assert "/ is ext2, read-write" in said
        assert "/ is rootfs, read-write" in machine.doit("boot=initramfs", "qemu_test").replace(
            "tmpfs", "rootfs"
        )


def test_a_second_run_does_nothing(machine: Checkout) -> None:
    assert "nothing to do" in machine.doit(*everything(machine))


def test_make_finds_nothing_to_do_after_us(machine: Checkout) -> None:
    said = machine.make(machine.obj, *by_hand(machine))
    assert [
        line for line in said.splitlines() if line.startswith("  ") and not ALWAYS.match(line)
    ] == []
    assert "nothing to do" in machine.doit(*everything(machine))


def test_every_link_is_what_plain_make_makes(machine: Checkout) -> None:
    """Linked and packed anew, by hand, from the objects that are there; that these are make's own,
    the PC's test shows."""
    files = {
        "vmlinux": "vmlinux",
        "System.map": "System.map",
        **{
            link: (machine.obj / f"piggyback.{link}").read_text().strip()
            for link in model(machine).chain
        },
    }
    for file in files.values():
        (machine.obj / file).unlink()
    machine.make(machine.obj, *by_hand(machine))
    assert [
        name
        for name, file in files.items()
        if (machine.obj / file).read_bytes() != (machine.images / name).read_bytes()
    ] == []
