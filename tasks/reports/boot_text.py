"""How a counted boot is shown: a waterfall in the terminal, and two boots side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tasks.tuning.boot import Bar, Change, Profile, because
from tasks.tuning.boot_wall import Interval, Times, interval

_CHART = 24  # columns of the waterfall
_NAME = 46  # columns of a name
_SHOWN = 200  # a bar below this share of the whole (1/200) has no line


def waterfall(profile: Profile, whole: bool = False) -> Iterator[str]:
    """Yield the lines of a boot: a bar each, with its place in the whole.

    Args:
        profile: The boot.
        whole: Whether short bars below the phases have lines, too.
    """
    yield (
        f"{'from reset to the shell' + chr(39) + 's answer':<{_NAME}} {'instructions':>14}"
        f" {'ms':>7} {'asleep':>8} {'serial':>7}"
    )
    least = 0 if whole else profile.instructions // _SHOWN
    hidden = 0
    for bar in profile.bars:
        if bar.depth and bar.instructions < least and not bar.slept:
            hidden += 1
            continue
        yield _line(bar, profile.instructions)
    if hidden:
        yield f"  and {hidden} shorter ones: --all shows them"
    yield _line(
        Bar(
            "phase",
            "all",
            0,
            0,
            profile.instructions,
            profile.milliseconds,
            sum(bar.slept for bar in profile.bars if not bar.depth),
            profile.bytes,
        ),
        profile.instructions,
    )


def _line(bar: Bar, total: int) -> str:
    name = "  " * bar.depth + bar.name
    slept = f"{bar.slept} ms" if bar.slept else ""
    first = bar.start * _CHART // total
    last = max((bar.start + bar.instructions) * _CHART // total, first + 1)
    chart = " " * first + "=" * (last - first)
    words = because(bar)
    return (
        f"{name[:_NAME]:<{_NAME}} {bar.instructions:>14,} {bar.milliseconds:>7,} {slept:>8}"
        f" {bar.bytes or '':>7}  |{chart[:_CHART]:<{_CHART}}|{'  ' + words if words else ''}"
    ).rstrip()


def against(old: Profile, new: Profile, changes: Sequence[Change], whole: bool) -> Iterator[str]:
    """Yield the lines of a comparison.

    Args:
        old: The earlier boot.
        new: This one.
        changes: What differs, as boot.compare returns it.
        whole: Whether small changes have lines, too.
    """
    if old.instructions == new.instructions and not changes:
        yield f"no difference: {new.instructions:,} instructions, in every bar as before"
        return
    least = 0 if whole else abs(new.instructions - old.instructions) // _SHOWN
    yield f"{'':<{_NAME}} {'before':>14} {'now':>14} {'difference':>14}"
    hidden = 0
    for one in changes:
        if one.kind != "phase" and abs(one.by) < least:
            hidden += 1
            continue
        name = one.name if one.kind == "phase" else f"  {one.name}"
        before, now = ("-" if count is None else f"{count:,}" for count in (one.old, one.new))
        line = f"{name[:_NAME]:<{_NAME}} {before:>14} {now:>14} {one.by:>+14,}"
        yield f"{line}  {one.reason}".rstrip()
    if hidden:
        yield f"  and {hidden} smaller differences: --all shows them"
    by = new.instructions - old.instructions
    share = by / old.instructions if old.instructions else 0
    counts = f"{old.instructions:>14,} {new.instructions:>14,} {by:>+14,}"
    yield f"{'all':<{_NAME}} {counts}  {share:+.2%}"


def seconds(times: Times, name: str) -> Iterator[str]:
    """Yield the lines of boots in seconds.

    Args:
        times: The boots.
        name: What the other build is called.
    """
    yield f"{'to the shell (' + times.accel + ')':<24} {'median':>8}   95 % sure"
    for who, found in (("this build", times.new), (name, times.old)):
        if found:
            yield f"{who[:24]:<24} {_interval(interval(found), '')}  {len(found)} boots"
    if times.old:
        change = times.difference
        yield f"{'difference, in pairs':<24} {_interval(change, '+')}"
        yield (
            f"{'slower' if change.median > 0 else 'faster'} than {name}"
            if change.differs
            else "no difference: what there is, is within the noise"
        )
    yield f"load of the host: {times.load[0]:.1f} before, {times.load[1]:.1f} after"


def _interval(one: Interval, sign: str) -> str:
    numbers = [format(value, f"{sign}.3f") for value in (one.median, one.low, one.high)]
    return f"{numbers[0]:>7}s   {numbers[1]} to {numbers[2]} s"
