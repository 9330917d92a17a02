"""Progress of a Buildroot build, and the packages to make anew after it was killed.

Both come from Buildroot's build-time.log. Each of its lines is TIME:start|end  :STEP : PACKAGE
(package/pkg-generic.mk, step_time). A step that began and did not end was cut off: its package is
cleaned and made anew. The stamps of all other packages are good.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from tasks.system import restart, terminal

LOG = "build/build-time.log"
LAST = ("install-host", "install-staging", "install-target", "install-image", "install")
# Cut off, these steps leave nothing half-made in the build folder.
SOURCE_STEPS = ("download", "check-package")
# Seconds that each package took in a first build on two cores (i686, gcc 15). The estimate starts
# from them, and is corrected by the pace that is measured here.
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
OTHERS = 2  # seconds for every other package: skeletons and the like


class Timeline(msgspec.Struct):
    """What build-time.log tells so far.

    Attributes:
        path: The log.
        offset: Bytes of it that were read.
        ended: The steps that ended, by package.
        open: The step that runs, by package.
        at: The package and step that began last.
    """

    path: Path
    offset: int = 0
    ended: dict[str, set[str]] = msgspec.field(default_factory=dict)
    open: dict[str, str] = msgspec.field(default_factory=dict)
    at: tuple[str, str] = ("", "")

    def read(self) -> bool:
        """Read the lines that were added since the last call, and tell whether there were any."""
        try:
            with self.path.open(encoding="utf-8", errors="replace") as stream:
                stream.seek(self.offset)
                text = stream.read()
        except FileNotFoundError:
            return False
        whole, newline, _ = text.rpartition("\n")
        self.offset += len((whole + newline).encode())
        for line in whole.splitlines():
            fields = [field.strip() for field in line.split(":")]
            if len(fields) < 4:
                continue
            kind, step, package = fields[1:4]
            if kind == "start":
                self.open[package], self.at = step, (package, step)
            elif kind == "end":
                self.open.pop(package, None)
                self.ended.setdefault(package, set()).add(step)
        return bool(whole)

    def done(self) -> set[str]:
        """Return the packages whose last step has ended."""
        return {
            package
            for package, steps in self.ended.items()
            if steps & set(LAST) and package not in self.open
        }

    def half_made(self) -> list[str]:
        """Return the packages that were cut off in a step that leaves files in the build folder."""
        return [package for package, step in self.open.items() if step not in SOURCE_STEPS]


def late(build: Path, packages: Collection[str]) -> list[str]:
    """Return the packages of which a step ended within a minute of the last one that did.

    After a power cut their files may be empty, or cut short (see system/restart.py). The stamps of
    steps tell: they are empty, and the log may lack its last lines.

    Args:
        build: Buildroot's build folder, with a folder NAME-VERSION for each package.
        packages: The packages of the build.
    """
    ended = dict[str, float]()
    for stamp in build.glob("*/.stamp_*"):
        folder = stamp.parent.name
        names = [name for name in packages if folder == name or folder.startswith(f"{name}-")]
        if names:
            name = max(names, key=len)
            ended[name] = max(ended.get(name, 0.0), stamp.stat().st_mtime)
    last = max(ended.values(), default=0.0) - restart.LATE
    return sorted(name for name, when in ended.items() if when >= last)


class Progress:
    """The state of a build in words: which package of how many, and the estimated time left.

    Args:
        timeline: The build's log.
        packages: The packages of the build.
        seconds: The known time of each package.
    """

    def __init__(
        self, timeline: Timeline, packages: Collection[str], seconds: Mapping[str, float]
    ) -> None:
        self.timeline, self.packages, self.seconds = timeline, packages, seconds
        self.before = self.made = self.weight(timeline.done())
        self.started = self.since = time.monotonic()
        self.pace = 1.0  # seconds on this host for each second of SECONDS

    def weight(self, packages: Collection[str]) -> float:
        """Return the seconds that these packages take together; an unknown one counts OTHERS.

        Args:
            packages: Names; those that are not part of the build do not count.
        """
        return sum(self.seconds.get(name, OTHERS) for name in packages if name in self.packages)

    def text(self) -> str:
        """Return one line, such as: package 7 of 18: host-gcc-initial (build), about 21 min left.

        The known times were measured on another host. This host's own pace counts once a tenth of
        the work is done, or a package takes longer than its known time.
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
def displayed(
    label: str, timeline: Timeline, packages: Collection[str]
) -> Iterator[Callable[[str], None]]:
    """Display the progress of a build while the body of a `with` runs.

    Args:
        label: The name of the build on the status line.
        timeline: Its log.
        packages: Its packages.

    Yields:
        A function to call with each line of the build's output.
    """
    progress = Progress(timeline, packages, SECONDS)
    with terminal.status(label) as show:

        def on_line(_: str) -> None:
            timeline.read()
            show(progress.text())

        yield on_line
