"""One HTML page about a build: where its bytes are, how it was made, how it came to be that size.

images/*, Kbuild's records, logs/history.jsonl, the store -> report -> build/MACHINE/report.html

The page needs no network and no other file. It builds nothing; images that are not up to date are
shown as they are, which the page says.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence

from tasks.config.project import Project
from tasks.graph.task import Command, Job, TaskDict, task
from tasks.reports import options
from tasks.system import terminal
from tasks.system.errors import PiggyError
from tasks.system.files import explained, replacing

LIBRARIES = ("jinja2", "plotly")  # of the extra `report`
_OUT = {
    "name": "out",
    "short": "o",
    "long": "out",
    "type": options.Filled("out"),
    "default": "",
    "help": "the file to write, in place of build/MACHINE/report.html",
}
_AGAINST = {
    "name": "against",
    "long": "against",
    "type": options.Filled("against"),
    "default": "",
    "help": "a counted boot to draw beside the last: 'last', a profile (file or digits), a commit",
}


def tasks(project: Project, others: Sequence[TaskDict]) -> Iterator[TaskDict]:
    """Yield `report`, which looks at all other tasks to tell whether the images are up to date."""
    yield task(
        project,
        "report",
        "write one HTML page about the build: sizes, history, configuration, memory",
        report,
        [[dict(one) for one in others]],
        command=Command(reads=True, params=[_OUT, _AGAINST], check=check),
    )


def check(out: str, against: str = "") -> None:
    """Check the option, before anything is built.

    Raises:
        PiggyError: It names no place for a file.
    """
    if out:
        options.target("--out", out)


def report(job: Job, others: Sequence[TaskDict], out: str = "", against: str = "") -> None:
    """Write the page, and print its path and size.

    Args:
        job: The task's job.
        others: All other tasks.
        out: The file to write; "" for the machine's own.
        against: A counted boot to draw beside the last one; "" for none.

    Raises:
        PiggyError: Nothing is built, no such boot was counted, a library is missing, or the file
            can't be written.
    """
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise PiggyError(
            f"'report' takes {' and '.join(missing)}, which is no part of a plain install",
            "pip install -e '.[report]'",
        )
    default = job.project.layout.here / "report.html"
    path = options.target("--out", out) if out else default
    if out and path.resolve().parent == job.project.layout.images.resolve():
        raise PiggyError(
            f"--out={out} lies among the images, which it may replace", "name another folder"
        )
    # Only here: doit's start is to load nothing of it.
    from tasks.reports import report_facts, report_page, report_sections

    facts = report_facts.gather(job.project, others, against)
    for note in facts.notes:
        terminal.line("note", terminal.printable(note))
    page = report_page.render(facts, report_sections.SECTIONS).encode()
    with explained(path, len(page)), replacing(path) as draft:
        draft.write_bytes(page)  # a new file, whose mode is the umask's
    terminal.line("report", f"{terminal.printable(str(path))}  ({terminal.size(len(page))})")
