from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.shortway.refresh import refresh

OLD = 1_700_000_000
EDGES = {
    "Image": ["vmlinux"],
    "Image.gz": ["Image"],
    "loader.o": [],
    "boot": ["Image.gz", "loader.o"],
}


@pytest.fixture
def obj(tmp_path: Path) -> Path:
    """A chain of targets, each a minute younger than the one before; the first has just been
    renewed."""
    folder = tmp_path / "obj"
    folder.mkdir()
    (tmp_path / "src").mkdir()
    source = tmp_path / "src" / "loader.c"
    source.write_text("x")
    os.utime(source, (OLD, OLD))
    for number, target in enumerate(["vmlinux", *EDGES]):
        (folder / target).write_text(target)
        text = f"cmd_{target} := make {target}\n"
        if target == "loader.o":
            text += (
                f"\nsource_{target} := {source}\n\ndeps_{target} := \\\n  gen.h \\\n\n{target}:"
                f" $(deps_{target})\n"
            )
        (folder / f".{target}.cmd").write_text(text)
        for name in (target, f".{target}.cmd"):
            os.utime(folder / name, (OLD + 60 * number, OLD + 60 * number))
    (folder / "gen.h").write_text("x")
    os.utime(folder / "gen.h", (OLD, OLD))
    os.utime(folder / "vmlinux")
    return folder


def later(obj: Path) -> list[str]:
    """Which targets get a new time, when vmlinux was renewed."""
    return refresh(obj, obj.parent / "src", EDGES, {"vmlinux": OLD * 1_000_000_000})


def test_what_was_fresh_stays_fresh(obj: Path) -> None:
    assert later(obj) == ["Image", "Image.gz", "boot"]
    times = [(obj / name).stat().st_mtime_ns for name in ("vmlinux", "Image", "Image.gz", "boot")]
    assert times == sorted(times)
    for name in ("Image", "Image.gz", "boot"):
        assert (obj / f".{name}.cmd").stat().st_mtime_ns >= (obj / name).stat().st_mtime_ns
    assert (obj / "loader.o").stat().st_mtime == OLD + 180


@pytest.mark.parametrize(
    ("name", "when", "expected"),
    [
        ("Image", OLD - 1, []),  # older than vmlinux was
        ("Image.gz", OLD + 1, ["Image"]),  # older than Image
        ("loader.o", OLD + 999, ["Image", "Image.gz"]),  # boot is older than loader.o
    ],
)
def test_what_was_stale_stays_stale(obj: Path, name: str, when: int, expected: list[str]) -> None:
    os.utime(obj / name, (when, when))
    assert later(obj) == expected


def test_a_source_or_a_generated_header_counts(obj: Path) -> None:
    edges = {**EDGES, "loader.o": ["Image"]}
    os.utime(obj.parent / "src" / "loader.c")
    assert "loader.o" not in refresh(obj, obj.parent / "src", edges, {"vmlinux": OLD * 10**9})
    os.utime(obj.parent / "src" / "loader.c", (OLD, OLD))
    os.utime(obj / "gen.h")
    assert "loader.o" not in refresh(obj, obj.parent / "src", edges, {"vmlinux": OLD * 10**9})


def test_what_is_missing_or_has_no_record_is_left_alone(obj: Path) -> None:
    (obj / "Image.gz").unlink()
    assert later(obj) == ["Image"]
    os.utime(obj / "vmlinux", (OLD, OLD))
    (obj / ".Image.cmd").unlink()
    assert later(obj) == []


def test_a_circle(obj: Path) -> None:
    edges = {"Image": ["Image.gz", "vmlinux"], "Image.gz": ["Image"]}
    assert refresh(obj, obj.parent / "src", edges, {"vmlinux": OLD}) == []
