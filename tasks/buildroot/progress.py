"""The progress of a build with Buildroot, and how to go on where a killed one stopped.

Buildroot's own build-time.log tells how far it is.

Each line of build-time.log is TIME:start|end  :STEP : PACKAGE (package/pkg-generic.mk, step_time).
A step that has begun and not ended was cut off; its package is then cleaned and made anew, while
the stamps of all others are good.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from tasks.system import terminal

LOG = "build/build-time.log"
LAST = ("install-host", "install-staging", "install-target", "install-image", "install")
SOURCE_STEPS = (
    "download",
    "check-package",
)  # cut off, these leave nothing half-made in the build folder
# Seconds that each took on two cores in a first build (i686, gcc 15): for the estimate, whose pace
# is then measured.
SECONDS = {
    "host-gcc-initial": 801,
    "host-gcc-final": 686,
    "host-binutils": 174,
    "uclibc": 51,
    "musl": 30,
    "host-gmp": 40,
    "host-mpfr": 25,
    "host-libtool": 15,
    "host-autoconf": 8,
    "host-automake": 8,
    "host-m4": 20,
    "host-tar": 20,
    "linux-headers": 40,
    "host-mpc": 12,
    "host-patchelf": 12,
    "gcc-final": 10,
}
OTHERS = 2  # skeletons and the like


class Timeline(msgspec.Struct):
    """What build-time.log says: the steps of each package that ended, and the one that runs."""

    path: Path
    offset: int = 0
    ended: dict[str, set[str]] = msgspec.field(default_factory=dict)
    open: dict[str, str] = msgspec.field(default_factory=dict)
    at: tuple[str, str] = ("", "")

    def read(self) -> bool:
        """Read what was added since; tell whether that was anything."""
        try:
            with self.path.open(encoding="utf-8", errors="replace") as stream:
                stream.seek(self.offset)
                text = stream.read()
        except FileNotFoundError:
            return False
        whole, newline, _ = text.rpartition("\n")
        self.offset += len((whole + newline).encode())
        for line in whole.splitlines():
            words = [word.strip() for word in line.split(":")]
            if len(words) < 4:
                continue
            kind, step, package = words[1], words[2], words[3]
            if kind == "start":
                self.open[package], self.at = step, (package, step)
            elif kind == "end":
                self.open.pop(package, None)
                self.ended.setdefault(package, set()).add(step)
        return bool(whole)

    def done(self) -> set[str]:
        """The packages whose last step has ended."""
        return {
            package
            for package, steps in self.ended.items()
            if steps & set(LAST) and package not in self.open
        }

    def half_made(self) -> list[str]:
        """Return the packages that were being built when the build was cut off.

        Those that have left nothing are not among them.
        """
        return [package for package, step in self.open.items() if step not in SOURCE_STEPS]


class Progress:
    """Show which package is made, of how many, and how long the rest will take.

    The times are those known of each package.
    """

    def __init__(
        self, timeline: Timeline, packages: Collection[str], seconds: Mapping[str, float]
    ) -> None:
        self.timeline, self.packages, self.seconds = timeline, packages, seconds
        self.before = self.made = self.weight(timeline.done())
        self.started = self.since = time.monotonic()
        self.pace = 1.0  # seconds here for a second there

    def weight(self, packages: Collection[str]) -> float:
        """The seconds that these packages take together, as far as is known."""
        return sum(self.seconds.get(name, OTHERS) for name in packages if name in self.packages)

    def text(self) -> str:
        """One line: package 7 of 18: host-gcc-initial (build), about 21 min left.

        What is known of each package was measured elsewhere; once a tenth of the work is done, or a
        package takes longer than it should, this host's own pace counts.
        """
        done, (package, step) = self.timeline.done() & set(self.packages), self.timeline.at
        made, whole, now = self.weight(done), self.weight(self.packages), time.monotonic()
        if made != self.made:
            self.made, self.since = made, now
            if made - self.before > whole / 10:
                self.pace = (now - self.started) / (made - self.before)
        current = 0.0 if package in done else self.weight([package])
        pace = (
            max(self.pace, (now - self.started) / (made - self.before + current))
            if current
            else self.pace
        )
        left = max((whole - made) - min(current, (now - self.since) / pace), OTHERS) * pace
        return (
            f"package {min(len(done) + 1, len(self.packages))} of {len(self.packages)}:"
            f" {package or 'begins'}{f' ({step})' if step else ''}, about"
            f" {terminal.took(left) if left < 60 else f'{round(left / 60)} min'} left"
        )


@contextlib.contextmanager
def shown(
    label: str, timeline: Timeline, packages: Collection[str]
) -> Iterator[Callable[[str], None]]:
    """Show the progress of a build: gives the function that each line of its output goes to."""
    progress = Progress(timeline, packages, SECONDS)
    with terminal.status(label) as show:

        def heard(_: str) -> None:
            timeline.read()
            show(progress.text())

        yield heard
