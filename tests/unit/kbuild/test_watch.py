"""What a command looked at: by the real watch.c, on commands of each kind."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.kbuild import watch
from tasks.kbuild.saved import Unfamiliar
from tasks.kbuild.watch import Command


@pytest.fixture(scope="session")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("watch") / "watch"
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-DPIGGYBACK_MAIN", "-o", program, watch.SOURCE],
        check=True,
    )
    return program


def watched(watcher: Path, tmp_path: Path, script: str) -> Command:
    log = tmp_path / "piggyback.log"
    log.unlink(missing_ok=True)
    done = subprocess.run(
        [watcher, log, "/bin/sh", "-c", script], cwd=tmp_path, check=False, capture_output=True
    )
    (one,) = watch.read(log)
    assert os.waitstatus_to_exitcode(one.status) == done.returncode
    assert one.odd == ""
    return one


def aged(path: Path) -> None:
    """Wait until a file is not new any more."""
    while time.time_ns() - path.stat().st_ctime_ns < 2 * watch.RACY_NS:
        time.sleep(0.01)


def test_each_kind_of_look(watcher: Path, tmp_path: Path) -> None:
    (tmp_path / "listed").mkdir()
    (tmp_path / "there").write_text("x")
    script = "cat there; cat missing; cd listed; ls; echo x >../new; mkdir ../folder; exit 3"
    one = watched(watcher, tmp_path, script)
    assert one.status == 3 << 8
    assert {f"r{tmp_path}/there", f"r{tmp_path}/missing", "r/bin/sh"} <= {*one.files}
    assert {f"w{tmp_path}/listed/../new", f"w{tmp_path}/listed/../folder"} <= {*one.files}
    assert f"d{tmp_path}/listed/." in one.files or f"d{tmp_path}/listed" in one.files
    assert len(one.files) == len({*one.files})


def test_a_program_that_is_found_elsewhere_later(watcher: Path, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    one = watched(watcher, tmp_path, f"PATH={tmp_path}/first:$PATH; head -c 0 /dev/null")
    states = watch.states(one, Path("/nowhere"), time.time_ns())
    assert watch.changed(states) == []
    (tmp_path / "first/head").write_text("#!/bin/sh\n")
    assert watch.changed(states) == [f"r{tmp_path}/first/head"]


def edit(path: Path) -> None:
    info = path.stat()
    path.write_text("y")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda top: edit(top / "there"), "there"),
        (lambda top: (top / "there").unlink(), "there"),
        (lambda top: (top / "there").chmod(0o600), "there"),
        (lambda top: (top / "missing").touch(), "missing"),
        (lambda top: (top / "listed/more").touch(), "listed"),
        (lambda top: (top / "link").rename(top / "link2"), "link"),
        (lambda top: edit(top / "end"), "link"),
        (lambda top: (top / "script").write_text("#!/bin/sh\nexit 1\n"), "script"),
    ],
)
def test_what_changed_is_seen(
    watcher: Path, tmp_path: Path, change: Callable[[Path], object], name: str
) -> None:
    (tmp_path / "listed").mkdir()
    for file in ("there", "end"):
        (tmp_path / file).write_text("x")
    (tmp_path / "link").symlink_to("end")
    (tmp_path / "script").write_text("#!/bin/sh\ncat there\n")
    (tmp_path / "script").chmod(0o755)
    aged(tmp_path / "script")
    started = time.time_ns()
    one = watched(watcher, tmp_path, "./script; cat link; test -e missing; ls listed/")
    states = watch.states(one, Path("/nowhere"), started)
    assert watch.changed(states) == []
    change(tmp_path)
    assert any(entry.rstrip("/").endswith(f"/{name}") for entry in watch.changed(states))


def test_what_it_wrote_and_its_temporary_files_do_not_count(watcher: Path, tmp_path: Path) -> None:
    script = "mkdir .tmp_1; echo x >.tmp_1/a; cat .tmp_1/a .tmp_1/b; rm -r .tmp_1; echo y >kept"
    one = watched(watcher, tmp_path, script)
    states = watch.states(one, tmp_path, time.time_ns())
    assert not any(".tmp_1" in name or name.endswith("/kept") for name in states)
    assert "r/bin/sh" in states


def test_in_the_build_folder_files_count_and_the_listing_does_not(
    watcher: Path, tmp_path: Path
) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "piggyback.x").touch()
    (tmp_path / "conf").touch()
    aged(tmp_path / "conf")
    started = time.time_ns()
    one = watched(watcher, tmp_path, "ls inside; cat file piggyback.x conf")
    states = watch.states(one, tmp_path, started, ("conf",))
    (tmp_path / "inside/more").touch()
    (tmp_path / "piggyback.x").write_text("x")
    (tmp_path / "conf").write_text("x")
    assert watch.changed(states) == []
    (tmp_path / "file").write_text("x")
    assert watch.changed(states) == [f"r{tmp_path}/file"]


def test_a_file_that_changed_just_now_is_not_trusted(watcher: Path, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    started = time.time_ns()
    one = watched(watcher, tmp_path, "cat new")
    with pytest.raises(Unfamiliar, match="new changed just now"):
        watch.states(one, Path("/nowhere"), started)


def test_sockets_and_what_is_left_running_are_odd(watcher: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for script, odd in (
        ("python3 -c 'import socket; socket.socket()'", "sockets"),
        ("sleep 5 >/dev/null 2>&1 </dev/null &", "left something running"),
    ):
        subprocess.run([watcher, log, "/bin/sh", "-c", script], check=True, timeout=4)
        assert odd in watch.read(log)[-1].odd
    with pytest.raises(Unfamiliar, match="left something"):
        watch.states(watch.read(log)[-1], tmp_path, time.time_ns())


def test_where_the_kernel_does_not_let_it_watch(watcher: Path, tmp_path: Path) -> None:
    """The command runs all the same. Who is watched already can't be watched by another one."""
    inner, script = tmp_path / "inner", "echo said; kill -USR2 $$; exit 3"
    argv = [watcher, tmp_path / "outer", watcher, inner, "/bin/sh", "-c", f"trap '' USR2; {script}"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "said\n")
    assert watch.read(inner)[0].odd == "the kernel does not let programs be watched"


def test_where_the_kernel_has_no_filter(tmp_path: Path) -> None:
    source, program, log = (tmp_path / name for name in ("watch.c", "watch", "log"))
    text = watch.SOURCE.read_text()
    assert ", SECCOMP_MODE_FILTER," in text
    source.write_text(text.replace(", SECCOMP_MODE_FILTER,", ", 99,"))
    subprocess.run(["gcc", "-DPIGGYBACK_MAIN", "-o", program, source], check=True)
    script = "trap 'echo heard' USR2; kill -USR2 $$; exit 3"
    done = subprocess.run(
        [program, log, "/bin/sh", "-c", script], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (3, "heard\n")
    assert watch.read(log)[0].odd == "the kernel does not let system calls be watched"


def test_a_signal_reaches_the_command(watcher: Path, tmp_path: Path) -> None:
    one = watched(watcher, tmp_path, "trap 'exit 4' USR2; kill -USR2 $$; sleep 1")
    assert os.waitstatus_to_exitcode(one.status) == 4


@pytest.mark.parametrize(
    "data", [b"3:abc,", b"1:a,1:b,1:0,0:,1:r,", b"0:,0:,1:x,0:,0:,", b"2:\xff\xff,", b"9:a,", b"x"]
)
def test_a_log_that_is_cut_off(tmp_path: Path, data: bytes) -> None:
    log = tmp_path / "log"
    log.write_bytes(data)
    with pytest.raises(Unfamiliar):
        watch.read(log)


def test_names_below_proc_count_by_content() -> None:
    assert watch.state("r/proc/filesystems") == watch.state("r/proc/filesystems") != ""
    one = Command("", "", 0, "", ("r/proc/self/maps", "r/dev/null", "r/proc/filesystems"))
    assert set(watch.states(one, Path("/nowhere"), 1)) == {"r/proc/filesystems"}
