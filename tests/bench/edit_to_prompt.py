"""Time the way from saving a C file to the guest's shell: doit, and make with QEMU in a script.

    python tests/bench/edit_to_prompt.py [--rounds N] [--json] [NAME=VALUE...]

Uses the checkout's own build with these settings (image=vmlinux unless they say otherwise), which
it completes first, and restores kernel/panic.c, which it edits. In each round all tools get the
same edit, one after the other, each round another one first:

    doit       doit image=vmlinux qemu_test, up to its line "shell ok"
    make       make vmlinux, then the QEMU command of doit's test with this vmlinux, up to the
               shell's answer to the same question
    tuxmake, vng
               `tuxmake` or `vng --build` in the place of make, where they are on PATH
    tuxrun     `tuxmake`, then `tuxrun --runtime null` up to the shell's prompt, where tuxrun and
               LAVA's `lava-run` (Debian: lava-dispatcher) are on PATH; it writes to /var/lib/lava

Each other tool has an object folder of its own with the same configuration, in
build/MACHINE/bench/prompt-TOOL, which starts as a copy of ours; make's image is held against ours
after each round. The guest is the same for all but tuxrun, which has a machine of its own (two
processors, 4 GB, no network card), boots our initramfs, and waits for the kernel's first message,
so that the kernel may not be quiet. Where our kernel does not boot there, tuxrun is left out, which
is said. `vng --run` needs another configuration (virtio, 9p or virtiofs) and is not compared.

Beside the seconds stand those of the processor, which the load of the host changes less. Python
may keep its byte code, as it does for most users.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from against_make import DOIT, SOURCE, TOP, Tool, ending, give_config, restored, tools

from tasks import image
from tasks.config import project
from tasks.guest import console, serial
from tasks.system.errors import PiggyError

PROMPT = "=== shell ok"
PARTS = ("start of doit", "compile", "link", "chain", "before QEMU", "QEMU to the answer")
OTHERS = ("tuxmake", "vng", "tuxrun")
# tuxrun's names of machines on which a kernel for one of ours may boot, by architecture.
DEVICES = {
    "i386": "qemu-i386",
    "x86_64": "qemu-x86_64",
    "arm64": "qemu-arm64",
    "riscv": "qemu-riscv64",
}
# What lava-run says when the prompt was found.
PROMPTED = re.compile(r"'case': 'login-action'.*'result': 'pass'")


class Bench:
    """The tools, and what they took.

    Attributes:
        took: Seconds of each round, by tool.
        cpu: Likewise, of the processor.
        parts: Seconds of each round in parts, by tool.
        left_out: Why a tool that is installed takes no part, by its name.
    """

    def __init__(self, settings: dict[str, str]) -> None:
        self.here = project.load(TOP, os.environ, settings)
        words = [f"{name}={value}" for name, value in settings.items()]
        self.argv = [DOIT, *words, "qemu_test"]
        self.left_out: dict[str, str] = {}
        self.others = [_moved(tool) for tool in tools(self.here) if tool.name != "doit"]
        self.others += self._running()
        names = ["doit", *(tool.name for tool in self.others)]
        self.took: dict[str, list[float]] = {name: [] for name in names}
        self.cpu: dict[str, list[float]] = {name: [] for name in names}
        self.parts: dict[str, list[dict[str, float]]] = {name: [] for name in names}

    def _running(self) -> list[Tool]:
        """Return tuxmake once more, for tuxrun, if that can take part."""
        if not shutil.which("tuxrun"):
            return []
        if self.here.machine.arch not in DEVICES:
            self.left_out["tuxrun"] = f"it has no machine for {self.here.machine.arch}"
        elif missing := [name for name in ("tuxmake", "lava-run") if not shutil.which(name)]:
            self.left_out["tuxrun"] = f"it needs {' and '.join(missing)} on PATH"
        else:
            tool = next(tool for tool in tools(self.here) if tool.name == "tuxmake")
            return [_moved(tool, "tuxrun")]
        return []

    def prepare(self) -> None:
        """Build with each tool."""
        done = subprocess.run(self.argv, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{shlex.join(self.argv)} failed:\n{done.stdout[-2000:]}")
        obj = self.here.layout.kernel_obj
        for tool in self.others:
            if not tool.obj.exists():
                shutil.copytree(obj, tool.obj, symlinks=True)
        give_config(self.here, self.others)
        for tool in self.others:
            tool.run()
        if ours := [tool for tool in self.others if tool.name == "tuxrun"]:
            subprocess.run([*self.argv[:-1], "initramfs"], stdout=subprocess.DEVNULL, check=True)
            if self.tuxrun(ours[0]) is None:
                self.left_out["tuxrun"] = f"no prompt on its machine, see {_log(ours[0])}"
                self.others.remove(ours[0])
                for told in (self.took, self.cpu, self.parts):
                    del told["tuxrun"]

    def round(self, number: int) -> None:
        """Give all tools an edit that they have not had yet."""
        source = self.here.layout.kernel_src / SOURCE
        code = source.read_text()
        mark = "Kernel panic - not syncing"
        fresh = f"{mark} {os.getpid()}.{number}"
        with restored(source):
            source.write_text(code.replace(mark, fresh, 1))
            turns: list[Tool | None] = [None, *self.others]
            for tool in turns if number % 2 else turns[::-1]:
                name = tool.name if tool else "doit"
                parts, cpu = self.other(tool) if tool else self.ours()
                self.cpu[name].append(cpu)
                self.took[name].append(sum(parts.values()))
                self.parts[name].append(parts)
            self._compare()

    def ours(self) -> tuple[dict[str, float], float]:
        """Run doit up to the shell's answer, then to its end.

        Returns:
            The seconds up to the answer by part, and those of the processor.
        """
        layout = self.here.layout
        began, clock = time.time(), time.perf_counter()
        answered, cpu, said = 0.0, 0.0, ""
        with subprocess.Popen(self.argv, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                said += line
                if line.startswith(PROMPT):
                    answered, cpu = time.perf_counter() - clock, spent(child.pid)
        if child.returncode or not answered:
            raise SystemExit(f"{shlex.join(self.argv)} failed:\n{said[-2000:]}")
        lines = [json.loads(line) for line in layout.history.read_text().splitlines()[-40:]]
        ran = {line["task"]: line for line in lines if line["run"] == lines[-1]["run"]}
        compiling = ran["vmlinux"]["work"].get("compiling", 0.0)
        built = sum(line["seconds"] for name, line in ran.items() if name != "qemu_test")
        ready = json.loads(layout.boot_record.read_text())["ready"]
        start = lines[-1]["run"] - began
        link = ran["vmlinux"]["seconds"] - compiling
        chain = built - ran["vmlinux"]["seconds"]
        rest = answered - start - built - ready
        return dict(zip(PARTS, (start, compiling, link, chain, rest, ready), strict=True)), cpu

    def other(self, tool: Tool) -> tuple[dict[str, float], float]:
        """Build with another tool and start QEMU; return what `ours` does."""
        clock, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        tool.run()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        built = time.perf_counter() - clock
        booted = self.tuxrun(tool) if tool.name == "tuxrun" else self.qemu(tool)
        if booted is None:
            raise SystemExit(f"tuxrun found no prompt, see {_log(tool)}")
        seconds, more = booted
        return {"build": built, "QEMU to the answer": seconds}, cpu + more

    def qemu(self, tool: Tool) -> tuple[float, float]:
        """Start a tool's kernel by doit's command; return the seconds to the shell's answer, and
        those of the processor."""
        log = self.here.layout.logs / "console.log"  # of doit's last test, with its command
        command = log.read_text().splitlines()[0].removeprefix("$ ")
        argv = shlex.split(re.sub(r"hostfwd=[^, ]*,", "", command))  # others may have the port now
        argv[argv.index("-kernel") + 1] = str(self._kernel(tool))
        clock = time.perf_counter()
        with console.session(argv, _log(tool), serial.limits("tcg")) as guest:
            guest.ready()
            return time.perf_counter() - clock, spent(guest.line.process.pid or 0)

    def tuxrun(self, tool: Tool) -> tuple[float, float] | None:
        """Start a tool's kernel by tuxrun; return what `qemu` does, or None if no prompt comes."""
        argv = ["tuxrun", "--runtime=null", f"--device={DEVICES[self.here.machine.arch]}"]
        argv += ["--kernel", str(self._kernel(tool).absolute())]
        argv += ["--rootfs", str(self.here.layout.initramfs.absolute())]
        argv += ["--boot-args", "loglevel=7", "--timeouts", "boot=2"]
        clock, found = time.perf_counter(), None
        with _log(tool).open("w") as log:
            log.write(f"$ {shlex.join(argv)}\n")
            with subprocess.Popen(
                argv,
                cwd=tool.obj.parent,  # lava-run writes a folder "output" there
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as child:
                assert child.stdout is not None
                for line in child.stdout:
                    log.write(line)
                    if not found and PROMPTED.search(line):
                        found = time.perf_counter() - clock, spent(child.pid)
        return found

    def _kernel(self, tool: Tool) -> Path:
        return tool.obj / image.file_of(tool.obj, self.here.image)

    def _compare(self) -> None:
        """Hold make's image against ours."""
        ours = self.here.layout.kernel_image.read_bytes()
        for tool in self.others:
            if tool.name == "make":
                theirs = tool.obj / image.file_of(tool.obj, self.here.image)
                if theirs.read_bytes() != ours:
                    raise SystemExit(f"make's {theirs} is not ours")

    def result(self) -> dict[str, Any]:
        """Return the medians, for programs."""
        medians = {name: statistics.median(took) for name, took in self.took.items()}
        cpu = {name: statistics.median(took) for name, took in self.cpu.items()}
        return {
            "image": self.here.image,
            "machine": self.here.settings.machine,
            "rounds": len(self.took["doit"]),
            "jobs": self.here.jobs,
            "load": round(os.getloadavg()[0], 1),
            "seconds": {name: round(took, 2) for name, took in medians.items()},
            "ratio": _ratios(medians),
            "cpu seconds": {name: round(took, 2) for name, took in cpu.items()},
            "cpu ratio": _ratios(cpu),
            "parts": {
                name: {
                    part: round(statistics.median(one[part] for one in parts), 2)
                    for part in parts[0]
                }
                for name, parts in self.parts.items()
            },
            "all": {name: [round(took, 2) for took in all_] for name, all_ in self.took.items()},
            "not installed": [name for name in OTHERS if not shutil.which(name)],
            "left out": self.left_out,
        }


def spent(root: int) -> float:
    """Return the processor's seconds of a process, its descendants, and their ended children."""
    rows: dict[int, tuple[int, int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = path.read_text().rpartition(")")[2].split()  # proc(5): from the third field on
            rows[int(path.parent.name)] = int(words[1]), sum(map(int, words[11:15]))
    tree = {root}
    while more := {pid for pid, (parent, _) in rows.items() if parent in tree} - tree:
        tree |= more
    return sum(rows[pid][1] for pid in tree if pid in rows) / os.sysconf("SC_CLK_TCK")


def _ratios(took: Mapping[str, float]) -> dict[str, float]:
    """Return doit's time as a part of each other tool's."""
    return {name: round(took["doit"] / it, 2) for name, it in took.items() if name != "doit"}


def _moved(tool: Tool, name: str = "") -> Tool:
    """Return a tool, perhaps under another name, with an object folder of this measurement."""
    name = name or tool.name
    obj = tool.obj.parent / f"prompt-{name}"
    tool.obj.parent.mkdir(parents=True, exist_ok=True)
    argv = [word.replace(str(tool.obj), str(obj)) for word in tool.argv]
    return Tool(name, obj, argv, tool.cwd)


def _log(tool: Tool) -> Path:
    """Return where a tool's boot is kept."""
    return tool.obj.parent / f"{tool.obj.name}.log"


def _text(found: dict[str, Any]) -> str:
    """Return the result as a table."""
    head = (
        f"{found['machine']}, image={found['image']}, load {found['load']}, {found['jobs']} jobs,"
        f" median of {found['rounds']}: from the saved file to the shell's answer"
    )
    lines = [head, ""]
    for name, seconds in found["seconds"].items():
        cpu = f"({found['cpu seconds'][name]:.2f} s of the processor)"
        parts = ", ".join(f"{part} {took:.2f}" for part, took in found["parts"][name].items())
        lines.append(f"{name:8}{seconds:7.2f} s  {cpu}  {parts}")
        if ratio := found["ratio"].get(name):
            held = found["cpu ratio"][name]
            lines.append(f"{'':8}doit / {name}: {ratio:.2f}, of the processor {held:.2f}")
    lines += [f"{name:8} not installed" for name in found["not installed"]]
    lines += [f"{name:8} left out: {why}" for name, why in found["left out"].items()]
    return "\n".join(lines)


def main(rounds: int, settings: dict[str, str], as_json: bool) -> None:
    """Measure, and print the result."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    bench = Bench(settings)
    with contextlib.redirect_stdout(sys.stderr):
        bench.prepare()
        for number in range(1, rounds + 1):
            bench.round(number)
    found = bench.result()
    print(json.dumps(found, indent=1) if as_json else _text(found))


if __name__ == "__main__":
    ending.by_exception()  # the file that was edited comes back
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how many edits (default: 5)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("setting", nargs="*", help="NAME=VALUE, as doit has them")
    words = parser.parse_args()
    if words.rounds < 1:
        parser.error("--rounds: at least one")
    if odd := [word for word in words.setting if "=" not in word]:
        parser.error(f"'{odd[0]}' is no setting: NAME=VALUE")
    given = dict(word.split("=", 1) for word in words.setting)
    try:
        main(words.rounds, {"image": "vmlinux", **given}, words.json)
    except PiggyError as error:
        raise SystemExit(str(error)) from None
