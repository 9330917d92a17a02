"""The screen of a guest: what shows it, and whether a picture of it shows what the guest has
written."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.guest import screen
from tasks.guest.serial import GuestError, Limits
from tasks.system.errors import PiggyError

GRAPHICAL = {"DISPLAY": ":0"}


@pytest.fixture
def binary(tmp_path: Path):
    """A QEMU that offers the given windows."""

    def offering(*windows: str) -> str:
        path = tmp_path / "qemu-system-x"
        path.write_text(
            "#!/bin/sh\n[ \"$*\" = '-display help' ] || exit 9\necho Available display backend"
            " types:\n" + "".join(f"echo {name}\n" for name in ("none", *windows))
        )
        path.chmod(0o755)
        return str(path)

    return offering


@pytest.mark.parametrize(
    ("offered", "wanted", "environ", "word"),
    [
        (("gtk", "sdl"), "auto", GRAPHICAL, "gtk"),
        (("sdl",), "auto", {"WAYLAND_DISPLAY": "wayland-0"}, "sdl"),
        (("gtk", "sdl"), "sdl", GRAPHICAL, "sdl"),
        (("gtk",), "gtk", {}, "gtk"),
        (("gtk",), "none", GRAPHICAL, "none"),
        (("gtk",), "auto", {}, "none"),
        (("gtk",), "auto", {"DISPLAY": ""}, "none"),
        ((), "auto", GRAPHICAL, "none"),
    ],
)
def test_what_shows_the_screen(
    binary, offered: tuple[str, ...], wanted: str, environ: dict[str, str], word: str
) -> None:
    found, said = screen.window(binary(*offered), wanted, environ, Path("/nowhere"))
    assert found == word
    assert ("not shown" in said or "no windows" in said) == (word == "none")
    if wanted == "auto" and word == "none":
        assert "window=vnc" in said
        assert "qemu_screenshot" in said


def test_a_window_that_is_demanded_and_missing(binary) -> None:
    with pytest.raises(PiggyError, match="window=sdl, but .* has none here"):
        screen.window(binary("gtk"), "sdl", GRAPHICAL, Path("/nowhere"))


def test_vnc_is_a_socket_and_the_user_is_told_how_to_reach_it(binary) -> None:
    word, said = screen.window(binary(), "vnc", {}, Path("/run/x,y"))
    assert word == "vnc=unix:/run/x,,y/vnc"
    assert "only you can connect to it: vncviewer /run/x,y/vnc\n" in said
    assert "ssh -L 5900:/run/x,y/vnc " in said


def drawn(
    rows: list[str], wide: int = 8, high: int = 16, size: tuple[int, int] | None = None
) -> screen.Picture:
    """A picture of a text, each character a dot in its place."""
    width, height = size or (wide * len(rows[0]), high * len(rows))
    pixels = bytearray(3 * width * height)
    for y, row in enumerate(rows):
        for x, letter in enumerate(row):
            if letter != " ":
                start = 3 * ((y * high + high // 2) * width + x * wide + wide // 2)
                pixels[start : start + 3] = (170, 170, 170)
    return screen.Picture(width, height, bytes(pixels))


def ppm(picture: screen.Picture) -> bytes:
    return b"P6\n%d %d\n255\n%s" % picture


ROWS = [row.ljust(20) for row in ("Linux version 6.1.0", "", "Please press Enter", "/ #", "")]


@pytest.mark.parametrize(
    ("wide", "high", "size"), [(8, 16, None), (9, 16, None), (8, 16, (167, 83))]
)
def test_a_picture_that_shows_the_text(wide: int, high: int, size: tuple[int, int] | None) -> None:
    assert screen.unseen(drawn(ROWS, wide, high, size), ROWS) == []


def test_pictures_that_do_not() -> None:
    letters = [letter for row in ROWS for letter in row if letter != " "]
    assert screen.unseen(drawn([" " * 20] * 5), ROWS) == letters
    without = [row.replace("#", " ") for row in ROWS]
    assert screen.unseen(drawn(without), ROWS) == ["#"]
    scrolled = [*ROWS[1:], " " * 20]
    assert len(screen.unseen(drawn(scrolled), ROWS)) > 10


class Guest:
    """Answers each question for its screen by the next of `screens`, and keeps to the last."""

    def __init__(self, *screens: tuple[int, str]) -> None:
        self.screens, self.asked = list(screens), 0
        self.line = SimpleNamespace(limit=Limits(again=0), console="console", log=Path("log"))

    def sh(self, command: str) -> tuple[int, str]:
        assert "/dev/vcs1" in command
        self.asked += 1
        return self.screens.pop(0) if len(self.screens) > 1 else self.screens[0]


def shown(rows: list[str]) -> tuple[int, str]:
    coded = base64.encodebytes("".join(rows).encode("latin-1")).decode()
    return 0, f"{len(rows)} {len(rows[0])}\n{coded}"


def test_the_text_of_the_screen() -> None:
    assert screen.text(Guest(shown(ROWS))) == ROWS
    kernel = ["[    0.500000] stamped message".ljust(40), "\xb3\xff".ljust(40)]
    assert screen.text(Guest(shown(kernel))) == kernel


@pytest.mark.parametrize(
    "said",
    [
        "",
        "5 20\n",
        "5 20\nrandom: crng init done\n" + shown(ROWS)[1][5:],
        "5 20\nAAAA",
        "stty: no\n" + shown(ROWS)[1][5:],
    ],
)
def test_a_text_that_was_torn_counts_as_none(said: str) -> None:
    assert screen.text(Guest((0, said))) == []


def test_a_guest_without_a_screen() -> None:
    with pytest.raises(GuestError, match="no screen to read") as caught:
        screen.text(Guest((1, "stty: /dev/tty1: No such file")))
    assert "CONFIG_VT" in caught.value.hint


def taken(
    guest: Any, tmp_path: Path, *pictures: screen.Picture, seconds: float = 5
) -> tuple[screen.Picture, list[str]]:
    """Take the picture of a guest whose QEMU dumps the next of `pictures`; return it, and the
    commands to QEMU."""
    left, commands = list(pictures), []

    def ask(command: str, **arguments: Any) -> None:
        commands.append(command)
        if command == "screendump":
            picture = left.pop(0) if len(left) > 1 else left[0]
            Path(arguments["filename"]).write_bytes(ppm(picture))

    return screen._picture(guest, ask, tmp_path / "dump.ppm", seconds), commands


BEFORE = [*ROWS[:3], " " * 20, " " * 20]
ASKING = [row.ljust(60) for row in ("Linux", "Please press Enter to activate this console.", "")]
PROMPT = [ASKING[0], ASKING[1], "/ #".ljust(60)]


def test_it_presses_enter_and_waits_for_the_prompt_and_for_its_picture(tmp_path: Path) -> None:
    guest = Guest(shown(BEFORE), shown(ASKING), shown(PROMPT))
    picture, commands = taken(guest, tmp_path, drawn(ASKING), drawn(PROMPT))
    assert commands == [
        "send-key",
        "screendump",
        "screendump",
    ]  # the first picture was not up to date
    assert screen.unseen(picture, PROMPT) == []


def test_no_prompt_and_no_picture_are_errors_that_show_the_text(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="no prompt came up on the screen") as caught:
        taken(Guest(shown(BEFORE)), tmp_path, drawn(BEFORE), seconds=0.2)
    assert "Please press Enter" in caught.value.hint
    with pytest.raises(GuestError, match="picture lacks 45 of its characters"):
        taken(Guest(shown(PROMPT)), tmp_path, drawn([" " * 60] * 3), seconds=0.2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"P6\n1 1\n255\n",
        b"P6\n1 1\n255\nRGBx",
        b"P5\n1 1\n255\nRGB",
        b"P6\n1 1\n65535\nRGBRGB",
        b"P6\n99999 99999\n255\nRGB",
        b"\x89PNG\r\n",
    ],
)
def test_a_dump_that_is_no_picture(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="is no PPM"):
        screen.load(
            lambda command, filename: Path(filename).write_bytes(data), tmp_path / "dump.ppm"
        )


def old_qemu(command: str, **arguments: object) -> None:
    """QEMU 7.0 and before (qapi/ui.json)."""
    assert command == "screendump"
    if "format" in arguments:
        raise screen.Refused("QEMU refused 'screendump': Parameter 'format' is unexpected")


def test_qemu_writes_the_png(tmp_path: Path) -> None:
    asked: list[tuple[str, object]] = []
    screen._png(
        lambda command, **arguments: asked.append((command, arguments)),
        tmp_path / "dump.ppm",
        tmp_path / "screen.png",
    )
    assert asked == [("screendump", {"filename": str(tmp_path / "screen.png"), "format": "png"})]


def test_an_old_qemus_picture_becomes_a_png(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    dump, png = tmp_path / "dump.ppm", tmp_path / "screen.png"
    dump.write_bytes(ppm(drawn(ROWS)))
    screen._png(old_qemu, dump, png)
    with image.open(png) as opened:
        assert (opened.format, opened.size) == ("PNG", (160, 80))
        assert opened.convert("RGB").tobytes() == drawn(ROWS).pixels


def test_an_old_qemu_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)  # importing it is an ImportError then
    with pytest.raises(PiggyError, match=r"writes no PNG .*'format' is unexpected") as caught:
        screen._png(old_qemu, tmp_path / "dump.ppm", tmp_path / "screen.png")
    assert "'.[screenshot]'" in caught.value.hint


@pytest.fixture
def server(tmp_path: Path):
    """A QMP server that knows one command (docs/interop/qmp-spec of QEMU)."""
    address, seen = tmp_path / "qmp", []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen()

    def serve() -> None:
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):

            def send(message: dict) -> None:
                peer.sendall(json.dumps(message).encode() + b"\r\n")

            send(
                {
                    "QMP": {
                        "version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""},
                        "capabilities": [],
                    }
                }
            )
            heard = ""
            while data := peer.recv(4096):
                heard += data.decode()
                with contextlib.suppress(json.JSONDecodeError):
                    asked, end = json.JSONDecoder().raw_decode(
                        heard
                    )  # no line ends between messages
                    heard = heard[end:].lstrip()
                    seen.append({name: value for name, value in asked.items() if name != "id"})
                    answer: dict = {
                        "error": {"class": "CommandNotFound", "desc": "no such command"}
                    }
                    if asked["execute"] in ("qmp_capabilities", "screendump"):
                        answer = {"return": {}}
                    if asked["execute"] != "never":
                        send(
                            {
                                **answer,
                                **{name: value for name, value in asked.items() if name == "id"},
                            }
                        )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield SimpleNamespace(address=address, seen=seen)
    listener.close()
    thread.join(5)


def test_commands_over_qmp(server) -> None:
    pytest.importorskip("qemu.qmp")
    with screen.monitor(server.address) as ask:
        assert ask("screendump", filename="/x") == {}
        with pytest.raises(PiggyError, match="QEMU refused 'nonsense': .*no such command"):
            ask("nonsense")
        assert ask("screendump", filename="/y") == {}
    assert server.seen[1:] == [
        {"execute": command, "arguments": arguments}
        for command, arguments in (
            ("screendump", {"filename": "/x"}),
            ("nonsense", {}),
            ("screendump", {"filename": "/y"}),
        )
    ]


def test_a_monitor_that_does_not_listen_yet(tmp_path: Path) -> None:
    """QEMU's socket is there a moment before QEMU listens."""
    with socket.socket(socket.AF_UNIX) as early:
        early.bind(str(tmp_path / "qmp"))
        with pytest.raises(screen.NotListening), screen.monitor(tmp_path / "qmp"):
            pass


def test_no_monitor_and_one_that_is_mute(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("qemu.qmp")
    with (
        pytest.raises(PiggyError, match="monitor can't be reached"),
        screen.monitor(tmp_path / "nothing"),
    ):
        pass
    with screen.monitor(server.address) as ask:
        monkeypatch.setattr(screen, "_PATIENCE", 0.1)
        with pytest.raises(PiggyError, match="did not answer within 0.1 s"):
            ask("never")
