"""The files by which make learns of changed symbols: which of them get their old times again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.kbuild import manifest

AUTO = "CONFIG_TTY=y\nCONFIG_LOG_BUF_SHIFT=14\n"


def touched(obj: Path, *names: str) -> None:
    for name in names:
        (obj / "include/config" / name).parent.mkdir(parents=True, exist_ok=True)
        (obj / "include/config" / name).touch()


def changed(obj: Path) -> dict[str, int]:
    return {
        path.relative_to(obj / "include/config").as_posix(): path.stat().st_mtime_ns
        for path in (obj / "include/config").rglob("*")
        if path.is_file()
    }


@pytest.fixture(
    params=[
        ("TTY", "LOG_BUF_SHIFT", "NET", "EXT2_FS"),
        ("tty.h", "log/buf/shift.h", "net.h", "ext2/fs.h"),
    ]
)
def names(request: pytest.FixtureRequest) -> tuple[str, str, str, str]:
    """Of four symbols, as new kernels have them, and as old ones have."""
    names: tuple[str, str, str, str] = request.param
    return names


@pytest.fixture
def obj(tmp_path: Path, names: tuple[str, str, str, str]) -> Path:
    """A folder with an object; the third symbol was never set, the fourth is not set any more."""
    touched(tmp_path, names[0], names[1], names[3], "auto.conf", "kernel.release")
    (tmp_path / "include/config/auto.conf").write_text(AUTO)
    (tmp_path / "a.o").write_text("object")
    for path in (tmp_path / "include/config").rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    manifest.keep(tmp_path)
    return tmp_path


def reconfigured(obj: Path, text: str, *names: str) -> None:
    (obj / "include/config/auto.conf").write_text(text)
    touched(obj, *names, "kernel.release")
    manifest.renew(obj)


def test_a_symbol_that_came_back_has_its_old_time(
    obj: Path, names: tuple[str, str, str, str]
) -> None:
    reconfigured(obj, "CONFIG_NET=y\nCONFIG_EXT2_FS=y\n", *names)
    reconfigured(obj, AUTO, *names)
    found = changed(obj)
    assert {found[names[number]] for number in (0, 1, 3)} == {10**18}
    assert names[2] not in found
    assert found["kernel.release"] > 10**18


def test_a_symbol_with_another_value_does_not(obj: Path, names: tuple[str, str, str, str]) -> None:
    reconfigured(obj, "CONFIG_LOG_BUF_SHIFT=15\nCONFIG_NET=y\n", *names)
    found = changed(obj)
    assert found[names[3]] == 10**18
    assert all(found[names[number]] > 10**18 for number in (0, 1, 2))


def test_after_the_clock_was_set_back_it_is_newer_than_what_was_made(
    obj: Path, names: tuple[str, str, str, str]
) -> None:
    ahead = time.time_ns() + 3600 * 10**9
    os.utime(touch(obj / manifest.CLOCK), ns=(ahead, ahead))
    reconfigured(obj, f"{AUTO}CONFIG_NET=y\n", names[2])
    found = changed(obj)
    assert found[names[2]] > ahead
    assert {found[names[number]] for number in (0, 1, 3)} == {10**18}


def touch(path: Path) -> Path:
    path.touch()
    return path


def spoil(obj: Path) -> None:
    (obj / "a.o").write_text("made otherwise")


def add(obj: Path) -> None:
    (obj / "b.o").write_text("made since")


def lose(obj: Path) -> None:
    (obj / "piggyback.symbols").write_bytes(b"?")


def unconfigure(obj: Path) -> None:
    (obj / "include/config/auto.conf").unlink()


@pytest.mark.parametrize("change", [spoil, add, lose, unconfigure])
def test_no_time_is_put_back_where_objects_may_be_newer(
    obj: Path, names: tuple[str, str, str, str], change: Callable[[Path], None]
) -> None:
    touched(obj, *names)
    before = changed(obj)
    change(obj)
    manifest.renew(obj)
    assert all(changed(obj)[name] == before[name] for name in names)


def test_without_the_configuration_of_before_a_symbol_that_is_off_looks_changed(
    obj: Path, names: tuple[str, str, str, str]
) -> None:
    """Kconfig touches the files of what is on, and nothing else."""
    before = changed(obj)
    reconfigured(obj, "CONFIG_TTY=y\n")
    after = changed(obj)
    assert after[names[1]] > before[names[1]]
    assert [after[name] for name in (names[0], names[3])] == [10**18] * 2
    (obj / "include/config" / names[1]).unlink()  # lost as well
    reconfigured(obj, "CONFIG_TTY=y\n")
    assert changed(obj)[names[1]] > 10**18


def test_without_a_record_all_symbols_look_changed(
    obj: Path, names: tuple[str, str, str, str]
) -> None:
    (obj / manifest.CLOCK).touch()
    (obj / "piggyback.symbols").unlink()
    reconfigured(obj, AUTO)
    after = changed(obj)
    assert all(after[name] > 10**18 for name in (names[0], names[1], names[3]))


def test_without_auto_conf_the_times_count(tmp_path: Path) -> None:
    """As in busybox, whose make writes these files itself: Kconfig outdates no object."""
    touched(tmp_path, "cat.h", "tc.h")
    (tmp_path / "a.o").write_text("object")
    manifest.keep(tmp_path)
    (tmp_path / manifest.CLOCK).touch()
    before = changed(tmp_path)
    manifest.renew(tmp_path)
    assert changed(tmp_path) == before
    os.utime(tmp_path / "include/config/tc.h", ns=(10**18, 10**18))  # the clock was set back
    manifest.renew(tmp_path)
    after = changed(tmp_path)
    assert after["cat.h"] == before["cat.h"]
    assert after["tc.h"] > (tmp_path / manifest.CLOCK).stat().st_mtime_ns
