"""Time doit against plain make, side by side in one run: nothing changed, a comment, one C file.

    python tests/bench/against_make.py [ROUNDS]

Uses the checkout's own build of the selected machine (run `doit` first) and restores every file that it edits. Each round
measures both tools one after the other; the table has the best round of each, since noise only ever adds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))
os.chdir(TOP)

from tasks import kernel_config  # noqa: E402
from tasks.kit import kbuild, project  # noqa: E402
from tasks.kit.run import clean_env  # noqa: E402

EDITED = "kernel/panic.c"


def timed(argv: list[str], env: dict[str, str] | None = None) -> float:
    """Run a command that must succeed and return the seconds it took."""
    started = time.perf_counter()
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main(rounds: int) -> None:
    """Measure and print the table."""
    here = project.load(TOP, os.environ, {})
    doit = [str(Path(sys.executable).with_name("doit"))]
    image = here.machine.kernel.image
    make = ["make", "-C", str(here.kernel_src), f"O={here.kernel_obj.absolute()}", f"-j{here.jobs}",
            *(f"{name}={value}" for name, value in kernel_config.variables(here).items()), image]
    env = clean_env(kbuild.pins(project.EPOCH))
    source = here.kernel_src / EDITED
    text = source.read_text()

    def nothing(number: int) -> None:
        pass

    def comment(number: int) -> None:
        source.write_text(f"{text}/* {number} */\n")

    def code(number: int) -> None:
        source.write_text(text.replace("Kernel panic - not syncing", f"Kernel panic - not syncing {number}", 1))

    rows: list[tuple[str, Callable[[int], None]]] = [("nothing changed", nothing), ("a comment", comment),
                                                     ("one C file", code)]
    timed(doit)
    timed(make, env)
    timed(doit)
    print(f"load {os.getloadavg()[0]:.1f}, {here.jobs} jobs, best of {rounds}\n")
    print(f"{'':18}{'doit':>9}{'make ' + image:>16}{'ratio':>8}")
    number = 0
    try:
        for name, change in rows:
            ours, theirs = [], []
            for _ in range(rounds):
                number += 1
                change(number)
                ours.append(timed([*doit, image] if change is not nothing else doit))
                number += 1
                change(number)
                theirs.append(timed(make, env))
                timed(doit)
            print(f"{name:18}{min(ours):8.2f}s{min(theirs):15.2f}s{min(ours) / min(theirs):8.2f}", flush=True)
    finally:
        source.write_text(text)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
