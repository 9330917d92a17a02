"""The Kconfig contract: what was asked for in the fragments is what the resulting .config holds.

Kconfig drops a request whose dependencies are not met without a word. Here the result is compared
with the requests, line by line; `kexplain` says why one did not take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tasks.kconfig.fragments import LINUX, PREFIX, Merged, Request, Style, same
from tasks.system.errors import PiggyError
from tasks.system.files import read_regular


class Unmet(msgspec.Struct, frozen=True):
    """A request that did not take, and the value that the symbol has instead.

    The value is "" when it has none at all.
    """

    request: Request
    got: str

    @property
    def text(self) -> str:
        """One line: where, what was asked for, what came."""
        if self.request.value == "n" and not self.got:
            return (
                f"{self.request.where}: {PREFIX}{self.request.symbol} is to be off, and there is no"
                " such symbol"
            )
        return (
            f"{self.request.where}: {self.request.text} did not take: got {self.got or 'nothing'}"
        )


def read_config(path: Path, style: Style = LINUX) -> dict[str, str]:
    """Read a .config file: symbol (without CONFIG_) to value, in file order.

    The value is as it stands there, "n" for "is not set".

    Raises PiggyError when the file is missing or holds a line that Kconfig does not write (a file
    cut short).
    """
    try:
        text = read_regular(path, follow=True).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise PiggyError(f"the configuration {path} can't be read: {error.strerror}") from error
    return parse_config(text, path, style)


def parse_config(
    text: str, path: Path | str = "configuration", style: Style = LINUX
) -> dict[str, str]:
    """Read the text of a .config file, as `read_config` does; `path` is for messages."""
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
    """Return the requests that `config` does not fulfil, in the order of the fragments.

    `config` is as `read_config` gives it.

    "is not set" and absence both are n; an answer of y to m is no fulfilment, nor m to y. Optional
    ones are included.
    """
    missed = []
    for request in merged.requests.values():
        got = config.get(request.symbol, "")
        if not same(request.value, got):
            missed.append(Unmet(request, got or ("n" if request.value in ("y", "m") else "")))
    return missed


def differences(wanted: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    """Return the symbols whose values differ between two configurations.

    In the order of `wanted`, then that of `got`.
    """
    return [
        symbol
        for symbol in dict.fromkeys([*wanted, *got])
        if not same(wanted.get(symbol, ""), got.get(symbol, ""))
    ]


def plain(missed: Iterable[Unmet]) -> str:
    """Return the unmet requests one a line, without explanation."""
    return "\n".join(one.text for one in missed)
