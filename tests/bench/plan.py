"""Hold the estimates of `doit plan` against the real time: edits and flips of different size.

    python tests/bench/plan.py --steps 30

Uses the checkout's own build of the selected machine (run `doit` first) and restores every file
that it edits. Each step edits some C files or a header, switches a symbol of the user's own
fragment, or takes the last change back; then it asks for an estimate, builds, and compares.

--most limits the number of objects that a header concerns; below 500 no symbol of most objects is
switched. The build after another version of the code compiles nothing, so it comes before the first
step.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "tests" / "support")]
os.chdir(TOP)

import ending  # noqa: E402

from tasks.config import project  # noqa: E402
from tasks.kbuild.depfiles import Depfiles  # noqa: E402
from tasks.kconfig import dotconfig  # noqa: E402

DOIT = str(Path(sys.executable).with_name("doit"))
WITHIN = 1.5
# Symbols without others that depend on them.
SYMBOLS = (
    *("PRINTK_TIME", "MAGIC_SYSRQ", "POSIX_MQUEUE", "FHANDLE", "AIO", "SIGNALFD", "TIMERFD"),
    *("ADVISE_SYSCALLS", "EVENTFD", "MEMBARRIER", "CROSS_MEMORY_ATTACH"),
)
MOST = ("SYSVIPC", "RSEQ")  # symbols that most objects read
KINDS = {"C": 9, "several C": 4, "header": 7, "symbol": 6, "back": 4, "most": 1}
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


class Bench:
    """The checkout's build, and what was edited."""

    def __init__(self, seed: int, most: int) -> None:
        self.random = random.Random(seed)
        self.here = project.load(TOP, os.environ, {})
        self.tree = self.here.layout.kernel_src.resolve()
        self.before: dict[Path, bytes | None] = {}
        self.last: list[tuple[Path, bytes | None]] = []
        known = Depfiles(self.here.layout.kernel_obj, self.here.layout.kernel_src, save=False)
        users = collections.Counter(
            name for record in known.records for name in known.given([record])
        )
        usable = sorted(name for name in users if "/scripts/" not in name and "/tools/" not in name)
        self.sources = [name for name in usable if name.endswith(".c") and "/boot/" not in name]
        headers = [name for name in usable if name.endswith(".h") and users[name] > 1]
        sizes = [one for one in ((2, 8), (9, 40), (41, 150), (151, 500)) if one[0] <= most]
        self.kinds = {**KINDS, "most": int(most >= 500)}
        self.headers = [
            [name for name in headers if least <= users[name] <= most] for least, most in sizes
        ]
        self.symbols: list[str] = []

    def edit(self, number: int) -> str:
        """Edit something, and return what was done."""
        kind = self.random.choices(list(self.kinds), list(self.kinds.values()))[0]
        if kind == "back" and self.last:
            for path, content in self.last:
                self._put(path, content)
            self.last = []
            return "back"
        self.last = []
        if kind == "symbol":
            self.symbols = self.symbols or self.random.sample(SYMBOLS, len(SYMBOLS))
            return self._flip(self.symbols.pop())
        if kind == "most":
            return self._flip(self.random.choice(MOST))
        if kind == "header":
            name = self.random.choice(self.random.choice(self.headers))
            mark = f"PIGGYBACK_{number}"
            self._append(
                Path(name),
                f"\n#if !defined(__ASSEMBLY__) && !defined({mark})\n#define {mark}\n"
                f"static int __attribute__((used)) piggyback_{number} = {number};\n#endif\n",
            )
            return f"header {os.path.relpath(name, self.tree)}"
        count = 1 if kind == "C" else self.random.randint(3, 12)
        names = self.random.sample(self.sources, count)
        for each, name in enumerate(names):
            one = f"int piggyback_{number}_{each}(int x)"
            self._append(Path(name), f"\n{one};\n{one} {{ return x * {number} + 7; }}\n")
        return f"{count} C, {os.path.relpath(names[0], self.tree)}"

    def _flip(self, symbol: str) -> str:
        """Switch a symbol of the user's own fragment."""
        own = self.here.layout.kernel_fragment
        text = own.read_text() if own.exists() else ""
        now = dotconfig.read_config(self.here.layout.config).get(symbol, "n")
        line = f"# CONFIG_{symbol} is not set" if now == "y" else f"CONFIG_{symbol}=y"
        own.parent.mkdir(parents=True, exist_ok=True)
        rest = [each for each in text.splitlines() if not re.search(rf"CONFIG_{symbol}\b", each)]
        self._keep(own)
        own.write_text("\n".join([*rest, line]) + "\n")
        return line

    def _append(self, path: Path, text: str) -> None:
        self._keep(path)
        path.write_bytes(path.read_bytes() + text.encode())

    def _keep(self, path: Path) -> None:
        content = path.read_bytes() if path.exists() else None
        self.before.setdefault(path, content)
        self.last.append((path, content))

    @staticmethod
    def _put(path: Path, content: bytes | None) -> None:
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(content)

    def restore(self) -> None:
        """Take all edits back."""
        for path, content in self.before.items():
            self._put(path, content)

    def doit(self, *words: str) -> tuple[str, int, float]:
        """Run doit; return what it printed, its status, and the seconds."""
        started = time.monotonic()
        done = subprocess.run(
            [DOIT, *words, self.here.image], text=True, capture_output=True, check=False
        )
        return done.stdout + done.stderr, done.returncode, time.monotonic() - started


def seconds(text: str) -> float | None:
    """Return the seconds of the last line of a plan; None if there is nothing to do."""
    line = text.strip().splitlines()[-1]
    found = re.findall(r"([\d.]+) (s|min|h)\b", line) if line.startswith("about ") else []
    return sum(float(number) * UNITS[unit] for number, unit in found) if found else None


def main(steps: int, seed: int, most: int) -> None:
    """Run the steps and print a line for each."""
    bench, ratios = Bench(seed, most), []
    print(f"{'estimate':>9} {'real':>9} {'ratio':>6}  load  change", flush=True)
    try:
        bench.doit()
        for number in range(1, steps + 1):
            what = bench.edit(number + seed * 1000)
            load = os.getloadavg()[0]
            text, _, _ = bench.doit("plan")
            said = seconds(text)
            output, status, real = bench.doit()
            if status:
                print(f"{'':26}  {what}: does not build", flush=True)
                for path, content in bench.last:
                    bench._put(path, content)
                bench.last = []
                if os.environ.get("VERBOSE"):
                    print(output[-1500:])
                continue
            if said is None:
                continue
            ratios.append(real / said)
            print(f"{said:8.1f}s {real:8.1f}s {real / said:6.2f}  {load:4.1f}  {what}", flush=True)
    finally:
        bench.restore()
    good = sum(1 / WITHIN <= ratio <= WITHIN for ratio in ratios)
    print(f"{good} of {len(ratios)} within a factor of {WITHIN}")


if __name__ == "__main__":
    ending.by_exception()  # the files that were edited come back
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=500)
    main(**vars(parser.parse_args()))
