"""The campaign over the shared store: a short one finds nothing, and one over code that believes
what comes finds that."""

from __future__ import annotations

import os
from pathlib import Path

import sharedstore

FAULTS = int(os.environ.get("PIGGYBACK_TEST_FAULTS", "20"))


def test_a_short_campaign_finds_nothing(tmp_path: Path, triple: str) -> None:
    with sharedstore.begun(tmp_path, triple, sharedstore.EDITS[1:2]) as exchanges:
        number = 0
        while exchanges.faults < FAULTS:
            exchanges.step(number)
            number += 1
        assert exchanges.made > 0
        before = exchanges.restored
        exchanges.refill()
        exchanges.step("after the faults", lambda method, path, body: "")
    assert exchanges.wrong == []
    assert exchanges.restored > before


def test_code_that_believes_what_comes_is_found_out(tmp_path: Path, triple: str) -> None:
    with sharedstore.begun(tmp_path, triple, sharedstore.EDITS[2:]) as exchanges:
        play = exchanges.play
        play.edit("tasks/cache/remote.py", "if digest.hexdigest() != sha256:", "if False:")
        play.edit("tasks/cache/store.py", "if content_digest(draft) != digest:", "if False:")
        exchanges.step(1, lambda method, path, body: "flip" if body and "/cas/" in path else "")
    assert any("other images" in one or "status" in one for one in exchanges.wrong)
