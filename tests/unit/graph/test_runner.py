"""doit itself is run here with -n, on tasks that meet each other, or must not."""

from __future__ import annotations

import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks import (
    busybox,
    dtbs,
    host,
    image,
    kernel,
    kernel_config,
    modules,
    qemu,
    rootfs,
    sources,
    toolchain,
)
from tasks.cache import code
from tasks.config import project
from tasks.graph import history
from tasks.kbuild import make

TOP = Path(__file__).parents[3]
DODO = '''
import os, signal, sys, threading, time
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, {top!r})
from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain
from tasks.cache.code_index import Codes; from tasks.cache.store import Store
from tasks.graph import task as graph; from tasks.graph import journal; from tasks.graph import reporter; from tasks.graph import runner; from tasks.system import terminal as ui
from tasks.system.errors import PiggyError
from tasks.system.lock import Lock
from tasks.system.process import run
from tasks.cache.digests import Stamps

HERE = Path("here")
STAMPS = Stamps(HERE / "stamps")
LAYOUT = SimpleNamespace(here=HERE, build=HERE, logs=HERE / "logs", history=HERE / "logs" / "history.jsonl")
PROJECT = SimpleNamespace(layout=LAYOUT, stamps=STAMPS, codes=Codes(HERE / "codes", STAMPS), lock=Lock(HERE / "lock", "here"), store=Store(HERE / "store", 0))

def write(job, *needs, how=""):
    """Say that we are there, wait for the others, and check that none of `never` is there meanwhile."""
    Path(job.name + ".there").touch()
    until = time.monotonic() + 20
    while not all(Path(need + ".there").exists() for need in needs):
        if time.monotonic() > until:
            raise PiggyError(f"{{job.name}} waits in vain")
        time.sleep(0.01)
    for _ in range(20):
        if Path("crowd").exists():
            raise PiggyError("two in one place")
        time.sleep(0.005)
    Path(job.name + ".out").write_text(f"{{dict(job.previous).get('number', 0)}} {{list(map(str, job.reasons))}}")
    Path(job.name + ".there").rename(job.name + ".was")
    return {{"number": dict(job.previous).get("number", 0) + 1}}

def placed(job):
    """Fails if another one is in the place."""
    Path("place").mkdir()
    time.sleep(0.15)
    Path("place").rmdir()
    Path(job.name + ".out").touch()

def alone(job):
    others = [path.name for path in Path(".").glob("*.there")]
    if others or threading.current_thread() is not threading.main_thread():
        raise PiggyError(f"not alone: {{others}}")
    print("TERMINAL", os.isatty(0), flush=True)

def slow(job, script):
    Path(job.name + ".out").touch()
    run(["sh", "-c", f"echo $$ > {{job.name}}.pid; {{script}}"])

def signalled(job):
    Path(job.name + ".out").touch()
    while not Path("one.was").exists():
        time.sleep(0.01)
    time.sleep(0.5)  # until the main thread waits
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    time.sleep(60)

def spin(job):
    Path("spin.pid").write_text("0")
    time.sleep(60)

def fail(job):
    while not Path("one.there").exists():
        time.sleep(0.01)
    raise PiggyError("it went wrong", "mend it")

def full(job):
    Path("full.out").touch()
    if not Path("now").exists():
        return
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file may grow, as on a full disk
    raise PiggyError("it went wrong", "mend it")

def leave(job):
    sys.exit("an action that leaves")

DOIT_CONFIG = {{"backend": "sqlite3", "codec_cls": journal.Codec, "check_file_uptodate": journal.Present,
               "dep_file": "here/journal.sqlite", "verbosity": 2, "default_tasks": ["one", "two"],
               "reporter": reporter.reporter_for(PROJECT)}}

def task_all():
    def one(name, action, args=(), files=(), place=None):
        return graph.task(PROJECT, name, "doc", action, args, inputs=graph.Needs(files=files),
                          outputs=graph.Makes(targets=[Path(name + ".out")], place=place))
    yield one("one", write, ["two"], files=[Path("in")])
    yield one("two", write, ["one"], files=[Path("in")])
    yield one("three", write, files=[Path("one.out")])
    for name in "abc":
        yield one(name, placed, place=Path("obj"))
    for name in ("slow", "slower"):
        yield one(name, slow, ["exec sleep 300"])
    yield one("stubborn", slow, ["trap '' TERM; while :; do sleep 0.1; done"])
    yield one("signalled", signalled)
    yield one("spin", spin)
    yield one("fail", fail)
    yield one("leave", leave)
    yield one("full", full, files=[Path("in")])
    yield {{"basename": "group", "actions": None, "task_dep": ["a", "b"]}}
    yield graph.task(PROJECT, "alone", "doc", alone, command=graph.Command())
    yield graph.task(PROJECT, "alone2", "doc", alone, command=graph.Command())

journal.prepare(HERE / "journal.sqlite")
runner.install()
sys.exit(DoitMain(ModuleTaskLoader(globals())).run(sys.argv[1:]))
'''


class Mini:
    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "in").write_text("in")
        (top / "run.py").write_text(DODO.format(top=str(TOP)))

    def start(self, *words: str, **more: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "run.py", *words],
            cwd=self.top,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **more,
        )  # type: ignore[call-overload]

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=30)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    def recorded(self) -> set[str]:
        with sqlite3.connect(self.top / "here" / "journal.sqlite") as database:
            return {
                row[0]
                for row in database.execute(
                    "select task_id from doit where task_data like '%record%'"
                    " and task_data not like '%unfinished%'"
                )
            }

    def history(self) -> list[tuple[str, str, list[str]]]:
        return [
            (line.task, line.result, [str(reason) for reason in line.why])
            for line in history.read(self.top / "here" / "logs" / "history.jsonl")
        ]

    def wait_for(self, *names: str) -> None:
        until = time.monotonic() + 20
        while not all(
            (self.top / name).exists() and (self.top / name).read_text() for name in names
        ):
            assert time.monotonic() < until
            time.sleep(0.02)

    def wait_until_recorded(self, names: set[str]) -> None:
        until = time.monotonic() + 20
        while self.recorded() != names:
            assert time.monotonic() < until
            time.sleep(0.02)

    def gone(self, name: str) -> bool:
        child, until = (
            Path(f"/proc/{(self.top / f'{name}.pid').read_text().strip()}"),
            time.monotonic() + 10,
        )
        while child.exists() and time.monotonic() < until:
            time.sleep(0.05)
        return not child.exists()


@pytest.fixture
def mini(tmp_path: Path) -> Mini:
    return Mini(tmp_path)


@pytest.mark.parametrize(
    "words", [("-n", "2"), ("-n", "8"), ("-n", "2", "-P", "thread"), ("-n2", "-P", "process")]
)
def test_two_that_need_each_other_to_be_there_run_at_once(
    mini: Mini, words: tuple[str, ...]
) -> None:
    status, out, err = mini.run(*words, "three", "one", "two")
    assert (status, err) == (0, "")
    assert sorted(line.split()[0] for line in out.splitlines()) == ["one", "three", "two"]
    assert mini.recorded() == {"one", "two", "three"}
    status, out, err = mini.run(*words, "three", "one", "two")
    assert (status, err) == (0, "")
    assert out.startswith("  FRESH              nothing to do: 3 tasks up to date (0.")
    assert mini.run("three", "one", "two")[1].startswith(
        "  FRESH              nothing to do: 3 tasks up to date (0."
    )


def test_an_action_knows_why_it_runs_and_what_it_learned_before(mini: Mini) -> None:
    mini.run("-n", "2")
    assert (mini.top / "one.out").read_text() == "0 ['not built yet']"
    (mini.top / "in").write_text("another")
    mini.run("-n", "2")
    for name in ("one", "two"):
        assert (mini.top / f"{name}.out").read_text() == "1 ['file in changed']"
    assert sorted(mini.history()[2:]) == [
        (name, "ok", ["file in changed"]) for name in ("one", "two")
    ]


def test_digests_that_were_taken_are_kept(mini: Mini) -> None:
    time.sleep(0.1)  # so that the file is not too new
    mini.run("-n", "2")
    assert b"in" in (mini.top / "here" / "stamps").read_bytes()


def test_no_two_in_one_place(mini: Mini) -> None:
    status, out, err = mini.run("-n", "8", "a", "b", "c", "one", "two")
    assert (status, err) == (0, "")
    assert mini.recorded() == {"a", "b", "c", "one", "two"}
    assert mini.run("-n", "8", "group")[0] == 0


def test_what_waits_for_its_place_takes_nobodys_turn(mini: Mini) -> None:
    """With -n 2, while a is in the place, b and c are passed over for one, which needs two at the
    same time."""
    started = time.monotonic()
    status, _, err = mini.run("-n", "3", "a", "b", "c", "one", "two")
    assert (status, err) == (0, "")
    order = [task for task, _, _ in mini.history()]
    assert {"one", "two"} < set(order[:4]), order
    assert time.monotonic() - started < 15


def test_what_talks_to_the_user_is_alone_and_has_the_terminal(mini: Mini) -> None:
    master, slave = pty.openpty()
    process = mini.start("-n", "4", "one", "two", "alone", "a", "alone2", stdin=slave)
    out, err = process.communicate(timeout=30)
    os.close(master)
    os.close(slave)
    assert (process.returncode, err) == (0, "")
    assert out.count("TERMINAL True") == 2
    assert [task for task, _, _ in mini.history()][2:] == ["alone", "a", "alone2"]


def test_after_a_failure_what_runs_is_finished_and_kept_and_nothing_else_begun(mini: Mini) -> None:
    process = mini.start("-n", "2", "fail", "one", "two", "three")
    assert process.stdout is not None
    assert (
        process.stdout.readline().split(None, 1)[1]
        == "one still running: waiting for that; Ctrl-C ends it\n"
    )
    (mini.top / "two.there").touch()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err == "\nfail failed: it went wrong\n  hint: mend it\n"
    assert mini.recorded() == {"one"}
    assert sorted(mini.history()) == [
        ("fail", "failed", ["not built yet"]),
        ("one", "ok", ["not built yet"]),
    ]


def test_continue(mini: Mini) -> None:
    status, out, err = mini.run("-n", "2", "--continue", "fail", "one", "two", "three")
    assert status == 1
    assert "fail failed: it went wrong" in err
    assert mini.recorded() == {"one", "two", "three"}


@pytest.mark.parametrize(
    ("number", "word"),
    [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted"), (signal.SIGHUP, "hung up")],
)
def test_a_signal_ends_all_and_keeps_what_is_done(
    mini: Mini, number: signal.Signals, word: str
) -> None:
    process = mini.start("-n", "3", "one", "two", "slow", "slower")
    mini.wait_for("slow.pid", "slower.pid")
    mini.wait_until_recorded({"one", "two"})
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert err.strip() == f"{word}; what was finished is kept"
    assert mini.gone("slow")
    assert mini.gone("slower")
    assert mini.recorded() == {"one", "two"}


def test_a_signal_that_does_not_wake_the_main_thread_is_not_lost(mini: Mini) -> None:
    process = mini.start("-n", "3", "one", "two", "signalled")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.strip() == "interrupted; what was finished is kept"
    assert mini.recorded() == {"one", "two"}


def test_a_stubborn_program_is_killed(mini: Mini) -> None:
    process = mini.start("-n", "2", "slow", "stubborn")
    mini.wait_for("slow.pid", "stubborn.pid")
    process.terminate()
    process.communicate(timeout=15)
    assert process.returncode == 143
    assert mini.gone("slow")
    assert mini.gone("stubborn")


def test_a_thread_that_computes_does_not_keep_us(mini: Mini) -> None:
    process = mini.start("-n", "2", "slow", "spin")
    mini.wait_for("slow.pid", "spin.pid")
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.strip() == "terminated; what was finished is kept"
    assert mini.gone("slow")


def test_kill_9_loses_nothing_that_was_done(mini: Mini) -> None:
    process = mini.start("-n", "4", "one", "two", "slow", "slower")
    mini.wait_for("slow.pid", "slower.pid")
    mini.wait_until_recorded({"one", "two"})
    process.kill()
    process.communicate(timeout=10)
    assert mini.gone("slow")
    assert mini.gone("slower")
    assert "nothing to do: 2 tasks" in mini.run("-n", "2")[1]


def test_a_program_that_is_killed_fails_its_task_and_nothing_hangs(mini: Mini) -> None:
    process = mini.start("-n", "2", "slow", "slower")
    mini.wait_for("slow.pid", "slower.pid")
    os.kill(int((mini.top / "slow.pid").read_text()), signal.SIGKILL)
    assert process.stdout is not None
    while "slower still running" not in process.stdout.readline():
        pass
    os.kill(int((mini.top / "slower.pid").read_text()), signal.SIGKILL)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "slow failed: 'sh' was killed by SIGKILL" in err
    assert "slower failed: 'sh' was killed by SIGKILL" in err


def test_an_action_that_leaves_ends_the_run(mini: Mini) -> None:
    process = mini.start("-n", "2", "slow", "leave")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.strip() == "an action that leaves"


def test_a_number_that_makes_no_sense(mini: Mini) -> None:
    status, out, err = mini.run("-n", "-1", "a")
    assert (status, out) == (3, "")
    assert err == "ERROR: -n -1: there must be at least one task at a time\n"


def reaches(function: object, goal: object) -> bool:
    """Does a function call another one of this project, directly or not?"""
    waiting, seen = [function], set()
    while waiting:
        node = waiting.pop()
        if node is goal:
            return True
        if node not in seen:
            seen.add(node)
            waiting.extend(code._node(node)[1])  # type: ignore[arg-type]
    return False


@pytest.mark.parametrize(
    "machine", sorted(path.stem for path in (TOP / "configs" / "machines").glob("*.toml"))
)
def test_every_task_that_runs_kbuild_names_its_object_folder(
    machine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(TOP)
    (tmp_path / "Kbuild").touch()
    loaded = project.load(
        TOP, {}, {"machine": machine, "fragments": "modules", "src": str(tmp_path)}
    )
    folders = {str(loaded.layout.kernel_obj), str(loaded.layout.busybox_obj)}
    stages = (
        busybox,
        dtbs,
        host,
        image,
        kernel,
        kernel_config,
        modules,
        qemu,
        rootfs,
        sources,
        toolchain,
    )
    checked = set()
    for task in (task for stage in stages for task in stage.tasks(loaded) if "actions" in task):
        action = task["actions"][0][2]["work"].action
        if (
            task["uptodate"] != [False]
            and reaches(action, make.run)
            and task["basename"] != "toolchain"
        ):
            assert task["meta"]["place"] in folders, task["basename"]
            checked.add(task["basename"])
    assert {"kernel_config", "vmlinux", "modules", "module", *loaded.chain} <= checked
    assert ("dtbs" in checked) == bool(loaded.machine.kernel.dtbs)
    assert ("busybox" in checked) == loaded.machine.userspace


@pytest.mark.parametrize("threads", [[], ["-n2"]], ids=str)
def test_a_task_that_fails_while_the_journal_can_not_be_written(
    mini: Mini, threads: list[str]
) -> None:
    assert mini.run("full")[0] == 0
    for name in ("in", "now"):
        (mini.top / name).write_text("other")
    status, _, err = mini.run(*threads, "full")
    assert status == 3
    assert "ERROR: the journal can't be written: " in err
    assert "Traceback" not in err


def test_what_takes_part_in_forks_is_there_before_any_thread() -> None:
    """A thread that imports it while another one forks would meet a lock that is not its own."""
    name = "concurrent.futures.thread"
    text = (
        "import sys\nfrom tasks.graph.runner import Threads\n"
        f"Threads(None, None, False, False, 0, 2)\nprint({name!r} in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=TOP, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
