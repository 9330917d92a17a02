"""Whether the host was started anew, and in the middle of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.system import restart

TOP = Path(__file__).parents[3]


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "boot_id"
    path.write_text(f"{uuid.uuid4()}\n")
    monkeypatch.setattr(restart, "BOOT_ID", path)
    return path


def test_another_boot_id_tells(tmp_path: Path, boot: Path) -> None:
    record = tmp_path / "record"
    assert not restart.happened(record)  # nothing is known
    restart.remember(record)
    assert not restart.happened(record)
    boot.write_text(f"{uuid.uuid4()}\n")
    assert restart.happened(record)
    assert not restart.cut_off(record)
    restart.at_work(record)
    assert not restart.happened(record)
    boot.write_text(f"{uuid.uuid4()}\n")
    assert restart.cut_off(record)
    restart.remember(record)
    for length in range(36):  # cut short itself
        os.truncate(record, 35 - length)
        assert restart.cut_off(record)
    boot.unlink()  # another system than Linux
    restart.at_work(record)
    assert not restart.happened(record)


@pytest.mark.parametrize(
    "make",
    [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("elsewhere")],
    ids=["folder", "pipe", "link"],
)
def test_a_record_that_is_none_tells_so(
    tmp_path: Path, boot: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "record")
    assert restart.cut_off(tmp_path / "record")


@pytest.mark.parametrize(
    ("end", "work"),
    [
        ("", False),
        ("raise ValueError", False),
        ("raise KeyboardInterrupt", False),
        ("import sys; sys.exit(3)", False),
        ("import os; os.kill(os.getpid(), 9)", True),
        ("import shutil; shutil.rmtree(record.parent)", None),
    ],
)
def test_a_run_is_at_work_until_its_process_ends(
    tmp_path: Path, end: str, work: bool | None
) -> None:
    record = tmp_path / "folder" / "record"
    program = "\n".join(
        (
            "from pathlib import Path",
            "from tasks.system import restart",
            f"record = Path({str(record)!r})",
            "restart.at_work(record)",
            "restart.at_work(record)",
            end,
        )
    )
    subprocess.run([sys.executable, "-c", program], cwd=TOP, check=False, capture_output=True)
    if work is None:
        assert not record.parent.exists()
    else:
        assert record.read_text().endswith(" at work") == work


def test_a_flush_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    restart.flush(tmp_path)
    with pytest.raises(OSError, match="missing"):
        restart.flush(tmp_path / "missing")
