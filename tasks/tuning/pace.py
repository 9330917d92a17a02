"""How long trials should take: by the objects that read a symbol, and by the trials so far.

Kbuild's records, measured seconds of objects -+-> seconds of a trial
build/MACHINE/trials/history.jsonl ------------+
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tasks.config.project import Project
from tasks.graph import history
from tasks.kbuild import seconds
from tasks.kbuild.depfiles import Depfiles
from tasks.kbuild.records import target_of
from tasks.system import crowd
from tasks.tuning.slot import FOLDER

FIRST = 20.0  # seconds besides compiling: Kconfig, links, compression, boot; of 6.1 on a PC
_RECENT = 20  # trials that count


class Pace:
    """What is known of the time that trials take.

    Args:
        project: The project.
        folders: Object folders, of which the first with records counts, each with its tree.
    """

    def __init__(self, project: Project, folders: Iterable[tuple[Path, Path]]) -> None:
        self._history = project.layout.here / FOLDER / "history.jsonl"
        self._jobs = project.jobs.size
        self._obj: Path | None = None
        for obj, tree in folders:
            if obj.is_dir():
                known = Depfiles(obj, tree, save=False)
                if known.records:
                    self._obj, self._known, self._seconds = obj, known, seconds.read(obj)
                    break

    def compiling(self, change: Mapping[str, str]) -> float:
        """Return the seconds of processor time to compile what reads the symbols of a change."""
        if self._obj is None:
            return 0.0
        found = 0.0
        for record in self._known.asking(set(change)):
            target = target_of(os.path.relpath(record, self._obj))
            found += self._seconds.of.get(target, 0.0)
        return found * self._seconds.pace

    def estimate(self, changes: Sequence[Mapping[str, str]], slots: int) -> float:
        """Return the seconds that trials should take in all, on the host as crowded as it is."""
        lines = [
            line
            for line in history.read(self._history)
            if line.seconds is not None and line.result == "ok"
        ][-_RECENT:]
        rest = [
            max((line.seconds or 0.0) / line.crowd - line.work.compiling / self._jobs, 1.0)
            for line in lines
        ]
        fixed = sorted(rest)[len(rest) // 2] if rest else FIRST
        compiling = sum(map(self.compiling, changes)) / self._jobs
        at_once = max(1, min(slots, self._jobs, len(changes)))
        return (compiling + fixed * len(changes) / at_once) * crowd.at_start()

    def learn(self, change: Mapping[str, str], took: float) -> None:
        """Note how long a trial took, in seconds."""
        history.append(
            self._history,
            history.Line(
                time=time.time(),
                task="trial",
                result="ok",
                seconds=took,
                why=[],
                work=history.Work(compiling=self.compiling(change)),
                crowd=crowd.at_start(),
            ),
        )
