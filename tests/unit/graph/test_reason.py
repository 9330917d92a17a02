from __future__ import annotations

import pytest

from tasks.graph.reason import NEVER, Reason

LONG = "x" * 40


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (NEVER, "not built yet"),
        (Reason("unfinished"), "its last run did not end well"),
        (Reason("files", "a", "1", "2"), "file a changed"),
        (Reason("files", "a", "", "2"), "file a is new"),
        (Reason("files", "a", None, "2"), "file a is new"),
        (Reason("files", "a", "1", ""), "file a is gone"),
        (Reason("files", "a", "1"), "file a is gone"),
        (Reason("settings", "a", "", "2"), "setting a (empty) -> 2"),
        (Reason("settings", "a", None, "2"), "setting a is new"),
        (Reason("settings", "a", LONG, LONG), "setting a changed"),
        (Reason("settings", "a", LONG[1:], LONG), f"setting a {LONG[1:]} -> {LONG}"),
        (Reason("code", "build", "1", "2"), "code of build changed"),
        (Reason("trees", "overlay etc", "1", "2"), "overlay etc changed"),
        (Reason("discovered", "CONFIG_A", "n", "y"), "CONFIG_A n -> y"),
        (Reason("discovered", "include/", "1", "2"), "other headers or makefiles are in include/"),
        (Reason("discovered", "lib/*", "1", "2"), "other files are in lib/"),
        (Reason("discovered", "include/", "1", ""), "include/ is gone"),
        (Reason("discovered", "CONFIG_A", "y", "can't be read"), "CONFIG_A can't be read"),
        (Reason("trees", "overlay", None, "can't be read: x"), "overlay can't be read: x"),
        (Reason("trees", "", None, "can't be read: x"), "can't be read: x"),
        (Reason("note", "CONFIG_A", None, "y", "f:1"), "CONFIG_A not asked for -> y (f:1)"),
        (Reason("note", "CONFIG_A", "y"), "CONFIG_A y -> not asked for"),
        (Reason("of the future", "a", "1", "2"), "a changed"),
    ],
)
def test_the_sentence(reason: Reason, said: str) -> None:
    assert str(reason) == said
    assert reason.brief == said.removeprefix("file ")


@pytest.mark.parametrize(
    ("reason", "file", "symbol", "changed"),
    [
        (Reason("files", "a", "1", "2"), "a", "", True),
        (Reason("discovered", "a.c", "1", ""), "a.c", "", False),
        (Reason("discovered", "CONFIG_A", "n", "y"), "", "A", True),
        (Reason("note", "CONFIG_A", None, "y"), "", "A", False),
        (Reason("note", "CONFIG_A n -> y"), "", "", False),
        (Reason("tools", "CONFIG_A", "1", "2"), "", "", True),
        (Reason("outputs", "a", None, "2"), "", "", False),
    ],
)
def test_what_it_is_about(reason: Reason, file: str, symbol: str, changed: bool) -> None:
    assert (reason.file, reason.symbol, reason.changed) == (file, symbol, changed)
