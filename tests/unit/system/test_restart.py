"""Whether the host was started anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.system import restart


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "boot_id"
    path.write_text("one\n")
    monkeypatch.setattr(restart, "BOOT_ID", path)
    return path


def test_another_boot_id_tells(tmp_path: Path, boot: Path) -> None:
    record = tmp_path / "record"
    assert not restart.happened(record)  # nothing is known
    restart.remember(record)
    assert not restart.happened(record)
    boot.write_text("two\n")
    assert restart.happened(record)
    restart.remember(record)
    record.write_text("tw")  # cut short itself
    assert restart.happened(record)
    boot.unlink()  # another system than Linux
    restart.remember(record)
    assert not restart.happened(record)


@pytest.mark.parametrize(
    "make",
    [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("elsewhere")],
    ids=["folder", "pipe", "link"],
)
def test_a_record_that_is_none_tells_so(tmp_path: Path, boot: Path, make: object) -> None:
    make(tmp_path / "record")  # type: ignore[operator]
    assert restart.happened(tmp_path / "record")


def test_a_flush_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    restart.flush(tmp_path)
    with pytest.raises(OSError, match="missing"):
        restart.flush(tmp_path / "missing")
