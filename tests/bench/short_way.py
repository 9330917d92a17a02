"""A campaign of random edits of a real kernel, and of random flips of symbols: what doit makes of
each, by the short way or not, held against plain make.

    python tests/bench/short_way.py --steps 40 --edits 3 --flips 30

Uses the checkout's own build of the selected machine (run `doit` first) and restores every file
that it edits. Plain make works in an object folder of its own, build/MACHINE/short_way, on the same
tree; it starts as a copy of ours. After each step every link is compared byte by byte, and make in
our own folder must find nothing to do, unless a link came from the store: then that folder has an
earlier one. The store, of results and of objects, is on, and is the campaign's own. A symbol is
flipped in the user's own fragment; one that does not take is flipped back. One flip in three takes
another compressor. Some edits change the size of the kernel by pages.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "tests" / "support")]
os.chdir(TOP)

import ending  # noqa: E402
from arrays import resize  # noqa: E402

from tasks import image, kernel_config  # noqa: E402
from tasks.config import project  # noqa: E402
from tasks.config.layout import SUFFIX  # noqa: E402
from tasks.kbuild import make  # noqa: E402
from tasks.kbuild.depfiles import SYMBOL, Depfiles  # noqa: E402
from tasks.kconfig import dotconfig  # noqa: E402
from tasks.system.process import clean_env  # noqa: E402

DOIT = str(Path(sys.executable).with_name("doit"))
MOST_READERS = 15  # a symbol that more objects read costs minutes a step
MOST_USERS = 25  # a header that more objects include costs minutes a step
WEIGHTS = {"C": 40, "lib": 10, "boot": 15, "header": 20, "assembler": 15}
COMPRESSORS = {"GZIP": "gzip", "LZMA": "lzma", "XZ": "xz", "LZ4": "lz4"}  # of x86 and ARM
WORK = re.compile(
    r"^  (?:CC|AS|LD|AR|OBJCOPY|NM|BUILD|MKPIGGY|HOSTCC|MODPOST|LDS|[VZ]OFFSET|GZIP|LZMA|XZ\w*|LZ4"
    r"|RELOCS|KSYMS|SYSMAP)"
    r"\s.*",
    re.MULTILINE,
)


class Campaign:
    """The state of one campaign: which files are edited, and what was counted."""

    def __init__(self, seed: int, flips: int) -> None:
        self.random = random.Random(seed)
        self.percent = flips
        self.here = project.load(TOP, os.environ, {})
        os.environ["PIGGYBACK_STORE"] = str(self.here.layout.here / "short_way_store")
        names = [*self.here.chain]  # which may go on behind the image (riscv's Image.gz)
        self.chain = names[: names.index(self.here.machine.kernel.image) + 1]
        self.tree = self.here.layout.kernel_src.resolve()
        self.second = self.here.layout.here / "short_way"
        self.before: dict[Path, tuple[bytes, int]] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.number = 0
        self.hidden: list[Path] = []  # put back with an old time: make alone would miss that
        self.touched = False  # doit does nothing about that, make compiles
        self.since: set[Path] = (
            set()
        )  # first edited in this step: taken back in it, too, such a file was but touched
        known = Depfiles(self.here.layout.kernel_obj, self.here.layout.kernel_src)
        users = collections.Counter(
            name for record in known.records for name in known.given([record])
        )
        usable = sorted(
            name
            for name, count in users.items()
            if name.endswith((".c", ".h", ".S"))
            and count <= MOST_USERS
            and "/scripts/" not in name
            and "/tools/" not in name
        )
        self.kinds: dict[str, list[Path]] = {
            "C": [Path(name) for name in usable if name.endswith(".c")],
            "lib": [
                Path(name) for name in usable if name.endswith(".c") and f"{self.tree}/lib/" in name
            ],
            "boot": [
                Path(name) for name in usable if name.endswith((".c", ".S")) and "/boot/" in name
            ],
            "header": [Path(name) for name in usable if name.endswith(".h")],
            "assembler": [
                Path(name) for name in usable if name.endswith(".S") and not name.endswith(".lds.S")
            ],
        }
        readers = collections.Counter(
            known.names[number].removeprefix(SYMBOL)
            for entry in known.records.values()
            for number in entry.symbols
        )
        values = dotconfig.parse_config(self.here.layout.config.read_text())
        self.symbols = sorted(
            name
            for name, count in readers.items()
            if count <= MOST_READERS and values.get(name, "n") in "yn"
        )
        self.flipped: dict[str, str] = {}
        self.packed = ""
        self.config = values
        self.fragment = self.here.layout.kernel_fragment
        self.own = self.fragment.read_text() if self.fragment.exists() else None
        self.strange = sorted(
            path
            for path in (self.tree / "include" / "linux").glob("crc*.h")
            if not users[str(path)]
        )

    def flip(self) -> str:
        """Flip a random symbol, one that was flipped before half of the time; "" if none takes."""
        for _ in range(20):
            before, packed = dict(self.flipped), self.packed
            if self.random.random() < 0.34:
                known = [one for one, program in COMPRESSORS.items() if shutil.which(program)]
                self.packed = self.random.choice(known)
                name = f"KERNEL_{self.packed}"
            elif self.flipped and self.random.random() < 0.5:
                name = self.random.choice(sorted(self.flipped))
                del self.flipped[name]
            else:
                name = self.random.choice(self.symbols)
                self.flipped[name] = "n" if self.config.get(name, "n") == "y" else "y"
            self.write_fragment()
            done = subprocess.run([DOIT, "kernel_config"], capture_output=True, check=False)
            if not done.returncode:
                return f"flip {name}"
            self.flipped, self.packed = before, packed
            self.symbols = [one for one in self.symbols if one != name]
        self.write_fragment()
        return ""

    def write_fragment(self) -> None:
        """Write the user's own fragment with the flipped symbols."""
        self.fragment.parent.mkdir(exist_ok=True)
        lines = [
            f"CONFIG_{name}=y" if value == "y" else f"# CONFIG_{name} is not set"
            for name, value in self.flipped.items()
        ]
        if self.packed:
            others = [one for one in COMPRESSORS if one != self.packed]
            lines += [f"# CONFIG_KERNEL_{one} is not set  # optional" for one in others]
            lines.append(f"CONFIG_KERNEL_{self.packed}=y")
        self.fragment.write_text("\n".join([self.own or "", *lines]) + "\n")

    def edit(self) -> str:
        """Edit one random file in one random way, or flip a symbol, and say what was done."""
        if self.random.random() * 100 < self.percent and (flipped := self.flip()):
            self.counts["flips"] += 1
            return flipped
        self.number += 1
        if self.before and self.random.random() < 0.25:
            path = self.random.choice(sorted(self.before))
            content, when = self.before.pop(path)
            path.write_bytes(content)
            old = self.random.random() < 0.5
            if old:
                os.utime(path, ns=(when, when))
                self.hidden.append(path)
            self.touched |= path in self.since
            return (
                f"{'revert, with its old time,' if old else 'revert'} {path.relative_to(self.tree)}"
            )
        kinds = [kind for kind, files in self.kinds.items() if files]  # riscv64 has no loader
        kind = self.random.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
        path = self.random.choice(self.kinds[kind])
        if path not in self.before:
            self.before[path] = path.read_bytes(), path.stat().st_mtime_ns
            self.since.add(path)
        text = path.read_text(errors="surrogateescape")
        ways: dict[str, Callable[[str], str]] = {
            "comment": lambda text: f"{text}/* {self.number} */\n",
            "lines": lambda text: f"/* {self.number} */\n\n{text}",
            "touch": str,
        }
        if path.suffix == ".c":
            name = f"int piggyback_{self.number}(int x)"
            ways["size"] = lambda text: resize(self.random, text)[0]
            ways["code"] = ways["more code"] = lambda text: (
                f"{text}\n{name};\n{name} {{ return x * {self.number} + 7; }}\n"
            )
            if self.strange:
                new = self.random.choice(self.strange)
                ways["include"] = lambda text: f"{text}\n#include <linux/{new.name}>\n"
        elif path.suffix == ".h":
            code = f"static int __attribute__((used)) piggyback_{self.number} = {self.number};"
            guard = f"PIGGYBACK_{self.number}"
            code = (
                f"\n#if !defined(__ASSEMBLY__) && !defined({guard})\n#define"
                f" {guard}\n{code}\n#endif\n"
            )
            ways["code"] = lambda text: f"{text}{code}"
        else:
            ways["code"] = lambda text: (
                f"{text}\n\t.pushsection .text\n\tnop\n\tnop\n\t.popsection\n"
            )
        way = self.random.choice(sorted(ways))
        self.touched |= way == "touch"
        path.write_text(ways[way](text), errors="surrogateescape")
        return f"{way} {path.relative_to(self.tree)}"

    def make(self, obj: Path) -> subprocess.CompletedProcess[str]:
        """Run plain make, with our pins, in an object folder."""
        argv = [
            "make",
            "-C",
            str(self.here.layout.kernel_src),
            f"O={obj.absolute()}",
            f"-j{self.here.jobs}",
            *(f"{name}={value}" for name, value in kernel_config.variables(self.here).items()),
            self.here.machine.kernel.image,
        ]
        return subprocess.run(
            argv,
            env=clean_env(make.pins(project.EPOCH)),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    def theirs(self, name: str) -> Path:
        """Return make's file with Kbuild's name of a link.

        Where the link came from the store, the name is that of an earlier compressor.
        """
        path = self.second / name
        config = (self.second / ".config").read_text()
        packed = {SUFFIX[program] for program in COMPRESSORS.values()}
        for one, program in COMPRESSORS.items():
            if path.suffix in packed and f"CONFIG_KERNEL_{one}=y\n" in config:
                return path.with_suffix(SUFFIX[program])
        return path

    def step(self, edits: int) -> None:
        """Edit, build both ways, compare."""
        self.since.clear()
        done = [self.edit() for _ in range(edits)]
        links = ["vmlinux", *self.chain]
        started = time.monotonic()
        ours = subprocess.run(
            [DOIT, self.here.machine.kernel.image],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        took = time.monotonic() - started
        ran = [
            name
            for name in links
            if re.search(rf"^  {re.escape(name)} ", ours.stdout, re.MULTILINE)
        ]
        ways = [self.way(name) for name in ran]
        for path in self.hidden:
            path.touch()
            self.touched = True
        self.hidden.clear()
        config = self.here.layout.config.read_bytes()
        if (self.second / ".config").read_bytes() != config:
            (self.second / ".config").write_bytes(config)
        theirs = self.make(self.second)
        verdict = "same"
        if ours.returncode or theirs.returncode:
            verdict = "both fail" if ours.returncode and theirs.returncode else "ONE FAILS"
            print(ours.stdout[-600:] if verdict == "ONE FAILS" else "", end="")
            while self.before:
                path, (content, _) = self.before.popitem()
                path.write_bytes(content)
        else:
            files = {
                "vmlinux": "vmlinux",
                "System.map": "System.map",
                **{name: image.file_of(self.here.layout.kernel_obj, name) for name in self.chain},
            }
            different = [
                name
                for name, file in files.items()
                if self.theirs(file).read_bytes() != (self.here.layout.images / name).read_bytes()
            ]
            restored = any(
                re.search(rf"^  store +{re.escape(name)} ", ours.stdout, re.MULTILINE)
                for name in links
            )
            self.counts["restored"] += restored
            needless = (
                [] if restored else WORK.findall(self.make(self.here.layout.kernel_obj).stdout)
            )
            verdict = f"MISSED {different}" if different else "same"
            if needless and not self.touched:
                verdict += f", but make finds [{len(needless)}] {needless[0]}"
            self.touched = False
        self.counts[verdict.split(" [")[0]] += 1
        self.counts.update(ways)
        self.counts["edits"] += edits
        said = " ".join(f"{name}={way}" for name, way in zip(ran, ways, strict=True))
        print(f"{took:6.1f} s  {verdict}: {', '.join(done)}; {said}", flush=True)

    def way(self, name: str) -> str:
        """How a link was made, as its log says."""
        text = (self.here.layout.logs / f"{name}.log").read_text(errors="replace")
        found = re.search(r"^# make decides: (.*)$", text, re.MULTILINE)
        if found:
            print(f"          {name}: {found[1]}")
        return "make" if found else "short"


def main(steps: int, seed: int, edits: int, flips: int) -> None:
    """Run the campaign and print the counts."""
    run = Campaign(seed, flips)
    subprocess.run(
        ["cp", "-a", "--no-target-directory", str(run.here.layout.kernel_obj), str(run.second)],
        check=True,
    )
    print(
        f"seed {seed}; make, in its own folder, begins with"
        f" {WORK.findall(run.make(run.second).stdout)}"
    )
    try:
        for _ in range(steps):
            run.step(edits)
    finally:
        for path, (content, when) in run.before.items():
            path.write_bytes(content)
            os.utime(path, ns=(when, when))
        if run.own is None:
            run.fragment.unlink(missing_ok=True)
        else:
            run.fragment.write_text(run.own)
        print(dict(run.counts))


if __name__ == "__main__":
    ending.by_exception()  # the files that were edited come back
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--edits", type=int, default=3, help="edits a step")
    parser.add_argument("--flips", type=int, default=0, help="percent of them that flip a symbol")
    main(**vars(parser.parse_args()))
