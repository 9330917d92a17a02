"""The section of the report on the boot: the bars of the last `doit boot_profile`."""

from __future__ import annotations

from typing import Any

from tasks.reports.report_facts import Facts
from tasks.reports.report_page import Section, part
from tasks.tuning.boot import Bar

DRAWN = 1 / 1000  # share of the boot from which on a bar inside a phase is drawn


def boot(facts: Facts) -> Section | None:
    """Return the boot, bar by bar; None if no profile was kept."""
    profile = facts.boot
    if profile is None or not profile.instructions:
        return None
    least = profile.instructions * DRAWN
    bars = [bar for bar in profile.bars if not bar.depth or bar.instructions >= least]
    rows = [(bar, bar.instructions / profile.instructions, _why(bar)) for bar in bars]
    data: list[dict[str, Any]] = [
        {
            "name": bar.name,
            "kind": bar.kind,
            "depth": bar.depth,
            "start": bar.start / 1e6,
            "count": bar.instructions / 1e6,
            "slept": bar.slept,
            "bytes": bar.bytes,
            "why": why,
        }
        for bar, _, why in rows
    ]
    return Section(
        "boot",
        "From reset to the shell",
        part("boot", profile=profile, rows=rows, hidden=len(profile.bars) - len(bars)),
        data,
    )


def _why(bar: Bar) -> str:
    """Return what brought a bar: its object, its symbol, and the fragment or the script's line."""
    symbol = f"CONFIG_{bar.symbol}" if bar.symbol else ""
    return ", ".join(text for text in (bar.object, symbol, bar.reason) if text)
