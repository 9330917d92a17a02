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


OWN = "$(obj)/a.o: $(src)/a.c FORCE\n"
DEP, RULE = "\t$(call if_changed_dep,cc)\n", "\t$(call if_changed_rule,{})\n"


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (OWN + DEP, False),
        (OWN + RULE.format("cc_o_c"), False),
        (OWN + "\t$(Q)mkdir -p $(dir $@)\n" + DEP, False),
        (OWN + "ifdef CONFIG_A\n" + DEP + "endif\n# comment\n\nobj-y += b.o\n", False),
        (OWN + RULE.format("cc_o_c_more"), True),
        (OWN + DEP + "\t$(OBJCOPY) $@\n", True),
        (OWN + DEP + "\n# comment\n\t$(OBJCOPY) \\\n\t\t$@\n", True),
        (OWN + "ifdef CONFIG_A\n" + DEP + "endif\n\t$(OBJCOPY) $@\n", True),
        (OWN + "\t$(call cmd_and_fixdep,cc_o_c)\n", True),
        (OWN[:-1] + " ; $(call if_changed_dep,cc); strip $@\n", True),
        ("$(objs): %.o: %.c FORCE\n" + DEP + "\tstrip $@\n", True),
        ("$(obj)/%.o: $(src)/%.c FORCE\n" + DEP + "\tstrip $@\n", True),
        ("define compile\n" + DEP + "\tstrip $@\nendef\n", True),
        ("$(objs): FORCE\n" + DEP + "\tstrip $@\n", True),
        ("$(obj)/a.h: FORCE\n" + DEP + "\tstrip $@\n", False),
        ("$(obj)/a.h: FORCE\n" + RULE.format("header") + OWN + DEP, False),
        ("define rule_header\n\t$(call cmd_and_savecmd,x)\n\t$(call cmd,y)\nendef\n", False),
    ],
)
def test_a_rule_with_more_steps(text: str, more: bool) -> None:
    assert object_rules.goes_on(text) == more


def test_the_makefiles_of_a_folder(tmp_path: Path) -> None:
    more = OWN + RULE.format("more")
    files = {
        "drivers/a/Makefile": "include $(srctree)/$(src)/more.mk\n",
        "drivers/a/more.mk": "include $(srctree)/scripts/Makefile.more\n",
        "scripts/Makefile.more": more,
        "scripts/Makefile.build": more,
        "drivers/b/Makefile": "include $(srctree)/scripts/Makefile.build\n",
        "drivers/c/Kbuild": "-include $(other)/x.mk\n",
        "drivers/c/d/Makefile": "",
        "Makefile": more,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    more_mk = f"{tmp_path}/scripts/Makefile.more"
    own = object_rules.Own(tmp_path, {})
    assert own.of("drivers/a/x.o") == own.of("drivers/a/deep/y.o") == more_mk
    for name in ("drivers/b/x.o", "drivers/x.o", "x.o"):
        assert own.of(name) == ""
    computed = f"{tmp_path}/drivers/c/Kbuild"
    assert own.of("drivers/c/x.o") == computed
    assert object_rules.Own(tmp_path, {computed: ["drivers/c"]}).of("drivers/c/x.o") == ""
    told = {f"{tmp_path}/scripts/Makefile.build": ["drivers/b"], f"{tmp_path}/Makefile": ["c", "."]}
    own = object_rules.Own(tmp_path, told)
    assert own.of("drivers/b/x.o") == ""
    assert own.of("c/d/x.o") == f"{tmp_path}/Makefile"
