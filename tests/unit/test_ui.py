from __future__ import annotations

import io
import sys

import pytest

from tasks.kit import ui


@pytest.mark.parametrize(("seconds", "said"), [
    (0, "0.00 s"), (0.123, "0.12 s"), (0.994, "0.99 s"), (0.996, "1.0 s"), (4.06, "4.1 s"), (59.94, "59.9 s"),
    (59.96, "1 min 00 s"), (60, "1 min 00 s"), (119.4, "1 min 59 s"), (119.6, "2 min 00 s"), (151, "2 min 31 s"),
    (3725, "62 min 05 s")])
def test_durations(seconds: float, said: str) -> None:
    assert ui.took(seconds) == said


@pytest.mark.parametrize(("seconds", "said"), [
    (-5, "0 s ago"), (0, "0 s ago"), (119.9, "119 s ago"), (120, "2 min ago"), (7199, "119 min ago"), (7200, "2 h ago"),
    (172_799, "47 h ago"), (172_800, "2 days ago"), (40 * 86_400, "40 days ago")])
def test_how_long_ago(seconds: float, said: str) -> None:
    assert ui.ago(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(0, "0 B"), (999, "999 B"), (1208832, "1,208,832 B")])
def test_sizes(count: int, said: str) -> None:
    assert ui.size(count) == said


def test_lines_stand_in_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    ui.line("CC", "x.o")
    ui.made("compressed_vmlinux", "build/pc/images/compressed_vmlinux", 1.25)
    ui.made("setup", "", 0.5)
    ui.line("word", "")
    assert capsys.readouterr().out == ("  CC                 x.o\n"
                                       "  compressed_vmlinux build/pc/images/compressed_vmlinux  (1.2 s)\n"
                                       "  setup              (0.50 s)\n"
                                       "  word\n")


def test_a_bar_without_a_terminal_is_silent_at_first_and_then_shows_life(capsys: pytest.CaptureFixture[str],
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(ui.time, "monotonic", lambda: now[0])
    with ui.bar("vmlinux", 10, "commands") as progress:
        progress.step(3)
        now[0] = 31
        progress.step()
        progress.step()
        now[0] = 62
        progress.step(8)
    out = capsys.readouterr()
    assert [line.split() for line in out.out.splitlines()] == [
        ["...", "vmlinux:", "4", "of", "about", "10", "commands"],
        ["...", "vmlinux:", "13", "of", "about", "13", "commands"]]
    assert out.err == ""


def test_a_bar_of_unknown_length(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(ui.time, "monotonic", lambda: now[0])
    with ui.bar("musl", 0, "files") as progress:
        now[0] = 31
        progress.step(7)
    assert capsys.readouterr().out.split() == ["...", "musl:", "7", "files"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_grows_past_its_total_and_is_closed_by_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    bars: list[object] = []

    def fail() -> None:
        with ui.bar("vmlinux", 2, "commands") as progress:
            bars.append(progress)
            progress.step(2)
            progress.step(3)
            raise ValueError
    with pytest.raises(ValueError):
        fail()
    bar = bars[0].bar  # type: ignore[attr-defined]
    assert (bar.n, bar.total, bar.disable) == (5, 5, True)
    assert "vmlinux" in screen.getvalue()


def test_the_last_word_of_what_runs_in_the_background(capsys: pytest.CaptureFixture[str],
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(ui.time, "monotonic", lambda: now[0])
    with ui.status("1/2 pc") as show:
        show("  CC   x.o")
        show("  WAIT    build/pc is in use by another run")
        now[0] = 29
        show("too soon")
        now[0] = 31
        show("  ...    vmlinux: 80 of about 900 commands")
    out = capsys.readouterr()
    assert [line.split(maxsplit=1)[1] for line in out.out.splitlines()] == [
        "1/2 pc: WAIT build/pc is in use by another run", "1/2 pc: ... vmlinux: 80 of about 900 commands"]
    assert out.err == ""


def test_on_a_terminal_it_takes_one_line_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "40")
    with ui.status("pc") as show:
        show("x" * 99)
        show("")
        show("short")
    said = screen.getvalue()
    assert "\n" not in said
    assert said.count("short") == 1
    assert max(len(part) for part in said.replace("\x1b[K", "").split("\r")) == 39
    assert said.endswith("\r\x1b[K")
