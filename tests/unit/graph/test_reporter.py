"""doit itself is run here, on a small graph with our reporter, journal, lock and task maker."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.graph import history
from tasks.graph.history import Line
from tasks.graph.reason import NEVER

TOP = Path(__file__).parents[3]
DODO = """
import errno, os, sys, time
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, {top!r})
from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain
from tasks.cache.code_index import Codes; from tasks.cache.store import Store
from tasks.system import stdio as console; from tasks.graph import task as graph; from tasks.graph import journal; from tasks.graph import reporter; from tasks.graph import commands
from tasks.system.errors import PiggyError
from tasks.system.lock import Lock
from tasks.system.process import run
from tasks.cache.digests import Stamps

console.install()
HERE = Path("here")
STAMPS = Stamps(HERE / "stamps")
LAYOUT = SimpleNamespace(here=HERE, build=HERE, logs=HERE / "logs", history=HERE / "logs" / "history.jsonl", journal=HERE / "journal.sqlite")
PROJECT = SimpleNamespace(layout=LAYOUT, stamps=STAMPS, codes=Codes(HERE / "codes", STAMPS), lock=Lock(HERE / "lock", "here"), store=Store(HERE / "store", 0))
commands.install(PROJECT)

def write(job, name):
    print("RUN", job.name, flush=True)
    Path(name).write_text(name)
    return {{"commands": 3}}

def fail(job, kind):
    if kind == "piggy":
        error = PiggyError("it went wrong", "mend it")
        error.status = int(os.environ.get("STATUS", "1"))
        raise error
    if kind == "enospc":
        raise OSError(errno.ENOSPC, "No space left on device", "some/file")
    if kind == "eacces":
        raise OSError(errno.EACCES, "Permission denied", "some/file")
    if kind == "bug":
        raise ZeroDivisionError("a bug of ours")

def slow(job):
    run(["sh", "-c", "echo $$ > pid; exec sleep 300"])

def talk(job):
    run(["sh", "-c", "echo $$ > pid; while :; do echo line; sleep 0.05; done"], on_line=print)

def said(job):
    print("a \\x1b[2J b \\udcff \\u202e")
    raise PiggyError("c \\x1b]0;x\\x07", "d\\r")

def grow(job):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

DOIT_CONFIG = {{"backend": "sqlite3", "codec_cls": journal.Codec, "check_file_uptodate": journal.Present,
               "dep_file": "here/journal.sqlite", "verbosity": 2, "default_tasks": ["one", "two"],
               "reporter": reporter.reporter_for(PROJECT)}}

def task_all():
    yield graph.task(PROJECT, "one", "doc", write, ["out1"], inputs=graph.Needs(files=[Path("in")]), outputs=graph.Makes(targets=[Path("out1")]))
    yield graph.task(PROJECT, "two", "doc", write, ["out2"], inputs=graph.Needs(files=[Path("out1")]), outputs=graph.Makes(targets=[Path("out2")]))
    for kind in ("piggy", "enospc", "eacces", "bug"):
        yield graph.task(PROJECT, kind, "doc", fail, [kind], inputs=graph.Needs(files=[Path("out1")]))
    yield graph.task(PROJECT, "slow", "doc", slow, inputs=graph.Needs(files=[Path("out1")]))
    yield graph.task(PROJECT, "talk", "doc", talk, inputs=graph.Needs(files=[Path("out1")]))
    yield graph.task(PROJECT, "said", "doc", said)
    yield graph.task(PROJECT, "look", "doc", said if os.environ.get("FAIL") else print, command=graph.Command(reads=True))
    yield graph.task(PROJECT, "grow", "doc", grow, inputs=graph.Needs(files=[Path("out1")]))
    yield graph.task(PROJECT, "always", "doc", write, ["out3"], command=graph.Command())

try:
    journal.prepare(HERE / "journal.sqlite")
except OSError as error:
    sys.exit(f"{{error.filename}}: {{error.strerror}}")
sys.exit(DoitMain(ModuleTaskLoader(globals())).run(sys.argv[1:]))
"""


class Mini:
    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "in").write_text("in")
        (top / "run.py").write_text(DODO.format(top=str(TOP)))

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "run.py", *words],
            cwd=self.top,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.PIPE,
            env={**os.environ, **env},
        )

    def run(self, *words: str, **env: str) -> tuple[int, str, str]:
        process = self.start(*words, **env)
        out, err = process.communicate(timeout=30)
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

    def history(self) -> list[Line]:
        return history.read(self.top / "here" / "logs" / "history.jsonl")

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 20
        while not (self.top / name).exists() or not (self.top / name).read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def mini(tmp_path: Path) -> Mini:
    return Mini(tmp_path)


def test_a_run_says_what_it_made_and_a_second_that_there_is_nothing_to_do(mini: Mini) -> None:
    status, out, err = mini.run()
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "RUN one"
    assert out.splitlines()[1].startswith("  one                out1  (0.")
    status, out, err = mini.run()
    assert (status, err) == (0, "")
    assert len(out.splitlines()) == 1
    assert out.startswith("  FRESH              nothing to do: 2 tasks up to date (0.")
    assert [(line.task, line.result, line.why) for line in mini.history()] == [
        ("one", "ok", [NEVER]),
        ("two", "ok", [NEVER]),
    ]


def test_a_change_that_makes_no_difference_stops(mini: Mini) -> None:
    mini.run()
    (mini.top / "in").write_text("another")
    _, out, _ = mini.run()
    assert "RUN one" in out
    assert "RUN two" not in out
    assert [str(reason) for reason in mini.history()[-1].why] == ["file in changed"]


def test_always_means_always(mini: Mini) -> None:
    assert "RUN always" in mini.run("always")[1]
    assert "RUN always" in mini.run("always")[1]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("piggy", "it went wrong\n  hint: mend it"),
        (
            "enospc",
            (
                "no space left on the disk while writing some/file\n  hint: free some space and run"
                " doit again"
            ),
        ),
        ("eacces", "some/file: Permission denied\n  hint: check the path"),
    ],
)
def test_a_failure_is_a_sentence_and_no_traceback(mini: Mini, kind: str, said: str) -> None:
    status, _, err = mini.run(kind)
    assert status == 1
    assert err.startswith(f"\n{kind} failed: {said}")
    assert "Traceback" not in err
    assert mini.recorded() == {"one"}
    assert mini.history()[-1].result == "failed"


def test_a_bug_of_ours_shows_its_traceback(mini: Mini) -> None:
    status, _, err = mini.run("bug")
    assert status == 2
    assert "Traceback" in err
    assert "ZeroDivisionError: a bug of ours" in err


@pytest.mark.parametrize("number", [1, 5, 77])
def test_doit_ends_with_the_errors_status(mini: Mini, number: int) -> None:
    assert mini.run("piggy", STATUS=str(number))[0] == number
    assert mini.run("--continue", "one", "piggy", "two", STATUS=str(number))[0] == number
    assert mini.recorded() == {"one", "two"}


@pytest.mark.parametrize(
    ("number", "word"),
    [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted"), (signal.SIGHUP, "hung up")],
)
def test_a_signal_stops_the_children_and_keeps_what_is_done(
    mini: Mini, number: signal.Signals, word: str
) -> None:
    process = mini.start("slow")
    mini.wait_for("pid")
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert err.strip() == f"{word}; what was finished is kept"
    child, until = Path(f"/proc/{(mini.top / 'pid').read_text().strip()}"), time.monotonic() + 10
    while (
        child.exists() and time.monotonic() < until
    ):  # a killed process takes a moment to go on a busy host
        time.sleep(0.05)
    assert not child.exists()
    assert mini.recorded() == {"one"}
    assert "nothing to do" in mini.run("one")[1]


def broken() -> int:
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def run_into(mini: Mini, out: int, *words: str) -> tuple[int, str]:
    """Run it with standard output at a descriptor, which is closed here; return its status and what
    it said besides."""
    done = subprocess.run(
        [sys.executable, "run.py", *words],
        cwd=mini.top,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=30,
    )
    os.close(out)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "words",
    [["two"], ["-n", "2", "two"], ["list"], ["info", "one"], ["look"], ["list", "-s"]],
    ids=" ".join,
)
def test_a_reader_that_has_gone_ends_it_quietly(mini: Mini, words: list[str]) -> None:
    assert run_into(mini, broken(), *words) == (141, "")


def test_what_is_done_when_the_reader_goes_is_kept(mini: Mini) -> None:
    (mini.top / "run.py").write_text(
        (mini.top / "run.py").read_text().replace('print("RUN", job.name, flush=True)', "")
    )
    assert run_into(mini, broken(), "two") == (
        141,
        "",
    )  # the line that says so is the first that fails
    assert mini.recorded() == {"one"}
    assert not (mini.top / "out2").exists()
    assert run_into(mini, broken(), "two") == (141, "")
    assert mini.recorded() == {"one", "two"}
    assert "nothing to do: 2 tasks" in mini.run("two")[1]


@pytest.mark.parametrize("more", [[], ["-n", "2"]])
def test_children_end_when_the_reader_goes(mini: Mini, more: list[str]) -> None:
    process = mini.start(*more, "talk")
    mini.wait_for("pid")
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(10) == 141
    child, until = Path(f"/proc/{(mini.top / 'pid').read_text().strip()}"), time.monotonic() + 10
    while child.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not child.exists()
    assert process.stderr
    assert process.stderr.read() == ""
    process.stderr.close()
    assert mini.recorded() == {"one"}


@pytest.mark.parametrize("words", [["two"], ["list"], ["look"]], ids=" ".join)
def test_a_full_device_is_named(mini: Mini, words: list[str]) -> None:
    status, err = run_into(mini, os.open("/dev/full", os.O_WRONLY), *words)
    assert (status, err) == (1, "ERROR: standard output: No space left on device\n")


@pytest.mark.parametrize("fds", ["1", "2", "0 1 2"])
@pytest.mark.parametrize("words", ["list", "two", "look", "said"])
def test_closed_streams_lead_nowhere(mini: Mini, fds: str, words: str) -> None:
    shell = f"exec {sys.executable} run.py {words} " + " ".join(f"{fd}>&-" for fd in fds.split())
    done = subprocess.run(
        ["sh", "-c", shell], cwd=mini.top, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == (words == "said")
    assert "Traceback" not in done.stdout + done.stderr
    assert words != "two" or mini.recorded() == {"one", "two"}


def test_nothing_foreign_steers_the_terminal(mini: Mini) -> None:
    status, out, err = mini.run("said")
    assert (status, out) == (1, "a \\x1b[2J b \\udcff \\u202e\n")
    assert err == "\nsaid failed: c \\x1b]0;x\\x07\n  hint: d\\r\n"
    assert "\\x1b[2J" in mini.run("no\x1b[2Jsuch")[2]


@pytest.mark.parametrize("fail", ["", "yes"])
def test_who_only_reads_waits_for_nobody(mini: Mini, fail: str) -> None:
    first = mini.start("slow")
    mini.wait_for("pid")
    with sqlite3.connect(mini.top / "here" / "journal.sqlite") as writer:
        writer.execute("begin immediate")  # as in the middle of a commit
        status, _, err = mini.run("look", FAIL=fail)
        assert status == bool(fail), err
        assert "WAIT" not in err
        assert "locked" not in err
    assert mini.run("list")[0] == 0
    first.terminate()
    first.communicate(timeout=10)
    assert mini.recorded() == {"one"}


def test_kill_9_loses_nothing_that_was_done(mini: Mini) -> None:
    process = mini.start("two", "slow")
    mini.wait_for("pid")
    process.kill()
    process.communicate()
    assert mini.recorded() == {"one", "two"}
    assert "nothing to do: 2 tasks" in mini.run()[1]


def test_a_task_that_dies_is_not_taken_for_done(mini: Mini) -> None:
    mini.run("one")
    (mini.top / "in").write_text("another")
    (mini.top / "out1").unlink()
    (mini.top / "out1").mkdir()  # so that it fails
    status, _, err = mini.run("one")
    assert status == 1
    assert "out1: Is a directory" in err
    assert mini.recorded() == set()


def test_the_second_run_waits_for_the_first(mini: Mini) -> None:
    first = mini.start("slow")
    mini.wait_for("pid")
    second = mini.start("one")
    assert second.stderr is not None
    assert f"in use by another run (pid {first.pid})" in second.stderr.readline()
    first.terminate()
    first.communicate(timeout=10)
    out, _ = second.communicate(timeout=10)
    assert "nothing to do: 1 task up to date" in out  # it saw what the first had done meanwhile


def test_garbage_in_place_of_the_journal_costs_a_rebuild(mini: Mini) -> None:
    mini.run()
    (mini.top / "here" / "journal.sqlite").write_bytes(b"garbage" * 1000)
    status, out, err = mini.run()
    assert (status, err) == (0, "")
    assert "RUN one" in out
    assert (mini.top / "here" / "journal.damaged").read_bytes() == b"garbage" * 1000
    (mini.top / "here" / "journal.sqlite").write_bytes(b"")
    assert mini.run()[0] == 0


def test_a_journal_that_can_not_be_written_ends_the_run_with_one_sentence(mini: Mini) -> None:
    """Standing in for a full disk: no file may grow."""
    status, _, err = mini.run("grow", "two")
    assert status == 3
    assert "ERROR: the journal can't be written: " in err
    assert "hint: is the disk full" in err
    assert "Traceback" not in err
    assert mini.recorded() == {"one"}
    assert mini.run()[0] == 0


def test_a_folder_in_place_of_the_lock(mini: Mini) -> None:
    (mini.top / "here" / "lock").mkdir(parents=True)
    status, _, err = mini.run()
    assert status == 3
    assert err.startswith("ERROR: here/lock can't be locked: it is no file")
    assert "Traceback" not in err


def test_clean_removes_the_outputs_and_nothing_else(mini: Mini) -> None:
    mini.run()
    assert mini.run("clean", "--dry-run", "one")[1] == "would remove out1\n"
    assert (mini.top / "out1").exists()
    (mini.top / "out1").unlink()
    (mini.top / "out1").symlink_to("nothing")
    (mini.top / "out2").unlink()
    (mini.top / "out2").mkdir()
    status, out, err = mini.run("clean", "one", "two")
    assert (status, out) == (1, "remove out1\nremove out2\n")
    assert "out2 can't be removed: Is a directory" in err
    assert "Traceback" not in err
    assert not os.path.lexists(mini.top / "out1")
    assert (mini.top / "in").exists()
    assert mini.run("clean", "piggy")[1] == "nothing to remove\n"
