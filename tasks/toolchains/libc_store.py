"""A libc in the store: it is built once for the same source, compiler and recipe.

It is kept as one archive. Of its files only the compiler's wrapper and the specs for that hold the
path of the folder; they get the path of the new one.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.config.project import Project
from tasks.fetch import untar
from tasks.graph import stored
from tasks.graph.task import Job
from tasks.system import files, terminal
from tasks.system.errors import PiggyError
from tasks.system.files import read_regular, write_whole
from tasks.toolchains import folder, sdk

TASK = "libc"  # the task's name in the store
WITH_PATH = ("-gcc", "-gcc.specs")  # ends of the names of the files that hold the folder's path


def key(project: Project, source: Path, *parts: str) -> str:
    """Return what a libc is made from, as one digest; "" if the store keeps nothing.

    Args:
        project: The project.
        source: Its source tree, which may have been edited.
        parts: All else: the compiler, the headers, the recipe.
    """
    if not project.store.limit:
        return ""
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    return stored.key_of(TASK, *parts, files.digest_of(source, paths))


def bring_back(project: Project, key: str, home: Path, names: Sequence[str]) -> bool:
    """Make the libc's folder from what the store has, if it has it.

    Args:
        project: The project.
        key: What it is made from.
        home: The folder.
        names: Its key files, relative to it.

    Returns:
        Whether it is there.
    """
    with _scratch(home) as archive, contextlib.suppress(PiggyError, OSError):
        result = stored.bring_file(project.store, key, archive) if key else None
        before = result.values.get("home") if result else None
        if not isinstance(before, str) or not before.startswith("/"):
            return False
        with folder.staged(home, names) as (_, made):
            made.mkdir(parents=True)
            untar.extract(archive, made)
            for name in filter(_holds_path, names):
                data = read_regular(made / name)
                mode = (made / name).stat().st_mode & 0o777
                write_whole(made / name, data.replace(os.fsencode(before), bytes(home)), mode)
        terminal.line("store", f"libc  {home}")
        return True
    return False


def keep(job: Job, key: str, home: Path) -> None:
    """Put a libc that was built into the store, unless another file of it holds its path.

    Args:
        job: The run of the task `toolchain`.
        key: What it is made from.
        home: The folder.
    """
    if not key:
        return
    for path in home.rglob("*"):
        if path.is_file() and not _holds_path(path.name) and bytes(home) in path.read_bytes():
            return
    with _scratch(home) as archive:
        sdk.pack(home, "libc", archive, job.log)
        stored.keep_file(job.project.store, TASK, key, archive, {"home": str(home)})


def _holds_path(name: str) -> bool:
    return name.endswith(WITH_PATH)


@contextlib.contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    """Give the path for an archive beside a folder, for the body of a `with`."""
    with tempfile.TemporaryDirectory(prefix=f".{home.name}.", dir=home.parent) as scratch:
        yield Path(scratch) / "libc.tar.gz"
