"""The sections of the report: functions that return HTML for the facts of a build.

A further one is a function in here or in a module of its own, and a line in SECTIONS.
"""

from __future__ import annotations

import time
from typing import Any

from tasks.reports.report_boot import boot
from tasks.reports.report_facts import Facts, Step
from tasks.reports.report_page import Maker, Section, part
from tasks.reports.size_text import Share
from tasks.tuning.history import Point

_NO_SHARE = Share("", 0, 0, 0, 0)
RECENT = 50  # builds in the table; the chart has all
_MARKED = 20  # points up to which the chart names what changed


def overview(facts: Facts) -> Section:
    """Return the figures that come first."""
    files, image = facts.record.files, facts.build.image
    before = facts.points[-2].sizes.get(image) if len(facts.points) > 1 else None
    figures = [(image, files[image], "the image that is booted")]
    if image != "vmlinux":
        figures.append(("vmlinux", files["vmlinux"], "the kernel as the linker made it"))
    figures.append(("in memory", facts.record.ram.kept, "text, data and bss after the boot"))
    figures += [(one.name, one.size, one.doc) for one in facts.userspace if one.name != "initramfs"]
    return Section(
        "overview",
        "Overview",
        part(
            "overview",
            figures=figures,
            by=files[image] - before if before else 0,
            on=sum(value in ("y", "m") for value in facts.record.config.values()),
            objects=sum(share.objects for share in facts.shares),
            notes=facts.notes,
            made=_when(facts.made),
        ),
    )


def where(facts: Facts) -> Section:
    """Return the treemaps."""
    return Section(
        "where",
        "Where the bytes are",
        part("where", trees=facts.trees),
        facts.trees,
    )


def chain(facts: Facts) -> Section:
    """Return the drawing of the chain from vmlinux to the image that is booted."""
    return Section(
        "chain",
        f"From vmlinux to {facts.build.image}" if facts.build.image != "vmlinux" else "The images",
        part(
            "chain",
            rows=[("kernel", facts.kernel), ("user space", facts.userspace)],
            most=_most([*facts.kernel, *facts.userspace]),
            booted=facts.build.image,
        ),
    )


def _most(steps: list[Step]) -> int:
    return max((step.size for step in steps), default=1) or 1


def history(facts: Facts) -> Section:
    """Return the sizes over the builds."""
    names = [name for name in facts.build.files if any(name in one.sizes for one in facts.points)]
    names.sort(key=lambda name: name != facts.build.image)
    columns = list(dict.fromkeys([facts.build.image, "vmlinux"]))
    rows = [_row(facts, number, columns) for number in range(len(facts.points))]
    charts = [
        {
            "name": name,
            "sizes": [one.sizes.get(name) for one in facts.points],
        }
        for name in names
    ]
    data = {
        "charts": charts,
        "when": [row["when"] for row in rows],
        "changes": [row["changes"] for row in rows],
        "short": [_short(one) for one in facts.points],
        "named": len(facts.points) <= _MARKED,
    }
    shown = rows[::-1][:RECENT]
    return Section(
        "history",
        "The sizes of earlier builds",
        part("history", names=names, columns=columns, rows=shown, hidden=len(rows) - len(shown)),
        data,
    )


def _row(facts: Facts, number: int, columns: list[str]) -> dict[str, Any]:
    one = facts.points[number]
    before = facts.points[number - 1].sizes if number else {}
    cells = []
    for name in columns:
        size, old = one.sizes.get(name), before.get(name)
        cells.append((size, size - old if size and old else 0))
    said = [*map(str, one.changes), *one.reasons]
    return {
        "number": number + 1,
        "when": _when(one.time),
        "cells": cells,
        "changes": [facts.shorten(text) for text in said],
    }


def _short(one: Point) -> str:
    """Return what changed in a word or two, for a mark in the chart."""
    if not one.changes:
        return ""
    first = one.changes[0]
    told = first.name.removeprefix("CONFIG_") + (f"={first.after}" if first.after else "")
    return told + (f" +{len(one.changes) - 1}" if len(one.changes) > 1 else "")


def memory(facts: Facts) -> Section:
    """Return the table of what the kernel takes in memory."""
    ram = facts.record.ram
    rows = [
        ("text", ram.text, "code", True),
        ("rodata", ram.rodata, "constants", True),
        ("data", ram.data, "variables with a value at the start", True),
        ("bss", ram.bss, "variables that are zero at the start", True),
        ("init", ram.init, "freed when the kernel has booted", False),
    ]
    if ram.brk:
        rows.append(("brk", ram.brk, "freed but for what is used", False))
    return Section(
        "memory",
        "In memory",
        part(
            "memory",
            rows=rows,
            kept=ram.kept,
            whole=sum(row[1] for row in rows) or 1,
            guest=facts.guest,
        ),
    )


def configuration(facts: Facts) -> Section:
    """Return the table of symbols."""
    shares = {share.symbol: share for share in facts.shares}
    rows = [(one, shares.get(one.symbol, _NO_SHARE)) for one in facts.configuration]
    rows.sort(key=lambda row: (-row[1].own, row[0].symbol))
    kinds = list(dict.fromkeys(sorted(one.kind for one in facts.configuration)))
    return Section(
        "configuration",
        "The configuration",
        part("configuration", rows=rows, kinds=kinds, always=shares.get("", _NO_SHARE)),
    )


def environment(facts: Facts) -> Section:
    """Return what the build was made with, on and from."""
    groups = {title: rows for title, rows in facts.environment.items() if rows}
    return Section("environment", "Made with", part("environment", groups=groups))


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


SECTIONS: tuple[Maker, ...] = (
    overview,
    where,
    chain,
    history,
    memory,
    boot,
    configuration,
    environment,
)
