"""Piggyback: a tiny Linux from source, as a graph of tasks like the kernel's own chain of steps."""

import os
import sys
import time
from pathlib import Path

BEGUN = time.time_ns()
TOP = Path(__file__).resolve().parent
sys.path.insert(0, str(TOP))  # `doit` is a script elsewhere; our packages lie here

from tasks.graph import startup  # noqa: E402

startup.begin(__spec__)  # before anything else is loaded

from tasks import busybox, dtbs, floppy, host, image, kernel, kernel_config  # noqa: E402, I001
from tasks import modules, net, qemu, rootfs, sources, toolchain  # noqa: E402
from tasks.config import project  # noqa: E402
from tasks.graph import commands, journal, verdict  # noqa: E402
from tasks.reports import settings  # noqa: E402

MADE = (host, settings, sources, toolchain, kernel_config, kernel, image, dtbs, modules, busybox)
STAGES = (*MADE, rootfs, floppy, qemu, net)

with verdict.loading():
    os.chdir(TOP)
    PROJECT = project.load(TOP, os.environ, startup.given(), BEGUN)
    toolchain.check(PROJECT)
    journal.prepare(PROJECT.layout.journal)

commands.install(PROJECT)
DOIT_CONFIG = commands.config(PROJECT)


def task_pipeline():
    """Every task, in the order of the pipeline."""
    with verdict.loading():
        made = [one for stage in STAGES for one in stage.tasks(PROJECT)]
        if not commands.only(made):
            from tasks.reports import answers

            made += answers.tasks(PROJECT, made)
    yield from made
