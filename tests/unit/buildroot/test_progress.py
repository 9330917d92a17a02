from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.buildroot import progress
from tasks.buildroot.progress import Progress, Timeline, late

# The format of package/pkg-generic.mk: printf "%s:%-5.5s:%-20.20s: %s\n"
LINES = """\
1795263011.230935601:start:download            : host-m4
1795263011.255712697:end  :download            : host-m4
1795263012.000000000:start:extract             : host-m4
1795263013.000000000:end  :extract             : host-m4
1795263014.000000000:start:install-host        : host-m4
1795263015.000000000:end  :install-host        : host-m4
1795263016.000000000:start:download            : host-binutils
1795263016.000000000:end  :download            : host-binutils
1795263016.000000000:start:configure           : host-binutils
"""
PACKAGES = ("host-m4", "host-binutils", "host-gcc-initial", "uclibc")


def timeline(tmp_path: Path, text: str) -> Timeline:
    path = tmp_path / "build-time.log"
    path.write_text(text)
    found = Timeline(path)
    assert found.read()
    return found


def test_what_is_made_and_what_is_half_made(tmp_path: Path) -> None:
    found = timeline(tmp_path, LINES)
    assert found.done() == {"host-m4"}
    assert found.half_made() == ["host-binutils"]
    assert found.at == ("host-binutils", "configure")


def test_a_log_that_grows_is_read_on(tmp_path: Path) -> None:
    found = timeline(tmp_path, LINES + "1795263017.0:end  :conf")  # an incomplete line
    assert found.half_made() == ["host-binutils"]
    assert not found.read()
    with found.path.open("a") as stream:
        stream.write("igure           : host-binutils\n")
    assert found.read()
    assert found.half_made() == []


def test_after_a_restart_the_last_minute_is_made_anew(tmp_path: Path) -> None:
    for folder, when in (
        ("host-gcc-final-13.2", 100),
        ("host-gcc-initial-13.2", 139),
        ("host-gcc-1", 200),
        ("musl-1.2.3", 141),
        ("other-1", 200),
    ):
        stamp = tmp_path / folder / ".stamp_staging_installed"
        stamp.parent.mkdir()
        stamp.touch()
        os.utime(stamp, (when, when))
    os.utime(tmp_path / "host-gcc-1/.stamp_staging_installed", (150, 150))
    packages = ["host-gcc", "host-gcc-final", "host-gcc-initial", "musl"]
    assert late(tmp_path, packages) == ["host-gcc", "host-gcc-final", "host-gcc-initial", "musl"]
    os.utime(tmp_path / "host-gcc-1/.stamp_staging_installed", (200, 200))
    assert late(tmp_path, packages) == ["host-gcc", "musl"]
    assert late(tmp_path / "missing", packages) == []


def test_a_cut_off_download_leaves_nothing_half_made(tmp_path: Path) -> None:
    assert timeline(tmp_path, "1.0:start:download            : uclibc\n").half_made() == []


def test_no_log_yet(tmp_path: Path) -> None:
    found = Timeline(tmp_path / "none")
    assert not found.read()
    assert (found.done(), found.half_made()) == (set(), [])


def test_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    found = timeline(tmp_path, LINES)
    seconds = {"host-m4": 20, "host-binutils": 200, "host-gcc-initial": 800, "uclibc": 80}
    shown = Progress(found, PACKAGES, seconds)
    assert shown.text() == "package 2 of 4: host-binutils (configure), about 18 min left"
    with found.path.open("a") as stream:
        stream.write(
            "2.0:end  :configure           : host-binutils\n2.0:start:install-host        :"
            " host-binutils\n3.0:end  :install-host        : host-binutils\n4.0:start:build        "
            "       : host-gcc-initial\n"
        )
    now = 1150.0  # in time: 50 of its 200 s are left, and 880 s of the other packages
    assert shown.text().endswith("about 16 min left")
    now = 1400.0  # after twice its known time
    assert shown.text().endswith("about 29 min left")
    found.read()
    now = 1400.0  # at half the known speed 880 s of work take 1760 s
    assert shown.text() == "package 3 of 4: host-gcc-initial (build), about 29 min left"
