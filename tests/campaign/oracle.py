"""What the images of a world must be: an independent build, with nothing of doit's idea of what is
stale in it.

    kernel    plain make with an O= of its own: on the fake tree always from nothing; on the real
              one incremental, over a copy of the tree in which whatever has other content gets a
              new time, so that make sees it, and now and then from nothing
    busybox   a doit from nothing in another folder
    root      the project's own writers of images, called by hand

What was built once is kept by the contents of all that it could be made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from world import World, digest_of

from tasks.config.layout import SUFFIX
from tasks.config.project import EPOCH
from tasks.kbuild import make, records
from tasks.system import files
from tasks.system.process import clean_env

LOADER = "arch/x86/boot/compressed"
FILES = {
    "vmlinux": "vmlinux",
    "System.map": "System.map",
    "Image": f"{LOADER}/vmlinux.bin",
    "piggy.gz": f"{LOADER}/vmlinux.bin.{{suffix}}",
    "piggy.o": f"{LOADER}/piggy.o",
    "compressed_vmlinux": f"{LOADER}/vmlinux",
    "bzImage": "arch/x86/boot/bzImage",
}
# Ends of the compressed kernel's name that are not the compressor in small letters.
SUFFIXES = {"gzip": "gz", "bzip2": "bz2", "zstd": "zst"}
CONFIGS = ("config", "busybox.config")
# What make says where it makes something; it also says "CALL script" and "GEN Makefile".
WORK = re.compile(r"(?m)^  (?!CALL |GEN +Makefile|DESCEND )[A-Z][A-Z0-9_]*(?: \[M\])? +\S.*")
# loads the project with other places, and calls what writes the images: argv is the folder, then
# the settings
ROOT = """\
import os, sys
from pathlib import Path
os.chdir(sys.argv[1])
sys.path.insert(0, sys.argv[1])
from tasks import rootfs
from tasks.config import project
from tasks.graph.task import Job
here = project.load(Path(sys.argv[1]), {}, dict(word.split("=", 1) for word in sys.argv[2:]))
job = Job(here, "oracle", here.layout.build / "root.log")
rootfs.build_disk(job)
rootfs.build_archive(job)
"""
Images = dict[str, str]


class Oracle:
    """Independent builds of a world, in the folder `base`/oracle. `built`: how many were made."""

    def __init__(self, world: World) -> None:
        self.world, self.folder = world, world.base / "oracle"
        self.kernels: dict[str, Images | None] = {}
        self.learnt: dict[str, tuple[dict[str, int], dict[str, set[str]]]] = {}  # users and used
        self.boxes: dict[str, Path | None] = {}
        self.roots: dict[str, Images] = {}
        self.records: dict[str, tuple[float, set[str]]] = {}
        self.shadow: dict[str, str] | None = None
        self.built, self.snap = 0, dict[str, str]()

    def images(self, *, clean: bool = False) -> Images | None:
        """The digests that the images of the selected machine must have now; None where nothing can
        be built.

        clean: trust no kernel that was built step by step.
        """
        self.folder.mkdir(exist_ok=True)
        kernel = self._kernel(clean or self.world.kind == "fake")
        box = self._box()
        return None if kernel is None or box is None else {**kernel, **self._root(box)}

    def forget(self) -> None:
        """Drop what was kept of the present state, so that it is built from nothing."""
        self.kernels.pop(self._kernel_key(), None)

    def _common(self) -> list[str]:
        tools = digest_of(self.world.base / "bin")
        return [self.world.machine, self.world.play.environ(**self.world.env)["PATH"], tools]

    def _kernel_key(self) -> str:
        tree, self.snap = self.world.snapshot()
        configs = self.world.top / "configs"
        machine = configs / "machines" / f"{self.world.machine}.toml"
        return _key(
            tree,
            digest_of(configs / "kernel", machine),
            self.world.outside_state(),
            *self._common(),
        )

    def _kernel(self, clean: bool) -> Images | None:
        key = self._kernel_key()
        if (
            key not in self.kernels
            or clean
            and self.world.kind == "real"
            and self.kernels[key] is None
        ):
            self.kernels[key] = self._make(clean)
            self.learnt[key] = self.world.users, self.world.used
        self.world.users, self.world.used = self.learnt[key]
        return self.kernels[key]

    def _make(self, clean: bool) -> Images | None:
        world, self.built = self.world, self.built + 1
        obj = self.folder / f"kernel-{world.machine}"
        source = world.tree
        if world.kind == "real":
            source = self._synced()
        if clean or not (obj / ".piggyback-whole").exists():
            shutil.rmtree(obj, ignore_errors=True)
            self.records.clear()
        obj.mkdir(exist_ok=True)
        whole = obj / ".piggyback-whole"  # it was built once; from there on make goes on by itself
        toml = tomllib.loads(
            (world.top / "configs" / "machines" / f"{world.machine}.toml").read_text()
        )
        mini = obj / "piggyback.mini"
        fragments = world.top / "configs" / "kernel"
        mini.write_text(
            _requests(fragments / f"{name}.config" for name in toml["kernel"]["fragments"])
        )
        env = {**self._env(), **make.pins(EPOCH), "KCONFIG_ALLCONFIG": str(mini)}
        argv = self._argv(source, obj)
        old = (obj / ".config").read_bytes() if (obj / ".config").exists() else None
        info = (obj / ".config").stat() if old is not None else None
        with (obj / "make.log").open("w") as log:
            for goal in ("allnoconfig", "bzImage"):
                if subprocess.run(
                    [*argv, goal], env=env, stdout=log, stderr=log, check=False
                ).returncode:
                    return None
                if goal == "allnoconfig" and info and (obj / ".config").read_bytes() == old:
                    os.utime(obj / ".config", ns=(info.st_atime_ns, info.st_mtime_ns))
        self._learn(obj, source)
        whole.touch()
        return {
            **{name: _digest(path) for name, path in images_in(obj).items()},
            "config": _config_digest(obj / ".config"),
        }

    def left_to_make(self) -> list[str]:
        """What plain make still does in doit's own object folder, and what differs then.

        Asked after doit made both vmlinux and the image itself; the folder is put back as it was.
        Nothing is asked while a source is dated later than now: make then makes its targets at each
        run. Of a folder whose clock was set back the images alone count: what was edited shortly
        before that is newer for make than all that was made since.
        """
        world, now = self.world, time.time()
        names = {*world.used["vmlinux"], *world.used["boot"]}
        if any(files.changed(world.tree / name) > now * 1e9 for name in names):
            return []
        obj = _object_folder(world)
        kept = obj.with_name(f"{obj.name}.kept")
        shutil.rmtree(kept, ignore_errors=True)
        subprocess.run(["cp", "-a", obj, kept], check=True)
        try:
            return self._left(obj)
        finally:
            shutil.rmtree(obj)
            kept.rename(obj)

    def _left(self, obj: Path) -> list[str]:
        before = {name: _digest(path) for name, path in images_in(obj).items()}
        done = subprocess.run(
            [*self._argv(self.world.tree, obj), "bzImage"],
            env={**self._env(), **make.pins(EPOCH)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            return [f"make failed after doit: {done.stdout[-2000:]}"]
        clocked = self.world.machine in self.world.clocked
        found = [f"make still did{line}" for line in WORK.findall(done.stdout) if not clocked]
        for name, path in images_in(obj).items():
            if _digest(path) != before[name]:
                found.append(f"make made another {name} after doit")
        return found

    def _argv(self, source: Path, obj: Path) -> list[str]:
        """A call of the kernel's make, without a goal."""
        machine = self.world.top / "configs" / "machines" / f"{self.world.machine}.toml"
        toml = tomllib.loads(machine.read_text())
        return [
            "make",
            "-C",
            str(source),
            f"O={obj}",
            f"-j{os.cpu_count()}",
            f"ARCH={toml['arch']}",
            f"CROSS_COMPILE={toml['triple']}-",
        ]

    def _env(self) -> dict[str, str]:
        env = self.world.play.environ(**self.world.env)
        return {**clean_env(), "PATH": env["PATH"], "HOME": env["HOME"]}

    def _synced(self) -> Path:
        """Bring the copy of the tree up to date by content; what changed gets the time of now. What
        the copy then holds is written down for a campaign that goes on here."""
        copy = self.world.tree.with_name(self.world.tree.name + ".oracle")
        held = self.folder / "held.json"
        if self.shadow is None and held.exists():
            self.shadow = json.loads(held.read_text())
        held.unlink(missing_ok=True)
        if self.shadow is None:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(
                self.world.tree, copy, symlinks=True, ignore=shutil.ignore_patterns(".git")
            )
        else:
            for path in self.shadow.keys() - self.snap.keys():
                (copy / path).unlink(missing_ok=True)
            for path in (
                path for path, state in self.snap.items() if self.shadow.get(path) != state
            ):
                (copy / path).unlink(missing_ok=True)
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.world.tree / path, copy / path, follow_symlinks=False)
                if not (copy / path).is_symlink():
                    shutil.copymode(self.world.tree / path, copy / path)
        self.shadow = dict(self.snap)
        held.write_text(json.dumps(self.shadow))
        return copy

    def _learn(self, obj: Path, source: Path) -> None:
        """Read from Kbuild's records which files vmlinux and the boot folder are made from, and how
        many objects each."""
        token = re.compile(re.escape(str(source)) + r"/([^\s)\\:;'\"]+)")
        users: dict[str, int] = {}
        used: dict[str, set[str]] = {"vmlinux": set(), "boot": set()}
        for record in records.below(obj):
            time_of = os.stat(record).st_mtime
            if record not in self.records or self.records[record][0] != time_of:
                text = Path(record).read_text(errors="surrogateescape")
                self.records[record] = (
                    time_of,
                    {os.path.normpath(name) for name in token.findall(text)},
                )
            names = self.records[record][1] & self.snap.keys()
            used[
                (
                    "boot"
                    if re.search(r"/arch/\w+/boot/", record.removeprefix(str(obj)))
                    else "vmlinux"
                )
            ] |= names
            for name in names:
                users[name] = users.get(name, 0) + 1
        self.world.users, self.world.used = users, used

    def _box(self) -> Path | None:
        """A folder with busybox, its links and its configuration."""
        world = self.world
        configs = world.top / "configs"
        uapi = {path: state for path, state in self.snap.items() if "uapi/" in path}
        machine = tomllib.loads((configs / "machines" / f"{world.machine}.toml").read_text())
        other = ("kernel", "rootfs", "qemu", "display", "nic")
        said = {name: value for name, value in machine.items() if name not in other}
        key = _key(
            digest_of(world.box, configs / "busybox"),
            str(said),
            str(uapi),
            digest_of(world.top / "dl") if world.kind == "fake" else "",
            *self._common(),
        )
        if key in self.boxes:
            return self.boxes[key]
        self.built += 1
        build, keep = self.folder / "box", self.folder / f"box-{key[:12]}"
        _empty(build)
        words = {
            **world.words,
            "machine": world.machine,
            "build": str(build),
            "kernel_src": str(world.tree),
            "busybox_src": str(world.box),
            "dl": world.env.get("PIGGYBACK_DL", str(world.top / "dl")),
        }
        done = self._run(
            ["-m", "doit", *(f"{name}={value}" for name, value in words.items()), "busybox"]
        )
        if done.returncode:
            (self.folder / "box.log").write_text(done.stdout)
            self.boxes[key] = None
            return None
        keep.mkdir(exist_ok=True)
        for name in ("busybox", "busybox.links", "busybox.config"):
            shutil.copy(build / world.machine / "images" / name, keep)
        _empty(build)
        self.boxes[key] = keep
        return keep

    def _root(self, box: Path) -> Images:
        world = self.world
        key = _key(
            digest_of(box),
            digest_of(*(world.top / name for name in ("configs", "overlays", "tasks"))),
            str(world.words),
            *self._common(),
        )
        if key not in self.roots:
            build = self.folder / "root"
            shutil.rmtree(build, ignore_errors=True)
            shutil.copytree(box, build / world.machine / "images")
            words = {**world.words, "machine": world.machine, "build": str(build)}
            done = self._run(
                ["-c", ROOT, str(world.top), *(f"{name}={value}" for name, value in words.items())]
            )
            assert done.returncode == 0, done.stdout
            self.roots[key] = digests(
                build / world.machine / "images", names(world)[len(FILES) + 1 :]
            )
        return self.roots[key]

    def _run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.world.top,
            env=self._env(),
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


def names(world: World) -> list[str]:
    """The images that are compared: those of the kernel, its configuration, then those of user
    space."""
    archive = f"initramfs.cpio{SUFFIX[world.words.get('initramfs', 'gzip')]}"
    return [*FILES, "config", "busybox", "busybox.links", "busybox.config", "rootfs.ext2", archive]


def digests(folder: Path, images: Iterable[str]) -> Images:
    """The digest of each image; "" where it is missing."""
    return {
        name: (
            (_config_digest if name in CONFIGS else _digest)(folder / name)
            if (folder / name).is_file()
            else ""
        )
        for name in images
    }


def _object_folder(world: World) -> Path:
    """Doit's own object folder of the kernel."""
    made = (world.play.here / "kernel").glob("*/vmlinux")
    return max(made, key=os.path.getmtime).parent


def images_in(obj: Path) -> dict[str, Path]:
    """Kbuild's files of the images, by the images' names; FileNotFoundError if one is missing."""
    packed = re.search(
        r"(?m)^CONFIG_KERNEL_(GZIP|BZIP2|LZMA|XZ|LZO|LZ4|ZSTD)=y$", (obj / ".config").read_text()
    )
    word = packed[1].lower() if packed else "gzip"
    suffix = SUFFIXES.get(word, word)
    return {name: obj / file.format(suffix=suffix) for name, file in FILES.items()}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _config_digest(path: Path) -> str:
    """A digest of what a configuration says, without the date that may stand in it."""
    lines = re.findall(r"(?m)^CONFIG_.*|^# CONFIG_\w+ is not set", path.read_text(errors="replace"))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _requests(fragments: Iterable[Path]) -> str:
    """Fragments as one miniconfig: of several lines for a symbol the last one."""
    found: dict[str, str] = {}
    for path in fragments:
        for line in path.read_text().splitlines():
            match = re.match(r"(?:(CONFIG_\w+)=(?:\"[^\"]*\"|\w+)|# (CONFIG_\w+) is not set)", line)
            if match:
                found[match[1] or match[2]] = match[0]
    return "\n".join(found.values()) + "\n"


def _empty(build: Path) -> None:
    """Remove all of a build folder but the toolchains, each of which lies under the hash of what it
    was made from."""
    for path in build.iterdir() if build.exists() else ():
        if path.name != "toolchains":
            shutil.rmtree(path)


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def inputs(world: World, snap: Mapping[str, str], images: Mapping[str, str]) -> dict[str, str]:
    """For each task a digest of the contents that it may depend on: as fine as the oracle's
    records, else coarse.

    A task that runs while this and its outputs are as they were after its last success ran
    needlessly.
    """
    configs, triple = world.top / "configs", world.triple
    steer = {
        path: state
        for path, state in snap.items()
        if re.search(r"(^|/)(Makefile\S*|Kbuild\S*|Kconfig\S*)$|^scripts/|^localversion", path)
    }
    ends = {
        name: os.path.relpath(
            os.path.realpath(world.tree / name), world.tree
        )  # of links what they lead to
        for name, state in snap.items()
        if state.startswith("120000")
    }
    source = {
        part: str(
            [
                *steer.items(),
                *((name, snap.get(name), snap.get(ends.get(name, ""))) for name in sorted(names)),
            ]
        )
        for part, names in world.used.items()
    }
    common = [
        digest_of(world.base / "bin"),
        digest_of(world.top / "tasks"),
        world.play.environ(**world.env)["PATH"],
    ]
    uapi = str({path: state for path, state in snap.items() if "uapi/" in path})
    kernel = [images.get("config", ""), triple, *common]
    asked = digest_of(
        configs / "kernel", configs / "machines" / f"{world.machine}.toml", configs / "machines"
    )
    root = [
        images.get("busybox", ""),
        images.get("busybox.links", ""),
        digest_of(world.top / "overlays", configs),
        *common,
    ]
    boot = [source.get("boot", ""), *kernel]
    parts = {
        "toolchain": [uapi, *common],
        "kernel_config": [str(steer), asked, uapi, *common],
        "vmlinux": [source.get("vmlinux", ""), uapi, world.outside_state(), *kernel],
        "Image": [images.get("vmlinux", ""), *boot],
        "piggy.gz": [images.get("Image", ""), *boot],
        "piggy.o": [images.get("piggy.gz", ""), *boot],
        "compressed_vmlinux": [images.get("piggy.o", ""), images.get("System.map", ""), *boot],
        "bzImage": [images.get("compressed_vmlinux", ""), *boot],
        "busybox_config": [
            digest_of(world.box, configs / "busybox", configs / "machines"),
            uapi,
            *common,
        ],
        "busybox": [digest_of(world.box), images.get("busybox.config", ""), uapi, *common],
        "rootfs": [
            str({name: value for name, value in world.words.items() if name.startswith("rootfs")}),
            *root,
        ],
        "initramfs": [world.words.get("initramfs", ""), *root],
    }
    return {task: _key(*found) for task, found in parts.items()}
