"""Real makes on a budget: each command of theirs leaves a mark while it runs, and counts the
marks."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.system.jobserver import WAIT, Budget
from tasks.system.process import clean_env, pasteable, run

TOP = Path(__file__).parents[3]
COUNT = """\
mkdir -p marks && : > "marks/$$" && ls marks | wc -l >> counts && sleep ${1:-0.1} && rm "marks/$$"
"""


class Place:
    """A folder with a Makefile whose targets 1 to 12 take a tenth of a second each and count what
    runs."""

    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "count").write_text(COUNT)
        names = " ".join(map(str, range(1, 13)))
        (top / "Makefile").write_text(
            f"all: {names}\n{names}:\n\t@sh count\nhalf: 1 2 3 4 5 6\n"
            "nested:\n\t@+$(MAKE) half\n\t@+$(MAKE) -f Makefile half\n"
            "slow: ; @sh count 300\nslow2: ; @sh count 300\nbad: ; @sh count; false\n"
            "both: slow slow2 bad\n"
        )

    def make(self, budget: Budget, *goals: str, check: bool = True) -> str:
        with budget.token():
            return run(["make", *goals], cwd=self.top, env=budget.environment(), check=check).output

    def most(self) -> int:
        """How many commands ran at once, at most; starts anew."""
        counts = [int(line) for line in (self.top / "counts").read_text().split()]
        (self.top / "counts").unlink()
        return max(counts)

    def clear(self) -> int:
        """Forget what was running, and the counts; return how many were."""
        count = self.running()
        for mark in (self.top / "marks").iterdir():
            mark.unlink()
        (self.top / "counts").unlink()
        return count

    def started(self) -> int:
        """How many commands began."""
        return (
            len((self.top / "counts").read_text().split()) if (self.top / "counts").exists() else 0
        )

    def running(self) -> int:
        return len(list((self.top / "marks").glob("*"))) if (self.top / "marks").exists() else 0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextlib.contextmanager
def at_once(*calls: Callable[[], object]) -> Iterator[list[object]]:
    """Run the calls in threads; at the end of the body they must end within half a minute. Yields
    what they return."""
    results: list[object] = [None] * len(calls)

    def do(number: int) -> None:
        try:
            results[number] = calls[number]()
        except Exception as error:
            results[number] = error

    threads = [
        threading.Thread(target=do, args=[number], daemon=True) for number in range(len(calls))
    ]
    for thread in threads:
        thread.start()
    yield results
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "hangs"


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def makes(top: Path) -> list[int]:
    """The makes that work in a folder, the eldest first."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "comm").read_text() == "make\n" and os.readlink(entry / "cwd") == str(top):
                found.append(int(entry.name))
    return sorted(found)


@pytest.mark.parametrize("size", [1, 3])
def test_all_makes_together_keep_to_the_budget_and_use_it(place: Place, size: int) -> None:
    budget = Budget(size)
    with at_once(
        *[lambda goal=goal: place.make(budget, goal) for goal in ("all", "all", "nested")]
    ) as said:  # type: ignore[misc]
        pass
    assert place.most() == size
    assert not any(re.search("warning|jobserver", str(text)) for text in said), said
    place.make(budget)
    assert place.most() == size


def test_our_own_commands_count(place: Place) -> None:
    budget = Budget(3)

    def own() -> None:
        for _ in range(4):
            with budget.token(), budget.token():  # the second is free
                run(["sh", "count"], cwd=place.top)

    with at_once(lambda: place.make(budget), own, own, own, own):
        pass
    assert place.most() == 3


def test_a_make_that_is_killed_costs_nothing_in_the_end(place: Place) -> None:
    """By SIGKILL it can't return its tokens, here three of four. While another make runs, nobody
    can know which those are; it goes on with what it has, and whoever comes next has all of
    them."""
    budget = Budget(4)
    with at_once(lambda: place.make(budget, "slow", "slow2", "1", check=False)) as said:
        wait_for(
            lambda: place.started() >= 2 and place.running() >= 2
        )  # each leaves its mark before it is counted
        os.kill(makes(place.top)[0], signal.SIGKILL)
    assert said == [""]
    assert place.clear() >= 2
    place.make(budget)
    assert place.most() == 4


def test_who_waits_for_a_token_while_the_others_are_lost_is_not_forgotten(place: Place) -> None:
    budget = Budget(2)
    with at_once(lambda: place.make(budget, "slow", "slow2", check=False)):
        wait_for(lambda: place.running() == 2)
        with at_once(lambda: place.make(budget), lambda: place.make(budget, "half")):
            time.sleep(2 * WAIT)
            assert place.running() == 2
            place.clear()
            os.kill(makes(place.top)[0], signal.SIGKILL)
    assert place.most() in (1, 2)  # one was lost until both were done
    place.make(budget)
    assert place.most() == 2


def test_an_error_and_a_signal_return_all_tokens(place: Place) -> None:
    """By any signal but SIGKILL make waits for its children. Asked of the pipe itself, for a token
    that is taken would bring lost ones back."""
    budget = Budget(4)
    for number in (signal.SIGTERM, signal.SIGINT):
        with budget.token():
            with at_once(
                lambda: run(["make", "both"], cwd=place.top, env=budget.environment(), check=False)
            ):
                # all that it will start, for a child that it just forks may be missed
                wait_for(lambda: place.started() == 3 and place.running() == 2)
                os.killpg(makes(place.top)[0], number)
            with at_once(lambda: place.make(budget, "all")):
                pass
        place.clear()
    with budget.token():
        assert (
            "Error"
            in run(
                ["make", "bad", "all", "-k"], cwd=place.top, env=budget.environment(), check=False
            ).output
        )
        place.clear()
        run(["make"], cwd=place.top, env=budget.environment())
    assert place.most() == 4


def test_a_budget_under_a_make_is_that_makes(place: Place) -> None:
    """Two of us and a command under `make -j3`: three at once, and all three are used. From 4.4 on
    make has a named pipe in $TMPDIR."""
    (place.top / "with a space").mkdir()
    (place.top / "us.py").write_text(
        f"import os, sys; sys.path.insert(0, {str(TOP)!r})\nfrom pathlib import Path\n"
        "from tasks.system.jobserver import Budget\nfrom tasks.system.process import run\n"
        "budget = Budget(64, os.environ['MAKEFLAGS'])\n"
        "with budget.token(): run(['sh', 'count'])\n"
        "with budget.token(): print(run(['make'], env=budget.environment()).output)\n"
        "with budget.token(): run(['sh', 'count'])\n"
    )
    (place.top / "outer").write_text(
        f"all: one two 1 2 3 4 5 6\none two:\n\t@+{sys.executable} us.py\n"
        "1 2 3 4 5 6:\n\t@sh count\n"
    )
    done = subprocess.run(
        ["make", "-f", "outer", "-j3"],
        cwd=place.top,
        text=True,
        capture_output=True,
        check=True,
        timeout=60,
        env=clean_env({"TMPDIR": str(place.top / "with a space")}),
    )
    assert place.most() == 3
    assert not re.search("warning|jobserver|INTERNAL", done.stdout + done.stderr), done


def test_what_make_did_not_hand_on_is_not_used(tmp_path: Path) -> None:
    """Without + make names its pipe and closes it; by then another file may have the number."""
    with (tmp_path / "file").open("w") as stream:
        for flags in (
            " -j8 --jobserver-auth=99998,99999",  # more than a process may have open
            f" -j8 --jobserver-auth={stream.fileno()},{stream.fileno()}",
            "-j --jobserver-auth=-2,-2",
            f"-j8 --jobserver-auth=fifo:{tmp_path}/none",
            "kB",
            "",
        ):
            budget = Budget(2, flags)
            with budget.token():
                assert re.fullmatch(
                    r" -j2 --jobserver-auth=\d+,\d+", budget.environment()["MAKEFLAGS"]
                )
                assert (
                    flags.rpartition(" ")[2] not in budget.environment()["MAKEFLAGS"] or not flags
                )


@pytest.mark.parametrize(
    ("folder", "quoted"),
    [("plain", "plain"), ("with space, $ and \\", r"with\ space,\ $$\ and\ \\")],
)
def test_a_named_pipe(tmp_path: Path, folder: str, quoted: str) -> None:
    """As make 4.4 has it, in the folder of $TMPDIR."""
    fifo = tmp_path / folder / "fifo"
    fifo.parent.mkdir()
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    os.write(end, b"+")
    budget = Budget(8, f" -j2 --jobserver-auth=fifo:{tmp_path}/{quoted}/fifo")
    assert budget.environment() == {
        "MAKEFLAGS": f" -j8 --jobserver-auth=fifo:{tmp_path}/{quoted}/fifo"
    }
    taken = threading.Semaphore(0)
    go = threading.Event()

    def hold() -> None:
        with budget.token():
            taken.release()
            go.wait(20)

    with at_once(hold, hold, hold):
        assert taken.acquire(timeout=5)
        assert taken.acquire(timeout=5)
        assert not taken.acquire(timeout=3 * WAIT)
        go.set()
    assert os.read(end, 9) == b"+"
    os.close(end)


def test_nothing_is_opened_before_it_is_needed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert str(Budget(7)) == "7"
    assert len(os.listdir("/proc/self/fd")) == before


def test_by_hand_make_has_its_own_jobserver(tmp_path: Path) -> None:
    env = {"X": "1", **Budget(5).environment()}
    assert pasteable(["make", "all"], None, env) == "MAKEFLAGS=-j5 X=1 make all"


def test_a_token_that_the_pipe_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is lost, and nothing else: the next one who wants a token finds them whole."""

    def fails(fd: int, data: bytes) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    budget = Budget(1)
    with budget.token():
        monkeypatch.setattr(os, "write", fails)
    monkeypatch.undo()
    with budget.token():
        assert budget.claim() is None
