"""The Kconfig contract: the resulting .config holds what the fragments request.

Kconfig silently drops a request whose dependencies are not met. Here each request is compared with
the result; explain.py says why one did not take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tasks.kconfig.fragments import LINUX, PREFIX, Merged, Request, Style, same
from tasks.system.errors import PiggyError
from tasks.system.files import read_regular, remembering


class Unmet(msgspec.Struct, frozen=True):
    """A request that did not take, and the value that the symbol has instead ("" for none)."""

    request: Request
    got: str

    @property
    def text(self) -> str:
        """One line: the place of the request, the request, the resulting value."""
        if self.request.value == "n" and not self.got:
            return (
                f"{self.request.where}: {PREFIX}{self.request.symbol} is to be off, and there is no"
                " such symbol"
            )
        return (
            f"{self.request.where}: {self.request.text} did not take: got {self.got or 'nothing'}"
        )


def read_config(path: Path, style: Style = LINUX) -> dict[str, str]:
    """Read a .config file.

    Args:
        path: The file.
        style: How the tree writes symbols.

    Returns:
        Symbol (without prefix) to value, in the file's order and spelling; "n" for "is not set".

    Raises:
        PiggyError: The file is missing, or has a line that Kconfig does not write, as when it is
            cut short.
    """
    try:
        text = read_regular(path, follow=True).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise PiggyError(f"the configuration {path} can't be read: {error.strerror}") from error
    return parse_config(text, path, style)


read_known = remembering(read_config)  # for reading only: the same dict until the file is touched


def parse_config(
    text: str, path: Path | str = "configuration", style: Style = LINUX
) -> dict[str, str]:
    """Parse the text of a .config file.

    Args:
        text: The text.
        path: The file's name in messages.
        style: How the tree writes symbols.

    Returns:
        Symbol to value, as `read_config`.

    Raises:
        PiggyError: A line is none that Kconfig writes.
    """
    config = {}
    for number, line in enumerate(text.split("\n"), 1):
        if match := style.final.fullmatch(line.rstrip()):
            config[match[1]] = match[2]
        elif match := style.unset.fullmatch(line.rstrip()):
            config[match[1]] = "n"
        elif line.strip() and not line.startswith("#"):
            raise PiggyError(
                f"{path}:{number}: not a line of a Kconfig result: {line[:200]!r}",
                "remove the file: it is made again from the fragments",
            )
    return config


def unmet(merged: Merged, config: Mapping[str, str]) -> list[Unmet]:
    """Return the requests that a configuration does not fulfil, in the order of the fragments.

    "is not set" and absence both count as n. Neither y for m nor m for y counts as fulfilled.
    Optional requests are included.

    Args:
        merged: The requests.
        config: The configuration, as `read_config` returns it.
    """
    missed = []
    for request in merged.requests.values():
        got = config.get(request.symbol, "")
        if not same(request.value, got):
            missed.append(Unmet(request, got or ("n" if request.value in ("y", "m") else "")))
    return missed


def differences(wanted: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    """Return the symbols that differ between two configurations.

    Args:
        wanted: A configuration.
        got: Another one.

    Returns:
        The symbols in the order of `wanted`, then of `got`.
    """
    return [
        symbol
        for symbol in dict.fromkeys([*wanted, *got])
        if not same(wanted.get(symbol, ""), got.get(symbol, ""))
    ]


def plain(missed: Iterable[Unmet]) -> str:
    """Return unmet requests one a line, without explanation."""
    return "\n".join(request.text for request in missed)
