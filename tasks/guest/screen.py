"""A guest's screen: display in a window, and screenshots.

A screenshot comes through QMP, QEMU's monitor protocol (docs/interop/qmp-spec). Its expected text
comes from the guest's kernel: /dev/vcs1 is the text of the first virtual terminal
(Documentation/admin-guide/devices.txt, major 7). The picture is checked as a PPM, which every QEMU
writes and a few lines read. The result is a PNG, written by QEMU since 7.1, by Pillow before.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.guest import sockets
from tasks.guest.console import Guest, session
from tasks.guest.serial import GuestError, Limits
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern
from tasks.system.process import run

Monitor = Callable[..., Any]  # monitor("command", argument=value, ...) returns what QEMU answers
WINDOWS = ("gtk", "sdl")  # QEMU's windows, the preferred one first
# In base64, since `sh` removes text that looks like a kernel message.
_READ = "stty size </dev/tty1 && base64 </dev/vcs1"
_PROMPT = pattern(r"[#$]$")
_ENTER = "Please press Enter to activate this console"  # busybox init, "askfirst"
_PATIENCE = 30  # seconds that QEMU may take to answer
_VNC = 5900  # the TCP port of a VNC server; RFC 6143, section 7
_PPM = pattern(rb"P6\s+(\d{1,5})\s+(\d{1,5})\s+255\s")  # ppm(5): three bytes a pixel follow


class Picture(NamedTuple):
    """A picture: width and height in pixels, and three bytes (RGB) a pixel, by rows."""

    width: int
    height: int
    pixels: bytes


class NotListening(PiggyError):
    """QEMU's monitor has a socket, and does not listen yet, or not any more."""


class Refused(PiggyError):
    """A monitor command that QEMU refused."""


def window(binary: str, wanted: str, environ: Mapping[str, str], folder: Path) -> tuple[str, str]:
    """Choose how a guest's screen is shown to the user.

    Args:
        binary: QEMU.
        wanted: The setting `window`.
        environ: The environment, which tells whether there is a graphical session.
        folder: The folder for VNC's socket. There is no password: a user who can enter the folder
            can use the guest (see `sockets.folder`).

    Returns:
        The value of -display, and lines to print for the user.

    Raises:
        PiggyError: This QEMU lacks the window.
    """
    if wanted == "vnc":
        path = folder / "vnc"
        return (
            f"vnc=unix:{sockets.option(path)}",
            (
                f"the screen is at {path}, for a VNC viewer; only you can connect to it: vncviewer"
                f" {path}\nfrom elsewhere: ssh -L {_VNC}:{path} {os.uname().nodename}, then"
                f" vncviewer localhost:{_VNC}"
            ),
        )
    if wanted == "none":
        return "none", "the screen is not shown (window=none)"
    other = "window=vnc shows it to a VNC viewer, 'doit qemu_screenshot' takes a picture"
    if wanted == "auto" and not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        return (
            "none",
            (
                "no graphical session here (DISPLAY, WAYLAND_DISPLAY), so the screen is not shown;"
                f" {other}"
            ),
        )
    offered = run([binary, "-display", "help"]).output.split()
    offer = next((name for name in WINDOWS if name in offered and wanted in ("auto", name)), "")
    if not offer and wanted == "auto":
        return "none", f"{binary} has no windows here (Debian: package qemu-system-gui); {other}"
    if not offer:
        raise PiggyError(
            f"window={wanted}, but {binary} has none here",
            "on Debian the package qemu-system-gui has QEMU's windows; window=vnc needs none",
        )
    return offer, "the screen is in QEMU's window; this terminal is the serial console"


@contextlib.contextmanager
def monitor(address: Path) -> Iterator[Monitor]:
    """Connect to QEMU's QMP server for the body of a `with`, and yield a function for commands.

    Args:
        address: The server's Unix socket.

    Raises:
        PiggyError: QEMU can't be reached, or (by the function) does not answer.
        NotListening: Nobody listens at the socket.
        Refused: By the function: QEMU refused the command.
    """
    import asyncio

    from qemu.qmp import QMPClient, QMPError

    with asyncio.Runner() as runner:
        client = QMPClient("piggyback")

        def done(what: Coroutine[Any, Any, Any]) -> Any:
            try:
                return runner.run(asyncio.wait_for(what, _PATIENCE))
            except TimeoutError as error:
                raise PiggyError(f"QEMU's monitor did not answer within {_PATIENCE} s") from error

        def ask(command: str, **arguments: object) -> Any:
            try:
                return done(client.execute(command, arguments))
            except QMPError as error:
                raise Refused(f"QEMU refused '{command}': {error}") from error

        try:
            done(client.connect(str(address)))
        except QMPError as error:
            refused = isinstance(getattr(error, "exc", None), ConnectionRefusedError)
            kind = NotListening if refused else PiggyError
            raise kind(f"QEMU's monitor can't be reached: {error}") from error
        try:
            yield ask
        finally:
            with contextlib.suppress(QMPError, OSError, EOFError, PiggyError):
                done(client.disconnect())


def capture(
    boot: Callable[[Sequence[str]], Sequence[str]], target: Path, log: Path, limit: Limits
) -> tuple[int, int]:
    """Boot, wait for a shell's prompt on the screen, and save a screenshot as PNG.

    Args:
        boot: Gets additional arguments and returns QEMU's argument vector.
        target: The PNG to write.
        log: A file for the serial console's output.
        limit: The timeouts.

    Returns:
        The picture's width and height in pixels.

    Raises:
        GuestError: The guest does not boot, or no prompt appears.
    """
    from tasks.system.files import copy_whole

    with sockets.folder() as folder:
        address = folder / "qmp"
        words = [
            "-chardev",
            f"socket,id=qmp,path={sockets.option(address)},server=on,wait=off",
            "-mon",
            "chardev=qmp,mode=control",
        ]
        with session(boot(words), log, limit) as guest:
            guest.ready()
            guest.sh("dmesg -n 1")  # no more kernel messages on the screen
            with monitor(address) as ask:
                picture = _picture(guest, ask, folder / "screen.ppm", limit.command)
                _png(ask, folder / "screen.ppm", folder / "screen.png")
            guest.poweroff()
        copy_whole(folder / "screen.png", target)
    return picture.width, picture.height


def _png(ask: Monitor, dump: Path, png: Path) -> None:
    """Write a screenshot as PNG, by QEMU if it can, else from a PPM by Pillow.

    Args:
        ask: QEMU's monitor.
        dump: The PPM.
        png: The PNG to write.

    Raises:
        PiggyError: Pillow is needed and missing.
    """
    try:
        ask("screendump", filename=str(png), format="png")
    except Refused as refused:  # before 7.1, or made without libpng
        try:
            from PIL import Image
        except ImportError:
            raise PiggyError(
                f"this QEMU writes no PNG ({refused.message}), and there is no Pillow to make one",
                "QEMU 7.1 or later writes it; or: pip install -e '.[screenshot]'",
            ) from refused
        with Image.open(dump) as image:
            image.save(png, format="PNG", optimize=True)


def _picture(guest: Guest, ask: Monitor, dump: Path, seconds: float) -> Picture:
    """Wait for a prompt on the screen, and return a picture that shows the whole text.

    Args:
        guest: The guest.
        ask: QEMU's monitor.
        dump: A file for the PPM.
        seconds: The timeout.

    Raises:
        GuestError: No such picture within the timeout.
    """
    until, pressed = time.monotonic() + seconds, 0.0
    while True:
        rows = text(guest)
        last = next((row for row in reversed(rows) if row.strip()), "")
        if _PROMPT.search(last.rstrip()):
            image = load(ask, dump)
            if not (missing := unseen(image, rows)):
                return image
            what = f"the screen's picture lacks {len(missing)} of its characters"
        else:
            what = "no prompt came up on the screen"
            if _ENTER in "".join(rows) and time.monotonic() - pressed > guest.line.limit.again:
                ask("send-key", keys=[{"type": "qcode", "data": "ret"}])
                pressed = time.monotonic()
        if time.monotonic() > until:
            raise GuestError(
                f"{what} within {seconds:.0f} s",
                "the screen's text:\n" + "\n".join("    " + row for row in rows if row.strip()),
                guest.line.console,
                guest.line.log,
            )
        time.sleep(0.1)


def text(guest: Guest) -> list[str]:
    """Return the rows of the first virtual terminal's text; [] if a kernel message disturbed it.

    Raises:
        GuestError: The guest has no virtual terminal.
    """
    status, output = guest.sh(_READ)
    if status:
        raise GuestError(
            "the guest has no screen to read",
            "/dev/vcs1 has its text: the display's fragments must set "
            "CONFIG_VT, and busybox must have stty and base64",
            guest.line.console,
            guest.line.log,
        )
    size, _, coded = output.partition("\n")
    dimensions = re.fullmatch(r"(\d+) (\d+)", size.strip())
    try:
        content = base64.b64decode("".join(coded.split()), validate=True).decode("latin-1")
    except ValueError:
        return []
    if not dimensions or len(content) != int(dimensions[1]) * int(dimensions[2]):
        return []
    columns = int(dimensions[2])
    return [content[start : start + columns] for start in range(0, len(content), columns)]


def load(ask: Monitor, dump: Path) -> Picture:
    """Have QEMU write a screenshot to the file `dump` as PPM, and read it.

    Raises:
        PiggyError: The file is no PPM.
    """
    ask("screendump", filename=str(dump))
    data = dump.read_bytes()
    header = _PPM.match(data)
    if header:
        picture = Picture(int(header[1]), int(header[2]), data[header.end() :])
        if len(picture.pixels) == 3 * picture.width * picture.height:
            return picture
    raise PiggyError("QEMU's picture of the screen is no PPM", f"it begins with {data[:20]!r}")


def unseen(picture: Picture, rows: Sequence[str]) -> list[str]:
    """Return the characters of a screen's text whose cells in its picture are of one colour.

    If the screen is blank or shows another text, most of them are. The picture is divided evenly
    into cells; if it is no multiple of them, the rest is at the right and lower edges.

    Args:
        picture: The picture.
        rows: The text.
    """
    columns = max(map(len, rows), default=0)
    wide, high = (picture.width // max(1, columns), picture.height // max(1, len(rows)))
    missing = []
    for y, row in enumerate(rows):
        for x, letter in enumerate(row):
            if letter.isspace():
                continue
            cell = [
                picture.pixels[start : start + 3 * wide]
                for line in range(y * high, (y + 1) * high)
                for start in [3 * (line * picture.width + x * wide)]
            ]
            if all(part == cell[0][:3] * wide for part in cell):
                missing.append(letter)
    return missing
