"""Machines with a screen for real: the PC's text mode, the ARM board's frame buffer, each with its
keyboard."""

from __future__ import annotations

import re
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from terminals import powered_off, terminal

from tests.real.conftest import Checkout, lay_out

pytestmark = [pytest.mark.real, pytest.mark.long]
SCREENS = {
    "pc": ((720, 400), 2),
    "versatile": ((800, 600), 30),
}  # pixels; colours: a penguin has many


@pytest.fixture(scope="module", params=SCREENS)
def shown(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Checkout]:
    """A machine with its display, in a session without graphics, built from nothing."""
    checkout = lay_out(
        tmp_path_factory.mktemp("real") / "checkout",
        machine=request.param,
        env={"DISPLAY": "", "WAYLAND_DISPLAY": "", "PIGGYBACK_DISPLAY": "vga"},
    )
    yield checkout
    shutil.rmtree(checkout.top, ignore_errors=True)


def test_the_picture_shows_the_prompt(shown: Checkout) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = shown.images / "screenshot.png"
    for _ in range(2):  # what is there already is no obstacle
        said = shown.doit("qemu_screenshot")
        assert f"build/{shown.machine}/images/screenshot.png  (" in said
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    size, colours = SCREENS[shown.machine]
    with image.open(picture) as opened:
        opened.load()
        assert (opened.format, opened.size) == ("PNG", size)
        assert len(opened.convert("RGB").getcolors(1 << 20)) >= colours


def test_the_serial_console_still_passes_the_test(shown: Checkout) -> None:
    said = shown.doit("qemu_test")
    for check in ("shell", "uname", "mount", "free", "disk", "clock", "poweroff"):
        assert f"=== {check} ok" in said


@pytest.fixture
def guest(shown: Checkout) -> Iterator[Any]:
    """Its serial shell, as somebody has it who shows the screen by VNC."""
    argv = [shown.argv()[0], "qemu_boot", "window=vnc"]
    with terminal(argv, shown.top, shown.variables(), shown.top / "boot.log") as one:
        yield one
        powered_off(one)


def test_shells_wait_on_four_terminals_and_vnc_shows_the_first(shown: Checkout, guest: Any) -> None:
    guest.expect(r"the screen is at (\S+), for a VNC viewer; only you")
    place = Path(guest.match[1])
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    guest.expect("piggyback: up")
    guest.expect("# ")
    guest.sendline(
        "dmesg -n 1; echo waiting: $(grep -l 'press Enter' /dev/vcs1 /dev/vcs2 /dev/vcs3 /dev/vcs4)"
    )
    guest.expect("waiting: /dev/vcs1 /dev/vcs2 /dev/vcs3 /dev/vcs4\r")
    guest.sendline("echo consoles: $(cat /sys/class/tty/console/active)")
    guest.expect(r"consoles: tty0 tty(S|AMA)0\r")
    with socket.socket(socket.AF_UNIX) as viewer:
        viewer.settimeout(10)
        viewer.connect(str(place))
        assert re.fullmatch(rb"RFB 003\.00[38]\n", viewer.recv(12))


def test_without_graphics_it_says_so_and_boots(shown: Checkout) -> None:
    with terminal([shown.argv()[0], "qemu_boot"], shown.top, shown.variables()) as one:
        one.expect("no graphical session here")
        one.expect("piggyback: up")
        one.expect("# ")
        powered_off(one)


def test_without_a_display_the_only_one_is_taken(shown: Checkout) -> None:
    said = shown.doit("display=none", "qemu_screenshot")
    assert "display=vga, the machine's only one" in said
    assert "screenshot.png  (" in said
