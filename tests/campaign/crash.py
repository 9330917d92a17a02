"""Break builds off at random moments; after each, one plain doit must finish, with the images of an
undisturbed build.

    python tests/campaign/crash.py --crashes 200 --seed 7
    python tests/campaign/crash.py --tree real --kernel-src DIR --dl DIR --crashes 20

    doit        kill -9 of doit alone, its compilers end as they like
    all         kill -9 of everything at once
    power       kill -9 of everything; of the files written last some are empty, or cut short, with
                the time at which they were written, and the host starts anew: a power cut
    space       the disk (a tmpfs) is full; afterwards there is more room
    size        a limit on the size of files
    eio         some of doit's own writes fail with EIO
Half of the builds begin with nothing, half with an edit after which everything of the kernel is
built again.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import world as worlds
from campaign import triple
from oracle import digests, names
from upsets import kill
from world import World, finish, playground, working_in

FAULTS = ("doit", "all", "power", "space", "size", "eio")
BOTH = (
    "kernel/panic.c",
    "init/main.c",
    "lib/string.c",
    "arch/x86/boot/compressed/misc.c",
    "arch/x86/boot/main.c",
)
EDITED = {"fake": BOTH, "real": (*BOTH, "mm/util.c", "fs/exec.c")}
LIBRARY = Path(__file__).with_name("faulty.c")


class Crashes:
    """A world, what its images must be, and how it goes back to where it began.

    seconds: what an undisturbed build takes, from nothing and after the edit.
    """

    def __init__(self, world: World, base: Path) -> None:
        self.world, self.base = world, base
        self.place = world.base if world.kind == "fake" else world.play.here
        if world.kind == "fake":
            playground.copy(self.place, base / "bare")
        self.seconds, self.wanted = dict[bool, float](), dict[bool, dict[str, str]]()
        self.mounted: Path | None = None
        for edited in (False, True):
            self.back(edited)
            result = world.play.doit(**world.env)
            self.seconds[edited], self.wanted[edited] = (
                result.seconds,
                digests(world.play.images, names(world)),
            )
            if world.kind == "fake" and not edited:
                playground.copy(self.place, base / "whole")
            elif not edited:
                playground.copy(world.top / "build" / "store", base / "store")
        self.faulty = base / "faulty.so"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O1", "-o", self.faulty, LIBRARY, "-ldl"], check=True
        )

    def back(self, edited: bool) -> None:
        """Have nothing built, or everything and then an edit."""
        world = self.world
        world.play.boot = ""
        if self.mounted:
            subprocess.run(["umount", "-l", self.mounted], check=True)
            self.mounted.rmdir()
            self.mounted.with_name("build.aside").rename(self.mounted)
            self.mounted = None
        if world.kind == "real":
            world.cure()
            store, kept = world.top / "build" / "store", self.base / "store"
            shutil.rmtree(
                store, ignore_errors=True
            )  # or nothing would be built that was built before
            if edited:
                if kept.exists():
                    playground.copy(kept, store)
                world.play.doit(**world.env)
            else:
                shutil.rmtree(world.play.here, ignore_errors=True)
        else:
            playground.copy(self.base / ("whole" if edited else "bare"), self.place)
        for name in EDITED[world.kind] if edited else ():
            with (world.tree / name).open("a") as stream:
                stream.write("\nstatic int __attribute__((used)) crash(void) { return 1; }\n")

    def crash(self, fault: str, edited: bool, rng: random.Random) -> str:
        """One crash and the plain doit after it; returns what went wrong, "" if nothing."""
        world = self.world
        self.back(edited)
        said = getattr(self, f"_{fault}")(rng, self.seconds[edited] * 1.02)
        if "Traceback" in said:
            return f"a traceback: {said[-3000:]}"
        try:
            after = world.play.doit(status=None, **world.env)
        except AssertionError as error:
            return f"a traceback afterwards: {str(error)[-3000:]}"
        if after.status:
            return (
                f"the plain doit afterwards ended with status {after.status}: {after.text[-3000:]}"
            )
        found = digests(world.play.images, names(world))
        wrong = [
            f"{name} differs"
            for name, digest in self.wanted[edited].items()
            if digest != found[name]
        ]
        again = world.play.doit(status=None, **world.env)
        return "; ".join(
            wrong + [f"{task} ran once more: {again.why[task][:3]}" for task in again.ran]
        )

    def _killed(self, rng: random.Random, seconds: float, everybody: bool) -> str:
        process = self.world.play.start(**self.world.env)
        time.sleep(rng.uniform(0, seconds))
        kill(self.world.top, process.pid, everybody)
        text = finish(process, self.world.play.limit)
        until = time.monotonic() + 20
        while everybody and working_in(self.world.top) and time.monotonic() < until:
            kill(self.world.top, process.pid, True)
        return text

    def _doit(self, rng: random.Random, seconds: float) -> str:
        return self._killed(rng, seconds, False)

    def _all(self, rng: random.Random, seconds: float) -> str:
        return self._killed(rng, seconds, True)

    def _power(self, rng: random.Random, seconds: float) -> str:
        text, now = self._killed(rng, seconds, True), time.time()
        files = [
            path
            for path in (self.world.top / "build").rglob("*")
            if path.is_file() and not path.is_symlink()
        ]
        for path in files:
            info = path.stat()
            age = now - info.st_mtime
            flushed = {"src", "toolchains"} & {*path.parts} and ".part" not in str(path)
            if not flushed and age < rng.choice([0.05, 0.3, 2]) and rng.random() < 0.5:
                os.truncate(path, rng.choice([0, rng.randrange(info.st_size + 1)]))
                os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))  # its inode was written
        self.world.play.restart()
        return text

    def _space(self, rng: random.Random, seconds: float) -> str:
        """Build on a disk of its own, which has too little room; leave it there with more room."""
        build = self.world.top / "build"
        aside = build.with_name("build.aside")
        if build.exists():
            build.rename(aside)
        else:
            aside.mkdir()
        build.mkdir()
        taken = sum(
            path.stat().st_size + 4096 for path in aside.rglob("*") if not path.is_symlink()
        )
        room = taken + rng.randrange(8 << 20 if self.world.kind == "fake" else 300 << 20)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "none", build], check=True)
        self.mounted = build
        subprocess.run(["cp", "-a", f"{aside}/.", build], check=True)
        text = self.world.play.doit(status=None, **self.world.env).text
        subprocess.run(["mount", "-o", "remount,size=90%", build], check=True)
        return text

    def _size(self, rng: random.Random, seconds: float) -> str:
        return self._run(["prlimit", f"--fsize={int(2 ** rng.uniform(8, 21))}", "doit"], {})

    def _eio(self, rng: random.Random, seconds: float) -> str:
        return self._run(
            ["doit"],
            {
                "LD_PRELOAD": str(self.faulty),
                "FAULTY": str(rng.randrange(1, 400)),
                "FAULTY_FOR": rng.choice(["1", "1", "5", "100000"]),
            },
        )

    def _run(self, argv: list[str], env: dict[str, str]) -> str:
        whole = self.world.play.environ(**self.world.env, **env)
        return subprocess.run(
            argv,
            cwd=self.world.top,
            env=whole,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ).stdout


def main() -> int:
    """Parse the command line, crash, and print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tree", choices=["fake", "real"], default="fake")
    parser.add_argument("--crashes", type=int, default=100)
    parser.add_argument("--seed", default=str(int(time.time())))
    parser.add_argument(
        "--faults", default=",".join(FAULTS), help="separated by commas; space must mount a tmpfs"
    )
    parser.add_argument("--base", type=Path, help="folder to play in")
    parser.add_argument("--kernel-src", type=Path, help="real: a kernel tree that may be edited")
    parser.add_argument(
        "--dl", type=Path, default=worlds.TOP / "dl", help="real: where the archives are"
    )
    parser.add_argument(
        "--ccache", default="", help="real: a folder of compilers that goes first on PATH"
    )
    given = parser.parse_args()
    faults = given.faults.split(",")
    if "space" in faults and not os.environ.get(
        "CAMPAIGN_UNSHARED"
    ):  # mounts are ours alone, and end with us
        os.environ["CAMPAIGN_UNSHARED"] = "1"
        os.execvp(
            "unshare", ["unshare", "-m" if os.geteuid() == 0 else "-rm", sys.executable, *sys.argv]
        )
    base = (given.base or Path(tempfile.mkdtemp(prefix="crash."))).resolve()
    base.mkdir(parents=True, exist_ok=True)
    if given.tree == "real":
        world = worlds.real(
            base / "real", given.kernel_src.resolve(), given.dl.resolve(), given.ccache
        )
    else:
        world = worlds.fake(base / "fake", triple(), own=False)
    crashes = Crashes(world, base)
    print(
        f"seed {given.seed}, in {base}: {crashes.seconds[False]:.1f} s from nothing, "
        f"{crashes.seconds[True]:.1f} s after the edit",
        flush=True,
    )
    done, bad = Counter[str](), Counter[str]()
    for number in range(given.crashes):
        rng = random.Random(f"{given.seed}/{number}")
        fault, edited = rng.choice(faults), rng.random() < 0.5
        wrong = crashes.crash(fault, edited, rng)
        done[fault] += 1
        bad[fault] += bool(wrong)
        print(
            f"{number:5} {fault}{' after an edit' if edited else ''}: {wrong or 'ok'}", flush=True
        )
        if wrong:
            playground.copy(crashes.place, base / f"failed-{given.seed}-{number}")
    crashes.back(False)
    print(
        "\n".join(
            f"{fault:6} {count:4} crashes, {bad[fault]} went wrong"
            for fault, count in sorted(done.items())
        )
    )
    return int(any(bad.values()))


if __name__ == "__main__":
    sys.exit(main())
