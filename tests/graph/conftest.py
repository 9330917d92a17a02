"""The fake project of the graph tests: `fresh` has its sources in dl/ and nothing else, `built` is
whole."""

from __future__ import annotations

from collections.abc import Iterator

import playground
import pytest
from playground import Kept, Playground


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory, triple: str) -> Kept:
    """Lay the project out and build it, once."""
    base = tmp_path_factory.mktemp("graph")
    play = Playground(base / "project", base / "home")
    play.home.mkdir()
    playground.lay_out(play.top, triple)
    playground.copy(play.top, base / "bare")
    first = play.doit()
    playground.copy(play.top, base / "whole")
    return Kept(play, base / "bare", base / "whole", first, play.digests())


@pytest.fixture
def fresh(kept: Kept) -> Iterator[Playground]:
    """The project with nothing built."""
    playground.copy(kept.bare, kept.play.top)
    yield kept.play
    kept.play.close()
    kept.play.store_size = "0"


@pytest.fixture
def built(kept: Kept) -> Iterator[Playground]:
    """The project, built."""
    playground.copy(kept.whole, kept.play.top)
    yield kept.play
    kept.play.close()
    kept.play.store_size = "0"
