"""Have the shared store fail in the middle of builds: each build must end well, with the images of
one without it.

    python tests/campaign/sharedstore.py --faults 2000 --seed 1

Another machine has filled the server for some states of the sources. Each step takes a state at
random, forgets what this machine has made, and runs doit, reading and sometimes writing, through a
proxy that damages exchanges at random (tests/support/faultyproxy.py has the kinds). Now and then
the server has nothing left of a part of its files, or does not run at all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import world as worlds

sys.path.insert(0, str(worlds.TOP / "tests" / "support"))

import cacheservers
import faultyproxy
from cacheservers import Keys, Running
from campaign import triple
from faultyproxy import ANSWERS, EMPTY, MILD, REQUESTS, Proxy
from faultyserver import closed_port
from playground import Playground

BASE = "configs/kernel/fake-base.config"
Edit = tuple[str, str, str]  # a file, a text in it, another one
Choose = Callable[[str, str, bool], str]
EDITS: tuple[Edit, ...] = (
    (BASE, "CONFIG_BLOCK=y", "CONFIG_BLOCK=y\nCONFIG_EXTRA=y"),
    ("build/src/linux-6.1/kernel/panic.c", "printk(why)", "printk(why + 1)"),
    ("overlays/fake/etc/init.d/rcS", "echo hello", "echo more"),
)


class Exchanges:
    """A project, a server with what another machine made of each state, and what is right."""

    def __init__(
        self, play: Playground, server: Running, keys: Keys, base: Path, edits: Sequence[Edit]
    ) -> None:
        self.play, self.server, self.keys, self.base = play, server, keys, base
        self.done: Counter[str] = Counter()
        self.runs, self.restored, self.made = 0, 0, 0
        self.slowest = 0.0
        self.wrong: list[str] = []
        self.files = [play.top / name for name, _, _ in edits]
        first = [file.read_text() for file in self.files]
        self.texts = [
            (text, text.replace(old, new)) for text, (_, old, new) in zip(first, edits, strict=True)
        ]
        assert all(before != after for before, after in self.texts)
        self.wanted: dict[tuple[int, ...], dict[str, str]] = {}
        play.store_size = "1G"
        for number in range(1 << len(edits)):
            state = tuple(number >> bit & 1 for bit in range(len(edits)))
            self.turn(state)
            play.doit(**self.words(server.url, writes=True, reads=False))
            self.wanted[state] = play.digests()
        assert len({tuple(one.values()) for one in self.wanted.values()}) == 1 << len(edits)
        shutil.copytree(server.root, base / "filled")

    def turn(self, state: tuple[int, ...]) -> None:
        """Have the sources in a state."""
        for file, texts, one in zip(self.files, self.texts, state, strict=True):
            if file.read_text() != texts[one]:
                file.write_text(texts[one])

    def words(self, url: str, writes: bool, reads: bool = True) -> dict[str, str]:
        """The settings of a run, as environment."""
        return {
            "PIGGYBACK_STORE_REMOTE": url,
            "PIGGYBACK_STORE_CHECK": "0",
            **({"PIGGYBACK_STORE_SIGNERS": str(self.keys.signers)} if reads else {}),
            **(
                {"PIGGYBACK_STORE_PUSH": "yes", "PIGGYBACK_STORE_KEY": str(self.keys.key)}
                if writes
                else {}
            ),
        }

    def step(self, seed: object, choose: Choose | None = None) -> None:
        """One run, with faults, by default such as `chooser` gives."""
        dice = random.Random(f"{seed}/step")
        self.turn(dice.choice(list(self.wanted)))
        shutil.rmtree(self.play.top / "build" / "store", ignore_errors=True)
        if dice.random() < 0.25:
            shutil.rmtree(self.play.here)
        else:
            shutil.rmtree(self.play.images)
        self.prepare(dice)
        with faultyproxy.before(self.server.url, choose or chooser(dice), seed) as proxy:
            dead = dice.random() < 0.02
            url = f"http://127.0.0.1:{closed_port()}/piggy" if dead else proxy.url
            self.run(seed, url, dice.random() < 0.6, proxy)
        self.done["dead"] += dead

    def prepare(self, dice: random.Random) -> None:
        """Have the server hold what the other machine sent, or what the last runs left of that.

        Now and then a part of it is gone.
        """
        if dice.random() < 0.6:
            self.refill()
        if dice.random() < 0.1:
            kind = dice.choice(("ac", "cas"))
            for path in self.server.files(kind):
                if dice.random() < 0.3:
                    path.unlink()
            self.done[f"part of {kind} lost"] += 1

    def refill(self) -> None:
        """Have the server hold what the other machine sent, and nothing else."""
        shutil.rmtree(self.server.root)
        shutil.copytree(self.base / "filled", self.server.root)

    def run(self, seed: object, url: str, writes: bool, proxy: Proxy) -> None:
        state = tuple(
            texts.index(file.read_text())
            for file, texts in zip(self.files, self.texts, strict=True)
        )
        result = self.play.doit(status=None, **self.words(url, writes))
        self.runs += 1
        self.restored += len(result.restored)
        self.made += len(result.ran)
        self.slowest = max(self.slowest, result.seconds)
        self.done.update(proxy.done)
        if result.status:
            self.wrong.append(f"{seed}: status {result.status}\n{result.text}")
        elif self.play.digests() != self.wanted[state]:
            self.wrong.append(f"{seed}: other images\n{result.text}")

    @property
    def faults(self) -> int:
        """How many faults were carried out. Files that were gone count as one a run."""
        return sum(self.done.values())

    def table(self) -> str:
        """What happened, in lines."""
        first = (
            f"{self.faults} faults in {self.runs} runs: {self.restored} results taken,"
            f" {self.made} made, the slowest run {self.slowest:.1f} s,"
            f" {len(self.wrong)} wrong or failed"
        )
        rows = [f"| {kind} | {count} |" for kind, count in sorted(self.done.items())]
        return "\n".join([first, *rows, *self.wrong])


def chooser(dice: random.Random) -> Choose:
    """Return what chooses the fault of an exchange.

    In most runs there are many after which the server is asked on, in some one that ends that.
    """
    rate, kinds = dice.choice(
        (
            (0.5, MILD),
            (0.7, ("evict", "lost", "send cut", "send flipped")),
            (0.7, ("evict", "lost", "send cut", "send flipped")),
            (0.15, ()),
            (0.05, ()),
        )
    )

    def choose(method: str, path: str, body: bool) -> str:
        if dice.random() >= rate:
            return ""
        possible = REQUESTS if method == "PUT" else ANSWERS if body else EMPTY
        return dice.choice([kind for kind in possible if not kinds or kind in kinds] or [""])

    return choose


@contextlib.contextmanager
def begun(base: Path, name: str, edits: Sequence[Edit] = EDITS) -> Iterator[Exchanges]:
    """A fake project, with a state for each choice of the edits, and a filled nginx."""
    play = Playground(base / "project", base / "home")
    play.limit = 600  # a run may have to wait for the machine
    play.home.mkdir(parents=True)
    worlds.playground.lay_out(play.top, name)
    play.doit()
    with cacheservers.nginx(base / "nginx") as server:
        yield Exchanges(play, server, cacheservers.keys(base / "keys"), base, edits)


def main() -> int:
    """Run the campaign of the command line; the status is 1 if a run went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--base", type=Path, help="folder to work in (default: a temporary one)")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        base = given.base or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        exchanges = stack.enter_context(begun(base, triple()))
        started, number = time.monotonic(), 0
        while exchanges.faults < given.faults and len(exchanges.wrong) < 5:
            exchanges.step(f"{given.seed}/{number}")
            number += 1
            if number % 20 == 0:
                print(exchanges.table().splitlines()[0], flush=True)
        print(exchanges.table())
        load = os.getloadavg()[1]
        print(f"{time.monotonic() - started:.0f} s, at a load of {load:.1f}")
        return bool(exchanges.wrong)


if __name__ == "__main__":
    sys.exit(main())
