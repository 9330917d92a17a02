from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.config import machine, packages
from tasks.config.machine import Machine
from tasks.config.packages import Manager, Table, Tool
from tasks.system.errors import PiggyError

TOP = Path(__file__).parents[3]
MANAGERS = ("apt", "dnf", "pacman", "apk")
TABLE = Table(
    managers={
        "apt": Manager("apt-get", ("install", "-y"), ("update",)),
        "dnf": Manager("dnf", ("install",)),
    },
    tools={
        "make": Tool("why"),
        "c headers": Tool("why", file=("/nowhere/*.h",), apt="libc6-dev", dnf="glibc-devel"),
        "{triple}-gcc": Tool("why", apt="gcc-{triple}"),
        "{qemu}": Tool("why", apt={"qemu-system-i386": "qemu-system-x86"}),
    },
)


def model(triple: str = "x86_64-linux-gnu", qemu: str = "qemu-system-i386") -> Machine:
    kernel = {"fragments": [], "chain": "x86", "image": "bzImage"}
    data = {"description": "x", "arch": "x86", "triple": triple, "kernel": kernel}
    if qemu:
        data["qemu"] = {"binary": qemu, "machine": "pc", "memory": 32, "console": "ttyS0"}
    import msgspec

    return msgspec.convert(data, Machine)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that is empty, sbin folders included."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(packages, "clean_env", lambda: {"PATH": str(tmp_path)})
    return tmp_path


def program(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


def test_names_are_filled_in_and_things_looked_for(path: Path) -> None:
    program(path, "make")
    found = packages.needs(TABLE, model())
    assert [need.name for need in found] == [
        "make",
        "c headers",
        "x86_64-linux-gnu-gcc",
        "qemu-system-i386",
    ]
    assert [bool(need.found) for need in found] == [True, False, False, False]
    assert [need.program for need in found] == [True, False, True, True]
    assert found[0].found == str(path / "make")
    assert [need.packages["apt"] for need in found] == [
        "make",
        "libc6-dev",
        "gcc-x86-64-linux-gnu",
        "qemu-system-x86",
    ]
    assert [need.packages["dnf"] for need in found] == [
        "make",
        "glibc-devel",
        "x86_64-linux-gnu-gcc",
        "qemu-system-i386",
    ]


def test_a_machine_without_qemu_needs_none(path: Path) -> None:
    assert [need.name for need in packages.needs(TABLE, model(qemu=""))] == [
        "make",
        "c headers",
        "x86_64-linux-gnu-gcc",
    ]


def test_another_emulator_is_packaged_under_its_own_name(path: Path) -> None:
    assert (
        packages.needs(TABLE, model(qemu="qemu-system-arm"))[-1].packages["apt"]
        == "qemu-system-arm"
    )


def test_a_file_by_pattern(tmp_path: Path, path: Path) -> None:
    (tmp_path / "b.h").touch()
    (tmp_path / "a.h").touch()
    tool = Tool("why", file=("/nowhere/x.h", f"{tmp_path}/*.h"))
    assert packages._look("headers", tool) == f"{tmp_path}/a.h"


def test_the_manager_of_the_host(path: Path) -> None:
    assert packages.manager_of_host(TABLE) == ""
    program(path, "dnf")
    assert packages.manager_of_host(TABLE) == "dnf"
    program(path, "apt-get")
    assert packages.manager_of_host(TABLE) == "apt"  # the first in the table's order


@pytest.mark.parametrize(("uid", "front"), [(0, []), (1000, ["sudo"])])
def test_the_commands(
    path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, front: list[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    missing = packages.needs(TABLE, model())
    assert packages.commands(TABLE, "apt", [*missing, missing[0]]) == [
        [*front, "apt-get", "update"],
        [
            *front,
            "apt-get",
            "install",
            "-y",
            "make",
            "libc6-dev",
            "gcc-x86-64-linux-gnu",
            "qemu-system-x86",
        ],
    ]
    assert packages.commands(TABLE, "dnf", missing[:1]) == [[*front, "dnf", "install", "make"]]


@pytest.mark.parametrize(
    "name",
    ["clang-", "gcc-arm=1", "-oDebug::x=1", "linux*", "", "a/sid", "~nx", "x^", "a b", "x\n"],
)
def test_what_would_be_no_name_to_a_manager_is_refused(name: str) -> None:
    """`apt-get install -y clang-` would remove clang."""
    need = packages.Need("clang-", "the kernel's compiler", "", {"apt": name}, True)
    with pytest.raises(PiggyError) as caught:
        packages.commands(TABLE, "apt", [need])
    assert (
        caught.value.message == f"{name!r} is no name of a package (clang-: the kernel's compiler)"
    )


def test_apt_takes_no_name_for_a_pattern() -> None:
    """The real apt gets the shipped table's arguments; "make.*" would match hundreds of names."""
    if not shutil.which("apt-get"):
        pytest.skip("apt is not installed")
    for name, known in (("linux-source-6.", False), ("ma.e", False), ("apt", True)):
        words = [word for word in packages.load(TOP).managers["apt"].install if word != "-q"]
        done = subprocess.run(
            ["apt-get", *words, "--simulate", name],
            text=True,
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        assert (done.returncode == 0) == known, done.stdout + done.stderr
        assert known or f"Unable to locate package {name}" in done.stderr


def test_the_shipped_table_is_sane() -> None:
    table = packages.load(TOP)
    assert tuple(table.managers) == MANAGERS
    for manager in table.managers.values():
        assert manager.install
    for name in sorted(file.stem for file in (TOP / "configs" / "machines").glob("*.toml")):
        model = machine.load(TOP, name)[0]
        for need in packages.needs(table, model):
            assert need.why
            for manager in MANAGERS:
                package = need.packages[manager]
                assert package, f"{need.name} has no package for {manager}"
                assert not set(package) & set(" {}/"), (
                    f"{need.name}: '{package}' is no package of {manager}"
                )
                assert manager != "apt" or package == package.lower().replace("_", "-")
            if model.qemu and need.name == model.qemu.binary:
                assert need.packages["apt"].startswith("qemu-system-")


def test_the_exact_packages_of_the_pc_on_debian() -> None:
    found = {
        need.packages["apt"]
        for need in packages.needs(packages.load(TOP), machine.load(TOP, "pc")[0])
    }
    assert {
        "make",
        "gcc",
        "libc6-dev",
        "flex",
        "bison",
        "bc",
        "e2fsprogs",
        "gcc-i686-linux-gnu",
        "binutils-i686-linux-gnu",
        "qemu-system-x86",
        "xz-utils",
        "libncurses-dev",
        "cpio",
        "rsync",
    } <= found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[managers]\n[tools]\nmake = { }\n", "missing required field `why` for 'tools.make'"),
        (
            "[managers]\n[tools]\nmake = { why = 'x', yum = 'make' }\n",
            "unknown key 'tools.make.yum'.",
        ),
        (
            "[managers]\napt = { program = 'apt-get', instal = [] }\n[tools]\n",
            "unknown key 'managers.apt.instal'. Did you mean 'install'?",
        ),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "packages.toml").write_text(text)
    with pytest.raises(PiggyError) as caught:
        packages.load(tmp_path)
    assert caught.value.message.startswith("configs/packages.toml: ")
    assert caught.value.message.endswith(said)
