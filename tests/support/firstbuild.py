"""The first build of the PC, which takes minutes: made by one process of a test run, and waited
for by the others."""

from __future__ import annotations

import os
import time

import pytest

LONGEST = 1500.0  # seconds; as long as a command of the tests may take


class FirstBuild:
    """What the processes of one run know of it, by files in the folder that they share."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        base = factory.getbasetemp()
        self.folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        self._ended = self.folder / "first-build.ended"

    def is_mine(self) -> bool:
        """Return whether this process is the first that asks, and so the one to build."""
        try:
            (self.folder / "first-build.begun").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def end(self, *, well: bool) -> None:
        """Tell the others that it has ended, and how."""
        draft = self._ended.with_suffix(".new")
        draft.write_text("well" if well else "badly")
        draft.rename(self._ended)

    def wait(self) -> bool:
        """Wait for its end, and return whether it ended well. One that never ends, as its process
        was killed, did not."""
        until = time.monotonic() + LONGEST
        while not self._ended.exists():
            if time.monotonic() > until:
                return False
            time.sleep(0.5)
        return self._ended.read_text() == "well"
