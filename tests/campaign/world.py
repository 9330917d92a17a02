"""Where a campaign plays: a project with two machines over one kernel tree that is a git
repository, and what it holds now.

fake   the fake kernel and busybox of tests/graph: a build takes seconds
real   the PC of configs/machines, over a copy of a kernel tree
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
for _folder in (TOP, TOP / "tests" / "support", TOP / "tests" / "graph"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

import clocks  # noqa: E402
import playground  # noqa: E402
from playground import Playground, Result, finish  # noqa: E402
from test_kill import nobody_works_in, working_in  # noqa: E402

__all__ = [
    "TOP",
    "Result",
    "World",
    "clocks",
    "digest_of",
    "fake",
    "finish",
    "nobody_works_in",
    "objects",
    "playground",
    "real",
    "rename",
    "working_in",
]

ASIDE = ".piggyback-source"  # the stamp of an unpacked tree; no content of it
FRAGMENT = "campaign"  # the campaign's own fragment, overlay and busybox fragment
SYMBOLS = {
    "fake": [
        "CONFIG_EXTRA=y",
        "CONFIG_NETDEVICES=y",
        'CONFIG_LOCALVERSION="-campaign"',
        'CONFIG_CMDLINE="quiet"',
        "CONFIG_LOG_BUF_SHIFT=15",
        "CONFIG_LOG_BUF_SHIFT=16",
        "CONFIG_EXPERT=y",
    ],
    "real": [
        "CONFIG_PRINTK_TIME=y",
        "CONFIG_PANIC_TIMEOUT=5",
        'CONFIG_LOCALVERSION="-campaign"',
        "CONFIG_EXT2_FS_XATTR=y",
        "CONFIG_MAGIC_SYSRQ=y",
        "CONFIG_LOG_BUF_SHIFT=15",
        "CONFIG_PANIC_ON_OOPS=y",
        "CONFIG_LOG_BUF_SHIFT=16",
    ],
}
BOX_SYMBOLS = {
    "fake": ["# CONFIG_CAT is not set", "# CONFIG_FEATURE_FANCY_ECHO is not set", "CONFIG_TC=y"],
    "real": [
        "# CONFIG_CAL is not set",
        "# CONFIG_FEATURE_FANCY_ECHO is not set",
        "# CONFIG_CMP is not set",
    ],
}
TOOLS = {
    "fake": {
        "gzip": ["", "-6"],
        "mke2fs": ["", "-m 1"],
        "{triple}-gcc": ["", "-O1"],
        "{triple}-ld": ["", "-Ttext=0x500000"],
        "{triple}-objcopy": ["", "--gap-fill=0xff"],
        "{triple}-strip": ["", "-R .gnu.version"],
    },
    "real": {"gzip": ["", "-6"], "mke2fs": ["", "-m 1"], "{triple}-strip": [""]},
}


@dataclass
class World:
    """A project, its trees, and how it is built just now.

    plays: by machine, the project. machine: the one that is built now. tree, box: kernel and
        busybox sources.
    words: settings. flags: further words for doit, for one run. env: environment. users: by source
    file, how many objects are made from it; used: by part ("vmlinux", "boot"), the files that it is
    made from: both as the oracle found them.
    """

    kind: str
    base: Path
    plays: dict[str, Playground]
    machine: str
    tree: Path
    box: Path
    triple: str
    env: dict[str, str]
    words: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    users: dict[str, int] = field(default_factory=dict)
    used: dict[str, set[str]] = field(default_factory=dict)
    kept: list[tuple[str, str, int]] = field(
        default_factory=list
    )  # earlier states of files: path, content, time
    inner: set[str] = field(default_factory=set)  # tasks that ran in the middle of a step
    clocked: set[str] = field(
        default_factory=set
    )  # machines that were built before a clock was set back: times there tell make too much
    stashed: bool = False
    parts: list[str] = field(
        default_factory=lambda: ["vmlinux", "vmlinux", "vmlinux", "boot", "box"]
    )

    @property
    def play(self) -> Playground:
        """The project of the machine that is built now."""
        return self.plays[self.machine]

    @property
    def top(self) -> Path:
        """The project's folder."""
        return self.play.top

    @property
    def outside(self) -> Path:
        """Where the files are that symbols name; there is no such folder until a kind of edit makes
        it."""
        return self.base / "outside"

    def outside_state(self) -> str:
        """Their contents, and what a built-in initramfs has of them: modes, owners, times in
        seconds, links."""
        info = [(str(path), path.lstat()) for path in sorted(self.outside.rglob("*"))]
        return digest_of(self.outside) + str(
            [
                (name, one.st_uid, one.st_gid, int(one.st_mtime))
                for name, one in info
                if stat.S_ISREG(one.st_mode)
            ]
        )

    @property
    def settings(self) -> list[str]:
        """The settings as words of the command line."""
        return [f"{name}={value}" for name, value in self.words.items()]

    def doit(self, *tasks: str, status: int | None = None) -> Result:
        """Build in the middle of a step."""
        result = self.play.doit(*self.flags, *self.settings, *tasks, status=status, **self.env)
        self.inner |= {*result.ran, *result.failed, *result.restored}
        return result

    def start(self) -> subprocess.Popen[str]:
        """Start a build, of which nobody knows how far it will come."""
        self.inner |= set(playground.EVERYTHING)
        return self.play.start(*self.flags, *self.settings, **self.env)

    def git(self, *words: str, index: str = "", check: bool = True) -> str:
        """Run git in the kernel tree and return what it says."""
        env = {**os.environ, **({"GIT_INDEX_FILE": index} if index else {})}
        return subprocess.run(
            ["git", *words],
            cwd=self.tree,
            env=env,
            check=check,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if not check else None,
        ).stdout

    def snapshot(self) -> tuple[str, dict[str, str]]:
        """The kernel tree's content: an identity of the whole, and of each file by its path."""
        index = str(self.base / "snapshot.index")
        self.git("add", "-A", "-f", ".", f":!{ASIDE}", index=index)
        lines = self.git("ls-files", "-s", "-z", index=index).split("\0")
        files = {
            path: f"{mode} {blob}"
            for mode, blob, path in (
                (*line.partition("\t")[0].split()[:2], line.partition("\t")[2])
                for line in lines
                if line
            )
        }
        return self.git("write-tree", index=index).strip(), files

    def cure(self) -> None:
        """Give the tree a content that builds: that of its commit."""
        self.git("checkout", "-q", "-f", "HEAD", check=False)
        self.git("reset", "-q", "--hard")
        self.git("clean", "-q", "-f", "-d", "-x", "-e", ASIDE)

    def save(self) -> None:
        """Write down what a later campaign needs in order to go on here."""
        part = self.base / "state.json.part"
        part.write_text(
            json.dumps([self.machine, self.words, self.stashed, self.kept[-50:], self.env])
        )
        part.replace(self.base / "state.json")

    def load(self) -> None:
        """Read what `save` wrote."""
        self.machine, self.words, self.stashed, kept, self.env = json.loads(
            (self.base / "state.json").read_text()
        )
        self.kept = [(path, text, time) for path, text, time in kept]


def digest_of(*paths: Path) -> str:
    """One digest for names, modes, links and contents of all that lies in some files and
    folders."""
    whole = hashlib.sha256()
    for path in paths:
        for item in [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]:
            if "__pycache__" in item.parts or item.name == ASIDE:
                continue
            state = os.lstat(item) if os.path.lexists(item) else None
            content = (
                os.readlink(item).encode()
                if item.is_symlink()
                else item.read_bytes()
                if item.is_file()
                else b""
            )
            whole.update(
                f"{item}\0{state.st_mode if state else 0:o}\0{len(content)}\0".encode() + content
            )
    return whole.hexdigest()


def fake(base: Path, triple: str, *, own: bool, kernel: str = "6.1") -> World:
    """Lay the fake project out in the folder `base`.

    own: the kernel is a tree of the user's, named by kernel_src. kernel: "6.1", or "6.2" with its
        other kind of records.
    """
    top, home = base / "project", base / "home"
    home.mkdir(parents=True)
    playground.lay_out(top, triple)
    plays = {name: Playground(top, home, machine=name) for name in ("fake", "fake2")}
    for play in plays.values():
        play.limit, play.store_size = 600, "2G"
    machine = top / "configs" / "machines" / "fake.toml"
    text = _widened(machine)
    machine.write_text(text)
    machine.with_name("fake2.toml").write_text(
        text.replace(f'"fake-serial", "{FRAGMENT}"', '"fake-serial", "fake-other"')
    )
    (top / "configs" / "kernel" / "fake-other.config").write_text(
        "CONFIG_NETDEVICES=y\nCONFIG_EXTRA=y\n"
    )
    _furnish(top)
    plays["fake"].doit("_unpack", f"kernel={kernel}")
    tree = top / "build" / "src" / f"linux-{kernel}"
    if own:
        shutil.copytree(tree.resolve(), base / "tree", symlinks=True)
        (base / "tree" / ASIDE).unlink()
        tree = base / "tree"
    world = World(
        "fake",
        base,
        plays,
        "fake",
        tree.resolve(),
        (top / "build/src/busybox").resolve(),
        triple,
        {"KERNEL_SRC": str(tree)} if own else {},
        {"kernel": kernel},
    )
    _history(world)
    return world


def real(base: Path, source: Path, dl: Path, ccache: str) -> World:
    """Lay a project for the PC out in the folder `base`.

    source: a clean kernel tree of the campaign's own: it is edited, and made a git repository if it
        is none.
    dl: where the archives are. ccache: a folder of compilers that goes first on PATH ("": none).
    """
    top, home = base / "project", base / "home"
    home.mkdir(parents=True, exist_ok=True)
    env = {"KERNEL_SRC": str(source), "PIGGYBACK_DL": str(dl), "PATH": _path(ccache)}
    plays = {name: Playground(top, home, machine=name) for name in ("pc", "pc2")}
    for play in plays.values():
        play.limit, play.store_size = 3600, "2G"
    world = World(
        "real",
        base,
        plays,
        "pc",
        source.resolve(),
        top / "build/src/busybox",
        "i686-linux-gnu",
        env,
    )
    new = not top.exists()
    for name in ("tasks", *(("configs", "overlays") if new else ())):
        shutil.rmtree(top / name, ignore_errors=True)
        shutil.copytree(
            TOP / name,
            top / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "local"),
        )
    shutil.copy(TOP / "dodo.py", top)
    if new:
        machine = top / "configs" / "machines" / "pc.toml"
        text = _widened(machine)
        machine.write_text(text)
        other = re.sub(r'"(?:xz|gzip)", ', '"lz4", ', text).replace('"net", "ne2k-pci", ', "")
        assert '"lz4"' in other, f"{machine} names other fragments now"
        assert '"net", "ne2k-pci"' not in other, f"{machine} names other fragments now"
        machine.with_name("pc2.toml").write_text(other)
        _furnish(top)
        world.play.doit("_unpack:busybox", **env)
    _history(world)
    world.box = world.box.resolve()
    return world


def _path(first: str) -> str:
    return ":".join([*filter(None, [first]), str(Path(sys.executable).parent), os.environ["PATH"]])


def _widened(machine: Path) -> str:
    """A machine's description, with the campaign's own fragments of kernel and busybox, and its
    overlay, at the ends."""
    text, count = re.subn(
        r"(?m)^((?:fragments|overlays) = \[.*)\]$",
        rf'\1, "{FRAGMENT}"]',
        machine.read_text(),
        count=3,
    )
    assert count == 3, f"{machine} has not one line for each"
    return text


def _furnish(top: Path) -> None:
    """Add what the campaign edits of a project: fragments and an overlay."""
    for where in ("kernel", "busybox"):
        (top / "configs" / where / f"{FRAGMENT}.config").write_text("# the campaign's own\n")
    overlay = top / "overlays" / FRAGMENT
    (overlay / "etc").mkdir(parents=True)
    (overlay / "etc" / "first").write_text("1\n")
    (overlay / "etc" / "link").symlink_to("first")


def _history(world: World) -> None:
    """Make the kernel tree a git repository with some commits, unless it is one of an earlier
    campaign."""
    if not (world.tree / ".git").exists():
        world.git("init", "-q")
    if "campaign-0" in world.git("branch", "--list", "campaign-*"):
        return
    (world.tree / ".git" / "info").mkdir(exist_ok=True)
    (world.tree / ".git" / "info" / "exclude").write_text(f"{ASIDE}\n")
    for name, value in (
        ("user.name", "campaign"),
        ("user.email", "campaign@example.org"),
        ("gc.auto", "0"),
        ("commit.gpgsign", "false"),
        ("advice.detachedHead", "false"),
    ):
        world.git("config", name, value)
    world.git("add", "-A", "-f", ".", f":!{ASIDE}")
    world.git("commit", "-q", "--allow-empty", "-m", "base")
    rng = random.Random("history")
    sources = [
        name
        for name in (
            "kernel/panic.c",
            "lib/string.c",
            "init/main.c",
            "arch/x86/boot/main.c",
            "arch/x86/boot/compressed/misc.c",
            "drivers/null.c",
            "kernel/printk.c",
            "lib/ctype.c",
            "fs/ext2/super.c",
            "mm/util.c",
        )
        if (world.tree / name).exists()
    ]
    for number in range(8):
        world.git("branch", "-f", f"campaign-{number}")
        for name in rng.sample(sources, 2):
            with (world.tree / name).open("a") as stream:
                stream.write(
                    f"\nstatic int __attribute__((used)) commit_{number} ="
                    f" {rng.randrange(10**6)};\n"
                )
        if number == 4:
            old = Path(
                "lib/string.c" if world.kind == "fake" else "mm/util.c"
            )  # which nothing else includes
            rename(world.tree, str(old), str(old.with_name("renamed.c")))
            sources = [name for name in sources if (world.tree / name).exists()]
        world.git(
            "add", "-A", "-f", ".", f":!{ASIDE}"
        )  # a distribution's tree may have a .gitignore that names everything
        world.git("commit", "-q", "-m", f"step {number}")
    world.git("checkout", "-q", "--detach", "campaign-0")


def rename(tree: Path, old: str, new: str) -> None:
    """Rename a C file, and its object in the folder's makefile."""
    makefile = tree / Path(old).parent / "Makefile"
    text = makefile.read_text()
    changed = re.sub(rf"\b{Path(old).stem}\.o\b", f"{Path(new).stem}.o", text)
    assert changed != text, f"{makefile} has no {old}"
    makefile.write_text(changed)
    (tree / old).rename(tree / new)


def objects(world: World) -> Iterator[Path]:
    """The files of the object folders of the machine that is built now."""
    for folder in (world.play.here / "kernel", world.play.here / "busybox"):
        for where, folders, names in os.walk(folder):
            folders.sort()
            yield from (
                Path(where, name) for name in sorted(names) if not Path(where, name).is_symlink()
            )
