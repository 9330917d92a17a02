"""Time doit against plain make, tuxmake and virtme-ng, side by side in one run: nothing changed,
one C file, a header, ...

    python tests/bench/against_make.py [--rounds N] [--clean] [ROW...]

Uses the checkout's own build of the selected machine (run `doit` first) and restores every file
that it edits. Each other tool has an object folder of its own, build/MACHINE/bench/TOOL, with the
same configuration, and is asked for the same image (make's starts as a copy of ours); tuxmake and
vng take part where they are on PATH. After each edit the tools go one after the other, each round
another one first; the table has the median of the rounds. Make's image is held against ours, and
plain make in our own object folder must find nothing to do.

Doit has its store on, as it is by default, in a folder of its own, empty at first. Before each flip
of a symbol that folder is emptied, and make is asked for `olddefconfig` first: it has our
configuration as its .config, as if somebody had edited that. "the same again" are flips to what the
store has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "tests" / "support")]
os.chdir(TOP)

import ending  # noqa: E402

from tasks import image, kernel_config  # noqa: E402
from tasks.config import project  # noqa: E402
from tasks.config.project import Project  # noqa: E402
from tasks.kbuild import make  # noqa: E402
from tasks.system.process import clean_env  # noqa: E402

DOIT = str(Path(sys.executable).with_name("doit"))
SOURCE, HEADER = "kernel/panic.c", "include/linux/reboot.h"
# Rows of the table with a symbol; the last is left out unless it is named, as it takes minutes.
SYMBOLS = {
    "ten objects' symbol": "SCSI_LOGGING",
    "adds, drops one": "MAGIC_SYSRQ",
    "the same again": "MAGIC_SYSRQ",
    "945 objects' symbol": "PANIC_TIMEOUT",
}
LONG = "945 objects' symbol"
AGAIN = "the same again"
FILE = Path("overlays/base/etc/piggyback-bench")


@dataclass
class Tool:
    """Something that builds an image. obj: its object folder; argv: the command; cwd: where it
    runs."""

    name: str
    obj: Path
    argv: list[str]
    cwd: Path = TOP

    def run(self, *goals: str) -> float:
        """Build, these goals first, which must succeed, and return the seconds that it took."""
        env = (
            {**os.environ, "COLUMNS": "80"}
            if self.name == "doit"
            else {**clean_env(make.pins(project.EPOCH)), "PATH": os.environ["PATH"]}
        )
        argv = [*self.argv[:-1], *goals, self.argv[-1]] if self.name == "make" else self.argv
        started = time.perf_counter()
        done = subprocess.run(
            argv,
            cwd=self.cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{self.name} failed: {' '.join(self.argv)}\n{done.stdout[-2000:]}")
        return time.perf_counter() - started


def tools(here: Project) -> list[Tool]:
    """Those that are here, doit first."""
    variables = [f"{name}={value}" for name, value in kernel_config.variables(here).items()]
    prefix = kernel_config.variables(here)["CROSS_COMPILE"]
    place, tree, jobs = (
        (here.layout.here / "bench").absolute(),
        here.layout.kernel_src.resolve(),
        str(here.jobs),
    )
    argv = ["make", "-C", str(tree), f"O={place / 'make'}", f"-j{jobs}", *variables, here.image]
    found = [
        Tool("doit", here.layout.kernel_obj, [DOIT, here.image]),
        Tool("make", place / "make", argv),
    ]
    if shutil.which("tuxmake"):
        cross = {"CROSS_COMPILE": prefix}
        found.append(
            Tool(
                "tuxmake",
                place / "tuxmake",
                [
                    "tuxmake",
                    "-q",
                    "-C",
                    str(tree),
                    "-b",
                    str(place / "tuxmake"),
                    "-o",
                    str(place / "tuxmake-out"),
                    "-j",
                    jobs,
                    "-a",
                    here.machine.arch,
                    "--wrapper=none",
                    "-k",
                    str(place / "tuxmake-config"),
                    "-I",
                    here.image,
                    "kernel",
                    *(
                        f"{name}={value}"
                        for name, value in {**here.machine.kernel.variables, **cross}.items()
                    ),
                ],
            )
        )
    if shutil.which("vng"):
        found.append(
            Tool(
                "vng",
                place / "vng",
                [
                    "vng",
                    "--build",
                    "--skip-modules",
                    "-j",
                    jobs,
                    f"O={place / 'vng'}",
                    *variables,
                    *(f"{name}={value}" for name, value in make.pins(project.EPOCH).items()),
                ],
                tree,
            )
        )
    return found


def give_config(here: Project, others: list[Tool]) -> None:
    """Put our configuration into the other tools' folders, where it is another one."""
    config = here.layout.config.read_bytes()
    for tool in others:
        tool.obj.mkdir(parents=True, exist_ok=True)
        for path in _configs(tool):
            if not path.exists() or path.read_bytes() != config:
                path.write_bytes(config)


def _configs(tool: Tool) -> tuple[Path, Path]:
    """Where a tool looks for its configuration: its folder, and the file for tuxmake's -k."""
    return tool.obj / ".config", tool.obj.parent / f"{tool.obj.name}-config"


@contextlib.contextmanager
def restored(*paths: Path) -> Iterator[None]:
    """Whatever happens to these files in the body of a `with`, they come back as they were, with a
    new time."""
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    try:
        yield
    finally:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            elif path.read_bytes() != content:
                path.write_bytes(content)


def rows(here: Project) -> dict[str, Callable[[int], None]]:
    """What is edited before each build, by the row's name; the number makes each edit another
    one."""
    source, header = here.layout.kernel_src / SOURCE, here.layout.kernel_src / HEADER
    code, declared = source.read_text(), header.read_text()

    def revert(number: int) -> None:
        source.write_text(
            code.replace("Kernel panic - not syncing", "Kernel panic: not syncing", number % 2)
        )

    return {
        "nothing changed": lambda number: None,
        "a comment": lambda number: _write(source, f"{code}/* {number} */\n"),
        "one C file": lambda number: _write(
            source,
            code.replace("Kernel panic - not syncing", f"Kernel panic - not syncing {number}", 1),
        ),
        "one header": lambda number: _write(
            header,
            declared.replace(
                "#define SYS_DOWN\t0x0001", f"#define SYS_DOWN\t0x{number + 100:04x}", 1
            ),
        ),
        **{name: symbols(here, symbol) for name, symbol in SYMBOLS.items()},
        "there and back": revert,
        "an overlay file": lambda number: _write(TOP / FILE, f"{number}\n"),
    }


def symbols(here: Project, symbol: str) -> Callable[[int], None]:
    """Return what flips a symbol in the user's own fragment."""
    own = here.layout.kernel_fragment
    mine = own.read_text() if own.exists() else ""

    on, off = f"CONFIG_{symbol}=y", f"# CONFIG_{symbol} is not set"
    if symbol == "PANIC_TIMEOUT":
        on, off = f"CONFIG_{symbol}=7", f"CONFIG_{symbol}=0"

    def flip(number: int) -> None:
        own.parent.mkdir(exist_ok=True)
        own.write_text(f"{mine}\n{on if number % 2 else off}\n")

    return flip


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def main(rounds: int, wanted: list[str], clean: bool) -> None:
    """Measure and print the table."""
    here = project.load(TOP, os.environ, {})
    found = tools(here)
    ours, others = found[0], found[1:]
    store = here.layout.here / "bench" / "store"
    os.environ["PIGGYBACK_STORE"] = str(store)
    everything = Tool("doit", here.layout.kernel_obj, [DOIT])
    shutil.rmtree(store, ignore_errors=True)
    first = everything.run()
    edits = rows(here)
    with restored(here.layout.kernel_src / SOURCE):  # after results of a store the folder is older
        edits["one C file"](time.time_ns())
        ours.run()
    shutil.rmtree(store, ignore_errors=True)
    ours.run()
    for tool in others:
        if tool.name == "make" and not tool.obj.exists():
            shutil.copytree(here.layout.kernel_obj, tool.obj, symlinks=True)
    give_config(here, others)
    built = {tool.name: tool.run() for tool in others}
    shutil.rmtree(store, ignore_errors=True)
    print(
        f"load {os.getloadavg()[0]:.1f}, {here.jobs} jobs, median of {rounds}; doit's first run"
        f" {first:.1f} s, the others' "
        + ", ".join(f"{name} {took:.1f} s" for name, took in built.items())
        + "\n"
    )
    print(
        f"{'':20}"
        + "".join(f"{tool.name:>10}" for tool in found)
        + "".join(f"{'/' + tool.name:>10}" for tool in others)
    )
    number = 0
    parts = None
    with restored(
        here.layout.kernel_src / SOURCE,
        here.layout.kernel_src / HEADER,
        here.layout.kernel_fragment,
        TOP / FILE,
    ):
        for name, change in edits.items():
            if name not in wanted if wanted else name == LONG:
                continue
            configs = _solved(here, change) if name in SYMBOLS else {}
            number += number % 2
            if name == AGAIN:
                for _ in range(2):
                    number += 1
                    change(number)
                    ours.run()
            took: dict[str, list[float]] = {tool.name: [] for tool in found}
            for turn in range(rounds):
                number += 1
                change(number)
                goals = ()
                if configs:
                    goals = ("olddefconfig",)
                    for tool in others:
                        _give(tool, configs[number % 2])
                    if name not in (AGAIN, "there and back"):  # vmlinux came from the store
                        shutil.rmtree(store, ignore_errors=True)
                whole = name in ("nothing changed", "an overlay file")
                for tool in found if turn % 2 else found[::-1]:
                    if tool is ours or name != "an overlay file":
                        took[tool.name].append(
                            (everything if whole and tool is ours else tool).run(*goals)
                        )
            medians = {tool: statistics.median(times) for tool, times in took.items() if times}
            print(_row(name, found, medians), flush=True)
            if name == "one C file":
                parts = _parts(here)
            _compare(here, others)
            if name not in (AGAIN, "there and back", "an overlay file"):  # vmlinux from the store
                _nothing_left(here, others)
    everything.run()
    if parts:
        print(
            "\none C file, link by link: "
            + ", ".join(f"{task} {seconds:.2f} s" for task, seconds in parts)
        )
    if clean:
        _clean(here, others)


def _solved(here: Project, change: Callable[[int], None]) -> dict[int, bytes]:
    """The configuration for each of both values of a symbol."""
    found = {}
    for number in (1, 0):
        change(number)
        Tool("doit", here.layout.kernel_obj, [DOIT, "kernel_config"]).run()
        found[number] = here.layout.config.read_bytes()
    Tool("doit", here.layout.kernel_obj, [DOIT, here.image]).run()
    return found


def _give(tool: Tool, config: bytes) -> None:
    """Put a configuration into a tool's folder."""
    for path in _configs(tool):
        path.write_bytes(config)


def _nothing_left(here: Project, others: list[Tool]) -> None:
    """Plain make in our object folder finds nothing to compile or to link."""
    for tool in others:
        if tool.name == "make":
            words = [
                f"O={here.layout.kernel_obj.absolute()}" if word.startswith("O=") else word
                for word in tool.argv
            ]
            done = subprocess.run(
                words,
                env={**clean_env(make.pins(project.EPOCH)), "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
            )
            if work := re.findall(r"^  (?:CC|AS|LD|AR|OBJCOPY) .*", done.stdout, re.MULTILINE):
                raise SystemExit(f"after doit, make still did: {work[0].strip()} ...")


def _row(name: str, found: list[Tool], best: Mapping[str, float]) -> str:
    """A line of the table: seconds of each tool, and ours as a part of theirs."""
    cells = [f"{best[tool.name]:9.2f}s" if tool.name in best else f"{'-':>10}" for tool in found]
    cells += [
        f"{best['doit'] / best[tool.name]:10.2f}" if tool.name in best else f"{'-':>10}"
        for tool in found[1:]
    ]
    return f"{name:20}" + "".join(cells)


def _parts(here: Project) -> list[tuple[str, float]]:
    """The tasks of doit's last run, and how long each took (s)."""
    lines = [json.loads(line) for line in here.layout.history.read_text().splitlines()[-40:]]
    return [(line["task"], line["seconds"]) for line in lines if line["run"] == lines[-1]["run"]]


def _compare(here: Project, others: list[Tool]) -> None:
    """Hold the kernels of the others against ours."""
    file = image.file_of(here.layout.kernel_obj, here.image)
    for tool in others:
        if (
            tool.name == "make"
            and (tool.obj / file).read_bytes() != (here.layout.images / here.image).read_bytes()
        ):
            raise SystemExit(f"{tool.name}'s {file} is not ours")


def _clean(here: Project, others: list[Tool]) -> None:
    """Build the image from nothing with each tool; doit in a build folder of its own, which borrows
    trees and toolchain."""
    place = (here.layout.here / "bench" / "clean").absolute()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in ("src", "toolchains"):
        (place / name).symlink_to((here.layout.build / name).absolute())
    argv = [DOIT, f"build={place}", "store_size=0", here.image]
    best = {"doit": Tool("doit", here.layout.kernel_obj, argv).run()}
    for tool in others:
        shutil.rmtree(tool.obj)
        give_config(here, [tool])
        best[tool.name] = tool.run()
    print(_row("clean build", [Tool("doit", place, argv), *others], best))
    shutil.rmtree(place)


if __name__ == "__main__":
    ending.by_exception()  # the files that were edited come back
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each row is measured (default: 3)"
    )
    parser.add_argument(
        "--clean", action="store_true", help="also build from nothing, which takes minutes"
    )
    parser.add_argument(
        "row", nargs="*", help="only these rows: nothing changed, a comment, one C file, ..."
    )
    words = parser.parse_args()
    main(words.rounds, words.row, words.clean)
