"""Why a symbol is on that no line asks for."""

from __future__ import annotations

from pathlib import Path

from tasks.kconfig import symbols
from tasks.kconfig.reasons import origin

KCONFIG = """\
config A
	bool "a"
	select HIDDEN
	select QUIET if B
	imply WANTED

config B
	bool "b"

config HIDDEN
	bool

config QUIET
	bool

config WANTED
	bool "wanted"

config USUAL
	bool "usual"
	default y
"""


def test_what_selects_implies_or_defaults(tmp_path: Path) -> None:
    (tmp_path / "Kconfig").write_text(KCONFIG)
    kconf = symbols.load(tmp_path, {})
    symbols.assume(kconf, {"A": "y", "B": "n"})
    assert origin(kconf, "HIDDEN") == ("selected by CONFIG_A", ["A"])
    assert origin(kconf, "WANTED") == ("implied by CONFIG_A", ["A"])
    text, by = origin(kconf, "USUAL")
    assert text.startswith("on by default (")
    assert "Kconfig:" in text
    assert by == []
    assert origin(kconf, "NOWHERE") == ("", [])
    symbols.assume(kconf, {"A": "y", "B": "y"})
    assert origin(kconf, "QUIET") == ("selected by CONFIG_A", ["A"])
