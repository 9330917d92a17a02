"""A real project: this checkout's dodo.py, tasks/, configs/ and overlays/ in a folder of the
tests', and its dl/."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest
from firstbuild import FROM_STORE, FirstBuild

from tasks.config import project
from tasks.config.layout import Layout
from tasks.graph import history
from tasks.kbuild import make
from tasks.system.process import clean_env

TOP = Path(__file__).resolve().parents[2]


@dataclass
class Checkout:
    """A copy of the project in which the tests may do as they like."""

    top: Path
    machine: str = "pc"
    version: str = "6.1"
    env: dict[str, str] = field(default_factory=dict)
    umask: int = 0o022

    @property
    def images(self) -> Path:
        return self.top / "build" / self.machine / "images"

    @property
    def obj(self) -> Path:
        """Kbuild's O= folder."""
        return self.top / self.layout.kernel_obj

    @property
    def kernel(self) -> Path:
        """The kernel tree: the machine's own copy, if it has patches."""
        return self.top / self.layout.kernel_src

    @cached_property
    def layout(self) -> Layout:
        chosen = {"MACHINE": self.machine, "KERNEL": self.version}
        return project.load(self.top, chosen, {}).layout

    def argv(self, *words: str) -> list[str]:
        return [str(Path(sys.executable).with_name("doit")), *words]

    def variables(self) -> dict[str, str]:
        return {
            **os.environ,
            "PIGGYBACK_DL": str(TOP / "dl"),
            "MACHINE": self.machine,
            "KERNEL": self.version,
            "PIGGYBACK_STORE_SIZE": "0",
            **self.env,
        }  # what is tested is how things are made

    def doit(self, *words: str, status: int = 0, timeout: float = 1500) -> str:
        """Run doit and return what it said; its exit status must be `status`."""
        done = subprocess.run(
            self.argv(*words),
            cwd=self.top,
            env=self.variables(),
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            umask=self.umask,
            check=False,
        )
        print(done.stdout)
        assert done.returncode == status, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    def ran(self, *words: str) -> list[str]:
        """Run doit and return the tasks that it executed, in order."""
        path = self.top / "build" / self.machine / "logs" / "history.jsonl"
        before = history.end(path)
        self.doit(*words)
        return [line.task for line in history.read(path, before)]

    def make(self, obj: Path, *goals: str, tree: Path | None = None) -> str:
        """Run the kernel's own make, as somebody would by hand with the same pins, in this kernel
        tree or another one."""
        here = project.load(self.top, {"MACHINE": self.machine}, {}).machine
        return subprocess.run(
            [
                "make",
                "-C",
                str(tree or self.kernel),
                f"O={obj}",
                f"ARCH={here.arch}",
                f"CROSS_COMPILE={here.triple}-",
                f"-j{os.cpu_count()}",
                *(f"{name}={value}" for name, value in here.kernel.variables.items()),
                *goals,
            ],
            env=clean_env(make.pins(project.EPOCH)),
            text=True,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ).stdout

    def made_otherwise(self, obj: Path, *goals: str, tree: Path | None = None) -> list[str]:
        """Build `goals` by plain make in a folder of their own; return the links that are not as
        doit made them. The folder may hold an earlier build, as it would for somebody who goes from
        one configuration to the next."""
        obj.mkdir(exist_ok=True)
        shutil.copy(self.images / "config", obj / ".config")
        self.make(obj, "olddefconfig", *goals, tree=tree)
        assert (obj / ".config").read_bytes() == (self.images / "config").read_bytes()
        chain = project.load(self.top, {"MACHINE": self.machine}, {}).chain
        files = {
            "vmlinux": "vmlinux",
            "System.map": "System.map",
            **{link: (self.obj / f"piggyback.{link}").read_text().strip() for link in chain},
        }
        return [
            name
            for name, file in files.items()
            if (obj / file).read_bytes() != (self.images / name).read_bytes()
        ]


def odd(home: Path) -> dict[str, str]:
    """Variables of somebody elsewhere, none of which may make a difference."""
    return {
        "TZ": "Asia/Kathmandu",
        "LANG": "de_DE.UTF-8",
        "HOME": str(home),
        "USER": "somebody",
        "CFLAGS": "-O3",
        "KBUILD_BUILD_HOST": "elsewhere",
        "MAKEFLAGS": "-k",
    }


@contextlib.contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """Edit a source for the body of a `with`; afterwards it is back with its old time, as `cp -p`
    would put it."""
    before, info = path.read_text(), path.stat()
    assert old in before
    path.write_text(before.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_text(before)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def lay_out(top: Path, **more: object) -> Checkout:
    """Copy the project to `top`; what the user may have chosen for themselves stays behind."""
    top.mkdir(parents=True)
    shutil.copy(TOP / "dodo.py", top)
    for folder in ("tasks", "configs", "overlays"):
        shutil.copytree(
            TOP / folder,
            top / folder,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "local"),
        )
    return Checkout(top, **more)  # type: ignore[arg-type]


def thrown_away(checkout: Checkout) -> None:
    """Remove a checkout, unless that is left to whoever removes the machine (KEEP_BUILDS): its
    80,000 files may take minutes."""
    if not os.environ.get("KEEP_BUILDS"):
        shutil.rmtree(checkout.top, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that would have a machine built once more: each is built in one process, which
    the name of a test's file decides (see Together in tests/conftest.py)."""
    for item in items:
        names = {"pc_from_store", "pc", "versatile"} & {*getattr(item, "fixturenames", ())}
        if "pc_from_store" in names:
            names -= {"pc"}  # by that name in the tests of the network
        right = "pc_from_store" if item.path.stem in FROM_STORE else "pc"
        if item.path.stem == "test_arm":
            right = "versatile"
        if item.path.parent == Path(__file__).parent and names - {right}:
            raise pytest.UsageError(f"{item.nodeid} builds a second {names - {right}}; move it")


@pytest.fixture(scope="session")
def pc(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Checkout]:
    """The PC, built from nothing, with all processors: other tests that build a kernel wait."""
    checkout = lay_out(tmp_path_factory.mktemp("real") / "checkout")
    first = FirstBuild(request, tmp_path_factory)
    with first.begun():
        checkout.env.update(first.store)
        checkout.doit()
    for name in first.store:
        del checkout.env[name]
    yield checkout
    thrown_away(checkout)


@pytest.fixture(scope="session")
def pc_from_store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Checkout]:
    """The PC in a checkout that has vmlinux and the images after it from the store of the first
    one, and so no object folder that would go with them."""
    first = FirstBuild(request, tmp_path_factory)
    first.wait()
    checkout = lay_out(tmp_path_factory.mktemp("real") / "checkout", env=first.store)
    checkout.doit()
    yield checkout
    thrown_away(checkout)


@pytest.fixture(scope="session")
def plain(pc: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object folder that plain make alone brought up to date, of each twelfth object from
    its source; a test that builds in it again copies it first.

    The rest is a copy of what doit had make compile. That a folder which make alone filled is the
    same, test_pc.py shows (marked long: it takes minutes).
    """
    obj = Path(shutil.copytree(pc.obj, tmp_path_factory.mktemp("plain") / "obj", symlinks=True))
    assert without_each_twelfth_object(obj) > 80
    pc.made_otherwise(obj, "bzImage")
    return obj


def without_each_twelfth_object(obj: Path) -> int:
    """Remove each twelfth object of a folder, all that the boot loader is made of, and the links;
    return how many are gone."""
    objects = sorted(obj.rglob("*.o"))
    gone = [path for path in objects if "boot" in path.parts] + objects[::12]
    gone += obj.rglob("*.a")
    gone += [obj / "vmlinux", obj / "System.map", *(obj / "arch/x86/boot").rglob("*vmlinux*")]
    for path in gone:
        path.unlink(missing_ok=True)
    return len(gone)


@pytest.fixture(scope="session")
def versatile(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Checkout]:
    """The ARM board, built from nothing by somebody with odd habits; its kernel is lean and without
    a network, takes modules and has one, and its busybox is tiny. The PC comes first, if it is
    built, too."""
    missing = [
        tool
        for tool in ("arm-linux-gnueabi-gcc", "qemu-system-arm", "mkimage")
        if not shutil.which(tool, path=clean_env()["PATH"])
    ]
    if missing:
        pytest.skip(
            f"not installed: {', '.join(missing)} ('doit machine=versatile setup' does that)"
        )
    FirstBuild(request, tmp_path_factory).wait()
    top = tmp_path_factory.mktemp("real")
    env = {
        **odd(top),
        "PIGGYBACK_FRAGMENTS": "lean,nonet",
        "PIGGYBACK_NET": "none",
        "PIGGYBACK_BUSYBOX_FRAGMENTS": "tiny,comfort,modules",
    }
    checkout = lay_out(top / "deeper" / "checkout", machine="versatile", env=env, umask=0o077)
    own = checkout.top / "configs" / "kernel" / "local" / "versatile.config"
    own.parent.mkdir(exist_ok=True)
    own.write_text("CONFIG_MODULES=y\nCONFIG_MODULE_UNLOAD=y\nCONFIG_BLK_DEV_RAM=m\n")
    checkout.doit()
    yield checkout
    thrown_away(checkout)
