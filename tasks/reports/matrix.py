"""Every machine, or those of machines=a,b,c.

Built and boot-tested one after the other, and put into a table.

    machines=a,b,c -> matrix -> a doit of its own for each: machine=a qemu_test
                                                            -> build/a/logs/{matrix.log,boot.json}
                             -> build/matrix.json, build/matrix.md

The settings of the command line are passed on. A machine that QEMU does not have is built alone.
One that fails does not stop the others; its row says why, and the task fails in the end. After each
machine its row is put into build/matrix.json, where the rows of machines that were not asked for
stay as they are.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tasks import qemu
from tasks.config import packages
from tasks.config import project as projects
from tasks.config.project import Project
from tasks.graph import history, nested
from tasks.graph.history import Line
from tasks.graph.task import Command, Job, TaskDict, task
from tasks.guest import boot
from tasks.reports import table
from tasks.reports.table import Row, Sizes
from tasks.system import terminal
from tasks.system.errors import PiggyError, nearest
from tasks.system.files import read_regular

SHARED = ("fetch:", "_unpack:", "_run_qemu")  # what costs no machine anything, or only the first


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `matrix`."""
    yield task(
        project,
        "matrix",
        "build and boot-test the machines of machines=, and tabulate them",
        run,
        command=Command(),
    )


def run(job: Job) -> None:
    """Do one machine after the other; print the table of those that were done, however it ends.

    Raises:
        PiggyError: A row failed.
    """
    project = job.project
    known = sorted(path.stem for path in (project.top / "configs" / "machines").glob("*.toml"))
    names = chosen(project, known)
    rows: list[Row] = []
    with project.lock.released():  # the children take their machines' locks, which may be this one
        try:
            for number, name in enumerate(names, 1):
                row = one(project, name, f"{number}/{len(names)} {name}")
                rows.append(row)
                table.keep(project.layout.build, row, known)
                terminal.line(name, f"{row.result}{': ' + row.error if row.error else ''}")
        finally:
            if rows:
                print("\n" + table.plain(rows) + "\n", flush=True)
    terminal.line(
        "matrix", f"{project.layout.build / 'matrix.json'}, {project.layout.build / 'matrix.md'}"
    )
    failed = [row.machine for row in rows if row.result == "failed"]
    if failed:
        raise PiggyError(
            f"{len(failed)} of {len(rows)} machines failed: {', '.join(failed)}",
            f"what each said is in {project.layout.build}/MACHINE/logs/matrix.log",
        )


def chosen(project: Project, known: Sequence[str]) -> list[str]:
    """Return the machines to do, each once, in the order of the setting.

    Raises:
        PiggyError: A name is none.
    """
    names = list(dict.fromkeys(re.findall(r"[^\s,]+", project.settings.machines))) or list(known)
    for name in names:
        if name not in known:
            raise PiggyError(
                f"{project.origins['machines']}: there is no machine"
                f" '{name}'.{nearest(name, known)}",
                "machines: " + ", ".join(known),
            )
    return names


def one(project: Project, name: str, label: str) -> Row:
    """Build one machine and, where QEMU has it, boot it; return its row."""
    words = nested.words(project, {"machine": name, "machines": ""})
    row = Row(
        machine=name,
        result="failed",
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    try:
        its = projects.load(project.top, os.environ, words)
    except PiggyError as error:
        return msgspec.structs.replace(row, error=nested.short(error.message))
    row = msgspec.structs.replace(row, arch=its.machine.arch)
    triple = its.machine.triple
    no_compiler = (
        missing(its, f"{triple}-gcc", f"{triple}-ld") if its.settings.toolchain == "distro" else ""
    )
    if no_compiler:
        return msgspec.structs.replace(row, error=no_compiler)
    no_qemu = missing(its, its.machine.qemu.binary) if its.machine.qemu else ""
    boots = its.machine.qemu is not None and not no_qemu
    log, lines = its.layout.logs / "matrix.log", list[str]()
    seen = history.end(its.layout.history)
    terminal.line("matrix", f"{label}: log {log}")
    with terminal.status(label) as show:

        def heard(line: str) -> None:
            lines.append(line)
            show(line)

        status = nested.logged(
            project.top, nested.argv(words, *(["qemu_test"] if boots else [])), log, heard
        )
    return measured(
        its,
        row,
        history.read(its.layout.history, seen),
        boots,
        (
            nested.first_error(lines, status)
            if status
            else f"built, not booted: {no_qemu}"
            if no_qemu
            else ""
        ),
    )


def missing(its: Project, *tools: str) -> str:
    """Say which of a machine's tools is the first that this host lacks, and what package has it."""
    known = packages.load(its.top)
    manager = packages.manager_of_host(known) or next(iter(known.managers))
    return next(
        (
            f"{need.name} is not installed (package {need.packages[manager]})"
            for need in packages.needs(known, its.machine)
            if need.name in tools and not need.found
        ),
        "",
    )


def decoded(text: bytes) -> dict:
    """Return a JSON object as it was written, {} for what is none.

    Another program, or a full disk, may have left anything.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def boot_figures(its: Project) -> dict[str, Any]:
    """How the machine booted, by its record.

    What runs it, and the seconds until the shell answered; {} without one.
    """
    try:
        boot = decoded(read_regular(its.layout.boot_record))
    except OSError:
        return {}
    return {
        name: boot[name]
        for name, kind in (("accel", str), ("ready", int | float))
        if isinstance(boot.get(name), kind)
    }


def measured(its: Project, row: Row, ran: Sequence[Line], boots: bool, error: str) -> Row:
    """Complete a row by what a run left: what ran in it, the images, and the boot's own record."""
    made = [
        line.seconds
        for line in ran
        if line.seconds is not None
        and line.result == "ok"
        and line.task != "qemu_test"
        and not line.task.startswith(SHARED)
    ]
    built = not [line for line in ran if line.result == "failed" and line.task != "qemu_test"] and (
        not error or bool(ran) or not boots
    )
    boot = boot_figures(its) if boots and not error else {}
    image = its.image
    return msgspec.structs.replace(
        row,
        result="failed" if error else "booted" if boots else "built",
        error=error,
        kernel=qemu.release(its),
        image=image,
        sizes=sizes(its, image) if built else None,
        build=sum(made) if made else None,
        accel=boot.get("accel", ""),
        ready=boot.get("ready"),
    )


def sizes(its: Project, image: str) -> Sizes | None:
    """Return the sizes of what was built, None where something is missing."""
    files: list[Path] = [its.layout.images / "vmlinux", its.layout.images / image]
    if its.machine.userspace:
        files += [
            its.layout.images / "busybox",
            boot.root_image(its) if its.machine.qemu else its.layout.rootfs,
        ]
    try:
        return Sizes(*map(os.path.getsize, files))
    except FileNotFoundError:
        return None
