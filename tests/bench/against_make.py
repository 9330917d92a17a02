"""Time doit against plain make, tuxmake and virtme-ng, side by side in one run: nothing changed,
one C file, a header, ...

    python tests/bench/against_make.py [--rounds N] [--clean] [ROW...]

Uses the checkout's own build of the selected machine (run `doit` first) and restores every file
that it edits. Each other tool has an object folder of its own, build/MACHINE/bench/TOOL, with the
same configuration, and is asked for the same image; tuxmake and vng take part where they are on
PATH. After each edit the tools go one after the other, each round another one first; the table has
the best round of each, since noise only ever adds. Make's image is held against ours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))
os.chdir(TOP)

from tasks import image, kernel_config  # noqa: E402
from tasks.config import project  # noqa: E402
from tasks.config.project import Project  # noqa: E402
from tasks.kbuild import make  # noqa: E402
from tasks.system.process import clean_env  # noqa: E402

DOIT = str(Path(sys.executable).with_name("doit"))
SOURCE, HEADER, SYMBOL = "kernel/panic.c", "include/linux/reboot.h", "PRINTK_TIME"
FILE = Path("overlays/base/etc/piggyback-bench")


@dataclass
class Tool:
    """Something that builds an image. obj: its object folder; argv: the command; cwd: where it
    runs."""

    name: str
    obj: Path
    argv: list[str]
    cwd: Path = TOP

    def run(self) -> float:
        """Build, which must succeed, and return the seconds that it took."""
        env = (
            {**os.environ, "COLUMNS": "80", "PIGGYBACK_STORE_SIZE": "0"}
            if self.name == "doit"
            else {**clean_env(make.pins(project.EPOCH)), "PATH": os.environ["PATH"]}
        )
        started = time.perf_counter()
        done = subprocess.run(
            self.argv,
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
        for path in (tool.obj / ".config", tool.obj.parent / f"{tool.name}-config"):
            if not path.exists() or path.read_bytes() != config:
                path.write_bytes(config)


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
    own = here.layout.kernel_fragment
    code, declared = source.read_text(), header.read_text()
    mine = own.read_text() if own.exists() else ""

    def revert(number: int) -> None:
        source.write_text(
            code.replace("Kernel panic - not syncing", "Kernel panic: not syncing", number % 2)
        )

    def symbol(number: int) -> None:
        own.parent.mkdir(exist_ok=True)
        own.write_text(
            mine + (f"\nCONFIG_{SYMBOL}=y\n" if number % 2 else f"\n# CONFIG_{SYMBOL} is not set\n")
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
        "one symbol": symbol,
        "there and back": revert,
        "an overlay file": lambda number: _write(TOP / FILE, f"{number}\n"),
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def main(rounds: int, wanted: list[str], clean: bool) -> None:
    """Measure and print the table."""
    here = project.load(TOP, os.environ, {})
    found = tools(here)
    ours, others = found[0], found[1:]
    everything = Tool("doit", here.layout.kernel_obj, [DOIT])
    first = everything.run()
    give_config(here, others)
    built = {tool.name: tool.run() for tool in others}
    print(
        f"load {os.getloadavg()[0]:.1f}, {here.jobs} jobs, best of {rounds}; doit's first run"
        f" {first:.1f} s, the others' "
        + ", ".join(f"{name} {took:.1f} s" for name, took in built.items())
        + "\n"
    )
    print(
        f"{'':18}"
        + "".join(f"{tool.name:>10}" for tool in found)
        + "".join(f"{'/' + tool.name:>10}" for tool in others)
    )
    number = 0
    with restored(
        here.layout.kernel_src / SOURCE,
        here.layout.kernel_src / HEADER,
        here.layout.kernel_fragment,
        TOP / FILE,
    ):
        for name, change in rows(here).items():
            if wanted and name not in wanted:
                continue
            best: dict[str, float] = {}
            for turn in range(rounds):
                number += 1
                change(number)
                if name == "one symbol":
                    order = found
                    Tool("doit", here.layout.kernel_obj, [DOIT, "kernel_config"]).run()
                    _set(here, others, number)
                else:
                    order = found if turn % 2 else found[::-1]
                whole = name in ("nothing changed", "an overlay file")
                for tool in order:
                    if tool is ours or name != "an overlay file":
                        took = (everything if whole and tool is ours else tool).run()
                        best[tool.name] = min(took, best.get(tool.name, took))
            print(_row(name, found, best), flush=True)
            if name == "one C file":
                parts = _parts(here)
            _compare(here, others)
    everything.run()
    if not wanted or "one C file" in wanted:
        print(
            "\none C file, link by link: "
            + ", ".join(f"{task} {took:.2f} s" for task, took in parts)
        )
    if clean:
        _clean(here, others)


def _row(name: str, found: list[Tool], best: dict[str, float]) -> str:
    """A line of the table: seconds of each tool, and ours as a part of theirs."""
    cells = [f"{best[tool.name]:9.2f}s" if tool.name in best else f"{'-':>10}" for tool in found]
    cells += [
        f"{best['doit'] / best[tool.name]:10.2f}" if tool.name in best else f"{'-':>10}"
        for tool in found[1:]
    ]
    return f"{name:18}" + "".join(cells)


def _set(here: Project, others: list[Tool], number: int) -> None:
    """Change the symbol in the other tools' configurations, as a person would with
    scripts/config."""
    flag = "--enable" if number % 2 else "--disable"
    for tool in others:
        for path in (tool.obj / ".config", tool.obj.parent / f"{tool.name}-config"):
            subprocess.run(
                [
                    str(here.layout.kernel_src / "scripts" / "config"),
                    "--file",
                    str(path),
                    flag,
                    SYMBOL,
                ],
                check=True,
            )


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the files that were edited come back
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
