"""What keeps Buildroot from working on a host, besides missing programs; `doctor` reports it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from tasks.config.project import Project

ROOM = 8 << 30  # bytes on the disk: a toolchain's build folder takes 6.1 GB, its sources 0.3 GB


def traps(project: Project) -> list[tuple[str, str, bool]]:
    """Return the properties of this host that Buildroot stumbles over.

    Some variables of the environment would break a build. They are dropped for it
    (system/process.py), and are reported all the same.

    Sources: support/dependencies/dependencies.sh, and the checks on PATH, PERL_MM_OPT and umask in
    Buildroot's Makefile.

    Returns:
        For each a keyword, a description, and whether it is fatal.
    """
    env, found = os.environ, []
    if os.geteuid() == 0:
        found.append(
            ("root", "you are root: configure scripts are told FORCE_UNSAFE_CONFIGURE=1", False)
        )
    parts = env.get("PATH", "").split(":")
    if any(not part.startswith("/") for part in parts):
        found.append(
            ("PATH", "it has '.', an empty or a relative entry: left out for Buildroot", False)
        )
    found += [
        (name, "set: left out for Buildroot", False)
        for name in ("LD_LIBRARY_PATH", "PERL_MM_OPT", "GREP_OPTIONS")
        if env.get(name)
    ]
    base = next(
        path
        for path in (
            project.layout.toolchains.absolute(),
            *project.layout.build.absolute().parents,
        )
        if path.exists()
    )
    for folder in (project.layout.build.absolute(), project.layout.dl.absolute()):
        if re.search(r"[\s:@]", str(folder)):
            found.append(
                (
                    "path",
                    f"'{folder}' has a space, a colon or an @ in it, and Buildroot quotes nothing",
                    True,
                )
            )
    if not case_sensitive(base):
        found.append(
            (
                "file system",
                f"{base} takes aB and Ab for the same name, and Linux's headers have both",
                True,
            )
        )
    free = shutil.disk_usage(base).free
    if free < ROOM:
        found.append(
            (
                "disk",
                f"{free / (1 << 30):.1f} GB free at {base}: to build one wants {ROOM >> 30} GB",
                True,
            )
        )
    return found


def case_sensitive(folder: Path) -> bool:
    """Tell whether a file system distinguishes aB from Ab.

    Args:
        folder: A folder on it, in which a file is made for a moment.
    """
    with tempfile.TemporaryDirectory(prefix=".case.", dir=folder) as scratch:
        (Path(scratch) / "aB").touch()
        return not (Path(scratch) / "Ab").exists()
