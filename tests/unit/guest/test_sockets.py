"""The folder of QEMU's sockets: whose it is, where it lies, and when there is none."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from tasks.guest import sockets
from tasks.system.errors import PiggyError


@pytest.fixture
def short():
    """A folder of ours with a short path, which pytest's is not."""
    with tempfile.TemporaryDirectory(prefix="pt.", dir="/tmp") as name:
        yield Path(name)


def test_only_we_can_enter_it_and_it_goes(short: Path) -> None:
    previous = os.umask(0)
    try:
        with sockets.folder({"XDG_RUNTIME_DIR": str(short), "TMPDIR": "/tmp"}) as folder:
            assert folder.parent == short
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(folder / ("x" * 15)))
    finally:
        os.umask(previous)
    assert not folder.exists()


@pytest.mark.parametrize(
    "kind", ["deep", "missing", "relative", "open to all", "another's", "file"]
)
def test_a_place_that_will_not_do_is_passed_over(short: Path, kind: str) -> None:
    place = short / ("d" * 80 if kind == "deep" else "place")
    if kind == "file":
        place.touch()
    elif kind not in ("missing", "relative"):
        place.mkdir()
    if kind == "open to all":
        place.chmod(0o777)
    if kind == "another's":
        if os.geteuid():
            pytest.skip("only root can give a folder away")
        os.chown(place, 4321, 4321)
    with sockets.folder(
        {"XDG_RUNTIME_DIR": "place" if kind == "relative" else str(place), "TMPDIR": str(short)}
    ) as folder:
        assert folder.parent == short


def test_a_socket_works_in_the_deepest_place_that_is_taken(short: Path) -> None:
    place = short
    while len(str(place)) + len("/piggy.12345678") + sockets._NAME < sockets.LONGEST - 1:
        place = place / "d" * 1 if len(str(place)) % 2 else place / "e"
        place.mkdir()
    with (
        sockets.folder({"XDG_RUNTIME_DIR": str(place)}) as folder,
        socket.socket(socket.AF_UNIX) as one,
    ):
        assert folder.parent == place
        one.bind(str(folder / ("x" * (sockets._NAME - 1))))


def test_no_place_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_safe", lambda place: False)
    with (
        pytest.raises(PiggyError, match="no place for QEMU's sockets") as caught,
        sockets.folder({}),
    ):
        pass
    assert "TMPDIR" in caught.value.hint
