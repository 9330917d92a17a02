"""Runs that are ended by force, and runs at the same time: what is finished stays so, and nothing
half-made is used."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
from playground import EVERYTHING, IMAGES, Kept, Playground, finish

# what is being made when the blow falls: the paused target, and the task it belongs to
DEFAULT = ("panic.o", "libc.o")  # of these; the others are marked long
MOMENTS = {
    "panic.o": "vmlinux",
    "vmlinux.bin.gz": "piggy.gz",
    "libc.o": "toolchain",
    "echo.o": "busybox",
}


def working_in(folder: Path) -> list[int]:
    """The processes that have the folder in their command line or as their place, doit's own ones
    too."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes() + os.fsencode(os.readlink(entry / "cwd"))
            if str(folder).encode() in words and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def nobody_works_in(folder: Path) -> bool:
    until = time.monotonic() + 5
    while working_in(folder):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def killed(play: Playground, target: str, *words: str) -> None:
    """Build, and kill everything when a target is half-made."""
    play.pause(target)
    process = play.start(*words)
    play.reached(target)
    for pid in [process.pid, *working_in(play.top)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    finish(process, 20)
    play.resume()


def first_line(process: subprocess.Popen[str]) -> str:
    """What a started doit says first, which must be soon."""
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], 10)
    return process.stdout.readline() if ready else ""


def goes_on(play: Playground, kept: Kept, task: str) -> None:
    """A plain doit finishes, does nothing again that was finished, and gives the images of an
    undisturbed build."""
    play.resume()
    done = play.finished()
    after = play.doit()
    assert not done & set(after.ran), f"done again: {done & set(after.ran)}"
    assert task in after.ran
    assert done | set(after.ran) == set(EVERYTHING)
    assert play.digests() == kept.digests
    assert play.doit().ran == []


@pytest.mark.parametrize(
    "target",
    [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.long) for name in MOMENTS],
)
def test_kill_9(fresh: Playground, kept: Kept, target: str) -> None:
    """Doit alone dies at once; make gets SIGTERM from the kernel, as its parent is gone, and ends
    after its command."""
    fresh.pause(target)
    process = fresh.start()
    fresh.reached(target)
    process.kill()
    process.wait(20)
    fresh.resume()
    assert nobody_works_in(fresh.top)
    goes_on(fresh, kept, MOMENTS[target])


@pytest.mark.parametrize(
    ("target", "edited"),
    [
        ("vmlinux", False),
        ("panic.o", True),
        pytest.param("vmlinux", True, marks=pytest.mark.long),
        ("built-in.a", True),
        pytest.param("vmlinux.bin.gz", True, marks=pytest.mark.long),
        ("echo.o", True),
    ],
)
def test_power_cut(request: pytest.FixtureRequest, kept: Kept, target: str, edited: bool) -> None:
    """Everything dies at once: nobody can remove the half-made target. After an edit the old record
    lies beside it."""
    play: Playground = request.getfixturevalue("built" if edited else "fresh")
    if edited:
        (
            play.obj / "piggyback.trace"
        ).unlink()  # let make decide, which makes everything that a comment is in
        play.append(play.linux / "kernel/panic.c", "/* more */\n")
        play.append("build/src/busybox/coreutils/echo.c", "/* more */\n")
        if target == "vmlinux.bin.gz":
            (play.obj / "arch/x86/boot/compressed" / target).unlink()
            (play.images / "piggy.gz").unlink()
    killed(play, target)
    play.doit()
    assert play.digests() == kept.digests
    assert play.doit().ran == []


@pytest.mark.parametrize(
    ("target", "number", "status", "word"),
    [
        ("panic.o", signal.SIGTERM, 143, "terminated"),
        pytest.param("panic.o", signal.SIGINT, 130, "interrupted", marks=pytest.mark.long),
        ("libc.o", signal.SIGINT, 130, "interrupted"),
        ("piggy.o", signal.SIGHUP, 129, "hung up"),
    ],
)
def test_signal(
    fresh: Playground, kept: Kept, target: str, number: int, status: int, word: str
) -> None:
    """SIGTERM to doit, Ctrl-C to the terminal's process group: the children end, too."""
    fresh.pause(target)
    process = fresh.start()
    fresh.reached(target)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    text = finish(process, 20)
    assert process.returncode == status, text
    assert word in text
    assert "Traceback" not in text
    assert working_in(fresh.top) == []
    goes_on(fresh, kept, {**MOMENTS, "piggy.o": "piggy.o"}[target])


def test_kill_9_while_unpacking(fresh: Playground, kept: Kept) -> None:
    """As soon as the folder of the half-unpacked tree is there."""
    process = fresh.start()
    src = fresh.top / "build" / "src"
    until = time.monotonic() + 10
    while not (src.exists() and any(src.glob(".linux-6.1-*.part"))) and time.monotonic() < until:
        time.sleep(0.0005)
    process.kill()
    process.communicate(timeout=20)
    fresh.doit()
    assert fresh.digests() == kept.digests
    assert not list(src.glob(".linux-6.1-*.part"))


def test_kill_9_again_and_again(fresh: Playground, kept: Kept) -> None:
    """At arbitrary moments, everything at once, until a run comes through."""
    for tenths in range(1, 40):
        process = fresh.start()
        try:
            process.communicate(timeout=0.11 * tenths)
            break
        except subprocess.TimeoutExpired:
            for pid in [process.pid, *working_in(fresh.top)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.communicate(timeout=20)
    fresh.doit()
    assert fresh.digests() == kept.digests
    assert fresh.doit().ran == []


def test_power_cut_while_a_link_is_made(built: Playground, kept: Kept) -> None:
    """Vmlinux was finished, but its record, and the list of what make left, did not reach the
    disk."""
    (built.obj / "piggyback.running").touch()
    os.utime(built.obj / "piggyback.running", (1, 1))
    for name in (".vmlinux.cmd", "piggyback.made"):
        os.truncate(built.obj / name, 0)
    (built.images / "compressed_vmlinux").unlink()
    built.doit()
    assert built.digests() == kept.digests
    assert built.doit().ran == []


def test_an_edit_while_vmlinux_is_linked(built: Playground) -> None:
    """Of a file that vmlinux itself depends on: the links after it are made of the vmlinux that
    there is, and the next run makes another one."""
    script = built.linux / "scripts/link-vmlinux.sh"
    built.edit(built.linux / "kernel/panic.c", "printk(why)", "printk(why + 1)")
    (built.obj / "piggyback.trace").unlink()  # make decides
    built.pause("vmlinux", "wait")
    building = built.start()
    built.reached("vmlinux")
    info = script.stat()
    built.append(script, "# edited\n")
    os.utime(script, ns=(info.st_atime_ns, info.st_mtime_ns))
    built.resume()
    said = finish(building)
    assert building.returncode == 0, said
    assert "vmlinux" in built.doit().ran
    assert built.doit().ran == []


def test_two_at_once(fresh: Playground, kept: Kept) -> None:
    fresh.pause("panic.o", "wait")
    first = fresh.start()
    fresh.reached("panic.o")
    second = fresh.start()
    line = first_line(second)
    assert "WAIT" in line
    assert f"pid {first.pid}" in line
    fresh.resume()
    assert first.wait(60) == 0
    text = finish(second)
    assert second.returncode == 0, text
    assert "nothing to do" in text
    assert fresh.digests() == kept.digests
    assert fresh.doit().ran == []


def test_many_at_once(fresh: Playground, kept: Kept) -> None:
    runs = [fresh.start() for _ in range(4)]
    texts = [finish(run) for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, texts
    assert sum("nothing to do" in text for text in texts) == 3
    assert not any("Traceback" in text for text in texts)
    assert fresh.digests() == kept.digests
    assert fresh.doit().ran == []


def test_one_who_waits_can_give_up(fresh: Playground) -> None:
    fresh.pause("panic.o")
    first = fresh.start()
    fresh.reached("panic.o")
    second = fresh.start()
    assert "WAIT" in first_line(second)
    second.send_signal(signal.SIGINT)
    text = finish(second, 10)
    assert second.returncode == 130, text
    assert "Traceback" not in text
    assert first.poll() is None
    first.terminate()
    assert "terminated" in finish(first, 20)


def test_the_dead_ones_make_is_waited_for(fresh: Playground, kept: Kept) -> None:
    """Doit was killed, but a compiler that it started does not want to end."""
    fresh.pause("panic.o", "stubborn")
    first = fresh.start()
    fresh.reached("panic.o")
    first.kill()
    first.wait(10)
    second = fresh.start()
    assert "WAIT" in first_line(second)
    time.sleep(0.3)
    assert second.poll() is None
    fresh.resume()
    text = finish(second)
    assert second.returncode == 0, text
    assert fresh.digests() == kept.digests
    assert fresh.doit().ran == []


def test_a_stubborn_child_is_killed(fresh: Playground) -> None:
    """SIGTERM to doit, and a compiler that ignores it: after five seconds it is killed."""
    fresh.pause("panic.o", "stubborn")
    process = fresh.start()
    fresh.reached("panic.o")
    process.terminate()
    text = finish(process, 15)
    assert process.returncode == 143, text
    assert nobody_works_in(fresh.top)


def test_reading_while_another_builds(fresh: Playground) -> None:
    """What builds nothing does not wait."""
    fresh.pause("panic.o")
    first = fresh.start()
    fresh.reached("panic.o")
    assert "bzImage" in fresh.doit("list").text
    first.terminate()
    finish(first, 20)


def test_images_are_all_or_nothing(fresh: Playground) -> None:
    """Whatever lies in images/ while a build is under way is whole."""
    process = fresh.start()
    sizes: dict[str, set[int]] = {}
    while process.poll() is None:
        for name in IMAGES:
            with contextlib.suppress(FileNotFoundError):
                sizes.setdefault(name, set()).add((fresh.images / name).stat().st_size)
        time.sleep(0.001)
    finish(process)
    assert {name: len(seen) for name, seen in sizes.items()} == dict.fromkeys(sizes, 1)
    assert len(sizes) > 3
