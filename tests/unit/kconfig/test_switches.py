"""What can be switched, and why the rest can't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.kconfig import switches, symbols

TREE = """\
config MODULES
	bool "modules"
	option modules
config A
	bool "a"
	select HELPED
	select FORCED
config HELPED
	bool
config FORCED
	bool "forced"
config WAITS
	tristate "waits"
	depends on B
config B
	bool "b"
config ONLY_M
	tristate "at most m"
	depends on M
config M
	tristate "m"
config HIDDEN
	bool "hidden" if B
	default y
config ALWAYS
	bool
	default y
config DEFAULT
	bool "on by default"
	default y
config SHIFT
	int "shift"
	default 12
choice
	prompt "one of two"
config ONE
	bool "one"
config TWO
	bool "two"
endchoice
"""
CONFIG = {
    **dict.fromkeys(("MODULES", "A", "HELPED", "FORCED", "HIDDEN", "ALWAYS", "ONE"), "y"),
    "TWO": "n",  # as a .config has it; B, ONLY_M and DEFAULT are left out, and off as well
    "M": "m",
    "SHIFT": "12",
}


@pytest.fixture
def model(tmp_path: Path) -> Any:
    (tmp_path / "Kconfig").write_text(TREE)
    return symbols.load(tmp_path, {})


def test_what_is_on_goes_off_and_what_is_off_goes_as_far_on_as_it_can(model: Any) -> None:
    found = switches.find(model, CONFIG)
    assert found.to == {
        **dict.fromkeys(("MODULES", "A", "M"), "n"),
        **dict.fromkeys(("B", "TWO", "DEFAULT"), "y"),
        "ONLY_M": "m",
    }


def test_what_is_on_and_stays_so_says_why(model: Any) -> None:
    found = switches.find(model, CONFIG)
    assert found.fixed == {
        "HELPED": "selected by A",
        "FORCED": "selected by A",
        "HIDDEN": "its prompt is hidden: its default holds",
        "ALWAYS": "it has no prompt: its default holds",
        "ONE": 'of the choice "one of two" one has to be on: switch CONFIG_TWO',
    }
    assert found.choosable == ["FORCED", "HIDDEN", "ONE"]


def test_what_is_off_or_no_switch_says_why(model: Any, tmp_path: Path) -> None:
    assert switches.why_not(model, CONFIG, "SHIFT", tmp_path) == (
        "it is no switch: its value is 12"
    )
    said = switches.why_not(model, CONFIG, "WAITS", tmp_path)
    assert "it depends on" in said
    assert "B=n  <-- not met" in said
    assert switches.why_not(model, CONFIG, "NOTHING", tmp_path) == ""
    assert "WAITS" in switches.names(model)
