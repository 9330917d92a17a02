"""Give each parser that reads what others wrote thousands of seeded inputs, and see that none runs
away or gets out.

    python tests/campaign/fuzz.py                                every target, 2,000 cases of each
    python tests/campaign/fuzz.py --target tar --cases 100000    one of them
    python tests/campaign/fuzz.py --target tar --case tar/7/123  one case, as a failure names it

A target is a module `fuzz_*.py` beside this one with TARGETS in it. For each case its `make` gives
an input and its `check` hands that to the parser, in an empty folder. A case is *taken* when check
returns, and *refused* when it raises PiggyError. It *failed* when

- any other exception comes out, or a refusal has no sentence, or one with a control character in
    it;
- it takes more than SECONDS of CPU, or more memory than MEMORY at its peak;
- a file beside its folder came, went or changed: the canary has links, folders and files to be
    tempted by.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parents[1])]
    sys.modules["fuzz"] = sys.modules["__main__"]  # the targets import this module by its name

from tasks.system.errors import PiggyError  # noqa: E402
from tasks.system.terminal import printable  # noqa: E402

SECONDS = 2.0  # of CPU for one case
MEMORY = 64 << 20  # bytes that Python may have allocated at once in one case
NUMBERS = [
    0,
    1,
    -1,
    7,
    8,
    255,
    256,
    0o777,
    0o7777,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**63,
    2**64,
    10**30,
]


class Target(NamedTuple):
    """One parser. make: gives an input; check: hands it to the parser, in a folder of its own;
    cases: how many the tests run."""

    name: str
    make: Callable[[random.Random], Any]
    check: Callable[[Any, Path], object]
    cases: int = 200


class Failure(Exception):
    """What was wrong with a case."""


def mutated(
    rng: random.Random, data: bytes, tokens: Sequence[bytes] = (), rounds: int = 6
) -> bytes:
    """Return bytes with up to `rounds` random changes: bits, pieces cut, doubled or replaced,
    tokens and numbers put in."""
    out = bytearray(data)
    for _ in range(rng.randint(1, rounds)):
        at, length = rng.randint(0, len(out)), min(rng.choice([1, 1, 2, 4, 16, 100, 512]), len(out))
        kind = rng.randrange(9)
        if kind == 0 and out:
            out[min(at, len(out) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + length] = rng.randbytes(length)
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[at : at + length] * rng.choice([1, 2, 50])
        elif kind == 4:
            del out[at:]
        elif kind == 5:
            out[at:at] = rng.choice(tokens) if tokens else rng.randbytes(4)
        elif kind == 6:
            out[at:at] = str(rng.choice(NUMBERS)).encode()
        elif kind == 7 and tokens:
            token = rng.choice(tokens)
            out[at : at + len(token)] = token
        else:
            out[at:at] = rng.choice(
                [
                    b"\0",
                    b"\xff",
                    b"\xfe\xff",
                    b"\xef\xbb\xbf",
                    b"\x1b[2J",
                    b"\r\n",
                    b"../",
                    b"/",
                    b" ",
                ]
            )
    return bytes(out)


def targets(only: str = "") -> list[Target]:
    """Return all targets in the order of their names, or the one that is called `only`."""
    found = [
        target
        for path in sorted(HERE.glob("fuzz_*.py"))
        for target in importlib.import_module(path.stem).TARGETS
    ]
    names = [target.name for target in found]
    if len(set(names)) != len(names):
        raise SystemExit(f"two targets of one name: {names}")
    if only and only not in names:
        raise SystemExit(f"there is no target '{only}'; there are {', '.join(names)}")
    return [target for target in found if only in ("", target.name)]


def lay_canary(folder: Path) -> None:
    """Put into a folder what a parser might be tempted to write to, remove or follow."""
    (folder / "etc").mkdir()
    (folder / "etc" / "passwd").write_text("root:x:0:0\n")
    (folder / "target").write_text("precious\n")
    (folder / "out").symlink_to("etc")


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return mode, mtime (ns) and content of everything in a canary's folder but the sandbox, by
    name."""
    found = {}
    for where, folders, names in os.walk(folder):
        if Path(where) == folder and "sandbox" in folders:
            folders.remove("sandbox")
        for name in [*folders, *names]:
            path = Path(where, name)
            info = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[os.path.relpath(path, folder)] = (
                info.st_mode,
                0 if path.is_dir() else info.st_mtime_ns,
                content,
            )
    return found


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Failure in the body when it has taken that much CPU time."""

    def late(number: int, frame: object) -> None:
        raise Failure(f"it takes more than {seconds} s of CPU")

    previous = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


def one(target: Target, seed: str, base: Path, measure: bool = False) -> str:
    """Run one case and return "taken" or "refused". measure: watch its memory, too (slow). Raises
    Failure."""
    data = target.make(random.Random(seed))
    sandbox = base / "sandbox"
    sandbox.mkdir()
    before = state(base)
    if measure:
        tracemalloc.start()
    try:
        with (
            limited(SECONDS),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            target.check(data, sandbox)
        result = "taken"
    except PiggyError as error:
        result = "refused"
        if not error.message.strip() or printable(str(error)) != str(error):
            raise Failure(f"a refusal that can't be read: {str(error)!r}") from error
    except Failure:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Failure(f"{type(error).__name__}: {error}") from error
    finally:
        peak = tracemalloc.get_traced_memory()[1] if measure else 0
        tracemalloc.stop()
        for where, folders, _ in os.walk(sandbox):
            for name in folders:
                path = Path(where, name)
                if not path.is_symlink():
                    path.chmod(0o700)
        shutil.rmtree(sandbox)
    if peak > MEMORY:
        raise Failure(f"it takes {peak:,} bytes of memory")
    if state(base) != before:
        raise Failure(
            f"it got out of its folder: {sorted(set(before.items()) ^ set(state(base).items()))}"
        )
    return result


def run(target: Target, cases: int, seed: int, base: Path) -> tuple[Counter[str], list[str]]:
    """Run `cases` cases of a target, every 50th with its memory watched; return how they ended, and
    each failure with the words that give it again."""
    counts: Counter[str] = Counter()
    failures = []
    for number in range(cases):
        with tempfile.TemporaryDirectory(dir=base) as name:
            lay_canary(Path(name))
            case = f"{target.name}/{seed}/{number}"
            try:
                counts[one(target, case, Path(name), measure=number % 50 == 0)] += 1
            except Failure as failure:
                counts["failed"] += 1
                failures.append(f"--target {target.name} --case {case}: {failure}")
    return counts, failures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=2000, help="of each target (default: 2000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", default="", help="only this one")
    parser.add_argument("--case", default="", help="run this one case, with its traceback")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        if words.case:
            (target,) = targets(words.target or words.case.partition("/")[0])
            lay_canary(Path(base))
            print(one(target, words.case, Path(base), measure=True))
            return 0
        print(
            "| target | cases | taken | refused | failed | cases/s |\n| --- | ---: | ---: | ---: |"
            " ---: | ---: |"
        )
        failed = []
        for target in targets(words.target):
            started = time.monotonic()
            counts, failures = run(target, words.cases, words.seed, Path(base))
            print(
                f"| {target.name} | {words.cases:,} | {counts['taken']:,} | {counts['refused']:,} |"
                f" {counts['failed']:,} | {words.cases / (time.monotonic() - started):,.0f} |",
                flush=True,
            )
            failed += failures
    print("\n".join(failed[:50]))
    print(
        f"peak of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024:,} MiB"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
