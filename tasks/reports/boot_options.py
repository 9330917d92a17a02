"""The options of `boot_profile`, and the limit that a boot is held against."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from tasks.graph.verdict import Exceeded
from tasks.reports import options
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern
from tasks.tuning.boot import Profile

_LIMIT = pattern(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)(K|M|G|ms)?")
_SECONDS = "leave out one of the two: seconds of this host are no count"
_COUNTS = {"limit": "limit", "trace": "trace", "whole": "all"}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


class Asked(msgspec.Struct, frozen=True):
    """The options.

    Attributes:
        against: An earlier profile, or another build, to compare with; "" for none.
        limit: The most instructions or milliseconds; "" for no limit.
        trace: A file for Chrome's trace format; "" for none.
        wall: Whether to measure seconds of this host instead.
        whole: Whether no bar is left out.
        as_json: Whether to print JSON.
    """

    against: str = ""
    limit: str = ""
    trace: str = ""
    wall: bool = False
    whole: bool = False
    as_json: bool = False


_HELP = {
    "against": "compare with 'last', a profile (file or digits), or what 'size --against' takes",
    "limit": "fail if the boot takes more than 120M instructions, or 900ms of the guest's time",
    "trace": "write a trace for Perfetto or chrome://tracing to this file",
    "wall": "seconds on this host instead, of at least 30 boots; --against=BUILD compares two",
    "whole": "every bar, however short",
    "as_json": "everything as JSON",
}
PARAMS = options.described(Asked, _HELP, {"whole": {"long": "all"}, "as_json": {"long": "json"}})


def check(**given: Any) -> None:
    """Check the options.

    Raises:
        PiggyError: The limit is none, the trace's file can't be written, or --wall, which measures
            seconds, is to give something of a count.
    """
    limit(given["limit"])
    for name, option in _COUNTS.items() if given["wall"] else ():
        if given[name]:
            raise PiggyError(f"--wall does not go with --{option}, which is of counts", _SECONDS)
    if given["trace"]:
        options.target("--trace", given["trace"])


class Limit(msgspec.Struct, frozen=True):
    """A limit: instructions, or milliseconds of the guest's time."""

    most: int
    timed: bool

    def check(self, profile: Profile) -> None:
        """Check a boot.

        Raises:
            Exceeded: It takes more.
        """
        took = profile.milliseconds if self.timed else profile.instructions
        if took > self.most:
            unit = "ms" if self.timed else "instructions"
            raise Exceeded(
                f"the boot takes {took:,} {unit}, {took - self.most:,} more than its limit of"
                f" {self.most:,}",
                "'doit boot_profile --against REF' says what grew",
            )


def limit(text: str) -> Limit | None:
    """Return the limit of --limit; None for "".

    Raises:
        PiggyError: It is none.
    """
    if not text:
        return None
    found = _LIMIT.fullmatch(text)
    if not found:
        raise PiggyError(
            f"--limit: '{text}' is no limit",
            "instructions, or with K, M or G for thousands: 120M; or milliseconds: 900ms",
        )
    number, unit = Decimal(found[1]), found[2] or ""
    if unit == "ms":
        if number % 1:
            raise PiggyError(
                f"--limit={text}: the guest's time is told in whole milliseconds",
                f"--limit={int(number) + 1}ms",
            )
        return Limit(int(number), timed=True)
    return Limit(int(number * _UNITS[unit]), timed=False)
