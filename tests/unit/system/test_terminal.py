from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import pytest

from tasks.system import terminal


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.00 s"),
        (0.123, "0.12 s"),
        (0.994, "0.99 s"),
        (0.996, "1.0 s"),
        (4.06, "4.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (60, "1 min 00 s"),
        (119.4, "1 min 59 s"),
        (119.6, "2 min 00 s"),
        (151, "2 min 31 s"),
        (3725, "62 min 05 s"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert terminal.took(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s ago"),
        (0, "0 s ago"),
        (119.9, "119 s ago"),
        (120, "2 min ago"),
        (7199, "119 min ago"),
        (7200, "2 h ago"),
        (172_799, "47 h ago"),
        (172_800, "2 days ago"),
        (40 * 86_400, "40 days ago"),
    ],
)
def test_how_long_ago(seconds: float, said: str) -> None:
    assert terminal.ago(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(0, "0 B"), (999, "999 B"), (1208832, "1,208,832 B")])
def test_sizes(count: int, said: str) -> None:
    assert terminal.size(count) == said


def test_lines_stand_in_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.line("CC", "x.o")
    terminal.made("compressed_vmlinux", "build/pc/images/compressed_vmlinux", 1.25)
    terminal.made("setup", "", 0.5)
    terminal.line("word", "")
    assert capsys.readouterr().out == (
        "  CC                 x.o\n"
        "  compressed_vmlinux build/pc/images/compressed_vmlinux  (1.2 s)\n"
        "  setup              (0.50 s)\n"
        "  word\n"
    )


def test_a_bar_without_a_terminal_is_silent_at_first_and_then_shows_life(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with terminal.bar("vmlinux", 10, "commands") as progress:
        progress.step(3)
        now[0] = 31
        progress.step()
        progress.step()
        now[0] = 62
        progress.step(8)
    out = capsys.readouterr()
    assert [line.split() for line in out.out.splitlines()] == [
        ["...", "vmlinux:", "4", "of", "about", "10", "commands"],
        ["...", "vmlinux:", "13", "of", "about", "13", "commands"],
    ]
    assert out.err == ""


def test_a_bar_of_unknown_length(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with terminal.bar("musl", 0, "files") as progress:
        now[0] = 31
        progress.step(7)
    assert capsys.readouterr().out.split() == ["...", "musl:", "7", "files"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_grows_past_its_total_and_is_closed_by_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bars: list[object] = []

    def fail() -> None:
        with terminal.bar("vmlinux", 2, "commands") as progress:
            bars.append(progress)
            progress.step(2)
            progress.step(3)
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    bar = bars[0].bar  # type: ignore[attr-defined]
    assert (bar.n, bar.total, bar.disable) == (5, 5, True)
    assert "vmlinux" in screen.getvalue()


def test_the_last_word_of_what_runs_in_the_background(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with terminal.status("1/2 pc") as show:
        show("  CC   x.o")
        show("  WAIT    build/pc is in use by another run")
        now[0] = 29
        show("too soon")
        now[0] = 31
        show("  ...    vmlinux: 80 of about 900 commands")
    out = capsys.readouterr()
    assert [line.split(maxsplit=1)[1] for line in out.out.splitlines()] == [
        "1/2 pc: WAIT build/pc is in use by another run",
        "1/2 pc: ... vmlinux: 80 of about 900 commands",
    ]
    assert out.err == ""


def test_on_a_terminal_it_takes_one_line_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "40")
    with terminal.status("pc") as show:
        show("x" * 99)
        show("")
        show("short")
    said = screen.getvalue()
    assert "\n" not in said
    assert said.count("short") == 1
    assert max(len(part) for part in said.replace("\x1b[K", "").split("\r")) == 39
    assert said.endswith("\r\x1b[K")


TWO_AT_ONCE = """
import sys, threading
sys.path.insert(0, {top!r})
from tasks.system import terminal

class Work(threading.Thread):
    def __init__(self, name):
        super().__init__(name=name)
        self.shown, self.over = threading.Event(), threading.Event()
        self.start()
        self.shown.wait(10)

    def run(self):
        with terminal.bar(self.name, 9, "commands") as bar:
            for _ in range(9):
                bar.step()
            self.shown.set()
            self.over.wait(10)
        terminal.made(self.name, "build/" + self.name, 1)

works = [Work("vmlinux"), Work("busybox")]
for number in range(5):
    terminal.line("rootfs", f"line {{number}}")
terminal.write("\\nx failed: y\\n  hint: z", sys.stderr)
for work in works:  # the upper bar goes first, and leaves the other one where it is
    work.over.set()
    work.join()
terminal.line("end", "of it")
"""


def on_screen(said: str, columns: int = 100) -> list[str]:
    """What stands on a terminal on which this was written, for the few codes that we use."""
    rows = [[" "] * columns for _ in range(99)]
    row = column = 0
    for code, count, letter, char in re.findall(r"(\x1b\[(\d*)([A-Za-z]))|(.)", said, re.DOTALL):
        pass_by = (
            {"A": (row - int(count or 1), column)}
            if code
            else {"\r": (row, 0), "\n": (row + 1, column)}
        )
        if letter == "K":
            rows[row][column:] = [" "] * (columns - column)
        elif (letter or char) in pass_by:
            row, column = pass_by[letter or char]
        else:
            rows[row][column] = char
            column += 1
    return "\n".join("".join(line).rstrip() for line in rows).rstrip().split("\n")


def test_two_bars_and_lines_on_one_terminal(tmp_path: Path) -> None:
    """Two threads with a bar each, and lines meanwhile: in the end only whole lines are there, each
    from its beginning."""
    script = tmp_path / "two.py"
    script.write_text(TWO_AT_ONCE.format(top=str(Path(__file__).parents[3])))
    pid, fd = pty.fork()
    if not pid:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        os.execv(sys.executable, [sys.executable, str(script)])
    said = b""
    while True:
        try:
            part = os.read(fd, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        said += part
    os.close(fd)
    assert os.waitpid(pid, 0)[1] == 0, said
    text = said.decode()
    assert "vmlinux:   0%" in text
    assert "busybox:   0%" in text
    lines = on_screen(text)
    assert lines[:8] == [
        *(f"  rootfs             line {number}" for number in range(5)),
        "",
        "x failed: y",
        "  hint: z",
    ]
    assert sorted(filter(None, lines[8:-1])) == [
        "  busybox            build/busybox  (1.0 s)",
        "  vmlinux            build/vmlinux  (1.0 s)",
    ]
    assert lines[-1] == "  end                of it"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\rb", r"a\rb"),
        ("\x9b31m", r"\x9b31m"),
        ("gr\u00fc\u00dfe", "gr\u00fc\u00dfe"),
        ("\u202egnp", r"\u202egnp"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_others_wrote_moves_no_terminal(text: str, shown: str) -> None:
    assert terminal.printable(text) == shown


def test_human_sizes() -> None:
    assert [
        terminal.human(size) for size in (0, 999, 1000, 138_009_412, 999_949_999, 2_500_000_000)
    ] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "138.0 MB",
        "999.9 MB",
        "2.5 GB",
    ]
