"""What is made beside the compressor needs nothing that is made meanwhile."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from shortway.test_replay import Box

from tasks.kbuild import goal_state, symbol_times
from tasks.kbuild.goal_state import GoalState
from tasks.kbuild.trace import Said, Trace
from tasks.shortway import ahead
from tasks.shortway.ahead import replays


class Chain(Box):
    """The box, and behind it two goals: packed, from prog; and loader, from prog and packed.

    packed.h is made from packed; what includes it (misc.o may) is known by a record alone.
    """

    def __init__(self, top: Path, header: str) -> None:
        self.header = header
        super().__init__(top)

    def build(self) -> None:
        (self.src / "misc.c").write_text("misc.c\n")
        self.add("packed", "cat prog > packed", "prog")
        self.add("packed.h", "cat packed > packed.h", "packed")
        self.compile("misc.o", "misc.c")
        self.edges["misc.o"] = ["prog"]
        record = self.obj / ".misc.o.cmd"
        if self.header:
            line = "deps_misc.o := \\\n"
            text = record.read_text()
            record.write_text(text.replace(line, f"{line}  {self.header} \\\n"))
        self.add("loader", "cat misc.o packed > loader", "misc.o", "packed", "packed.h")
        super().build()

    def ahead(self, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
        """What may be made beside packed, once prog was made anew."""
        (self.obj / "prog").write_text("another")
        first, rest = {"packed"}, {"packed.h", "misc.o", "loader"}
        said = {
            name: Said({"PATH": ""}, {one: self.edges[one] for one in part})
            for name, part in (("packed", first), ("loader", rest))
        }
        state = GoalState({"discovered": {}}, {}, {})
        monkeypatch.setattr(goal_state, "read", lambda *_: state)
        monkeypatch.setattr(symbol_times, "values_of", lambda *_: {})
        monkeypatch.setattr(ahead.folders, "concerned", lambda *_: [])
        run: Any = self.replay("packed", said["packed"].edges)
        run.said = said["packed"]
        folder: Any = SimpleNamespace(
            path=self.obj, tree=self.src, jobs=SimpleNamespace(size=2), objects=lambda: None
        )
        return [one.stale() for one in replays(folder, Trace(said), run, {"loader": "loader"})]


def test_what_needs_vmlinux_alone_is_made_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Chain(tmp_path, "").ahead(monkeypatch) == [{"misc.o"}]


def test_what_includes_a_header_that_is_made_meanwhile_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Chain(tmp_path, "packed.h").ahead(monkeypatch) == []
