"""The first build of the PC, which takes minutes with all processors: what the processes of a test
run know of it, by files in the folder that they share."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import pytest

# Of tests/real, those that need the PC's images, and no object folder.
FROM_STORE = ("test_elsewhere", "test_net")
LONGEST = 1500.0  # seconds; as long as a command of the tests may take


class FirstBuild:
    """How the first build ended, and the store in which it keeps its results."""

    def __init__(self, request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> None:
        base = factory.getbasetemp()
        folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        self._request, self._ended = request, folder / "first-build"
        self.store = {
            "PIGGYBACK_STORE": str(folder / "store"),
            "PIGGYBACK_STORE_SIZE": "2G",
        }

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Tell the other processes how the body of a `with` ends, which makes it."""
        said = "failed"
        try:
            yield
            said = "passed"
        finally:
            draft = self._ended.with_suffix(".new")
            draft.write_text(said)
            draft.rename(self._ended)

    def wait(self) -> None:
        """Wait for its end, if a test of this run needs it; it must not have failed."""
        if not any(
            "pc" in getattr(item, "fixturenames", ()) and item.path.stem not in FROM_STORE
            for item in self._request.session.items
        ):
            return
        if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) < 2:
            self._request.getfixturevalue("pc")
        until = time.monotonic() + LONGEST
        while not self._ended.exists() and time.monotonic() < until:
            time.sleep(0.5)
        assert self._ended.exists(), "the first build of the PC did not end"
        assert self._ended.read_text() == "passed", "the first build of the PC failed; see its test"
