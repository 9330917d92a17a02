"""Explain why a request did not take: its dependencies, their values, and the lines to add.

configs/kernel/net.config:12: CONFIG_NE2K_PCI=y did not take: got n
    it depends on (drivers/net/ethernet/8390/Kconfig:154):
        NET_VENDOR_8390=n  <-- not met
        met: NETDEVICES=y, ETHERNET=y, PCI=y
    adding this line would satisfy it:
        CONFIG_NET_VENDOR_8390=y
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tasks.kconfig import dotconfig, symbols
from tasks.kconfig.dotconfig import Unmet
from tasks.kconfig.fragments import Merged, Request
from tasks.kconfig.reasons import reasons, some
from tasks.kconfig.remedy import Remedy, find
from tasks.kconfig.search import OutOfTime
from tasks.system.errors import PiggyError


class Explanation(msgspec.Struct, frozen=True):
    """An unmet request with its explanation.

    Attributes:
        unmet: The request.
        reasons: Lines of text.
        remedies: At most two remedies with equally many lines (see remedy.py).
    """

    unmet: Unmet
    reasons: tuple[str, ...]
    remedies: tuple[Remedy, ...] = ()


class Diagnosis(msgspec.Struct, frozen=True):
    """The explanations of all unmet requests.

    Attributes:
        explanations: One for each request.
        together: Where requests have different remedies, the lines that satisfy them all.
    """

    explanations: tuple[Explanation, ...]
    together: tuple[str, ...] = ()


def explain(
    missed: Sequence[Unmet],
    merged: Merged,
    *,
    root: Path,
    env: Mapping[str, str] | Callable[[], Mapping[str, str]],
    config: Path,
    base: str = "allnoconfig",
    under: Mapping[str, str] | None = None,
    top: str = "Kconfig",
    generated: Path | None = None,
    seconds: float = 5.0,
) -> Diagnosis:
    """Explain unmet requests.

    If kconfiglib can't read the tree, the reasons say so.

    Args:
        missed: The unmet requests.
        merged: All requests; no proposal contradicts one of them.
        root: The source tree.
        env: The environment of its Kconfig files (see symbols.kbuild_environment), or a function
            that returns it.
        config: The .config that resulted.
        base: See symbols.assume.
        under: The configuration that the requests were laid over, such as that of a defconfig.
        top: See symbols.load.
        generated: See symbols.load.
        seconds: Limit of the search for remedies. Reading the tree, 2 to 4 s for a kernel, is
            extra.
    """
    if not missed:
        return Diagnosis(())
    try:
        kconf = symbols.load(root, env() if callable(env) else env, top=top, generated=generated)
    except PiggyError as error:
        return Diagnosis(
            tuple(Explanation(unmet, (f"no explanation: {error.message}",)) for unmet in missed)
        )
    symbols.assume(kconf, dotconfig.read_config(config))
    why = [tuple(reasons(kconf, unmet, merged.requests, root)) for unmet in missed]
    limits = {"base": base, "under": under or {}, "deadline": time.monotonic() + seconds}
    explanations: list[Explanation] = []
    added: dict[str, str] = {}
    for unmet, because in zip(missed, why, strict=True):
        remedies, note = _remedies(kconf, merged, [unmet.request], added, limits)
        explanations.append(Explanation(unmet, (*because, *note), remedies))
        added |= dotconfig.parse_config("\n".join(remedies[0].lines)) if remedies else {}
    return Diagnosis(tuple(explanations), _together(kconf, merged, explanations, added, limits))


def report(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as text: the fatal requests first, the optional ones under a heading."""
    fatal = [
        explanation
        for explanation in diagnosis.explanations
        if not explanation.unmet.request.optional
    ]
    optional = [
        explanation for explanation in diagnosis.explanations if explanation.unmet.request.optional
    ]
    lines = [line for explanation in fatal for line in _paragraph(explanation)]
    if diagnosis.together:
        lines += [
            "adding these lines would satisfy all that can be:",
            *(f"    {line}" for line in diagnosis.together),
        ]
    if optional:
        lines += [
            "optional, and not taken:",
            *(f"    {line}" for explanation in optional for line in _paragraph(explanation)),
        ]
    return "\n".join(lines)


def _paragraph(explanation: Explanation) -> list[str]:
    lines = [explanation.unmet.text, *(f"    {line}" for line in explanation.reasons)]
    for number, remedy in enumerate(explanation.remedies):
        these = "this line" if len(remedy.lines) == 1 else "these lines"
        lines.append("    or:" if number else f"    adding {these} would satisfy it:")
        lines += [f"        {line}" for line in remedy.lines]
        if remedy.turned_off:
            lines.append(
                f"        (which turns off what is on by default: {some(remedy.turned_off)})"
            )
    return lines


def _remedies(
    kconf: Any,
    merged: Merged,
    targets: list[Request],
    added: Mapping[str, str],
    limits: Mapping[str, Any],
) -> tuple[tuple[Remedy, ...], tuple[str, ...]]:
    """Return the remedies to propose, or a line of text about what prevents one.

    Args:
        kconf: The model.
        merged: All requests.
        targets: The requests that must take.
        added: The lines proposed for other requests so far.
        limits: Further arguments of `find`.
    """
    free = frozenset(added.items())
    try:
        remedies = tuple(find(kconf, merged.requests, targets, free=free, **limits))
    except OutOfTime:
        return (), ("no addition was looked for any further: the time for it is used up",)
    if remedies and remedies[0].overrides:
        stand = ", ".join(f"{request.text} ({request.where})" for request in remedies[0].overrides)
        return (), (f"it would need {', '.join(remedies[0].lines)}, against your own {stand}",)
    return remedies, ()


def _together(
    kconf: Any,
    merged: Merged,
    explanations: list[Explanation],
    added: Mapping[str, str],
    limits: Mapping[str, Any],
) -> tuple[str, ...]:
    """Return the lines that satisfy all requests that have a remedy, if these remedies differ."""
    curable = [explanation for explanation in explanations if explanation.remedies]
    if len({explanation.remedies[0].lines for explanation in curable}) < 2:
        return ()
    remedies, _ = _remedies(
        kconf, merged, [explanation.unmet.request for explanation in curable], added, limits
    )
    return remedies[0].lines if remedies else ()
