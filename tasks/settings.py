"""What is set, and by whom.

    defaults -> configs/machines/NAME.toml -> local.toml -> environment -> name=value      =>  settings
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tasks.kit import address
from tasks.kit.graph import Job, TaskDict, task
from tasks.kit.project import Project
from tasks.kit.settings import HELP


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield the task `settings`."""
    yield task(project, "settings", "show every setting, its value and where that came from", show, always=True, quiet=True,
               reads=True)


def show(job: Job) -> None:
    """Print the settings as a table: name, value, origin, meaning."""
    values = {name: address.shown(value) if isinstance(value, str) else value
              for name, value in msgspec.structs.asdict(job.project.settings).items()}
    width = max(len(str(value)) for value in values.values()) + 2
    for name, value in values.items():
        shown = {True: "yes", False: "no", "": "-"}.get(value, value) if isinstance(value, bool | str) else value
        print(f"  {name:<14}{shown!s:<{width}}{job.project.origins[name]:<24}  {HELP[name]}")
