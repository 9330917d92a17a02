"""What Kbuild's rules do to an object after the compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.kbuild import object_rules
from tasks.kbuild.saved import Unfamiliar

RULES = """
define rule_cc_o_c
	$(call cmd_and_fixdep,cc_o_c)
	$(call cmd,{})
endef

define rule_as_o_S
	$(call cmd_and_fixdep,as_o_S)
	$(call cmd,gen_objtooldep)
endef
"""


CONFIG = (
    "#\n# Automatically generated"
    ' file\n#\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_C="y"\nCONFIG_MODVERSIONS_NOT=y\n'
)


def checks(tmp_path: Path, rules: str, config: str = CONFIG) -> dict[str, str]:
    """What is left to check after the compiler, in a tree with these rules and a folder with this
    configuration."""
    scripts, include = tmp_path / "src" / "scripts", tmp_path / "obj" / "include" / "config"
    scripts.mkdir(parents=True, exist_ok=True)
    include.mkdir(parents=True, exist_ok=True)
    (scripts / "Makefile.build").write_text(rules)
    (include / "auto.conf").write_text(config)
    return object_rules.checks(tmp_path / "obj", tmp_path / "src")


def test_steps_that_do_nothing_to_an_object(tmp_path: Path) -> None:
    for step in (
        "checksrc",
        "checkdoc",
        "gen_objtooldep",
        "warn_shared_object",
        "gen_ksymdeps",
        "objtool",
        "record_mcount",
        "gen_symversions_c",
        "modversions_c",
    ):
        assert checks(tmp_path, RULES.format(step)) == {}


def test_the_rules_may_be_in_the_other_makefile(tmp_path: Path) -> None:
    (tmp_path / "src" / "scripts").mkdir(parents=True)
    (tmp_path / "src" / "scripts" / "Makefile.lib").write_text(RULES.format("save_c_flags"))
    assert checks(tmp_path, "# nothing\n") == {}
    with pytest.raises(Unfamiliar, match="save_c_flags"):
        checks(tmp_path, "# nothing\n", "CONFIG_LTO_CLANG_THIN_DIST=y\n")


def test_the_check_of_exports_is_run(tmp_path: Path) -> None:
    script = str(tmp_path / "src" / "scripts" / "check-local-export")
    assert checks(tmp_path, RULES.format("check_local_export")) == {".c": script}


@pytest.mark.parametrize(
    ("step", "config"),
    [
        ("gen_symversions_c", "CONFIG_MODVERSIONS=y\n"),
        ("modversions_c", "CONFIG_A=y\nCONFIG_MODVERSIONS=y\n"),
        ("record_mcount", "CONFIG_FTRACE_MCOUNT_RECORD=y\n"),
        ("gen_ksymdeps", "CONFIG_TRIM_UNUSED_KSYMS=y\n"),
        ("objtool", "CONFIG_STACK_VALIDATION=y\n"),
        ("sign_object", ""),
    ],
)
def test_steps_that_are_left_to_make(tmp_path: Path, step: str, config: str) -> None:
    with pytest.raises(Unfamiliar, match=step):
        checks(tmp_path, RULES.format(step), config)


@pytest.mark.parametrize(
    "rules",
    [
        "",
        RULES.format("checksrc").replace("rule_as_o_S", "rule_other"),
        RULES.format("checksrc").replace("	$(call cmd,gen_objtooldep)", "	$(Q)mv $@ $@.tmp"),
        RULES.format("checksrc").replace(
            "	$(call cmd,gen_objtooldep)", "	$(call cmd,gen_objtooldep); touch $@\n	@:"
        ),
    ],
)
def test_rules_that_are_new(tmp_path: Path, rules: str) -> None:
    with pytest.raises(Unfamiliar):
        checks(tmp_path, rules)


def test_symbols_that_are_set(tmp_path: Path) -> None:
    checks(tmp_path, RULES.format("checksrc"))
    assert object_rules.enabled(tmp_path / "obj") == {"A", "MODVERSIONS_NOT"}
