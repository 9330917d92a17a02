"""Toolchains for real: LLVM's kernel booted, and Buildroot's toolchain built whole, used, moved and
used again.

Buildroot takes half an hour and gigabytes, and its tree is not ours: PIGGYBACK_TEST_BUILDROOT names
a tree or a release's tarball, and PIGGYBACK_TEST_SETTINGS further settings (buildroot_override=...,
dl=..., offline=yes), such as a machine that upstream is out of reach of needs. The test says why it
is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.system.process import clean_env
from tests.real.conftest import Checkout, lay_out

CHECKS = ("shell", "uname", "mount", "free", "disk", "clock", "nic", "poweroff")


def booted(said: str) -> None:
    for check in CHECKS:
        assert f"=== {check} ok" in said


def wants(*programs: str) -> None:
    missing = [name for name in programs if not shutil.which(name, path=clean_env()["PATH"])]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def suffix() -> str:
    """The suffix of an LLVM that this host has whole, as LLVM= takes it."""
    for llvm in ("1", "-19", "-18", "-17", "-16", "-15", "-14"):
        end = "" if llvm == "1" else llvm
        if all(
            shutil.which(f"{name}{end}", path=clean_env()["PATH"])
            for name in ("clang", "ld.lld", "llvm-objcopy")
        ):
            return llvm
    pytest.skip("no clang with lld and llvm-objcopy ('doit toolchain=llvm setup' installs them)")


@pytest.mark.real
@pytest.mark.long
@pytest.mark.parametrize(
    ("machine", "triple", "qemu"),
    [
        ("pc", "i686-linux-gnu", "qemu-system-i386"),
        ("x86_64", "x86_64-linux-gnu", "qemu-system-x86_64"),
        ("versatile", "arm-linux-gnueabi", "qemu-system-arm"),
        ("aarch64", "aarch64-linux-gnu", "qemu-system-aarch64"),
    ],
)
def test_llvms_kernel_boots(tmp_path: Path, machine: str, triple: str, qemu: str) -> None:
    wants(f"{triple}-gcc", qemu)
    checkout = lay_out(tmp_path / "checkout", machine=machine)
    booted(checkout.doit("toolchain=llvm", f"llvm={suffix()}", "qemu_test"))
    version = (checkout.images / "config").read_text()
    assert "CONFIG_CC_IS_CLANG=y" in version
    assert "CONFIG_LD_IS_LLD=y" in version


@pytest.fixture(scope="module", params=["pc", "versatile"])
def board(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Checkout, list[str]]]:
    """A machine whose toolchain Buildroot is to build, and the settings for that."""
    tree = os.environ.get("PIGGYBACK_TEST_BUILDROOT")
    if not tree:
        pytest.skip(
            "PIGGYBACK_TEST_BUILDROOT names no Buildroot: it takes half an hour, and its tree is"
            " not ours"
        )
    wants("g++", {"pc": "qemu-system-i386", "versatile": "qemu-system-arm"}[request.param])
    checkout = lay_out(tmp_path_factory.mktemp("real") / "checkout", machine=request.param)
    yield (
        checkout,
        [
            "toolchain=buildroot",
            f"buildroot_src={tree}",
            *os.environ.get("PIGGYBACK_TEST_SETTINGS", "").split(),
        ],
    )
    shutil.rmtree(checkout.top, ignore_errors=True)


@pytest.mark.real
@pytest.mark.long
def test_buildroot_whole(board: tuple[Checkout, list[str]], tmp_path: Path) -> None:
    checkout, words = board
    booted(checkout.doit(*words, "qemu_test", timeout=4 * 3600))
    assert checkout.ran(*words, "busybox") == []
    record = json.loads((checkout.top / "build" / checkout.machine / "userspace.json").read_text())
    assert record["libc"].startswith("uClibc-ng ")
    images = {name: (checkout.images / name).read_bytes() for name in ("vmlinux", "busybox")}
    checkout.doit(*words, "toolchain_export")
    (tarball,) = checkout.images.glob("*_sdk-*.tar.gz")
    moved = shutil.move(tarball, tmp_path / "moved.tar.gz")
    shutil.rmtree(checkout.top / "build" / "toolchains")
    checkout.doit("toolchain=path", f"toolchain_prefix={moved}", "busybox", "vmlinux")
    assert {name: (checkout.images / name).read_bytes() for name in images} == images
