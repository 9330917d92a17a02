"""Kconfig without make on the PC's real kernel: after each of a dozen flips of symbols, all that
Kconfig leaves is held against what plain make leaves in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tasks.config import project
from tasks.kbuild import make
from tasks.system.process import clean_env
from tests.real.conftest import Checkout
from tests.real.test_shortway import logs, work

pytestmark = pytest.mark.real
FILES = (
    ".config",
    "include/config/auto.conf",
    "include/config/auto.conf.cmd",
    "include/generated/autoconf.h",
    "include/generated/rustc_cfg",
)
# Each is added to those before it, so that no symbol comes back to what the kernel was built with:
# then symbol_times.py would put its old time back, which plain make does not.
FLIPS = [
    "CONFIG_SYSVIPC=y\n",
    "CONFIG_PRINTK_TIME=y\n",
    "CONFIG_LOG_BUF_SHIFT=15\n",
    'CONFIG_DEFAULT_HOSTNAME="flip \\"quoted\\""\n',
    "# CONFIG_FUTEX is not set\n",
    "CONFIG_STACKPROTECTOR=y\n",
    "CONFIG_MAGIC_SYSRQ=y\nCONFIG_MAGIC_SYSRQ_DEFAULT_ENABLE=0x1f\n",
    "CONFIG_CC_OPTIMIZE_FOR_PERFORMANCE=y\n# CONFIG_CC_OPTIMIZE_FOR_SIZE is not set\n",
    "CONFIG_KALLSYMS=y\n",
    "CONFIG_MODULES=y\nCONFIG_CRYPTO=m\nCONFIG_CRYPTO_SHA256=m\n",
    "# CONFIG_PACKET is not set\n",
    "CONFIG_IKCONFIG=y\nCONFIG_IKCONFIG_PROC=y\n",
]


def touched(obj: Path, before: dict[str, int]) -> tuple[set[str], dict[str, int]]:
    """Which files below include/config were changed since, and when all of them were."""
    top = obj / "include/config"
    now = {
        os.path.join(os.path.relpath(folder, top), name): os.stat(
            os.path.join(folder, name)
        ).st_mtime_ns
        for folder, _, names in os.walk(top)
        for name in names
        if name != "kernel.release"
    }
    return {name for name, when in now.items() if before.get(name) != when}, now


class ByMake:
    """An object folder that plain make alone configures: allnoconfig from our miniconfig, put in
    place if it is another one, syncconfig."""

    def __init__(self, pc: Checkout, obj: Path) -> None:
        here = project.load(pc.top, {"MACHINE": pc.machine}, {}).machine
        self.obj = obj
        self.argv = [
            "make",
            "-C",
            str(pc.kernel),
            f"O={obj}",
            f"ARCH={here.arch}",
            f"CROSS_COMPILE={here.triple}-",
            *(f"{name}={value}" for name, value in here.kernel.variables.items()),
        ]

    def make(self, goal: str, **env: str) -> str:
        return subprocess.run(
            [*self.argv, "-j2", goal],
            env={**clean_env(make.pins(project.EPOCH)), **env},
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        ).stdout

    def configure(self, request: Path) -> None:
        live, kept = self.obj / ".config", self.obj / "kept"
        live.rename(kept)
        self.make("allnoconfig", KCONFIG_ALLCONFIG=str(request))
        if live.read_bytes() == kept.read_bytes():
            kept.rename(live)
        else:
            os.utime(self.obj / "include/config/auto.conf", (0, 0))
        self.make("syncconfig")


def compiled(said: str) -> set[str]:
    """Which objects make said that it compiles."""
    return set(re.findall(r"^  (?:CC|AS) +(\S+)", said, re.MULTILINE))


def kconfig_lines(pc: Checkout) -> list[str]:
    """How Kconfig was run, by the log of the last run."""
    log = logs(pc) / "kernel_config.log"
    return re.findall(r"^# Kconfig: (.*)$", log.read_text(), re.MULTILINE)


@contextlib.contextmanager
def flipped(pc: Checkout, obj: Path, flips: Sequence[str]) -> Iterator[ByMake]:
    """Flip symbols, and hold all that Kconfig leaves each time against what plain make leaves.

    The body has the built PC with all flips, and the folder that make configured in the same way.
    """
    pc.doit("bzImage")
    second = ByMake(pc, obj)
    shutil.copytree(pc.obj, second.obj, symlinks=True)  # with the times of all files
    _, ours = touched(pc.obj, {})
    _, makes = touched(second.obj, {})
    assert ours == makes
    own = pc.top / "configs/kernel/local/pc.config"
    own.parent.mkdir(exist_ok=True)
    try:
        for number, flip in enumerate(flips):
            with own.open("a") as stream:
                stream.write(flip)
            pc.doit("kernel_config")
            ways = kconfig_lines(pc)
            assert [way.split(":")[0] for way in ways] == ["without make", "without make"]
            if number:
                assert all(", 0 commands run" in way for way in ways), ways
            second.configure(pc.obj / "piggyback.mini")
            for name in FILES:
                assert (pc.obj / name).read_bytes() == (second.obj / name).read_bytes(), name
            (changed, ours), (expected, makes) = touched(pc.obj, ours), touched(second.obj, makes)
            assert changed == expected
            assert len(changed) > 2  # auto.conf, auto.conf.cmd, and a symbol
        yield second
    finally:
        own.unlink()
        pc.doit("bzImage")


def test_it_leaves_what_make_leaves(pc: Checkout, tmp_path: Path) -> None:
    with flipped(pc, tmp_path / "obj", FLIPS[:3]):
        pass


@pytest.mark.long
def test_what_is_built_after_a_dozen_flips_is_what_make_builds(
    pc: Checkout, tmp_path: Path
) -> None:
    with flipped(pc, tmp_path / "obj", FLIPS) as second:
        pc.doit("bzImage")
        ours_made = compiled((logs(pc) / "vmlinux.log").read_text())
        assert ours_made <= compiled(second.make("vmlinux"))
        assert "kernel/panic.o" in ours_made
        assert work(pc) == []
        assert pc.made_otherwise(second.obj, "bzImage") == []
        assert "nothing to do" in pc.doit("bzImage")


def test_another_compiler_is_asked_anew(pc: Checkout) -> None:
    """An answer holds for the files that the command looked at; a tree's script is one of them."""
    own = pc.top / "configs/kernel/local/pc.config"
    script = pc.kernel / "scripts/gcc-x86_32-has-stack-protector.sh"
    text, info = script.read_text(), script.stat()
    try:
        own.parent.mkdir(exist_ok=True)
        own.write_text("CONFIG_SYSVIPC=y\n")
        pc.doit("kernel_config")
        assert "CONFIG_CC_HAS_SANE_STACKPROTECTOR=y" in (pc.obj / ".config").read_text()
        script.write_text("#!/bin/sh\nexit 1\n")
        pc.doit("kernel_config")
        assert "CONFIG_CC_HAS_SANE_STACKPROTECTOR=y" not in (pc.obj / ".config").read_text()
        assert any(", 1 commands run" in way for way in kconfig_lines(pc))
    finally:
        script.write_text(text)
        os.utime(script, ns=(info.st_atime_ns, info.st_mtime_ns))
        own.unlink()
        pc.doit("bzImage")
