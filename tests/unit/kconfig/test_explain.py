"""Reasons and remedies for requests, on a small Kconfig tree that the real kconfiglib reads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import kconfiglib
import pytest

from tasks.kconfig import explain, search, symbols
from tasks.kconfig import remedy as kremedy
from tasks.kconfig.dotconfig import unmet
from tasks.kconfig.explain import Diagnosis, Explanation
from tasks.kconfig.fragments import config_line, merge
from tasks.kconfig.reasons import defined, definitions
from tasks.system.errors import PiggyError

DATA = Path(__file__).parent / "data/kconfig"
TREE = DATA / "tree"
ENV = {"VERSION": "1", "CC": "gcc"}


@pytest.fixture(scope="module")
def kconf():  # type: ignore[no-untyped-def]
    return symbols.load(TREE, ENV)


@pytest.fixture
def diagnose(tmp_path: Path, kconf):  # type: ignore[no-untyped-def]
    """Explain which of these fragment lines fail, by the model's result in place of Kconfig's."""

    def of(*lines: str, **options: object) -> Diagnosis:
        fragment, config = tmp_path / "f.config", tmp_path / ".config"
        fragment.write_text("\n".join(lines) + "\n")
        merged = merge([fragment])
        symbols.assume(
            kconf, {one.symbol: one.value for one in merged.requests.values()}, "allnoconfig"
        )
        result = symbols.values(kconf)
        config.write_text("".join(config_line(*one) + "\n" for one in result.items()))
        return explain.explain(
            unmet(merged, result), merged, root=TREE, env=ENV, config=config, **options
        )

    return of


def only(diagnosis: Diagnosis) -> Explanation:
    assert len(diagnosis.explanations) == 1
    return diagnosis.explanations[0]


def lines(one: Explanation) -> list[tuple[str, ...]]:
    return [remedy.lines for remedy in one.remedies]


def test_what_took_needs_no_tree(tmp_path):
    assert explain.explain(
        [], merge([]), root=tmp_path / "none", env={}, config=tmp_path / "none"
    ) == Diagnosis(())


def test_unmet_dependencies_by_name_and_value_and_the_smallest_addition(diagnose):
    diagnosis = diagnose("CONFIG_NET=y", "CONFIG_PCI=y", "CONFIG_NETDEVICES=y", "CONFIG_NE2K=y")
    assert explain.report(diagnosis).splitlines()[1:] == [
        "    it depends on (net/Kconfig:31):",
        "        VENDOR_OLD=n  <-- not met",
        "        met: PCI=y, NETDEVICES=y, NET=y",
        "    adding these lines would satisfy it:",
        "        CONFIG_VENDOR_A=y",
        "        CONFIG_VENDOR_OLD=y",
    ]
    assert (
        explain.report(diagnosis)
        .splitlines()[0]
        .endswith("f.config:4: CONFIG_NE2K=y did not take: got n")
    )


def test_all_the_way_up_through_menus_and_ifs(diagnose):
    assert lines(only(diagnose("CONFIG_NE2K=y"))) == [
        (
            "CONFIG_NET=y",
            "CONFIG_NETDEVICES=y",
            "CONFIG_PCI=y",
            "CONFIG_VENDOR_A=y",
            "CONFIG_VENDOR_OLD=y",
        )
    ]


def test_of_alternatives_the_cheapest(diagnose):
    """VENDOR_B would do as well, but needs EXPERT and INET."""
    diagnosis = diagnose(
        "CONFIG_NET=y", "CONFIG_PCI=y", "CONFIG_NETDEVICES=y", "CONFIG_VENDOR_OLD=y"
    )
    assert lines(only(diagnosis)) == [("CONFIG_VENDOR_A=y",)]


def test_no_proposal_contradicts_another_request(diagnose):
    """With VENDOR_A refused the longer way is found; a line keeps what EXPERT would switch off."""
    diagnosis = diagnose(
        "CONFIG_NET=y",
        "CONFIG_PCI=y",
        "CONFIG_NETDEVICES=y",
        "CONFIG_VENDOR_OLD=y",
        "# CONFIG_VENDOR_A is not set",
        "CONFIG_SERIAL=y",
    )
    assert lines(only(diagnosis)) == [
        ("CONFIG_EXPERT=y", "CONFIG_INET=y", "CONFIG_TTY=y", "CONFIG_VENDOR_B=y")
    ]
    assert only(diagnosis).remedies[0].turned_off == ("PRINTK",)


def test_when_only_a_contradiction_would_help_that_is_said(diagnose):
    one = only(diagnose("# CONFIG_TTY is not set", "CONFIG_EXPERT=y", "CONFIG_SERIAL=y"))
    assert one.remedies == ()
    assert one.reasons[-1].startswith("it would need CONFIG_TTY=y, against your own CONFIG_TTY=n (")


def test_a_hidden_prompt_and_its_default(diagnose):
    one = only(diagnose("# CONFIG_PRINTK is not set"))
    assert "    EXPERT=n  <-- not met" in one.reasons
    assert one.reasons[-1] == "as long as its prompt is hidden, its default holds: y"
    assert lines(one) == [("CONFIG_EXPERT=y",)]
    assert one.remedies[0].turned_off == ("TTY",)
    assert "(which turns off what is on by default: TTY)" in explain.report(
        diagnose("# CONFIG_PRINTK is not set")
    )


def test_no_line_that_the_rest_does_without(diagnose):
    """PRINTK must be n, but needs no line: it is n by default once EXPERT makes it visible."""
    assert lines(only(diagnose("CONFIG_QUIET=y"))) == [("CONFIG_EXPERT=y",)]


def test_negation_and_visible_if(diagnose):
    one = only(diagnose("CONFIG_EXPERT=y", "CONFIG_LOCKED=y"))
    assert "    !EXPERT (EXPERT=y)  <-- not met" in one.reasons
    assert one.reasons[-1].startswith(
        "it would need # CONFIG_EXPERT is not set, against your own CONFIG_EXPERT=y"
    )
    assert lines(only(diagnose("# CONFIG_HIDDEN is not set"))) == [("CONFIG_GATE=y",)]


def test_comparisons(diagnose):
    one = only(diagnose("CONFIG_SERIAL_CONSOLE=y"))
    assert "    SERIAL = y (SERIAL=n)  <-- not met" in one.reasons
    assert lines(one) == [("CONFIG_SERIAL=y",)]
    assert lines(only(diagnose("CONFIG_EXPERT=y", "CONFIG_NEEDS_START=y"))) == [
        ("CONFIG_START=0x100000",)
    ]
    assert lines(only(diagnose("CONFIG_NEEDS_START=y"))) == [
        ("CONFIG_EXPERT=y", "CONFIG_START=0x100000")
    ]


def test_a_module_where_y_is_asked_for(diagnose):
    one = only(diagnose("CONFIG_MODULES=y", "CONFIG_SERIAL=m", "CONFIG_SERIAL_CONSOLE=y"))
    assert one.reasons[-1].startswith(
        "it would need CONFIG_SERIAL=y, against your own CONFIG_SERIAL=m ("
    )


def test_m_without_modules(diagnose):
    one = only(diagnose("CONFIG_SERIAL=m"))
    assert (one.unmet.got, one.reasons) == ("y", ("without MODULES=y there is no m: it became y",))
    assert lines(one) == [("CONFIG_MODULES=y",)]
    one = only(diagnose("CONFIG_SERIAL=m", "# CONFIG_MODULES is not set"))
    assert "against your own CONFIG_MODULES=n" in one.reasons[-1]


def test_selected_and_so_not_n(diagnose):
    one = only(diagnose("# CONFIG_LIBRARY is not set", "CONFIG_LIBRARY_USER=y"))
    assert one.reasons[0] == "forced to y by 'select' of LIBRARY_USER=y"
    assert one.reasons[1].startswith(
        "it would need # CONFIG_LIBRARY_USER is not set, against your own CONFIG_LIBRARY_USER"
    )


def test_a_symbol_without_a_prompt(diagnose):
    one = only(diagnose("CONFIG_CRC=y"))
    assert one.reasons == (
        "it has no prompt, so that nobody can set it (Kconfig:30)",
        "it is selected by: CRC_USER=n, CRC_OTHER=n, NE2K=n",
    )
    assert lines(one) == [("CONFIG_CRC_USER=y",)]
    one = only(diagnose("CONFIG_HZ=100"))
    assert "its default is 100 if HZ_100=n" in one.reasons
    assert lines(one) == [("CONFIG_HZ_100=y",)]


def test_choices(diagnose):
    one = only(diagnose("CONFIG_HZ_100=y", "CONFIG_HZ_250=y"))
    assert one.unmet.request.symbol == "HZ_100"
    assert one.reasons[0].startswith(
        'of the choice "Timer frequency" only one can be y: HZ_250 won, asked for at '
    )
    assert one.reasons[1].startswith("drop one of the two, or write '# CONFIG_HZ_100 is not set'")
    assert one.remedies == ()
    one = only(diagnose("CONFIG_HZ_1000=y"))
    assert "    EXPERT=n  <-- not met" in one.reasons
    assert lines(one) == [("CONFIG_EXPERT=y",)]
    assert lines(only(diagnose("# CONFIG_HZ_250 is not set"))) == [("CONFIG_HZ_100=y",)]


def test_strings_and_numbers(diagnose):
    assert lines(only(diagnose('CONFIG_CMDLINE="console=ttyS0"'))) == [("CONFIG_CMDLINE_BOOL=y",)]
    assert lines(only(diagnose("CONFIG_START=0x100000"))) == [("CONFIG_EXPERT=y",)]
    assert only(diagnose("CONFIG_LOG_SHIFT=40")).reasons == ("its range is 12 to 25 (Kconfig:71)",)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("CONFIG_NET=m", "it is of type bool, which takes y or n"),
        ('CONFIG_SERIAL="y"', "it is of type tristate, which takes y, m or n"),
        ("CONFIG_CMDLINE=y", 'it is of type string, which takes a "string" in double quotes'),
        ("CONFIG_LOG_SHIFT=y", "it is of type int, which takes a decimal number"),
    ],
)
def test_a_value_of_the_wrong_type(diagnose, line, reason):
    one = only(diagnose(line))
    assert one.reasons[0].startswith(reason)
    assert one.remedies == ()


def test_unknown_symbols(diagnose):
    assert only(diagnose("CONFIG_SERIAL_CONSOEL=y")).reasons == (
        "no such symbol in this tree; the nearest: CONFIG_SERIAL_CONSOLE",
    )
    assert only(diagnose("CONFIG_QQQQQ=y")).reasons == ("no such symbol in this tree",)
    assert only(diagnose("CONFIG_ARM_ONLY=y")).reasons == (
        "no such symbol: it exists in arch/arm/Kconfig only",
    )
    assert (
        "    ABSENT_HERE=n  <-- not met; this tree does not have it"
        in only(diagnose("CONFIG_NOWHERE=y")).reasons
    )


def test_several_at_once_share_what_helps(diagnose):
    diagnosis = diagnose("CONFIG_INET=y", "CONFIG_NE2K=y", "CONFIG_CRC=y", "CONFIG_ABSENT=y")
    inet, ne2k, crc, absent = diagnosis.explanations
    assert lines(inet) == [("CONFIG_NET=y",)]
    assert len(lines(ne2k)[0]) == 5
    assert lines(crc) == lines(ne2k)  # NE2K selects CRC, which needs no line
    assert absent.remedies == ()
    assert diagnosis.together == lines(ne2k)[0]
    assert "adding these lines would satisfy all that can be:" in explain.report(diagnosis)


def test_optional_ones_are_reported_apart(diagnose):
    text = explain.report(diagnose("CONFIG_INET=y # optional", "CONFIG_CRC=y"))
    head, _, tail = text.partition("optional, and not taken:\n")
    assert "CONFIG_CRC=y did not take" in head
    assert "CONFIG_INET=y did not take" in tail
    assert "CONFIG_INET=y did not take" not in head


def test_out_of_time_the_reasons_stay(diagnose):
    one = only(diagnose("CONFIG_NE2K=y", seconds=0.0))
    assert one.reasons[0].startswith("it depends on")
    assert one.reasons[-1].startswith("no addition was looked for any further")


def test_a_tree_that_cannot_be_read_leaves_the_plain_message(tmp_path):
    (tmp_path / "Kconfig").write_text('config A\n\tbool "A"\n\tof_the_future\n')
    (tmp_path / "f").write_text("CONFIG_A=y\n")
    merged = merge([tmp_path / "f"])
    diagnosis = explain.explain(
        unmet(merged, {}), merged, root=tmp_path, env={}, config=tmp_path / "none"
    )
    text = explain.report(diagnosis)
    assert text.splitlines()[0].endswith("f:1: CONFIG_A=y did not take: got n")
    assert "no explanation: kconfiglib can't read" in text


@pytest.mark.parametrize(
    "text", ['source "missing"\n', "$(error-if,y,no compiler)\n", 'menu "open"\n', "\xff\n"]
)
def test_a_broken_tree_is_one_clear_error(tmp_path, text):
    (tmp_path / "Kconfig").write_text(text, encoding="latin-1")
    with pytest.raises(PiggyError, match="kconfiglib can't read"):
        symbols.load(tmp_path, {})


def test_macros_get_the_environment_given_and_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "of-the-user")
    monkeypatch.chdir(tmp_path)
    assert symbols.load(TREE, {}).syms["HAS_PORTS"].str_value == "n"
    assert symbols.load(TREE, ENV).syms["HAS_PORTS"].str_value == "y"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/Kconfig").write_text('mainmenu "$(shell,touch litter; pwd)"\n')
    place = symbols.load(tmp_path / "tree", {}).mainmenu_text
    assert place != str(tmp_path)
    assert not Path(place).exists()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["Kconfig", "tree"]


def test_the_old_dialect_with_generated_files(tmp_path):
    kconf = symbols.load(DATA / "old", {}, top="Config.in", generated=DATA / "old_obj")
    (tmp_path / "f").write_text("CONFIG_STATIC=y\nCONFIG_ASH_JOBS=y\nCONFIG_SHARED=y # optional\n")
    (tmp_path / "c").write_text("CONFIG_STATIC=y\nCONFIG_ASH=y\n")
    merged = merge([tmp_path / "f"])
    symbols.assume(kconf, {"STATIC": "y"})
    diagnosis = explain.explain(
        unmet(merged, symbols.values(kconf)),
        merged,
        root=DATA / "old",
        env={},
        top="Config.in",
        config=tmp_path / "c",
        base="",
        generated=DATA / "old_obj",
    )
    assert diagnosis.explanations[0].reasons[:2] == (
        "it depends on (shell/Config.in:5):",
        "    SHARED=n  <-- not met",
    )
    assert "against your own CONFIG_STATIC=y" in diagnosis.explanations[0].reasons[-1]


def test_over_a_base_configuration(tmp_path, diagnose):
    """A symbol that the base has on needs no line; one that it has off does."""
    (tmp_path / "f").write_text("CONFIG_NE2K=y\n")
    (tmp_path / "c").write_text("CONFIG_NET=y\nCONFIG_NETDEVICES=y\n")
    merged = merge([tmp_path / "f"])
    diagnosis = explain.explain(
        unmet(merged, {}),
        merged,
        root=TREE,
        env=ENV,
        config=tmp_path / "c",
        under={"NET": "y", "NETDEVICES": "y", "VENDOR_A": "n"},
    )
    assert lines(only(diagnosis)) == [("CONFIG_PCI=y", "CONFIG_VENDOR_A=y", "CONFIG_VENDOR_OLD=y")]


def test_every_remedy_for_every_symbol_holds_when_tried_afresh(kconf, tmp_path):
    """For each symbol, requested alone, the proposed lines make it take in a fresh model."""
    tried = 0
    for name in [sym.name for sym in kconf.unique_defined_syms]:
        for asked in ("y", "m", "n"):
            (tmp_path / "f").write_text(f"CONFIG_{name}={asked}\n")
            requests = merge([tmp_path / "f"]).requests
            symbols.assume(kconf, {name: asked}, "allnoconfig")
            if symbols.value(kconf.syms[name]) == asked:
                continue
            for remedy in kremedy.find(
                kconf,
                requests,
                list(requests.values()),
                base="allnoconfig",
                under={},
                deadline=float("inf"),
            ):
                added = {
                    line.split("=")[0].removeprefix("CONFIG_"): line.split("=")[1]
                    for line in remedy.lines
                }
                symbols.assume(kconf, {name: asked, **added}, "allnoconfig")
                assert symbols.value(kconf.syms[name]) == asked, (name, asked, remedy)
                tried += 1
    assert tried > 20


def test_revise_is_assume_in_less_time(kconf):
    states: Sequence[dict[str, str]] = [
        {},
        {"EXPERT": "y"},
        {"EXPERT": "y", "TTY": "y", "HZ_1000": "y"},
        {"HZ_100": "y"},
        {"HZ_100": "y", "HZ_250": "y"},
        {"HZ_250": "y", "HZ_100": "y"},
        {"NET": "y", "MODULES": "y", "SERIAL": "m"},
        {"CMDLINE_BOOL": "y", "CMDLINE": '"x"'},
        {"LOG_SHIFT": "20", "UNKNOWN": "y", "IMPLIES": "y"},
        {"PRINTK": "n", "EXPERT": "y"},
    ]
    for base in ("", "allnoconfig"):
        for old in states:
            for new in states:
                symbols.assume(kconf, new, base)
                wanted = symbols.values(kconf)
                symbols.assume(kconf, old, base)
                symbols.values(kconf)
                symbols.revise(kconf, old, new, base)
                assert symbols.values(kconf) == wanted, (base, old, new)


def test_the_search_ends_where_symbols_depend_on_each_other(tmp_path):
    def symbol(number: int) -> str:
        others = " || ".join(f"S{other}" for other in range(number + 1, 40))
        return f'config S{number}\n\tbool "{number}"\n\tdepends on {others}\n\n'

    (tmp_path / "Kconfig").write_text("".join(map(symbol, range(39))) + "config S39\n\tbool\n")
    (tmp_path / "f").write_text("CONFIG_S0=y\n")
    kconf, requests = symbols.load(tmp_path, {}), merge([tmp_path / "f"]).requests
    assert (
        kremedy.find(
            kconf, requests, [requests["S0"]], base="allnoconfig", under={}, deadline=float("inf")
        )
        == []
    )
    with pytest.raises(search.OutOfTime):
        kremedy.find(kconf, requests, [requests["S0"]], base="allnoconfig", under={}, deadline=0)


def test_newer_syntax_is_read(tmp_path):
    (tmp_path / "Kconfig").write_text(
        'config MODULES\n\tbool "M"\n\tmodules\n\nconfig OLD\n\tbool\n\ttransitional\n'
        '\nconfig A\n\ttristate "A"\n'
    )
    kconf = symbols.load(tmp_path, {})
    symbols.assume(kconf, {"MODULES": "y", "A": "m"})
    assert symbols.values(kconf) == {"MODULES": "y", "OLD": "n", "A": "m"}


@pytest.mark.parametrize(
    ("line", "means"),
    [
        ("A if B", "A || B = n"),
        ("A if !B", "A || B != n"),
        ("A if B || C", "A || B = n && C = n"),
        ("A if B && !C", "A || B = n || C != n"),
        ("A if !(B || C)", "A || !(B = n && C = n)"),
        ("A if B = m", "A || !B = m"),
        ("A if !(B = m)", "A || B = m"),
        ("A && C if B", "(A && C) || B = n"),
        ("A if B # as C", "A || B = n"),
    ],
)
def test_a_dependency_with_a_condition(tmp_path, line, means):
    """The result is that of menu_add_dep() and expr_trans_compare() in scripts/kconfig."""
    text = "config MODULES\n\tbool\n\tdefault y\n\tmodules\n\n"
    text += "".join(f'config {name}\n\ttristate "{name}"\n\n' for name in "ABC")
    (tmp_path / "Kconfig").write_text(
        f'{text}config X\n\ttristate "X"\n\tdepends on {line}\n\tdepends on A || C if C\n'
        f'config Y\n\ttristate "Y"\n\tdepends on {means}\n\tdepends on A || C || C = n\n'
    )
    kconf = symbols.load(tmp_path, {})
    for values in itertools.product((0, 1, 2), repeat=3):
        for name, value in zip("ABC", values, strict=True):
            kconf.syms[name].set_value(value)
            assert kconf.syms[name].tri_value == value
        assert kconfiglib.expr_value(kconf.syms["X"].direct_dep) == kconfiglib.expr_value(
            kconf.syms["Y"].direct_dep
        )


def test_definitions_by_text(tmp_path):
    assert definitions(TREE, ["NE2K", "ARM_ONLY", "NONE"]) == {
        "NE2K": ["net/Kconfig"],
        "ARM_ONLY": ["arch/arm/Kconfig"],
        "NONE": [],
    }


def test_what_a_kconfig_file_defines(tmp_path):
    path = tmp_path / "Kconfig"
    path.write_bytes(
        b"config A\n\tbool\n  menuconfig B_2 \r\nmenu config C\n"
        b"help\n  see config D\nconfig E F\nreconfig G\nconfig\tH"
    )
    assert defined(path) == {"A", "B_2", "H"}
