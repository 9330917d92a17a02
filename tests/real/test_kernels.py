"""Every pinned kernel on a PC and on an ARM machine, and every compressor: the chain held against plain make's, and booted.

One build of ours and one of plain make's for each machine and kernel; what only changes the compressor is built on top of
them. Takes about six minutes for each machine and kernel on two idle cores.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks import image
from tasks.kit import kbuild, machine, pins
from tasks.kit.project import EPOCH
from tasks.kit.run import clean_env
from tests.real.conftest import TOP, Checkout, lay_out
from tests.real.test_pc import edited

pytestmark = [pytest.mark.real, pytest.mark.long]
MACHINES = [name for name in ("pc", "versatile") if (TOP / "configs" / "machines" / f"{name}.toml").exists()]
KERNELS = sorted((name.removeprefix("linux-") for name in pins.load(TOP / "configs" / "sources.toml")
                  if name.startswith("linux-")), key=lambda name: [int(part) for part in name.split(".")])
COMPRESSORS = {"gzip": b"\x1f\x8b", "xz": b"\xfd7zXZ\x00", "lz4": b"\x02\x21\x4c\x18", "zstd": b"\x28\xb5\x2f\xfd"}
PANIC = "Kernel panic - not syncing: %s"


@dataclass
class Built:
    """A machine with one kernel, built by doit in a checkout of the tests' own."""

    checkout: Checkout
    machine: str
    kernel: str

    @property
    def here(self) -> Path:
        return self.checkout.top / "build" / self.machine

    @property
    def source(self) -> Path:
        return self.checkout.top / "build" / "src" / f"linux-{self.kernel}"

    @property
    def chain(self) -> list[str]:
        """vmlinux, and the links after it."""
        return ["vmlinux", *machine.load(self.checkout.top, self.machine)[1]]

    def doit(self, *words: str, **how: int) -> str:
        return self.checkout.doit(f"machine={self.machine}", f"kernel={self.kernel}", *words, **how)

    def ran(self, *words: str) -> list[str]:
        """Run doit and return the tasks that it executed, in order."""
        history = self.here / "logs" / "history.jsonl"
        before = len(history.read_text().splitlines())
        self.doit(*words)
        return [json.loads(line)["task"] for line in history.read_text().splitlines()[before:]]

    def outputs(self) -> dict[str, bytes]:
        return {name: (self.here / "images" / name).read_bytes() for name in ("System.map", *self.chain)}

    def files(self) -> dict[str, str]:
        """What Kbuild calls each output, below an object folder."""
        obj = self.here / "kernel" / self.kernel
        named = {name: image.file_of(obj, name) for name in self.chain[1:]}
        return {"vmlinux": "vmlinux", "System.map": "System.map", **named}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    made = lay_out(tmp_path_factory.mktemp("kernels") / "checkout")
    yield made
    shutil.rmtree(made.top, ignore_errors=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Built], dict[str, bytes]]]:
    """What plain make makes of the same tree and configuration, in object folders of its own; kept from call to call, as
    it would be by somebody who goes from one configuration to the next."""
    folder = tmp_path_factory.mktemp("plain")

    def make(built: Built) -> dict[str, bytes]:
        obj = folder / f"{built.machine}-{built.kernel}"
        obj.mkdir(exist_ok=True)
        shutil.copy(built.here / "images" / "config", obj / ".config")
        by_hand(built, obj, "olddefconfig", built.chain[-1])
        assert (obj / ".config").read_bytes() == (built.here / "images" / "config").read_bytes()
        return {name: (obj / file).read_bytes() for name, file in built.files().items()}
    yield make
    shutil.rmtree(folder, ignore_errors=True)


def by_hand(built: Built, obj: Path, *goals: str) -> str:
    """Run the kernel's own make, as somebody would with the same pins."""
    model = machine.load(built.checkout.top, built.machine)[0]
    return subprocess.run(["make", "-C", str(built.source), f"O={obj}", f"ARCH={model.arch}",
                           f"CROSS_COMPILE={model.triple}-", f"-j{os.cpu_count()}", *goals],
                          env=clean_env(kbuild.pins(EPOCH)), text=True, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT).stdout


@pytest.fixture(scope="module", params=[(name, kernel) for name in MACHINES for kernel in KERNELS], ids="-".join)
def built(request: pytest.FixtureRequest, checkout: Checkout) -> Built:
    """Each machine with each kernel in turn."""
    made = Built(checkout, *request.param)
    made.doit()
    return made


def test_every_link_is_what_plain_make_makes(built: Built, plain: Callable[[Built], dict[str, bytes]]) -> None:
    ours, theirs = built.outputs(), plain(built)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_it_boots(built: Built) -> None:
    said = built.doit("qemu_test")
    assert re.search(rf"=== uname ok: Linux piggyback {re.escape(built.kernel)}\.\d", said)
    assert "=== poweroff ok" in said


def test_a_second_run_does_nothing(built: Built) -> None:
    assert "nothing to do" in built.doit()


def test_an_edit_comes_through(built: Built) -> None:
    before = built.outputs()
    with edited(built.source / "kernel" / "panic.c", PANIC, PANIC.replace("not syncing", "not  syncing")):
        assert built.ran() == built.chain
        assert b"panic - not  syncing" in built.outputs()["Image"]
    assert built.ran() == built.chain
    assert built.outputs() == before
    with edited(built.source / "kernel" / "panic.c", "/*", "/* a comment;"):
        assert built.ran() == ["vmlinux"]
    assert built.ran() == ["vmlinux"]


def test_lost_outputs_come_back(built: Built) -> None:
    before = built.outputs()
    for name in ("System.map", "piggy.o"):
        (built.here / "images" / name).unlink()
    assert built.ran() == ["vmlinux", "piggy.o"]
    assert built.outputs() == before


def test_make_finds_nothing_to_compile_after_us(built: Built) -> None:
    said = by_hand(built, (built.here / "kernel" / built.kernel).absolute(), built.chain[-1])
    assert not [line for line in said.splitlines() if re.match(r"  (CC|AS|LD|AR) ", line)]
    assert "nothing to do" in built.doit()


@pytest.fixture(scope="module", params=MACHINES)
def at_first(request: pytest.FixtureRequest, checkout: Checkout) -> Built:
    """Each machine with 6.1 and the compressor of its file, gzip."""
    made = Built(checkout, request.param, "6.1")
    made.doit()
    return made


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_every_compressor(at_first: Built, compressor: str, plain: Callable[[Built], dict[str, bytes]]) -> None:
    """Each in turn; what the architecture can't unpack is refused before anything is built."""
    folder = at_first.files()["Image"].split("/")[1]  # of arch/
    text = (at_first.source / "arch" / folder / "Kconfig").read_text()
    known = re.search(rf"select HAVE_KERNEL_{compressor.upper()}\b", text)
    with edited(at_first.checkout.top / "configs" / "machines" / f"{at_first.machine}.toml", '"gzip"', f'"{compressor}"'):
        if not known:
            said = at_first.doit("kernel_config", status=1)
            assert f"CONFIG_KERNEL_{compressor.upper()}=y did not take" in said
            return
        at_first.doit()
        ours, theirs = at_first.outputs(), plain(at_first)
        assert ours["piggy.gz"].startswith(COMPRESSORS[compressor])
        assert [link for link in ours if ours[link] != theirs[link]] == []
        assert "=== poweroff ok" in at_first.doit("qemu_test")
