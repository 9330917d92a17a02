"""A project to play with: this checkout's dodo.py and tasks/, with a fake machine whose sources
build in seconds.

The project is built once a session and copied aside. Each test gets it back as it was then, at the
same place, for the absolute paths of the place are in what is built.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.graph import history

TOP = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).resolve().parent / "fake"
IMAGES = (
    "vmlinux",
    "System.map",
    "Image",
    "piggy.gz",
    "piggy.o",
    "compressed_vmlinux",
    "bzImage",
    "config",
    "miniconfig",
    "busybox",
    "busybox.links",
    "busybox.config",
    "rootfs.ext2",
    "initramfs.cpio.gz",
)
EVERYTHING = [
    "fetch:musl",
    "fetch:linux-6.1",
    "fetch:busybox",
    "_unpack:musl",
    "_unpack:linux-6.1",
    "_unpack:busybox",
    "toolchain",
    "kernel_config",
    "vmlinux",
    "Image",
    "piggy.gz",
    "piggy.o",
    "compressed_vmlinux",
    "bzImage",
    "busybox_config",
    "busybox",
    "rootfs",
    "initramfs",
]
MACHINE = """\
description = "a machine of the tests"
arch = "x86_64"
triple = "{triple}"

[toolchain]
buildroot = ["x86-64"]
bootlin = "x86-64"
llvm = true

[kernel]
fragments = ["fake-base", "fake-serial"]
chain = "x86"
image = "bzImage"

[busybox]
base = "defconfig"
fragments = ["fake"]

[rootfs]
overlays = ["fake"]
devices = "fake"

[qemu]
binary = "fake-qemu"
machine = "none"

[qemu.disk]
args = ["-drive", "file={{image}}"]
root = "/dev/sda"
"""
BASE = """\
# what every machine needs
CONFIG_64BIT=y
CONFIG_PRINTK=y
CONFIG_BINFMT_ELF=y
CONFIG_KERNEL_GZIP=y
CONFIG_BLOCK=y
CONFIG_EXT2_FS=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_RD_GZIP=y
"""
BOOTED = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
SERIAL = "CONFIG_TTY=y\nCONFIG_SERIAL_8250=y\nCONFIG_SERIAL_8250_CONSOLE=y\n"


@dataclass(frozen=True)
class Result:
    """One run of doit: exit status, standard output and error together, the tasks that were done
    and those that failed (in order), why each was done, the seconds taken, and the tasks whose
    outputs came from the store."""

    status: int
    text: str
    ran: list[str]
    failed: list[str]
    why: dict[str, list[str]]
    seconds: float
    restored: list[str]


class Playground:
    """The project in the folder `top`; `home` is HOME for everything that is run in it, `umask` the
    umask. `machine`: the one that is selected. `plain`: for root, whether modes count as they do
    for anybody else. `limit`: the seconds that a run may take. `user`: for root, the ID of the user
    and group that it is run as; 0 for root itself. `boot`: a file with what the kernel calls the
    host's present run; "" for what it says itself."""

    def __init__(self, top: Path, home: Path, umask: int = -1, machine: str = "fake") -> None:
        self.top, self.home, self.umask, self.machine, self.plain, self.limit = (
            top,
            home,
            umask,
            machine,
            False,
            60.0,
        )
        self.user, self.boot = 0, ""
        self.store_size = "0"
        self.started: list[subprocess.Popen[str]] = []
        self.here = top / "build" / machine
        self.images = self.here / "images"
        self.linux = top / "build" / "src" / "linux-6.1"
        self.obj = self.here / "kernel" / "6.1"
        self.history = self.here / "logs" / "history.jsonl"

    def environ(self, **extra: str) -> dict[str, str]:
        """The environment of a user who has set nothing but the machine, and keeps nothing: what is
        made is made again."""
        env = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        return {
            **env,
            "HOME": str(self.home),
            "MACHINE": self.machine,
            "PYTHONDONTWRITEBYTECODE": "",
            "PIGGYBACK_STORE_SIZE": self.store_size,
            **extra,
        }

    def restart(self) -> None:
        """Have the host started anew, for all that is run from now on (for root)."""
        file = self.home / "boot_id"
        file.write_text(f"{uuid.uuid4()}\n")
        self.boot = str(file)

    def start(self, *words: str, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        """Start `doit WORDS` in a process group of its own."""
        confined = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
        argv = [*(confined if self.plain and os.geteuid() == 0 else ()), "doit", *words]
        argv = [*as_user(self.user), *argv] if self.user else argv
        argv = [*(("unshare", "-m", "sh", "-c", BOOTED, self.boot) if self.boot else ()), *argv]
        process = subprocess.Popen(
            argv,
            umask=self.umask,
            cwd=cwd or self.top,
            env=self.environ(**env),
            text=True,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.started.append(process)
        return process

    def doit(
        self, *words: str, status: int | None = 0, cwd: Path | None = None, **env: str
    ) -> Result:
        """Run `doit WORDS` to its end, which must be with `status` (None: any), and without a
        traceback."""
        seen = history.end(self.history)
        started = time.monotonic()
        process = self.start(*words, cwd=cwd, **env)
        text = finish(process, self.limit)
        seconds = time.monotonic() - started
        new = history.read(self.history, seen)
        result = Result(
            process.returncode,
            text,
            [line.task for line in new if line.result == "ok"],
            [line.task for line in new if line.result not in ("ok", "restored")],
            {line.task: [str(reason) for reason in line.why] for line in new},
            seconds,
            [line.task for line in new if line.result == "restored"],
        )
        assert "Traceback" not in text, text
        assert status is None or result.status == status, text
        return result

    def fails(self, *words: str, **env: str) -> str:
        """Run `doit WORDS`, which must fail, and return what it said."""
        result = self.doit(*words, status=None, **env)
        assert result.status != 0, result.text
        return result.text

    def finished(self) -> set[str]:
        """The tasks whose success is written down in the journal."""
        if not (self.here / "journal.sqlite").exists():
            return set()
        with contextlib.closing(sqlite3.connect(self.here / "journal.sqlite")) as journal:
            return {
                name
                for name, data in journal.execute("select task_id, task_data from doit")
                if "_values_:" in json.loads(data) and name in EVERYTHING
            }

    def digests(self) -> dict[str, str]:
        """The digest of each image."""
        return {
            name: hashlib.sha256((self.images / name).read_bytes()).hexdigest() for name in IMAGES
        }

    def edit(self, path: str | Path, old: str, new: str) -> None:
        """Replace `old`, which must be there, in a file, as an editor would: by writing it anew."""
        file = self.top / path
        text = file.read_text()
        assert old in text, f"{old!r} is not in {file}"
        file.write_text(text.replace(old, new))

    def append(self, path: str | Path, text: str) -> None:
        """Add text to a file."""
        with (self.top / path).open("a") as stream:
            stream.write(text)

    def pause(self, target: str, how: str = "") -> None:
        """Have the command that makes the file called `target` stop half-way (see
        fake/linux/scripts/pause)."""
        folder = self.home / "pause"
        folder.mkdir(exist_ok=True)
        (folder / target).write_text(how)

    def reached(self, target: str) -> None:
        """Wait until that command has come to its half-way point."""
        until = time.monotonic() + 120  # ends when it is reached; the host may be busy
        while not (self.home / "pause" / f"{target}.reached").exists():
            assert time.monotonic() < until, f"{target} was never made"
            time.sleep(0.02)

    def close(self) -> None:
        """Leave nothing running, whatever became of the test."""
        self.resume()
        self.boot = ""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
        self.started.clear()

    def resume(self) -> None:
        """Let nothing stop any more."""
        shutil.rmtree(self.home / "pause", ignore_errors=True)


@dataclass(frozen=True)
class Kept:
    """The project as first laid out, and as first built, with that first build's result and image
    digests."""

    play: Playground
    bare: Path
    whole: Path
    first: Result
    digests: dict[str, str]

    @contextlib.contextmanager
    def state(
        self, name: str, prepare: Callable[[Playground], object], store_size: str = "0"
    ) -> Iterator[Playground]:
        """Put the project into a state for the body of a `with`: it is built once, then copied."""
        self.play.store_size, place = store_size, self.whole.with_name(name)
        try:
            if not place.exists():
                copy(self.bare, self.play.top)
                prepare(self.play)
                copy(self.play.top, place)
            copy(place, self.play.top)
            yield self.play
        finally:
            self.play.close()
            self.play.store_size = "0"
            shutil.rmtree(self.play.top / "build" / "store", ignore_errors=True)


def as_user(user: int) -> list[str]:
    """What goes before a command to have root run it as a user and group of that ID."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


def finish(process: subprocess.Popen[str], seconds: float = 60) -> str:
    """Wait for a started doit to end and return what it said; one that hangs is ended, and fails
    the test."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"still running after {seconds} s: {process.args}") from None


def lay_out(top: Path, triple: str, umask: int = 0o022) -> None:
    """Make the project in the folder `top`: code of this checkout, a fake machine, and its sources
    in dl/.

    umask: of whoever checked the project out, as far as an image could depend on it.
    """
    top.mkdir(parents=True)
    shutil.copy(TOP / "dodo.py", top)
    for name in ("tasks", "configs"):
        shutil.copytree(
            TOP / name, top / name, ignore=shutil.ignore_patterns("__pycache__", "local")
        )
    configs = top / "configs"
    (configs / "machines" / "fake.toml").write_text(MACHINE.format(triple=triple))
    (configs / "kernel" / "fake-base.config").write_text(BASE)
    (configs / "kernel" / "fake-serial.config").write_text(SERIAL)
    (configs / "busybox" / "fake.config").write_text("CONFIG_STATIC=y\n# CONFIG_TC is not set\n")
    (configs / "rootfs" / "fake.txt").write_text("/dev d 755 0 0\n/dev/console c 600 0 0 5 1\n")
    with (configs / "rootfs" / "overlays.txt").open("a") as stream:
        stream.write("/fake/etc/inittab f 644 0 0\n/fake/etc/init.d/rcS f 755 0 0\n")
    etc = top / "overlays" / "fake" / "etc"
    (etc / "init.d").mkdir(parents=True)
    (etc / "inittab").write_text("::sysinit:/etc/init.d/rcS\n")
    (etc / "init.d" / "rcS").write_text("#!/bin/sh\necho hello\n")
    (etc / "init.d" / "rcS").chmod(0o777 & ~umask)
    for path in (etc / "inittab", etc / "init.d", etc, etc.parent):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
    (etc / "mtab").symlink_to("/proc/mounts")
    pins = []
    for name, archive in (
        ("linux-6.1", "linux-6.1.0.tar.gz"),
        ("linux-6.2", "linux-6.2.0.tar.gz"),
        ("busybox", "busybox-1.0.0.tar.gz"),
        ("musl", "musl-1.0.0.tar.gz"),
        ("buildroot", "buildroot-1.0.0.tar.gz"),
    ):
        sha256 = pack(name, top / "dl" / archive)
        pins.append(
            f'["{name}"]\nversion = "1"\nurls = ["https://upstream.invalid/{archive}"]\nsha256 ='
            f' "{sha256}"\n'
        )
    (configs / "sources.toml").write_text("\n".join(pins))


def pack(name: str, archive: Path) -> str:
    """Make the archive of a fake source, the same whenever and wherever; return its sha256."""
    aside = archive.parent / f".{name}"
    shutil.copytree(FAKE / name.partition("-")[0], aside)
    if name != "musl":
        folder = aside / "scripts" / "kconfig"
        folder.mkdir(parents=True, exist_ok=True)  # git keeps no empty folders
        shutil.copy(FAKE / "conf.py", folder)
        text = (aside / "Makefile").read_text().replace("@PYTHON@", sys.executable)
        (aside / "Makefile").write_text(text)
    if name == "linux-6.2":  # since then the records hold savedcmd_X
        for path in ("Kbuild.include", "basic/fixdep.c"):
            text = (aside / "scripts" / path).read_text()
            text = text.replace("'cmd_$@ :=", "'savedcmd_$@ :=").replace(
                "$(cmd_$@)", "$(savedcmd_$@)"
            )
            (aside / "scripts" / path).write_text(text.replace('"cmd_%s :=', '"savedcmd_%s :='))
        makefile = (aside / "Makefile").read_text()
        (aside / "Makefile").write_text(makefile.replace("PATCHLEVEL = 1", "PATCHLEVEL = 2"))

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime, member.uid, member.gid, member.uname, member.gname = (
            1_700_000_000,
            0,
            0,
            "",
            "",
        )
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with tarfile.open(archive, "w:gz") as tar:
        tar.add(aside, f"{name}.0", filter=plain)
    shutil.rmtree(aside)
    return hashlib.sha256(archive.read_bytes()).hexdigest()


def copy(source: Path, target: Path) -> None:
    """Make `target` a copy of the folder `source`, times and links included. What is the same there
    already stays: most of a test's time in the system went into copies."""
    if not target.is_dir() or target.is_symlink():
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", source, target], check=True)
        return
    missing, folders = list[str](), list[str]()
    target.chmod(0o755)
    _compare(source, target, "", missing, folders)
    if missing:
        into = ["cp", "-a", "--parents", "-t", target.absolute(), "--"]
        subprocess.run([*into, *missing], cwd=source, check=True)
    for name in reversed(folders):
        shutil.copystat(source / name, target / name)


def _compare(
    source: Path, target: Path, below: str, missing: list[str], folders: list[str]
) -> None:
    """Remove from a folder what is not as it is in another one; tell what is missing then, and
    which folders are in both."""
    folders.append(below)
    with os.scandir(target / below) as entries:
        there: dict[str, os.DirEntry[str] | None] = {entry.name: entry for entry in entries}
    with os.scandir(source / below) as entries:
        here = {entry.name: entry for entry in entries}
    for name, entry in there.items():
        if name in here and _alike(here[name], entry):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
        there[name] = None
    for name, entry in here.items():
        if there.get(name) is None:
            missing.append(f"{below}{name}")
        elif entry.is_dir(follow_symlinks=False):
            os.chmod(there[name], 0o755)
            _compare(source, target, f"{below}{name}/", missing, folders)


def _alike(one: os.DirEntry[str], other: os.DirEntry[str]) -> bool:
    """Are both folders, or links or files with the same content, time and rights, and one name?"""
    first, second = one.stat(follow_symlinks=False), other.stat(follow_symlinks=False)
    if stat.S_ISDIR(first.st_mode) or stat.S_ISDIR(second.st_mode):
        return stat.S_IFMT(first.st_mode) == stat.S_IFMT(second.st_mode)
    if any(
        getattr(first, name) != getattr(second, name)
        for name in ("st_mode", "st_size", "st_mtime_ns", "st_uid", "st_gid")
    ):
        return False
    if stat.S_ISLNK(first.st_mode):
        return os.readlink(one) == os.readlink(other)
    if not stat.S_ISREG(first.st_mode) or max(first.st_nlink, second.st_nlink) > 1:
        return False
    return Path(one).read_bytes() == Path(other).read_bytes()
