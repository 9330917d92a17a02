from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tasks.system import disk
from tasks.system.errors import PiggyError


def test_human_sizes() -> None:
    assert [
        disk.human(size) for size in (0, 999, 1000, 138_009_412, 999_949_999, 2_500_000_000)
    ] == ["0 bytes", "999 bytes", "1.0 kB", "138.0 MB", "999.9 MB", "2.5 GB"]


def test_free_looks_at_the_nearest_folder_there_is(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    assert disk.free(tmp_path / "not" / "yet") == pytest.approx(
        room.f_bavail * room.f_frsize, rel=0.1
    )


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "no space left on the disk for .*file: 5.0 kB needed, .* free"),
        (errno.EDQUOT, "no space left"),
        (errno.EACCES, "can't write .*file: Permission denied"),
        (errno.EROFS, "can't write .*file: Read-only"),
        (errno.ENOTDIR, "a file stands where a folder is wanted"),
        (errno.EIO, "can't write .*file: Input/output error"),
    ],
)
def test_an_os_error_is_explained(tmp_path: Path, number: int, told: str) -> None:
    with pytest.raises(PiggyError, match=told), disk.explained(tmp_path / "file", 5000):
        raise OSError(number, os.strerror(number))


def test_an_os_error_names_its_own_file(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="/missing/x"), disk.explained(tmp_path / "file"):
        (tmp_path / "missing" / "x").write_text("")


def test_other_exceptions_pass(tmp_path: Path) -> None:
    with pytest.raises(KeyError), disk.explained(tmp_path):
        raise KeyError
