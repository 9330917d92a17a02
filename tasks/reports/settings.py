"""What is set, and by whom.

defaults -> configs/machines/NAME.toml -> local.toml -> environment -> name=value      =>  settings
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tasks.config.project import Project
from tasks.config.settings import HELP, Settings, in_words
from tasks.graph.task import Command, Job, TaskDict, task
from tasks.system import address

_MARKDOWN = {
    "name": "markdown",
    "long": "markdown",
    "type": bool,
    "default": False,
    "help": "print what there is to set, and the defaults, as a table for docs/settings.md",
}


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield the task `settings`."""
    yield task(
        project,
        "settings",
        "show every setting, its value and where that came from",
        show,
        command=Command(reads=True, params=[_MARKDOWN]),
    )


def show(job: Job, markdown: bool = False) -> None:
    """Print the settings as a table: name, value, origin, meaning.

    Args:
        job: The job.
        markdown: Print `table` instead.
    """
    if markdown:
        print(table())
        return
    values = {
        name: address.shown(value) if isinstance(value, str) else value
        for name, value in msgspec.structs.asdict(job.project.settings).items()
    }
    width, first = (max(len(str(one)) for one in some) + 2 for some in (values.values(), values))
    for name, value in values.items():
        print(
            f"  {name:<{first}}{_shown(value) or '-':<{width}}{job.project.origins[name]:<24} "
            f" {HELP[name]}"
        )


def table() -> str:
    """Return all settings as a table in Markdown: name, what it takes, default, meaning.

    It is part of docs/settings.md.
    """
    rows = ["| setting | what it takes | default | what it is |", "| --- | --- | --- | --- |"]
    for name, value in msgspec.structs.asdict(Settings()).items():
        default = f"`{_shown(value)}`" if value != "" else ""
        rows.append(f"| `{name}` | {in_words(name)} | {default} | {HELP[name]} |")
    return "\n".join(rows)


def _shown(value: str | int | bool) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
