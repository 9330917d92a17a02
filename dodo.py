"""Piggyback: a tiny Linux from source, as a graph of tasks like the kernel's own chain of steps."""

import os
import sys
import time
from pathlib import Path

from doit.exceptions import InvalidDodoFile

BEGUN = time.time_ns()
TOP = Path(__file__).resolve().parent
sys.path.insert(0, str(TOP))  # `doit` is a script elsewhere; our packages lie here

from tasks.graph import startup  # noqa: E402

startup.begin(__spec__)  # before anything else is loaded

from tasks import busybox, dtbs, floppy, host, image, kernel, kernel_config  # noqa: E402, I001
from tasks import modules, net, qemu, rootfs, sources, toolchain  # noqa: E402
from tasks.config import project  # noqa: E402
from tasks.graph import commands, journal  # noqa: E402
from tasks.reports import settings  # noqa: E402
from tasks.system.errors import in_a_sentence  # noqa: E402

MADE = (host, settings, sources, toolchain, kernel_config, kernel, image, dtbs, modules, busybox)
STAGES = (*MADE, rootfs, floppy, qemu, net)

with in_a_sentence(InvalidDodoFile):
    os.chdir(TOP)
    PROJECT = project.load(TOP, os.environ, startup.given(), BEGUN)
    toolchain.check(PROJECT)
    journal.prepare(PROJECT.layout.journal)

commands.install(PROJECT)
DOIT_CONFIG = commands.config(PROJECT)


def task_pipeline():
    """Every task, in the order of the pipeline."""
    with in_a_sentence(InvalidDodoFile):
        made = [one for stage in STAGES for one in stage.tasks(PROJECT)]
        if not startup.only([one["basename"] for one in made]):
            made += reports(made)
    yield from made


def reports(made):
    """Return the tasks that answer questions; none depends on them, and they take 40 ms to load."""
    from tasks.reports import boot_profile, floor, matrix, plan, price, report  # noqa: I001
    from tasks.reports import size, store, verify, why

    measured = (boot_profile, verify, matrix, store, price, floor)
    tried = [one for each in measured for one in each.tasks(PROJECT)]
    seen = [*made, *tried]
    return [
        *tried,
        *(one for each in (why, plan, size, report) for one in each.tasks(PROJECT, seen)),
    ]
