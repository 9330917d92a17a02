"""Buildroot's configuration by contract: the .config has everything that the fragments request.

A fragment has the form of Buildroot's defconfigs: BR2_NAME=value, or `# BR2_NAME is not set`. A
request that ends with the comment `# optional` may fail: where this release does not have the
symbol, that is reported and is no error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.kconfig import dotconfig, fragments
from tasks.kconfig.fragments import Style, same
from tasks.system.errors import PiggyError, nearest

STYLE = Style("", "BR2_", "line of a Buildroot defconfig")
PLAIN = Style("")  # Buildroot's own .config also holds symbols without BR2_
# Symbols that say where files lie or how fast the build is, and do not change the result: they are
# no part of a toolchain's identity.
PLACES = (
    "BR2_DEFCONFIG",
    "BR2_DL_DIR",
    "BR2_HOST_DIR",
    "BR2_JLEVEL",
    "BR2_PRIMARY_SITE",
    "BR2_PRIMARY_SITE_ONLY",
    "BR2_BACKUP_SITE",
    "BR2_PACKAGE_OVERRIDE_FILE",
    "BR2_KERNEL_HEADERS_CUSTOM_TARBALL_LOCATION",
    "BR2_CCACHE_DIR",
    "BR2_KERNEL_MIRROR",
    "BR2_GNU_MIRROR",
    "BR2_WGET",
    "BR2_CURL",
)


class Request(msgspec.Struct, frozen=True):
    """A symbol's value as a fragment requests it.

    Attributes:
        symbol: The whole name, with BR2_.
        value: As in a .config; "n" stands for "is not set".
        optional: Whether the request may fail.
        where: The place of the request, as FILE:LINE.
    """

    symbol: str
    value: str
    optional: bool
    where: str

    @property
    def line(self) -> str:
        """The request as a line of a defconfig."""
        return f"# {self.symbol} is not set" if self.value == "n" else f"{self.symbol}={self.value}"


def parse(text: str, name: str) -> list[Request]:
    """Read the requests of a fragment.

    Args:
        text: The fragment's content.
        name: The fragment's name in messages.

    Raises:
        PiggyError: A line is neither a request nor a comment; the message names file and line.
    """
    return [
        Request(request.symbol, request.value, request.optional, request.where)
        for request in fragments.lines(text, Path(name), STYLE)
    ]


def merge(parts: Iterable[Sequence[Request]]) -> dict[str, Request]:
    """Merge the requests of several fragments; for each symbol the last one wins.

    Args:
        parts: The requests of each fragment, in order.

    Returns:
        The requests by symbol, in the order of the lines that won.
    """
    asked: dict[str, Request] = {}
    for part in parts:
        for request in part:
            # Of two members of a choice the later one wins, so the order matters.
            asked.pop(request.symbol, None)
            asked[request.symbol] = request
    return asked


def read(text: str) -> dict[str, str]:
    """Read a .config.

    Args:
        text: Its content.

    Returns:
        The value of each symbol, "n" where it is not set.
    """
    return dotconfig.parse_config(text, style=PLAIN)


def identity(values: Mapping[str, str]) -> str:
    """Return a configuration as text, without the symbols that do not change the result (PLACES).

    Args:
        values: The value of each symbol.
    """
    return "".join(
        f"{symbol}={value}\n" for symbol, value in sorted(values.items()) if symbol not in PLACES
    )


def unmet(asked: Mapping[str, Request], values: Mapping[str, str]) -> list[Request]:
    """Return the requests that a .config does not fulfil.

    Args:
        asked: The requests by symbol.
        values: The symbols of the .config; one that is absent counts as n.
    """
    return [
        request
        for request in asked.values()
        if not same(request.value, values.get(request.symbol, ""))
    ]


def without_legacy(
    asked: Mapping[str, Request], source: Path
) -> tuple[dict[str, Request], list[Request]]:
    """Drop the optional requests for symbols that this release keeps only as legacy.

    Buildroot refuses to build while a symbol of Config.in.legacy is set (BR2_LEGACY).

    Args:
        asked: The requests by symbol.
        source: Buildroot's tree.

    Returns:
        The requests that remain, and those that were dropped.
    """
    relics = set(re.findall(r"^config (BR2_\w+)", _text(source / "Config.in.legacy"), re.MULTILINE))
    dropped = [
        request
        for request in asked.values()
        if request.symbol in relics and request.optional and request.value != "n"
    ]
    return {symbol: request for symbol, request in asked.items() if request not in dropped}, dropped


def explain(
    missed: Sequence[Request], values: Mapping[str, str], source: Path, version: str
) -> str:
    """Explain why each request failed: its symbol's dependencies, or that there is no such symbol.

    Args:
        missed: The requests that failed.
        values: The symbols of the resulting .config.
        source: Buildroot's tree, whose Config.in files are searched.
        version: Buildroot's version, for the text.

    Returns:
        The lines of the explanation, as one text.
    """
    places: dict[str, tuple[str, list[str]]] = {}
    for path, text in _kconfigs(source):
        for match in re.finditer(
            r"^(?:menu)?config (BR2_\w+)\n((?:[ \t]+.*\n|\n)*)", text, re.MULTILINE
        ):
            number = text.count("\n", 0, match.start()) + 1
            depends = re.findall(
                r"^\s+depends on (.*)$", match[2].partition("\thelp\n")[0], re.MULTILINE
            )
            places.setdefault(match[1], (f"{path.relative_to(source)}:{number}", depends))
    lines = []
    for request in missed:
        got = values.get(request.symbol, "nothing")
        lines.append(
            f"{request.where}: {request.line} did not take: got {'n' if got == 'n' else got}"
        )
        if request.symbol not in places:
            lines.append(
                f"    Buildroot {version} has no such symbol.{nearest(request.symbol, places)}"
            )
            continue
        where, depends = places[request.symbol]
        lines.append(
            f"    {where}"
            + (
                f" depends on {'; '.join(depends)}"
                if depends
                else " (a choice takes one of its members, or another symbol selects it)"
            )
        )
        for symbol in dict.fromkeys(re.findall(r"BR2_\w+", " ".join(depends))):
            lines.append(f"    {symbol} is {values.get(symbol, 'n')}")
    return "\n".join(lines)


def _kconfigs(source: Path) -> Iterator[tuple[Path, str]]:
    for name in ("arch", "toolchain", "package", "system", "boot", "fs", "linux", "."):
        folder = source / name
        for path in sorted(
            folder.glob("Config.in*") if name == "." else folder.rglob("Config.in*")
        ):
            yield path, _text(path)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def headers(
    source: Path, kernel: tuple[int, int], tarball: Path | None, series: tuple[int, int] | None
) -> list[Request]:
    """Return the requests for the newest kernel headers that are not newer than the kernel.

    Args:
        source: Buildroot's tree, whose package/linux-headers/Config.in.host lists the series.
        kernel: The kernel's series, such as (6, 1).
        tarball: A kernel tarball to take the headers from in place of a release's; None for none.
        series: The series of that tarball.

    Raises:
        PiggyError: This Buildroot offers no series that is old enough.
    """
    name = "package/linux-headers/Config.in.host"
    known = _text(source / name)
    where = "kernel headers"
    if tarball and series:
        offered = _series(known, "BR2_PACKAGE_HOST_LINUX_HEADERS_CUSTOM")
        best = max((version for version in offered if version <= series), default=None)
        if not best:
            raise PiggyError(
                f"this Buildroot knows no kernel headers as old as {series[0]}.{series[1]}",
                "take headers of a newer series that is not newer than the kernel:"
                " 'buildroot_headers='",
            )
        return [
            Request("BR2_KERNEL_HEADERS_CUSTOM_TARBALL", "y", False, where),
            Request(
                "BR2_KERNEL_HEADERS_CUSTOM_TARBALL_LOCATION", f'"file://{tarball}"', False, where
            ),
            Request(
                f"BR2_PACKAGE_HOST_LINUX_HEADERS_CUSTOM_{best[0]}_{best[1]}", "y", False, where
            ),
        ]
    offered = _series(known, "BR2_KERNEL_HEADERS")
    best = max((version for version in offered if version <= kernel), default=None)
    if not best:
        raise PiggyError(
            f"this Buildroot has no kernel headers as old as the kernel ({kernel[0]}.{kernel[1]})",
            "'buildroot_headers=' takes a kernel's tarball, such as the one in dl/",
        )
    return [Request(f"BR2_KERNEL_HEADERS_{best[0]}_{best[1]}", "y", False, where)]


def _series(text: str, prefix: str) -> list[tuple[int, int]]:
    return [
        (int(a), int(b))
        for a, b in re.findall(rf"^config {prefix}_(\d+)_(\d+)$", text, re.MULTILINE)
    ]


def choices(edited: Mapping[str, str], base: Mapping[str, str], small: Iterable[str]) -> list[str]:
    """Return the lines of a fragment that turns one configuration into another.

    Args:
        edited: The configuration to arrive at.
        base: The configuration to start from.
        small: The symbols of the minimal defconfigs of both. Other symbols follow from these, so
            they get no line.
    """
    return [
        Request(symbol, edited.get(symbol, "n"), False, "").line
        for symbol in dict.fromkeys([*base, *edited])
        if symbol in small
        and symbol not in PLACES
        and not same(edited.get(symbol, ""), base.get(symbol, ""))
    ]
