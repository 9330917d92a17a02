from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.system.errors import PiggyError
from tasks.system.lock import Lock

TOP = Path(__file__).parents[3]


class Other:
    """Another process that takes the lock at once, and then does what it is told."""

    def __init__(self, path: Path, then: str = "sys.stdin.read()", limit: str = "") -> None:
        script = (
            f"import os, subprocess, sys; sys.path.insert(0, {str(TOP)!r})\nfrom pathlib import"
            f" Path\nfrom tasks.system.lock import Lock\n{limit}\nlock = Lock(Path({str(path)!r}),"
            f" 'the folder')\nlock.acquire()\nprint('got it', flush=True)\n{then}\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def warned(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline().strip()

    def end(self, number: int = 0) -> None:
        if number:
            self.process.send_signal(number)
        self.process.communicate(timeout=10)


def free(path: Path) -> bool:
    with path.open("r+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "lock"


def test_taken_given_up_and_taken_again(path: Path) -> None:
    lock = Lock(path, "x")
    for _ in range(3):
        lock.acquire()
        lock.acquire()  # once is enough
        assert not free(path)
        assert path.read_text() == f"{os.getpid()}\n"
        lock.release()
        lock.release()
        assert free(path)


def test_held_for_a_body_whatever_ends_it(path: Path) -> None:
    def interrupted() -> None:
        assert not free(path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Lock(path, "x").held():
        interrupted()
    assert free(path)


@pytest.mark.parametrize("error", [PiggyError, KeyboardInterrupt, SystemExit])
def test_given_to_others_for_a_body_whatever_ends_it(
    path: Path, error: type[BaseException]
) -> None:
    lock = Lock(path, "the folder")
    lock.acquire()
    with lock.released():
        assert not lock.taken
    assert lock.taken
    with pytest.raises(error), lock.released():
        raise error("")
    assert lock.taken


def test_a_signal_waits_for_nobody(path: Path) -> None:
    lock = Lock(path, "the folder")
    lock.acquire()
    other = None
    with pytest.raises(SystemExit), lock.released():  # noqa: PT012
        other = Other(path)
        assert other.said() == "got it"
        raise SystemExit(130)
    assert other is not None
    assert not lock.taken
    other.process.kill()
    other.process.communicate()


def test_the_second_waits_and_says_for_whom(path: Path) -> None:
    lock = Lock(path, "x")
    lock.acquire()
    other = Other(path)
    assert (
        other.warned()
        == f"WAIT    the folder is in use by another run (pid {os.getpid()}); Ctrl-C gives up"
    )
    time.sleep(0.2)
    assert other.process.poll() is None
    lock.release()
    assert other.said() == "got it"
    assert path.read_text() == f"{other.process.pid}\n"
    other.end()


def test_who_waits_can_give_up(path: Path) -> None:
    with Lock(path, "x").held():
        other = Other(path)
        other.warned()
        other.end(signal.SIGINT)
        assert other.process.returncode != 0
        assert not free(path)


def test_a_killed_owner_leaves_no_lock(path: Path) -> None:
    other = Other(path)
    assert other.said() == "got it"
    assert not free(path)
    other.end(signal.SIGKILL)
    assert free(path)
    Lock(path, "x").acquire()


def test_the_children_of_a_killed_owner_keep_it(path: Path) -> None:
    other = Other(
        path,
        "print(subprocess.Popen(['sleep', '300'], close_fds=False).pid, flush=True);"
        " sys.stdin.read()",
    )
    assert other.said() == "got it"
    child = int(other.said())
    other.process.kill()
    other.process.wait()
    assert not free(path)
    os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while not free(path):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    other.end()


def test_a_folder_removed_and_made_anew_while_we_wait_is_locked_anew(path: Path) -> None:
    lock = Lock(path, "x")
    lock.acquire()
    other = Other(path)
    other.warned()
    shutil.rmtree(path.parent)
    lock.release()
    assert other.said() == "got it"
    assert path.exists()
    assert not free(path)
    other.end()


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        PiggyError, match=rf"{tmp_path}/file/lock can't be opened: (Not a directory|File exists)"
    ):
        Lock(tmp_path / "file" / "lock", "x").acquire()
    with pytest.raises(PiggyError, match="can't be locked: it is no file"):
        Lock(tmp_path, "x").acquire()


def test_a_file_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(37, "No locks available")

    open_before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(PiggyError, match="can't be locked: No locks available"):
        Lock(path, "x").acquire()
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_full_disk_hinders_no_lock(path: Path) -> None:
    other = Other(path, limit="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))")
    assert other.said() == "got it"
    assert not free(path)
    other.end()
    assert other.process.returncode == 0


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("link", "it is a link"),
        ("dead link", "it is a link"),
        *((kind, "it is no file") for kind in ("pipe", "socket", "folder")),
    ],
)
def test_something_else_in_its_place_is_named_and_left_alone(
    path: Path, tmp_path: Path, kind: str, said: str
) -> None:
    theirs = tmp_path / "theirs"
    if kind != "dead link":
        theirs.write_text("precious")
    path.parent.mkdir()
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    else:
        {"pipe": lambda: os.mkfifo(path), "folder": path.mkdir}.get(
            kind, lambda: path.symlink_to(theirs)
        )()
    with pytest.raises(PiggyError) as caught:
        Lock(path, "x").acquire()
    assert caught.value.message == f"{path} can't be locked: {said}"
    assert "Piggyback makes the file itself" in caught.value.hint
    assert theirs.exists() is (kind != "dead link")
    assert not theirs.exists() or theirs.read_text() == "precious"


@pytest.mark.parametrize("text", ["precious", "1234 and more\n", "5\n6\n", "7" * 30, "x" * 5000])
def test_a_file_that_holds_no_number_is_locked_and_stays_as_it_is(path: Path, text: str) -> None:
    """It may be another name of a file of the user's (a hard link)."""
    path.parent.mkdir()
    path.write_text(text)
    with Lock(path, "x").held():
        assert not free(path)
    assert path.read_text() == text
    other = Other(path, "print(1)")
    assert other.said() == "got it"
    other.end()


def test_a_longer_number_goes(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("12345678901\n")
    with Lock(path, "x").held():
        assert path.read_text() == f"{os.getpid()}\n"


def test_nobody_sleeps_where_no_signal_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal right before Python sleeps in flock(2) would wait for the lock, too."""
    other = Other(tmp_path / "lock")
    assert other.said() == "got it"
    plain, looks = fcntl.flock, []

    def flock(fd: int, operation: int) -> None:
        assert operation & fcntl.LOCK_NB
        looks.append(operation)
        if len(looks) == 3:
            other.process.communicate("")
        plain(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    Lock(tmp_path / "lock", "the folder").acquire()
    assert len(looks) >= 3
