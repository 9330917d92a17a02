"""What a power cut leaves: what was written last is empty or cut short, and has its whole time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playground import Kept, Playground
from test_kill import killed
from test_shortway import as_make_does, code
from test_symbols import play, right, set_symbols

__all__ = ["play"]  # the fixture
LOADER = "arch/x86/boot/compressed"
AUTO_CONF = "include/config/auto.conf"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give the host another boot ID"
)


def spoil(play: Playground, names: list[str], part: float) -> None:
    """Cut files of the object folder; their times stay."""
    for name in names:
        path = play.obj / name
        info = path.stat()
        os.truncate(path, int(info.st_size * part))
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.mark.parametrize(
    ("moment", "lost"),
    [
        ("vmlinux", [AUTO_CONF, "include/generated/autoconf.h"]),
        pytest.param(
            "vmlinux", ["kernel/panic.o", "lib/string.o", "piggyback.boot"], marks=pytest.mark.long
        ),
        ("misc.o", ["include/generated/asm/errno.h", "piggyback.made"]),
        pytest.param("header.o", [f"{LOADER}/misc.o", ".config"], marks=pytest.mark.long),
        pytest.param(
            "header.o", [f"{LOADER}/mkpiggy", f"{LOADER}/piggy.o"], marks=pytest.mark.long
        ),
    ],
    ids=["configuration", "kernel", "generated", "loader", "programs"],
)
@pytest.mark.parametrize(
    "part", [0, pytest.param(0.5, marks=pytest.mark.long)], ids=["empty", "cut_short"]
)
def test_in_the_middle_of_a_build(
    fresh: Playground, kept: Kept, moment: str, lost: list[str], part: float
) -> None:
    killed(fresh, moment)
    spoil(fresh, lost, part)
    fresh.restart()
    fresh.append("configs/kernel/fake-serial.config", "# a comment: Kconfig comes first\n")
    fresh.doit()
    assert fresh.digests() == kept.digests
    assert fresh.doit().ran == []


def test_after_a_build(built: Playground, tmp_path: Path) -> None:
    """All that the manifest knows is held against it, once; a folder that is whole stays."""
    code("kernel/panic.c")(built)
    built.doit("bzImage")
    built.restart()
    code("lib/string.c", 4)(built)
    assert len(built.doit("bzImage").ran) == 6
    assert "make decides" not in (built.here / "logs/vmlinux.log").read_text()
    spoil(built, ["scripts/basic/fixdep", f"{LOADER}/misc.o", "piggyback.piggy.gz"], 0.9)
    built.restart()
    code("kernel/panic.c", 5)(built)
    built.doit("bzImage")
    assert as_make_does(built, tmp_path)
    assert built.doit("bzImage").ran == []


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("record", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_symbol_that_is_off_while_the_configuration_of_before_is_lost(
    play: Playground, tmp_path: Path, there: bool, record: bool
) -> None:
    """Kconfig touches nothing for it then, and objects have it."""
    set_symbols(play, "EXPERT")
    play.doit("bzImage")
    set_symbols(play)
    if there:
        spoil(play, [AUTO_CONF], 0.5)
    else:
        (play.obj / AUTO_CONF).unlink()
    if not record:
        (play.obj / "piggyback.symbols").unlink()
    play.doit("bzImage")
    assert right(play, tmp_path)
