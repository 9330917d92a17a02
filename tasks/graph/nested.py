"""This doit once more, as a child, with other settings: how one run builds several machines.

The child has the user's whole environment, and the `name=value` words of our own command line where
nothing else is said. It takes the locks that it needs itself, so whoever starts one must not hold
that of the child's machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tasks.config.project import Project
from tasks.system.process import child, pasteable

_LONGEST = 160  # characters of an error's sentence


def words(project: Project, other: Mapping[str, str]) -> dict[str, str]:
    """Return the settings for a child: those of the command line, as text, and others.

    Args:
        project: The project.
        other: Settings by name that take their place or are added; one that is "" is left out.
    """
    given = {
        name: text(getattr(project.settings, name))
        for name, origin in project.origins.items()
        if origin == "command line"
    }
    return {name: value for name, value in {**given, **other}.items() if value or name not in other}


def text(value: str | int | bool) -> str:
    """Return a setting's value as a word of the command line has it."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def argv(settings: Mapping[str, str], *tasks: str) -> list[str]:
    """Return the command: doit by the same Python.

    Args:
        settings: Values by name.
        tasks: What to do; none: the default tasks.
    """
    return [
        sys.executable,
        "-m",
        "doit",
        *(f"{name}={value}" for name, value in settings.items()),
        *tasks,
    ]


def run(top: Path, command: list[str]) -> int:
    """Run a command on our own terminal, without input, and return its exit status."""
    with child(command, cwd=top, stdin=subprocess.DEVNULL) as process:
        return process.wait()


@contextlib.contextmanager
def _sink(log: Path, command: list[str]) -> Iterator[Callable[[str], None]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with log.open("x", encoding="utf-8", errors="replace") as stream:

        def write(text: str) -> None:
            stream.write(text)
            stream.flush()

        write(f"$ {pasteable(command)}\n")
        yield write


def logged(
    top: Path,
    command: list[str],
    log: Path,
    on_line: Callable[[str], None],
    env: Mapping[str, str] | None = None,
) -> int:
    """Run a command with all that it says going to a file.

    Args:
        top: The folder to run it in.
        command: The command.
        log: The file.
        on_line: Called with each line.
        env: Variables on top of the user's environment.

    Returns:
        Its exit status.
    """
    with (
        _sink(log, command) as write,
        child(
            command,
            cwd=top,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            write(line)
            on_line(line.rstrip("\n"))
        return process.wait()


def first_error(lines: Sequence[str], status: int) -> str:
    """Return in one sentence what a run of doit failed of, by what it said.

    Make's own errors have the compiler's first one in the next line.
    """
    for number, text in enumerate(lines):
        if re.match(r"\S+ failed: |ERROR: ", text):
            after = (
                lines[number + 1].strip() if text.endswith(":") and number + 1 < len(lines) else ""
            )
            return short(f"{text} {after}")
    said = next((text for text in reversed(lines) if text.strip()), "")
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return short(f"doit {how}" + (f": {said.strip()}" if said else ""))


def short(text: str) -> str:
    """Return the first line of a message, cut where it is too long for a table."""
    line = text.strip().partition("\n")[0].removeprefix("ERROR: ").strip()
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3].rstrip() + "..."
