"""Configurations turned back into fragments; the model stands in for Kconfig."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tasks.kconfig import minimal, symbols
from tasks.kconfig.dotconfig import differences, parse_config
from tasks.system.errors import PiggyError

TREE = Path(__file__).parent / "data/kconfig/tree"


@pytest.fixture(scope="module")
def kconf():  # type: ignore[no-untyped-def]
    return symbols.load(TREE, {"CC": "gcc"})


@pytest.fixture
def made(kconf):  # type: ignore[no-untyped-def]
    """Return what allnoconfig makes of lines, without symbols that are hidden and off."""

    def of(lines: Mapping[str, str], base: str = "allnoconfig") -> dict[str, str]:
        symbols.assume(kconf, lines, base)
        return {
            sym.name: symbols.value(sym) for sym in kconf.unique_defined_syms if sym.config_string
        }

    return of


USER = {
    "EXPERT": "y",
    "PRINTK": "y",
    "TTY": "y",
    "MODULES": "y",
    "SERIAL": "m",
    "HZ_1000": "y",
    "LOG_SHIFT": "20",
    "START": "0x100000",
    "NEEDS_START": "y",
    "CMDLINE_BOOL": "y",
    "CMDLINE": '"a \\"b\\""',
    "NET": "y",
    "INET": "y",
    "LIBRARY_USER": "y",
    "CRC_USER": "m",
    "IMPLIES": "y",
}


def test_the_smallest_fragment_is_just_what_was_set(kconf, made):
    text = minimal.smallest(made(USER), kconf, lambda text: made(parse_config(text)))
    assert parse_config(text) == USER


def test_what_is_default_or_selected_needs_no_line(kconf, made):
    text = minimal.smallest(
        made({**USER, "LIBRARY": "y", "LOG_SHIFT": "17", "HZ_1000": "n", "HZ_250": "y"}),
        kconf,
        lambda text: made(parse_config(text)),
    )
    assert not {"LIBRARY", "LOG_SHIFT", "HZ_250"} & parse_config(text).keys()


def test_no_line_of_the_smallest_fragment_can_go(kconf, made):
    for base in ("", "allnoconfig"):
        config = made(USER, base)
        lines = minimal.smallest(config, kconf, lambda text: made(parse_config(text))).splitlines()
        assert not differences(config, made(parse_config("\n".join(lines))))
        for number in range(len(lines)):
            assert differences(
                config, made(parse_config("\n".join(lines[:number] + lines[number + 1 :])))
            ), lines[number]


def test_over_a_base_only_what_differs_from_it(kconf, made):
    base = made({"NET": "y", "INET": "y", "HZ_100": "y", "TTY": "y", "SERIAL": "y"})
    config = made({"NET": "y", "SERIAL": "y", "PCI": "y"})

    def over(text: str) -> dict[str, str]:
        return made(symbols.layered(base, parse_config(text)))

    lines = parse_config(minimal.smallest(config, kconf, over, under=base))
    assert lines == {"PCI": "y", "INET": "n", "HZ_250": "y"}


def test_choices_are_what_the_user_can_set(kconf, made):
    before = made({"NET": "y", "INET": "y"})
    after = made({"NET": "y", "EXPERT": "y", "PRINTK": "y", "TTY": "y", "HZ_1000": "y"})
    lines = minimal.choices(before, after, kconf, requested=())
    assert parse_config("\n".join(lines)) == {"EXPERT": "y", "HZ_1000": "y", "INET": "n"}
    proved = minimal.proved(
        lines, after, lambda text: made({"NET": "y", **parse_config(text)}), kconf
    )
    # a symbol that was on by default and is visible now needs a line to stay on
    assert parse_config("\n".join(proved)) == {
        "EXPERT": "y",
        "HZ_1000": "y",
        "INET": "n",
        "PRINTK": "y",
        "TTY": "y",
    }


def test_a_request_that_the_user_made_impossible_is_taken_back(kconf, made):
    """Without NET, INET is hidden; without a line that takes it back, its request would fail."""
    before, after = made({"NET": "y", "INET": "y", "NETDEVICES": "y"}), made({})
    assert minimal.choices(before, after, kconf, requested={"NET", "INET"}) == [
        "# CONFIG_NET is not set",
        "# CONFIG_INET is not set",
    ]
    assert "# CONFIG_NETDEVICES is not set" in minimal.choices(before, after, kconf)
    assert minimal.choices(before, after, kconf, requested=()) == ["# CONFIG_NET is not set"]


def test_a_string_that_went_away_is_taken_back_too(kconf, made):
    before, after = made({"CMDLINE_BOOL": "y", "CMDLINE": '"x"'}), made({})
    assert minimal.choices(before, after, kconf, requested={"CMDLINE", "CMDLINE_BOOL"}) == [
        "# CONFIG_CMDLINE_BOOL is not set",
        "# CONFIG_CMDLINE is not set",
    ]


def test_without_a_model_all_that_differs(made):
    before, after = made({"NET": "y"}), made({"CRC_USER": "y"})
    assert minimal.choices(before, after) == [
        "CONFIG_CRC=y",
        "CONFIG_CRC_USER=y",
        "# CONFIG_NET is not set",
    ]
    assert minimal.choices(after, after) == []


def test_without_a_model_the_fragment_is_complete(made):
    config = made(USER)
    text = minimal.smallest(config, None, lambda text: made(parse_config(text)))
    assert parse_config(text).items() <= config.items()
    assert not differences(config, made(parse_config(text)))


def test_what_the_guess_left_out_is_added_in_rounds(kconf):
    """This Kconfig shows B only with A, and C only with B."""

    def answer(text: str) -> dict[str, str]:
        lines = parse_config(text)
        return {
            name: lines.get(name, "n")
            for name in ("EXPERT", "PRINTK", "TTY")
            if name == "EXPERT" or lines.get({"PRINTK": "EXPERT", "TTY": "PRINTK"}[name]) == "y"
        }

    wanted = {"EXPERT": "y", "PRINTK": "y", "TTY": "y"}
    assert minimal.proved([], wanted, answer, kconf) == [
        "CONFIG_EXPERT=y",
        "CONFIG_PRINTK=y",
        "CONFIG_TTY=y",
    ]


def test_a_wrong_guess_is_corrected(kconf):
    assert minimal.proved(["CONFIG_NET=y", "CONFIG_PCI=y"], {"PCI": "y"}, parse_config, kconf) == [
        "CONFIG_PCI=y",
        "# CONFIG_NET is not set",
    ]


def test_what_no_fragment_gives_is_an_error_that_names_it(kconf):
    with pytest.raises(
        PiggyError, match="no fragment gives this configuration: NET, PCI would not take"
    ):
        minimal.proved([], {"NET": "y", "PCI": "y"}, lambda text: {}, kconf)
    # a symbol without a prompt follows from the others, and needs no line
    assert minimal.proved([], {"CRC": "y"}, lambda text: {}, kconf) == []


def test_an_answer_that_swings_ends(kconf):
    state = {"NET": "n"}

    def swinging(text: str) -> dict[str, str]:
        state["NET"] = "y" if state["NET"] == "n" else "n"
        return dict(state)

    with pytest.raises(PiggyError, match="no fragment gives"):
        minimal.proved([], {"NET": "m"}, swinging, kconf)
