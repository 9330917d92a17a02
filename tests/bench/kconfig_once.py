"""Time Kconfig by make against Kconfig without make, side by side in one run.

    python tests/bench/kconfig_once.py [--rounds N]

Uses a copy of the object folder of the selected machine (run `doit kernel_config` first), in
build/MACHINE/kconfig_once. Each round goes from one configuration to another and back, as a flip of
a symbol does: allnoconfig over a miniconfig, then syncconfig. The ways go one after the other, each
round another one first; the table has the best round of each, since noise only ever adds, as wall
time and as time of the processors. After each round .config, auto.conf, its list of Kconfig files
and the header must be the same, whichever way they were made.

    make            make allnoconfig, make syncconfig
    conf            scripts/kconfig/conf itself, in the environment that make gives it
    without make    what doit does (tasks/kbuild/conf.py)
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))
os.chdir(TOP)

from tasks import kernel_config  # noqa: E402
from tasks.config import project  # noqa: E402
from tasks.kbuild import ask, conf, make  # noqa: E402
from tasks.system.process import clean_env  # noqa: E402

FLIP = "CONFIG_SYSVIPC"
FILES = (
    ".config",
    "include/config/auto.conf",
    "include/config/auto.conf.cmd",
    "include/generated/autoconf.h",
)


class Bench:
    """The copy, and the ways to configure it."""

    def __init__(self) -> None:
        self.here = project.load(TOP, os.environ, {})
        tree = kernel_config.tree(self.here)
        self.obj = (self.here.layout.here / "kconfig_once").absolute()
        shutil.rmtree(self.obj, ignore_errors=True)
        shutil.copytree(tree.obj, self.obj, symlinks=True)
        self.argv = [
            f"O={self.obj}" if word.startswith("O=") else os.path.abspath(word) if at == 2 else word
            for at, word in enumerate(tree.argv)
        ]
        self.pins = make.pins(project.EPOCH)
        self.mini = self.obj / "piggyback.mini"
        self.text = self.mini.read_text()

    def make(self, goal: str, env: Mapping[str, str]) -> None:
        self.run([*self.argv, goal], TOP, clean_env({**self.pins, **env}))

    def without_make(self, goal: str, env: Mapping[str, str]) -> None:
        log = self.obj / "piggyback.log"
        if not conf.taken(self.request(goal, env, log)):
            sys.exit(log.read_text())

    def conf(self, goal: str, env: Mapping[str, str]) -> None:
        told = self.told[goal]
        self.run(told.argv, self.obj, {**told.env, **env})

    def request(self, goal: str, env: Mapping[str, str], log: Path) -> ask.Request:
        return ask.Request(self.argv, self.obj, goal, self.pins, env, self.here.jobs, log)

    def run(self, argv: list[str], cwd: Path, env: Mapping[str, str]) -> None:
        subprocess.run(argv, cwd=cwd, env=env, check=True, stdin=subprocess.DEVNULL, stdout=-3)

    def learn(self) -> None:
        """Have make told, and the answers known, before anything is timed."""
        for _ in range(2):
            for goal, env in self.goals():
                self.without_make(goal, env)
                time.sleep(0.1)
        known = conf._read(
            self.obj,
            conf._key(self.request("", {}, self.mini), conf._link_command(self.obj)),
        )
        self.told = known.targets

    def goals(self) -> list[tuple[str, dict[str, str]]]:
        return [("allnoconfig", {"KCONFIG_ALLCONFIG": str(self.mini)}), ("syncconfig", {})]

    def flip(self, way: Callable[[str, Mapping[str, str]], None], on: bool) -> list[float]:
        """Configure one way; return wall and processor seconds of both targets."""
        self.mini.write_text(f"{self.text}{FLIP}=y\n" if on else self.text)
        found = []
        for goal, env in self.goals():
            before, started = spent(), time.monotonic()
            way(goal, env)
            found += [time.monotonic() - started, spent() - before]
        return found

    def result(self) -> list[bytes]:
        return [(self.obj / name).read_bytes() for name in FILES]


def spent() -> float:
    """Processor seconds so far, of this process and of those that it waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    bench = Bench()
    rounds = parser.parse_args().rounds
    bench.learn()
    ways = {"make": bench.make, "conf": bench.conf, "without make": bench.without_make}
    best: dict[str, list[float]] = {}
    names = list(ways)
    for number in range(rounds):
        results: dict[bool, list[bytes]] = {}
        for name in names[number % 3 :] + names[: number % 3]:
            for on in (True, False):
                took = bench.flip(ways[name], on)
                best[name] = [min(pair) for pair in zip(took, best.get(name, took), strict=True)]
                if results.setdefault(on, bench.result()) != bench.result():
                    sys.exit(f"{name} made another configuration")
    print(f"{'':14}{'allnoconfig':>18}{'syncconfig':>18}{'both':>18}{'ratio':>14}")
    for name, (first, cpu1, second, cpu2) in best.items():
        wall, cpu = first + second, cpu1 + cpu2
        makes = best["make"]
        ratio = f"{wall / (makes[0] + makes[2]):8.2f} ({cpu / (makes[1] + makes[3]):4.2f})"
        pairs = ((first, cpu1), (second, cpu2), (wall, cpu))
        print(f"{name:14}", *(f"{at:9.2f} ({of:5.2f})" for at, of in pairs), ratio)
    print("seconds; processor time in brackets; ratio to make")
    shutil.rmtree(bench.obj)


if __name__ == "__main__":
    main()
