"""Buildroot's configuration by contract: the .config has all that the fragments ask for.

A fragment is written as Buildroot writes its defconfigs (BR2_NAME=value, `# BR2_NAME is not set`);
a request with the comment `# optional` at the end of its line is reported, and not fatal, where
this release does not have it.
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
PLAIN = Style("")  # what Buildroot itself writes has some other names, too
# What says where things lie or how fast they are made, and not what comes out: no part of a
# toolchain's identity.
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


class Ask(msgspec.Struct, frozen=True):
    """One symbol as a fragment asks for it.

    symbol's name; value, "n" for "is not set"; where it stands, as FILE:LINE.
    """

    symbol: str
    value: str
    optional: bool
    where: str

    @property
    def line(self) -> str:
        """The request as a line of a defconfig."""
        return f"# {self.symbol} is not set" if self.value == "n" else f"{self.symbol}={self.value}"


def parse(text: str, name: str) -> list[Ask]:
    """Read a fragment.

    Args:
        text: The fragment.
        name: What messages call it.

    Raises:
        PiggyError: A line is none of a fragment; with file and line.
    """
    return [
        Ask(one.symbol, one.value, one.optional, one.where)
        for one in fragments.lines(text, Path(name), STYLE)
    ]


def merge(parts: Iterable[Sequence[Ask]]) -> dict[str, Ask]:
    """Return the requests by symbol, a later one in place of an earlier one.

    The order is that of the lines that won.
    """
    asked: dict[str, Ask] = {}
    for part in parts:
        for one in part:
            asked.pop(
                one.symbol, None
            )  # of two members of a choice the later wins, so the order matters
            asked[one.symbol] = one
    return asked


def read(text: str) -> dict[str, str]:
    """The symbols of a .config, "n" for those that are not set."""
    return dotconfig.parse_config(text, style=PLAIN)


def identity(values: Mapping[str, str]) -> str:
    """The configuration as text without what only says where things lie."""
    return "".join(
        f"{symbol}={value}\n" for symbol, value in sorted(values.items()) if symbol not in PLACES
    )


def unmet(asked: Mapping[str, Ask], values: Mapping[str, str]) -> list[Ask]:
    """The requests that a .config does not fulfil. Absent and "is not set" both are n."""
    return [one for one in asked.values() if not same(one.value, values.get(one.symbol, ""))]


def without_legacy(asked: Mapping[str, Ask], source: Path) -> tuple[dict[str, Ask], list[Ask]]:
    """Leave out optional requests for symbols that this release has only as relics.

    Those of Config.in.legacy would stop the build.

    Returns:
        The rest, and those left out.
    """
    relics = set(re.findall(r"^config (BR2_\w+)", _text(source / "Config.in.legacy"), re.MULTILINE))
    dropped = [
        one for one in asked.values() if one.symbol in relics and one.optional and one.value != "n"
    ]
    return {symbol: one for symbol, one in asked.items() if one not in dropped}, dropped


def explain(missed: Sequence[Ask], values: Mapping[str, str], source: Path, version: str) -> str:
    """Say why each request did not take.

    That is what its Kconfig entry depends on, or that there is none.
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
    for one in missed:
        got = values.get(one.symbol, "nothing")
        lines.append(f"{one.where}: {one.line} did not take: got {'n' if got == 'n' else got}")
        if one.symbol not in places:
            lines.append(
                f"    Buildroot {version} has no such symbol.{nearest(one.symbol, places)}"
            )
            continue
        where, depends = places[one.symbol]
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
    for folder in ("arch", "toolchain", "package", "system", "boot", "fs", "linux", "."):
        place = source / folder
        for path in sorted(
            place.glob("Config.in*") if folder == "." else place.rglob("Config.in*")
        ):
            yield path, _text(path)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def headers(
    source: Path, kernel: tuple[int, int], tarball: Path | None, series: tuple[int, int] | None
) -> list[Ask]:
    """Return the requests for kernel headers that match the kernel, or precede it.

    Of the series that this release offers, they are the newest that is not newer; or those of a
    tarball, of the given series.

    Raises:
        PiggyError: The release offers none.
    """
    name = "package/linux-headers/Config.in.host"
    known = _text(source / name)
    where = "kernel headers"
    if tarball and series:
        offered = _series(known, "BR2_PACKAGE_HOST_LINUX_HEADERS_CUSTOM")
        best = max((one for one in offered if one <= series), default=None)
        if not best:
            raise PiggyError(
                f"this Buildroot knows no kernel headers as old as {series[0]}.{series[1]}",
                "take headers of a newer series that is not newer than the kernel:"
                " 'buildroot_headers='",
            )
        return [
            Ask("BR2_KERNEL_HEADERS_CUSTOM_TARBALL", "y", False, where),
            Ask("BR2_KERNEL_HEADERS_CUSTOM_TARBALL_LOCATION", f'"file://{tarball}"', False, where),
            Ask(f"BR2_PACKAGE_HOST_LINUX_HEADERS_CUSTOM_{best[0]}_{best[1]}", "y", False, where),
        ]
    offered = _series(known, "BR2_KERNEL_HEADERS")
    best = max((one for one in offered if one <= kernel), default=None)
    if not best:
        raise PiggyError(
            f"this Buildroot has no kernel headers as old as the kernel ({kernel[0]}.{kernel[1]})",
            "'buildroot_headers=' takes a kernel's tarball, such as the one in dl/",
        )
    return [Ask(f"BR2_KERNEL_HEADERS_{best[0]}_{best[1]}", "y", False, where)]


def _series(text: str, prefix: str) -> list[tuple[int, int]]:
    return [
        (int(a), int(b))
        for a, b in re.findall(rf"^config {prefix}_(\d+)_(\d+)$", text, re.MULTILINE)
    ]


def chosen(edited: Mapping[str, str], given: Mapping[str, str], small: Iterable[str]) -> list[str]:
    """Return the lines that lead from the configuration `given` to the `edited` one.

    They are, of all that differs, the symbols in `small` (those of the minimal defconfigs of both),
    without places.
    """
    return [
        Ask(symbol, edited.get(symbol, "n"), False, "").line
        for symbol in dict.fromkeys([*given, *edited])
        if symbol in small
        and symbol not in PLACES
        and not same(edited.get(symbol, ""), given.get(symbol, ""))
    ]
