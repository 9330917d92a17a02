"""The section of the report on the boot: the bars of the last `doit boot_profile`, or of two."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec

from tasks.reports.report_facts import Facts
from tasks.reports.report_page import Section, part
from tasks.tuning.boot import Bar, Profile, because

DRAWN = 1 / 1000  # share of the boot from which on a bar inside a phase is drawn


class Row(msgspec.Struct, frozen=True):
    """A bar of this boot, of the one before, or of both.

    Attributes:
        now: The bar now; None if it is gone.
        before: The bar before; None if it is new, or there is only one boot.
    """

    now: Bar | None
    before: Bar | None = None

    @property
    def bar(self) -> Bar:
        """The bar, as it is now if it is there."""
        found = self.now or self.before
        assert found
        return found

    @property
    def most(self) -> int:
        """The instructions of the longer one."""
        return max(bar.instructions for bar in (self.now, self.before) if bar)

    @property
    def by(self) -> int:
        """How many instructions more there are now."""
        return sum(bar.instructions for bar in (self.now,) if bar) - sum(
            bar.instructions for bar in (self.before,) if bar
        )


def boot(facts: Facts) -> Section | None:
    """Return the boot, bar by bar; None if no profile was kept."""
    profile, old = facts.boot, facts.before
    if profile is None or not profile.instructions:
        return None
    every = paired(old, profile) if old else [Row(bar) for bar in profile.bars]
    whole = max(profile.instructions, old.instructions if old else 0)
    rows = [row for row in every if not row.bar.depth or row.most >= whole * DRAWN]
    data: list[dict[str, Any]] = [
        {
            "name": row.bar.name,
            "kind": row.bar.kind,
            "depth": row.bar.depth,
            "start": row.bar.start / 1e6,
            "count": row.now.instructions / 1e6 if row.now else None,
            "before": row.before
            and {"start": row.before.start / 1e6, "count": row.before.instructions / 1e6},
            "slept": row.bar.slept,
            "bytes": row.bar.bytes,
            "why": because(row.bar),
        }
        for row in rows
    ]
    return Section(
        "boot",
        "From reset to the shell",
        part(
            "boot",
            profile=profile,
            old=old,
            rows=[(row, row.bar.instructions / whole, because(row.bar)) for row in rows],
            hidden=len(every) - len(rows),
        ),
        data,
    )


def paired(old: Profile, new: Profile) -> list[Row]:
    """Return the bars of two boots in pairs, in the order of their start.

    Of several bars with one name, the first is held against the first, and so on.

    Args:
        old: The earlier boot.
        new: This one.
    """
    left = defaultdict[tuple[str, str], list[Bar]](list)
    for bar in old.bars:
        left[bar.kind, bar.name].append(bar)
    rows = []
    for bar in new.bars:
        others = left[bar.kind, bar.name]
        rows.append(Row(bar, others.pop(0) if others else None))
    rows += [Row(None, bar) for others in left.values() for bar in others]
    return sorted(rows, key=lambda row: (row.bar.start, row.bar.depth))
