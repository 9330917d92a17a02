"""The whole graph with -n: what does not need each other at the same time, on one budget, and
nothing spoilt by it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playground import EVERYTHING, Kept, Playground, finish
from test_kill import nobody_works_in, working_in

COUNT = """\
#!/bin/sh
# Stands before a compiler: leaves a mark while it runs, and counts the marks.
d=$HOME/crowd; mkdir -p $d/marks; : > $d/marks/$$
ls $d/marks | wc -l >> $d/counts
sleep 0.02
"{real}" "$@"
status=$?
rm $d/marks/$$
exit $status
"""


def goes_on(play: Playground, kept: Kept, *words: str) -> None:
    """A plain doit finishes, gives the images of an undisturbed build, and then has nothing to
    do."""
    play.resume()
    play.doit(*words)
    assert play.digests() == kept.digests
    assert play.doit(*words).ran == []
    assert play.doit().ran == []


def until(what: object, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [1, 2, 8])
def test_the_same_images(fresh: Playground, kept: Kept, number: int) -> None:
    result = fresh.doit("-n", str(number))
    assert sorted(result.ran) == sorted(EVERYTHING)
    assert fresh.digests() == kept.digests
    for log in fresh.history.parent.glob("*.log"):
        assert not re.search(
            "jobserver|forced in submake", log.read_text().replace("--jobserver-auth", "")
        ), log
    assert "nothing to do: 18 tasks" in fresh.doit("-n", str(number)).text
    assert fresh.doit().ran == []


def test_after_an_edit(built: Playground) -> None:
    """What an action learns, and why it runs, is the same with -n."""
    built.edit(built.linux / "kernel/panic.c", "panic", "panics")
    built.append("build/src/busybox/coreutils/echo.c", "int more;\n")
    result = built.doit("-n", "4", status=None)
    alone = [
        reason
        for reason in result.why.get("vmlinux", [])
        if reason.endswith("kernel/panic.c changed")
    ]
    assert alone
    assert any(reason.endswith("echo.c changed") for reason in result.why["busybox"])


def test_busybox_is_built_while_the_kernel_is(fresh: Playground, kept: Kept) -> None:
    fresh.pause("panic.o", "wait")
    process = fresh.start("-n", "2")
    fresh.reached("panic.o")
    until(lambda: {"busybox", "rootfs"} <= fresh.finished())
    assert "vmlinux" not in fresh.finished()
    fresh.resume()
    text = finish(process)
    assert process.returncode == 0, text
    goes_on(fresh, kept)


def test_no_two_tasks_in_one_object_folder(built: Playground) -> None:
    """Whatever is asked for, in whatever order: of those that work in one O= folder one is over
    before the next begins. Seen from make: none is started while another one of the same folder is
    there."""
    shutil.rmtree(built.images)
    process = built.start("-n", "8")
    seen: set[tuple[str, int]] = set()
    while process.poll() is None:
        folders: dict[str, int] = {}
        for pid in working_in(built.top):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == process.pid and words[0] == b"make":
                folder = next((word.decode() for word in words if word.startswith(b"O=")), "")
                folders[folder] = folders.get(folder, 0) + 1
        seen.update(folders.items())
        time.sleep(0.005)
    text = finish(process)
    assert process.returncode == 0, text
    assert {count for _, count in seen} == {1}, seen
    assert any(folder.endswith("kernel/6.1") for folder, _ in seen)


@pytest.fixture
def crowd(fresh: Playground, triple: str) -> Iterator[Path]:
    """A folder for PATH with compilers that count; what they counted is in ~/crowd/counts."""
    folder = fresh.home / "counting"
    folder.mkdir()
    for name in (f"{triple}-gcc", f"{triple}-ld", "gcc"):
        real = shutil.which(name)
        assert real
        (folder / name).write_text(COUNT.format(real=real))
        (folder / name).chmod(0o755)
    yield folder
    shutil.rmtree(folder)
    shutil.rmtree(fresh.home / "crowd", ignore_errors=True)


@pytest.mark.parametrize(("jobs", "number"), [(2, 8), (3, 2)])
def test_never_more_commands_at_once_than_the_budget(
    fresh: Playground, crowd: Path, jobs: int, number: int
) -> None:
    """Kernel and busybox together, and the budget is used: as many as it has do run at once."""
    fresh.doit("-n", str(number), f"jobs={jobs}", PATH=f"{crowd}:{fresh.environ()['PATH']}")
    counts = [int(line) for line in (fresh.home / "crowd" / "counts").read_text().split()]
    assert max(counts) == jobs, sorted(counts)


def test_under_a_make_it_keeps_to_that_makes_budget(fresh: Playground, crowd: Path) -> None:
    makefile = fresh.home / "Makefile"
    makefile.write_text(f"all:\n\t+cd {fresh.top} && doit -n 4\n")
    done = subprocess.run(
        ["make", "-f", makefile, "-j3"],
        env=fresh.environ(PATH=f"{crowd}:{fresh.environ()['PATH']}"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "INTERNAL" not in done.stderr
    assert max(int(line) for line in (fresh.home / "crowd" / "counts").read_text().split()) == 3


def test_an_error_in_the_kernel_lets_busybox_finish(fresh: Playground, kept: Kept) -> None:
    """What was begun is kept, and what needs the kernel is not begun."""
    fresh.pause("echo.o", "wait")
    fresh.pause("panic.o", "fail")
    process = fresh.start("-n", "2")
    fresh.reached("echo.o")
    fresh.reached("panic.o")
    (fresh.home / "pause" / "panic.o").unlink()  # that command fails now
    assert process.stdout is not None
    said = []
    while not (said and "still running" in said[-1]):
        said.append(process.stdout.readline())
        assert said[-1], "".join(said)
    fresh.resume()
    text = "".join(said) + finish(process)
    assert process.returncode == 1, text
    assert "vmlinux failed: 'make' ended with status 2" in text
    assert "busybox still running: waiting for that" in text
    assert "busybox" in fresh.finished()
    assert not {"vmlinux", "Image", "rootfs"} & fresh.finished()
    goes_on(fresh, kept, "-n", "2")


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_with_both_under_way(
    fresh: Playground, kept: Kept, number: int, status: int, word: str
) -> None:
    fresh.pause("panic.o")
    fresh.pause("echo.o")
    process = fresh.start("-n", "2")
    fresh.reached("panic.o")
    fresh.reached("echo.o")
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    text = finish(process, 20)
    assert process.returncode == status, text
    assert text.count(word) == 1
    assert "Traceback" not in text
    assert "failed" not in text
    assert nobody_works_in(fresh.top)
    goes_on(fresh, kept, "-n", "2")


def test_kill_9_with_both_under_way(fresh: Playground, kept: Kept) -> None:
    fresh.pause("panic.o")
    fresh.pause("echo.o")
    process = fresh.start("-n", "2")
    fresh.reached("panic.o")
    fresh.reached("echo.o")
    before = fresh.finished()
    process.kill()
    process.wait(20)
    fresh.resume()
    assert nobody_works_in(fresh.top)
    assert {"toolchain", "kernel_config", "busybox_config"} <= before
    assert not before & set(fresh.doit("-n", "2").ran)
    goes_on(fresh, kept, "-n", "2")


def test_kill_9_of_every_worker_in_turn(fresh: Playground, kept: Kept) -> None:
    """Whatever runs as a child of doit is shot: the run ends, soon, with a word on it, and the next
    one completes it."""
    fresh.pause("panic.o")
    fresh.pause("echo.o")
    process = fresh.start("-n", "2")
    fresh.reached("panic.o")
    fresh.reached("echo.o")
    for pid in working_in(fresh.top):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            stat = Path(f"/proc/{pid}/stat").read_text()
            if int(stat.rpartition(")")[2].split()[1]) == process.pid:
                os.kill(pid, signal.SIGKILL)
    text = finish(process, 20)
    assert process.returncode == 1, text
    assert text.count("was killed by SIGKILL") == 2
    assert "Traceback" not in text
    fresh.resume()
    assert nobody_works_in(fresh.top)
    goes_on(fresh, kept, "-n", "2")


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_after_a_touch_of_everything_one_run_reads_and_the_next_does_not(built: Playground) -> None:
    """The digests that one run takes are there for the next, which then opens none of the
    sources."""
    time.sleep(
        0.2
    )  # a file that is touched just now may change once more without a new time, and is read again
    for folder in (
        built.linux,
        built.top / "build/src/busybox",
        built.images,
        built.top / "overlays",
    ):
        for path in folder.rglob("*"):
            if path.is_file():
                os.utime(path)
    time.sleep(0.2)
    trace = built.home / "trace"
    assert built.doit("-n", "2").ran == []
    opened = []
    for _ in range(2):
        done = subprocess.run(
            ["strace", "-f", "-e", "trace=open,openat", "-o", trace, "doit"],
            cwd=built.top,
            env=built.environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert "nothing to do" in done.stdout, done
        opened.append(re.findall(r".*(?:panic\.c|echo\.c|images/vmlinux).*", trace.read_text()))
    assert opened == [[], []]
