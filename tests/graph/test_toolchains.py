"""The providers of the toolchain: what each makes stale, Buildroot's traps, and toolchains that are
refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest
from faultyserver import file_server, serving
from playground import Kept, Playground, finish

FILES = (
    "binutils/binutils-2.44",
    "linux/linux-6.1",
    "gcc/gcc-14",
    "gcc/gcc-13",
    "uclibc/uClibc-ng-1.0.57",
)
KERNEL = {"vmlinux", "Image", "piggy.gz", "piggy.o", "compressed_vmlinux", "bzImage"}
BUILD = "toolchain=buildroot"
PACKAGES = [
    "host-binutils",
    "linux-headers",
    "host-gcc-initial",
    "uclibc",
    "host-gcc-final",
    "toolchain",
]


@pytest.fixture
def upstream(built: Playground) -> Path:
    """The sources of the fake Buildroot's packages, at its only upstream."""
    folder = built.home / "upstream"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("built", "asked", "choices"):
        (built.home / name).unlink(missing_ok=True)
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.tar.gz").write_text(name)
    return folder


def was_built(play: Playground) -> list[str]:
    """The packages that Buildroot has built, in order."""
    return (play.home / "built").read_text().split() if (play.home / "built").exists() else []


def places(play: Playground) -> list[Path]:
    """The folders of Buildroot's toolchains."""
    return [path.parent for path in (play.top / "build" / "toolchains").glob("*/host")]


def record(play: Playground) -> dict:
    return json.loads((play.here / "toolchain.json").read_text())


def prefix(play: Playground) -> str:
    """The prefix of the one toolchain that Buildroot has built."""
    (place,) = places(play)
    return str(place / "host" / "bin" / "x86_64-buildroot-linux-uclibc-")


def test_everything_with_buildroot(built: Playground, upstream: Path) -> None:
    first = built.doit(BUILD)
    assert {"buildroot_config", "fetch:buildroot-sources", "toolchain", "busybox", *KERNEL} <= set(
        first.ran
    )
    assert "busybox_config" in first.ran
    assert not {"fetch:musl", "fetch:busybox", "_unpack:busybox"} & set(first.ran)
    assert built.doit(BUILD).ran == []
    assert record(built)["prefix"] == prefix(built)
    assert json.loads((built.here / "userspace.json").read_text())["libc"] == "uClibc-ng 1.0.57"
    assert was_built(built) == PACKAGES
    assert not list(places(built)[0].glob("build/*/"))  # what it was made from is gone
    assert "BR2_KERNEL_HEADERS_6_1=y" in (built.images / "buildroot.config").read_text()


def test_switching_and_back(built: Playground, kept: Kept, upstream: Path) -> None:
    built.doit(BUILD)
    packages = was_built(built)
    back = built.doit()
    assert {"toolchain", "busybox", "vmlinux"} <= set(back.ran)
    assert not {name for name in back.ran if name.startswith(("fetch", "_unpack"))}
    assert built.digests() == kept.digests
    again = built.doit(BUILD)
    assert "toolchain" in again.ran
    assert was_built(built) == packages  # never twice


def test_another_libc_leaves_the_kernel_alone(built: Playground) -> None:
    """What user space takes, here a header that the kernel exports, is none of the kernel's
    compiler."""
    header = next((built.linux / "include" / "uapi").rglob("*.h"))
    built.append(header, "#define PIGGYBACK_TEST 1\n")
    ran = set(built.doit().ran)
    assert {"toolchain", "busybox_config"} <= ran
    assert not {"kernel_config", "Image"} & ran


def test_spoilt(built: Playground, upstream: Path) -> None:
    """A toolchain that somebody damaged is built anew."""
    built.doit(BUILD, "toolchain")
    gcc = Path(f"{prefix(built)}gcc")
    good = gcc.read_text()
    gcc.write_text("#!/bin/sh\nexit 1\n")
    built.doit(BUILD, "toolchain")
    assert gcc.read_text() == good
    assert was_built(built) == 2 * PACKAGES


def test_missing_source_offline(built: Playground, upstream: Path) -> None:
    said = built.fails(BUILD, "offline=yes", "toolchain")
    place = built.top / "dl" / "binutils" / "binutils-2.44.tar.gz"
    line = next(line for line in said.splitlines() if "is missing" in line)
    assert (
        "binutils-2.44.tar.gz is missing, and Buildroot's package host-binutils needs it: put it"
        f" at {place}" in line
    )
    for name in FILES:
        (built.top / "dl" / name).parent.mkdir(exist_ok=True)
        shutil.copy(upstream / f"{name}.tar.gz", built.top / "dl" / f"{name}.tar.gz")
    built.doit(BUILD, "offline=yes", "toolchain")
    assert not (built.home / "asked").exists()


def test_fetch_is_enough(built: Playground, upstream: Path) -> None:
    """After fetch nothing asks upstream; a file that is lost again is fetched again."""
    built.doit(BUILD, "fetch")
    shutil.rmtree(upstream)
    built.doit(BUILD, "offline=yes", "toolchain")
    (built.top / "dl" / "gcc" / "gcc-14.tar.gz").unlink()
    assert "gcc-14.tar.gz is missing" in built.fails(BUILD, "toolchain")


def test_primary_site(built: Playground, upstream: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(upstream, site)
    built.doit(BUILD, f"buildroot_site={site}", "buildroot_site_only=yes", "fetch")
    assert str(site) in (built.home / "asked").read_text()
    assert str(upstream) not in (built.home / "asked").read_text()


def test_wrong_hash(built: Playground, upstream: Path) -> None:
    """Buildroot's own checks stay on."""
    built.doit(BUILD, "_unpack:buildroot")
    tree = built.top / "build" / "src" / "buildroot"
    (tree / "package" / "uclibc" / "uclibc.hash").write_text(
        f"{'0' * 64}  uClibc-ng-1.0.57.tar.gz\n"
    )
    said = built.fails(BUILD, "toolchain")
    assert "uClibc-ng-1.0.57.tar.gz is missing" in said
    assert "wrong hash" in (built.here / "logs" / "fetch-buildroot-sources.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_in_gcc(built: Playground, upstream: Path, number: int) -> None:
    built.doit(BUILD, "fetch")
    built.pause("host-gcc-final", "wait")
    process = built.start(BUILD, "toolchain")
    built.reached("host-gcc-final")
    os.kill(process.pid, number)
    finish(process)
    built.resume()
    before = was_built(built)
    after = built.doit(BUILD, "toolchain")
    assert "cleaned first: host-gcc-final" in after.text
    assert was_built(built)[len(before) :] == ["host-gcc-final", "toolchain"]
    assert built.doit(BUILD, "toolchain").ran == []


def test_another_gcc_starts_afresh_and_keeps_the_old(
    built: Playground, upstream: Path, tmp_path: Path
) -> None:
    built.doit(BUILD, "toolchain")
    (old,) = places(built)
    thirteen = tmp_path / "gcc13.config"
    thirteen.write_text("BR2_GCC_VERSION_13_X=y\n")
    other = built.doit(BUILD, f"buildroot_fragments={thirteen}", "vmlinux")
    assert {"buildroot_config", "toolchain", "vmlinux"} <= set(other.ran)
    assert "13.1" in record(built)["version"]
    assert len(places(built)) == 2
    assert old.exists()
    packages = was_built(built)
    built.doit(BUILD, "toolchain")
    assert "14.1" in record(built)["version"]
    assert was_built(built) == packages


def test_a_request_that_does_not_take(built: Playground, upstream: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.config"
    odd.write_text("BR2_STATIC_LIBS=y\nBR2_TOOLCHAIN_BUILDROOT_GLIBC=y\nBR2_GCC_VERSION_41_X=y\n")
    said = built.fails(BUILD, f"buildroot_fragments={odd}", "buildroot_config")
    assert f"{odd}:3: BR2_GCC_VERSION_41_X=y did not take" in said
    assert "has no such symbol. Did you mean" in said
    assert f"{odd}:1: BR2_STATIC_LIBS=y did not take" in said
    assert "depends on !BR2_TOOLCHAIN_BUILDROOT_GLIBC" in said
    assert "BR2_TOOLCHAIN_BUILDROOT_INET_RPC" in said  # optional, and a relic in this release


def test_an_override(built: Playground, upstream: Path, tmp_path: Path) -> None:
    """A folder in the place of a download; an edit in it is seen, and no other package's toolchain
    is lost."""
    tree = tmp_path / "uclibc"
    tree.mkdir()
    (tree / "extra.h").write_text("#define MINE 1\n")
    override = tmp_path / "local.mk"
    override.write_text(f"UCLIBC_OVERRIDE_SRCDIR = {tree}\n")
    (upstream / "uclibc" / "uClibc-ng-1.0.57.tar.gz").unlink()
    words = [BUILD, f"buildroot_override={override}", "toolchain"]
    built.doit(*words)
    assert built.doit(*words).ran == []
    (tree / "extra.h").write_text("#define MINE 2\n")
    assert "toolchain" in built.doit(*words).ran
    assert len(places(built)) == 2
    os.utime(tree / "extra.h")
    built.doit(*words)  # the same content: the same toolchain
    assert len(places(built)) == 2
    shutil.rmtree(tree)
    assert f"the override file names {tree}" in built.fails(*words)


def test_headers_of_a_tarball(built: Playground, upstream: Path) -> None:
    (upstream / "linux" / "linux-6.1.tar.gz").unlink()
    built.doit(BUILD, "buildroot_headers=dl/linux-6.1.0.tar.gz", "toolchain")
    text = (built.images / "buildroot.config").read_text()
    assert "BR2_PACKAGE_HOST_LINUX_HEADERS_CUSTOM_6_1=y" in text
    assert (built.top / "dl" / "linux" / "linux-6.1.0.tar.gz").exists()


def test_a_users_own_tree_is_never_written_to(
    built: Playground, upstream: Path, tmp_path: Path
) -> None:
    built.doit(BUILD, "_unpack:buildroot")
    tree = tmp_path / "buildroot"
    shutil.copytree(
        built.top / "build" / "src" / "buildroot",
        tree,
        ignore=shutil.ignore_patterns(".piggyback*"),
    )
    subprocess.run(["chmod", "-R", "a-w", tree], check=True)
    before = {path: path.lstat().st_mtime_ns for path in tree.rglob("*")}
    own = f"buildroot_src={tree}"
    built.doit(BUILD, own, "toolchain")
    assert {path: path.lstat().st_mtime_ns for path in tree.rglob("*")} == before
    packages = was_built(built)
    subprocess.run(["chmod", "-R", "u+w", tree], check=True)
    built.doit(BUILD, "toolchain")  # the pinned release, which is the same: not built again
    assert was_built(built) == packages
    built.append(tree / "package" / "uclibc" / "uclibc.mk", "# another recipe\n")
    built.doit(BUILD, own, "toolchain")
    assert len(was_built(built)) == 2 * len(packages)


def test_menuconfig(built: Playground, upstream: Path) -> None:
    built.doit(BUILD, "buildroot_config")
    (built.home / "choices").write_text("BR2_GCC_VERSION_13_X=y\n")
    said = built.doit(BUILD, "buildroot_menuconfig").text
    own = built.top / "configs" / "buildroot" / "local" / "fake.config"
    assert "kept" in said
    assert "BR2_GCC_VERSION_1" in own.read_text()
    built.doit(BUILD, "buildroot_config")
    assert "BR2_GCC_VERSION_13_X=y" in (built.images / "buildroot.config").read_text()
    built.doit(BUILD, "buildroot_savedefconfig")
    small = (built.images / "buildroot_defconfig").read_text()
    assert "BR2_STATIC_LIBS=y" in small
    assert "BR2_GCC_VERSION_14_X" not in small
    (built.home / "choices").write_text("BR2_GCC_VERSION_14_X=y\n")
    built.doit(BUILD, "buildroot_menuconfig")
    assert not own.exists()


@pytest.mark.parametrize("where", ["a folder of its own", "a folder.with dots"])
def test_the_exported_tarball_on_another_machine(
    built: Playground, upstream: Path, tmp_path: Path, where: str
) -> None:
    built.doit(BUILD, "toolchain", "toolchain_export")
    (tarball,) = built.images.glob("*_sdk-*.tar.gz")
    with tarfile.open(tarball) as tar:
        assert {name.split("/")[0] for name in tar.getnames()} == {
            tarball.name.removesuffix(".tar.gz")
        }
    elsewhere = tmp_path / where.replace(" ", "_") / tarball.name
    elsewhere.parent.mkdir()
    shutil.move(tarball, elsewhere)
    shutil.rmtree(places(built)[0])
    words = ["toolchain=path", f"toolchain_prefix={elsewhere}", "busybox", "vmlinux"]
    built.doit(*words)
    home = Path(record(built)["prefix"]).parents[1]
    assert home.parent == built.top / "build" / "toolchains"
    assert (home / "share/buildroot/sdk-location").read_text().strip() == str(home)
    assert built.doit(*words).ran == []
    moved = tmp_path / "moved.tar.gz"
    elsewhere.rename(moved)
    ran = built.doit("toolchain=path", f"toolchain_prefix={moved}", "busybox", "vmlinux").ran
    assert not {"vmlinux", "busybox"} & set(ran)  # the same content


def test_path_by_prefix_and_by_folder(built: Playground, upstream: Path, triple: str) -> None:
    built.doit(BUILD, "busybox")
    mine = prefix(built)
    built.doit("toolchain=path", f"toolchain_prefix={mine}", "busybox")
    assert record(built)["prefix"] == mine
    ran = built.doit("toolchain=path", f"toolchain_prefix={Path(mine).parents[1]}", "busybox").ran
    assert "toolchain" in ran
    assert "busybox" not in ran
    gcc = Path(f"{mine}gcc")
    gcc.write_text(gcc.read_text().replace("14.1", "14.2"))  # upgraded under the same name
    assert {"toolchain", "busybox"} <= set(
        built.doit("toolchain=path", f"toolchain_prefix={mine}", "busybox").ran
    )


def test_refused(built: Playground, upstream: Path) -> None:
    built.doit(BUILD, "toolchain")
    mine = prefix(built)
    words = ["toolchain=path", f"toolchain_prefix={mine}", "toolchain"]
    version = (
        Path(mine).parents[1] / "x86_64-buildroot-linux-uclibc/sysroot/usr/include/linux/version.h"
    )
    text = version.read_text()
    version.write_text("#define LINUX_VERSION_CODE 396288\n")
    said = built.fails(*words)
    assert "the toolchain's kernel headers (6.12.0) are newer than the kernel (6.1)" in said
    version.write_text(text)
    built.doit(*words)
    gcc = Path(f"{mine}gcc")
    good = gcc.read_text()
    no_static = (
        'for word; do [ "$word" != -static ] || { echo "ld: cannot find -lc" >&2; exit 1; }; done'
    )
    gcc.write_text(good.replace("case $1 in", f"{no_static}\ncase $1 in"))
    said = built.fails(*words)
    assert "was refused: it can't compile and link a static program" in said
    assert "ld: cannot find -lc" in said
    gcc.unlink()
    assert f"there is no compiler {mine}gcc" in built.fails(*words)
    assert "needs to be told where" in built.fails("toolchain=path", "toolchain")


def test_headers_that_the_kernel_precedes(built: Playground, upstream: Path) -> None:
    """Buildroot offers 5.10, 6.1 and 6.12: a 6.2 kernel gets 6.1."""
    built.doit(BUILD, "kernel=6.2", "buildroot_config")
    assert "BR2_KERNEL_HEADERS_6_1=y" in (built.images / "buildroot.config").read_text()


def test_a_space_in_a_path(built: Playground, upstream: Path, tmp_path: Path) -> None:
    built.doit(BUILD, "_unpack:buildroot")
    tree = tmp_path / "my buildroot"
    shutil.copytree(built.top / "build" / "src" / "buildroot", tree)
    assert "Buildroot can't work in" in built.fails(BUILD, f"buildroot_src={tree}", "toolchain")


def test_the_environments_traps(built: Playground, upstream: Path) -> None:
    """`.` in PATH, LD_LIBRARY_PATH and PERL_MM_OPT, which Buildroot refuses, never reach it."""
    built.doit(
        BUILD,
        "toolchain",
        PATH=f".::{built.environ()['PATH']}",
        LD_LIBRARY_PATH=".",
        PERL_MM_OPT="INSTALL_BASE=/x",
    )


def test_bootlin(built: Playground, upstream: Path) -> None:
    """From a server here, a tarball made here: fetched by its hash, unpacked, relocated by its own
    script, probed."""
    built.doit(BUILD, "toolchain", "toolchain_export")
    (tarball,) = built.images.glob("*_sdk-*.tar.gz")
    data = tarball.read_bytes()
    words = ["toolchain=bootlin", "busybox"]
    with serving(file_server(data)) as site:
        (built.top / "configs" / "bootlin.toml").write_text(
            f'url = "{site.url}/{{arch}}/{{arch}}--{{libc}}--stable-{{version}}.tar.gz"\nversion ='
            f' "2025.08-1"\n[sha256.x86-64]\nuclibc = "{hashlib.sha256(data).hexdigest()}"\n'
        )
        ran = built.doit(*words).ran
        assert [path for path, _ in site.seen] == [
            "/x86-64/x86-64--uclibc--stable-2025.08-1.tar.gz"
        ]
    assert {"fetch:bootlin-x86-64-uclibc", "toolchain", "busybox"} <= set(ran)
    home = Path(record(built)["prefix"]).parents[1]
    assert (home / "share/buildroot/sdk-location").read_text().strip() == str(home)
    assert built.doit(*words).ran == []
    shutil.rmtree(home)
    assert "toolchain" in built.doit(*words, "offline=yes").ran
    assert "has no toolchain for x86-64 with musl" in built.fails(*words, "libc=musl")
    machine = built.top / "configs" / "machines" / "fake.toml"
    machine.write_text(machine.read_text().replace('bootlin = "x86-64"\n', ""))
    assert "Bootlin has no toolchain for the machine 'fake'" in built.fails(*words)


def llvm_of_shims(folder: Path, triple: str, version: str = "14.0.6") -> str:
    """A folder of programs with LLVM's names that call the host's GNU tools; returns it as LLVM=
    takes it."""
    folder.mkdir(exist_ok=True)
    for name, real in (
        ("clang", "gcc"),
        ("ld.lld", "ld"),
        *(
            (f"llvm-{tool}", tool)
            for tool in ("ar", "nm", "objcopy", "objdump", "readelf", "strip")
        ),
    ):
        path = folder / name
        said = (
            f'[ "$1" != --version ] || {{ echo "clang version {version}"; exit; }}\n'
            if name == "clang"
            else ""
        )
        path.write_text(f'#!/bin/sh\n{said}exec {triple}-{real} "$@"\n')
        path.chmod(0o755)
    return f"{folder}/"


def test_llvm_is_the_kernels_affair(built: Playground, triple: str, tmp_path: Path) -> None:
    """With clang for the kernel user space stays as it was; an upgraded clang makes the kernel
    stale, and only that."""
    machine = built.top / "configs" / "machines" / "fake.toml"
    words = ["toolchain=llvm", f"llvm={llvm_of_shims(tmp_path / 'bin', triple)}"]
    ran = set(built.doit(*words).ran)
    assert {"toolchain", "vmlinux"} <= ran
    assert not {"busybox", "busybox_config"} & ran
    assert record(built)["variables"]["LLVM"] == f"{tmp_path}/bin/"
    assert built.doit(*words).ran == []
    llvm_of_shims(tmp_path / "bin", triple, "14.0.7")
    ran = set(built.doit(*words).ran)
    assert {"toolchain", "vmlinux"} <= ran
    assert "busybox" not in ran
    assert "setting 'llvm' takes 1, a suffix such as -14" in built.fails(
        "toolchain=llvm", "llvm=fourteen"
    )
    assert "clang-99 is not installed" in built.fails("toolchain=llvm", "llvm=-99")
    machine.write_text(machine.read_text().replace("llvm = true\n", ""))
    assert "can't be built with LLVM=1 for the machine 'fake'" in built.fails("toolchain=llvm")
