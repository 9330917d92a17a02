"""Where each symbol's value comes from, on a small Kconfig tree that the real kconfiglib reads."""

from __future__ import annotations

from pathlib import Path

from tasks.kconfig import symbols
from tasks.kconfig.fragments import merge
from tasks.kconfig.origins import Origin, origins

TREE = Path(__file__).parent / "data/kconfig/tree"
LINES = """\
CONFIG_CRC_USER=m
CONFIG_HZ_100=y
CONFIG_LIBRARY=y
CONFIG_LIBRARY_USER=y
CONFIG_IMPLIES=y
# CONFIG_TTY is not set
CONFIG_EXPERT=y
CONFIG_MODULES=y
"""


def found(tmp_path: Path, lines: str, base: str = "allnoconfig") -> dict[str, Origin]:
    fragment = tmp_path / "f.config"
    fragment.write_text(lines)
    requests = merge([fragment]).requests
    kconf = symbols.load(TREE, {"VERSION": "1", "CC": "gcc"})
    symbols.assume(kconf, {one.symbol: one.value for one in requests.values()}, base)
    values = {name: value for name, value in symbols.values(kconf).items() if value}
    return {one.symbol: one for one in origins(values, requests, kconf, base)}


def test_a_symbol_has_its_value_by_fragment_selection_choice_or_default(tmp_path: Path) -> None:
    got = found(tmp_path, LINES)
    where = tmp_path / "f.config"
    said = {name: (one.value, one.kind, one.reason) for name, one in got.items()}
    assert said["CRC_USER"] == ("m", "asked for", f"{where}:1")
    assert said["CRC"] == ("m", "selected", "selected by CRC_USER=m")
    assert said["HZ_100"][1:] == ("asked for", f'{where}:2, chosen in "Timer frequency"')
    assert said["LIBRARY"][1:] == ("asked for", f"{where}:3, selected by LIBRARY_USER=y")
    assert said["IMPLIES"][1:] == ("asked for", f"{where}:5")
    assert said["TTY"] == ("n", "asked for", f"{where}:6")
    assert said["HZ"] == ("100", "default", f"default of {got['HZ'].place}")
    assert said["LOG_SHIFT"][:2] == ("17", "default")
    assert said["HAS_PORTS"][:2] == ("y", "default")
    assert said["CMDLINE_BOOL"] == ("n", "not asked for", "not asked for")
    assert got["CMDLINE_BOOL"].prompt == "Built-in command line"
    assert got["CRC"].prompt == ""
    assert got["CRC"].place.startswith("Kconfig:")


def test_what_nobody_asked_for_is_of_the_base_or_its_choice(tmp_path: Path) -> None:
    got = found(tmp_path, "CONFIG_MODULES=y\n", base="")
    assert (got["HZ_250"].value, got["HZ_250"].kind) == ("y", "chosen")
    got = found(tmp_path, "CONFIG_EXPERT=y\nCONFIG_IMPLIES=y\n", base="some_defconfig")
    assert got["PRINTK"].reason == "base some_defconfig"
    assert got["IMPLIED"].reason == "implied by IMPLIES=y"


def test_without_the_tree_fragments_are_known_alone(tmp_path: Path) -> None:
    fragment = tmp_path / "f.config"
    fragment.write_text("CONFIG_NET=y\nCONFIG_PCI=y\n")
    got = origins({"NET": "y", "PCI": "n", "X": "y"}, merge([fragment]).requests)
    assert [(one.kind, one.reason) for one in got] == [
        ("asked for", f"{fragment}:1"),
        ("not known", ""),
        ("not known", ""),
    ]
