"""Every other machine that QEMU has, for real: built, booted and held against plain make. An hour
and more: -m long."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks import image
from tasks.config import project
from tasks.config.project import Project
from tests.real.conftest import TOP, Checkout, lay_out
from tests.real.test_size import sizes, whole

pytestmark = [pytest.mark.real, pytest.mark.long]
ELSEWHERE = {"pc"}  # the default run builds and boots it; versatile without a network
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
    said = machine.doit("boot=disk" if qemu.disk else "boot=auto", "qemu_test")
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


def test_each_byte_of_the_images_is_on_a_line(machine: Checkout) -> None:
    known = model(machine)
    found = whole(machine, known.image, sizes(machine)["raw"]["name"])
    if machine.machine == "floppy":
        assert 1_474_560 - found["floppy"]["taken"] >= 200 << 10


def test_the_smallest_preset_passes_the_checks(machine: Checkout) -> None:
    """With other objects in the same folder, so this comes after what looks at the default."""
    has_it = "tiny" in model(machine).machine.kernel.fragments  # the floppy, with more behind it
    words = [] if has_it else ["fragments=tiny"]
    assert "=== poweroff ok" in machine.doit(*words, "qemu_test", timeout=BUILD)


@pytest.mark.parametrize("machine", ["microvm", "x86_64"], indirect=True)
def test_a_boot_of_64_bits_is_counted(machine: Checkout) -> None:
    words = ("boot=initramfs", "net=none", "boot_profile", "--json")
    first, second = (json.loads(machine.doit(*words).splitlines()[-1]) for _ in range(2))
    assert first["bars"] == second["bars"]
    phases = [bar for bar in first["bars"] if bar["depth"] == 0]
    assert sum(bar["instructions"] for bar in phases) == first["instructions"]
    assert {"firmware", "start_kernel", "start scripts", "shell"} <= {bar["name"] for bar in phases}
    assert {bar["kind"] for bar in first["bars"]} == {"phase", "initcall", "probe", "program"}
    names = {bar["name"]: bar for bar in first["bars"]}
    assert names["serial8250_init"]["reason"].startswith("configs/kernel/serial-8250.config:")
    assert "serial8250 serial8250" in names  # a driver and its device
    started = names["/bin/sh /etc/init.d/S10network start"]["reason"]
    assert started.startswith("overlays/base/etc/init.d/rcS:")


@pytest.mark.parametrize("machine", ["microvm"], indirect=True)
def test_the_microvm_boots_its_compressed_image(machine: Checkout) -> None:
    assert "=== poweroff ok" in machine.doit("image=bzImage", "qemu_test")


@pytest.mark.parametrize("machine", ["microvm"], indirect=True)
def test_the_microvm_runs_a_program_as_init_and_says_its_status(
    machine: Checkout, tmp_path: Path
) -> None:
    program = tmp_path / "function"
    program.write_text("#!/bin/sh\necho $((6 * 7))\nexit 3\n")
    program.chmod(0o755)
    words = (f"overlays={tmp_path}", "net=none", "append=quiet rdinit=/function")
    machine.doit(*words, "vmlinux", "initramfs", "_run_qemu")
    done = subprocess.run(
        [machine.images / "run-qemu.sh"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=600,
    )
    assert "\n42\n" in done.stdout
    assert "exitcode=0x00000300" in done.stdout  # kernel/exit.c: that of wait(2)
