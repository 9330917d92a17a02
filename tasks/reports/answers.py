"""The list of all reports. dodo.py loads it only where the command line may ask for one: 40 ms."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.config.project import Project
from tasks.graph.task import TaskDict
from tasks.reports import (
    boot_profile,
    floor,
    matrix,
    plan,
    price,
    report,
    size,
    store,
    verify,
    why,
)

_ALONE = (boot_profile, verify, matrix, store, price, floor)
_OF_ALL = (why, plan, size, report)  # told what the other tasks are


def tasks(project: Project, made: Sequence[TaskDict]) -> list[TaskDict]:
    """Return the tasks of the reports, on which no other task depends.

    Args:
        project: The project.
        made: All other tasks.
    """
    alone = [one for module in _ALONE for one in module.tasks(project)]
    return [*alone, *(one for module in _OF_ALL for one in module.tasks(project, [*made, *alone]))]
