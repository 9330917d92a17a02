"""Console output: one line for each file made, as Kbuild prints, bars for long work, and units."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TextIO

from tasks.system.pattern import pattern

# Controls of ECMA-48 (C0, DEL, C1) but tab and newline, and the characters that change the
# direction of text (Unicode, UAX #9, section 2).
_CONTROLS = pattern(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Escape the control characters of foreign text (from a server, a guest, a file's name).

    ESC becomes \x1b; tabs and newlines stay.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Progress(Protocol):
    """A progress bar, or its replacement in a log."""

    def step(self, count: int = 1) -> None:
        """Advance by `count` units."""


def line(word: str, text: str) -> None:
    """Print two columns, as Kbuild does: `  CC      init/main.o`."""
    write(f"  {word:<18} {text}".rstrip(), sys.stdout)


def write(text: str, stream: TextIO) -> None:
    """Write whole lines, from any thread, above the progress bars."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    with (
        tqdm.external_write_mode(terminal())
        if tqdm and tqdm._instances
        else contextlib.nullcontext()
    ):
        stream.write(text + "\n")
        stream.flush()


def terminal() -> TextIO:
    """Return standard error for our own control characters; foreign text needs `printable`."""
    stream: TextIO = getattr(sys.stderr, "plain", sys.stderr)  # see stdio.Plain
    return stream


def made(task: str, target: str, seconds: float) -> None:
    """Print that a task is done: its name, its target and its duration in seconds."""
    line(task, f"{target}  ({took(seconds)})".strip())


def took(seconds: float) -> str:
    """Format a duration in seconds: 0.12 s, 4.1 s, 2 min 31 s."""
    if seconds < 0.995:
        return f"{seconds:.2f} s"
    return (
        f"{seconds:.1f} s"
        if seconds < 59.95
        else f"{round(seconds) // 60} min {round(seconds) % 60:02} s"
    )


def ago(seconds: float) -> str:
    """Format an age in seconds: 40 s ago, 12 min ago, 3 h ago, 5 days ago."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds / length)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"


def size(count: int) -> str:
    """Format a number of bytes exactly, with separators: 1,208,832 B."""
    return f"{count:,} B"


def human(size: float) -> str:
    """Format a number of bytes in decimal units, as apt does: 812 bytes, 1.1 MB, 139.3 MB."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


class _Bar:
    """A tqdm bar on a terminal; elsewhere a line every half minute, so that a log shows life."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit, self.count = label, total, unit, 0
        self.spoke = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                total=total or None,
                unit=f" {unit}",
                desc=f"  {printable(label)}",
                leave=False,
                dynamic_ncols=True,
                file=terminal(),
            )

    def step(self, count: int = 1) -> None:
        self.count += count
        if self.bar is not None:
            if self.bar.total and self.count > self.bar.total:
                self.bar.total = self.count
            self.bar.update(count)
        elif time.monotonic() - self.spoke > 30:
            self.spoke = time.monotonic()
            line(
                "...",
                f"{self.label}: {self.count} of about {max(self.total, self.count)} {self.unit}"
                if self.total
                else f"{self.label}: {self.count} {self.unit}",
            )

    def close(self) -> None:
        if self.bar is not None:
            with self.bar.get_lock():
                self.bar.close()
                terminal().write("\r")  # a bar below another one leaves the cursor where it ended
                terminal().flush()


@contextlib.contextmanager
def bar(label: str, total: int, unit: str) -> Iterator[Progress]:
    """Show a progress bar for the body of a `with`.

    Args:
        label: The text before the bar.
        total: Expected number of units; 0 if that is not known.
        unit: What is counted, in the plural.
    """
    shown = _Bar(label, total, unit)
    try:
        yield shown
    finally:
        shown.close()


@contextlib.contextmanager
def status(label: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the latest output line of work in the background.

    A terminal has one line that is overwritten; elsewhere a line is printed every half minute, so
    that a log shows life. A wait for a lock is printed at once.

    Args:
        label: The text before the line.
    """
    started, spoke, live = time.monotonic(), time.monotonic(), sys.stderr.isatty()

    def show(text: str) -> None:
        nonlocal spoke
        text = printable(" ".join(text.split()))
        if live and text:
            width = shutil.get_terminal_size().columns - 1
            terminal().write(
                "\r" + f"  {label} ({took(time.monotonic() - started)})  {text}"[:width] + "\x1b[K"
            )
            terminal().flush()
        elif text.startswith("WAIT ") or time.monotonic() - spoke > 30:
            spoke = time.monotonic()
            line("...", f"{label}: {text}")

    try:
        yield show
    finally:
        if live:
            terminal().write("\r\x1b[K")
            terminal().flush()
