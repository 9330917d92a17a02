"""Kconfig's program without make, on a tree with nothing but that program, which is C."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.kbuild import conf, watch
from tasks.kbuild.ask import Request
from tasks.system.jobserver import Budget
from tasks.system.process import clean_env

TOP = """\
export srctree := $(CURDIR)
export COLOUR := blue
export CONFIG_TOP := $(shell cat $(CURDIR)/top)
%config:
	@$(MAKE) --no-print-directory -C $(O) -f $(CURDIR)/Makefile.build obj=scripts/kconfig $@
"""
BUILD = """\
-include include/config/auto.conf
conf := scripts/kconfig/conf
FORCE:
syncconfig allnoconfig: $(conf) FORCE
	@echo something to say
	@$< $(silent) --$@ $(CONFIG_TOP)
pairconfig: $(conf) FORCE
	@$< --pair
	@$< --config
shellconfig: $(conf) FORCE
	@$< --shellconfig Kconfig >out
otherconfig: FORCE
	@echo > .config
$(conf): $(conf).o
	cc -o $@ $<
	@echo 'cmd_$@ := cc -o $@ $<' > scripts/kconfig/.conf.cmd
$(conf).o: $(srctree)/conf.c
	@mkdir -p scripts/kconfig
	cc -c -o $@ $<
"""
SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void ask(FILE *out, const char *command)
{
	char text[4096];
	FILE *in = popen(command, "r");
	size_t size = fread(text, 1, sizeof(text), in);
	fprintf(out, "%s -> %.*s (%d)\n", command, (int)size, text, pclose(in));
}
int main(int argc, char **argv)
{
	FILE *out = fopen(".config", "w");
	const char *from = getenv("KCONFIG_ALLCONFIG");
	fprintf(out, "%s %s %s\n", argv[1], argv[2], from ? from : "");
	ask(out, "cat $srctree/answer");
	ask(out, "echo $COLOUR; exit 3");
	ask(out, "cat $srctree/none 2>/dev/null");
	ask(out, "cat $srctree/big");
	puts("conf was here");
	return !strcmp(argv[1], "--allnoconfig") && from && !strcmp(from, "bad");
}
"""


@dataclass
class Tree:
    top: Path
    pins: dict[str, str]

    @property
    def obj(self) -> Path:
        return self.top.parent / "obj"

    @property
    def argv(self) -> list[str]:
        return ["make", "-C", str(self.top), "--no-print-directory", f"O={self.obj}"]

    @property
    def log(self) -> Path:
        return self.top.parent / "log"

    def make(self, goal: str, **env: str) -> str:
        """Run make, as it would run conf; return the result."""
        subprocess.run(
            [*self.argv, goal],
            check=True,
            env=clean_env({**self.pins, **env}),
            stdout=subprocess.DEVNULL,
        )
        return (self.obj / ".config").read_text()

    def taken(self, goal: str, **env: str) -> str:
        """Try it without make; return the reason why make has to decide, or how it was done."""
        (self.obj / ".config").unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)
        budget = Budget(2)
        request = Request(self.argv, self.obj, goal, self.pins, env, budget, self.log)
        done = conf.taken(request)
        found = re.search(r"^# Kconfig: (make decides|without make): (.*)$", self.said, re.M)
        assert found
        assert done == (found[1] == "without make")
        return found[2]

    @property
    def said(self) -> str:
        return self.log.read_text()

    def age(self) -> None:
        """Let what was just written be old enough to be trusted."""
        time.sleep(2 * watch.RACY_NS / 1e9)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.top / name).read_text()
        assert old in text
        (self.top / name).write_text(text.replace(old, new))
        self.age()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    for name in ("tree", "obj"):
        (tmp_path / name).mkdir()
    for name, text in (
        ("Makefile", TOP),
        ("Makefile.build", BUILD),
        ("conf.c", SOURCE),
        ("answer", "yes\n"),
        ("big", "x" * 5000),
        ("top", "Kconfig"),
    ):
        (tmp_path / "tree" / name).write_text(text)
    return Tree(tmp_path / "tree", {"PIN": "1"})


@pytest.fixture
def built(tree: Tree) -> Tree:
    tree.make("syncconfig")
    tree.age()
    return tree


def test_make_decides_until_the_program_is_built(tree: Tree) -> None:
    assert tree.taken("syncconfig") == "its program is not built"
    tree.make("syncconfig")
    tree.age()
    assert "4 commands run, make was asked for the first time" in tree.taken("syncconfig")


def test_it_does_what_make_does(built: Tree) -> None:
    for goal, env in (("syncconfig", {}), ("allnoconfig", {"KCONFIG_ALLCONFIG": "some"})):
        expected = built.make(goal, **env)
        built.taken(goal, **env)
        assert (built.obj / ".config").read_text() == expected
        how = built.taken(goal, **env)
        assert how.startswith(f"scripts/kconfig/conf --{goal} Kconfig, 4 answers known, 0 commands")
        assert "make was asked" not in how
        assert (built.obj / ".config").read_text() == expected
        assert "conf was here" in built.said


def test_an_answer_holds_as_long_as_its_files(built: Tree) -> None:
    built.taken("syncconfig")
    (built.top / "none").write_text("now")
    built.age()
    assert ", 3 answers known, 1 commands run" in built.taken("syncconfig")
    built.edit("answer", "yes", "no")
    assert ", 3 answers known, 1 commands run" in built.taken("syncconfig")
    assert (built.obj / ".config").read_text() == built.make("syncconfig")
    assert ", 4 answers known, 0 commands run" in built.taken("syncconfig")


def test_what_changes_at_the_same_moment_is_asked_again(built: Tree) -> None:
    built.taken("syncconfig")
    (built.top / "answer").write_text("racy")
    assert ", 3 answers known, 1 commands run" in built.taken("syncconfig")
    assert ", 3 answers known, 1 commands run" in built.taken("syncconfig")


def test_make_is_asked_again_when_a_makefile_changed(built: Tree) -> None:
    built.taken("syncconfig")
    built.edit("Makefile", "blue", "red")
    how = built.taken("syncconfig")
    assert f"make was asked, as {built.top}/Makefile changed" in how
    assert (built.obj / ".config").read_text() == built.make("syncconfig")
    assert "red" in (built.obj / ".config").read_text()


def test_make_is_asked_again_when_a_file_that_it_read_changed(built: Tree) -> None:
    built.taken("syncconfig")
    built.edit("top", "Kconfig", "Kconfig.other")
    built.taken("syncconfig")
    assert (built.obj / ".config").read_text().startswith("--syncconfig Kconfig.other")


def test_nothing_is_known_in_another_environment(built: Tree) -> None:
    built.taken("syncconfig")
    built.pins["PIN"] = "2"
    assert ", 0 answers known, 4 commands run" in built.taken("syncconfig")


def test_the_configuration_itself_makes_no_difference(built: Tree) -> None:
    built.taken("syncconfig")
    auto = built.obj / "include/config/auto.conf"
    auto.parent.mkdir(parents=True)
    auto.write_text("CONFIG_A=y\n")
    assert "make was asked" not in built.taken("syncconfig")


def test_a_program_whose_source_changed_is_left_to_make(built: Tree) -> None:
    built.taken("syncconfig")
    built.edit("conf.c", "%s %s %s", "%s-%s-%s")
    assert built.taken("syncconfig") == "its program was just built anew"
    built.age()
    built.taken("syncconfig")
    assert (built.obj / ".config").read_text() == built.make("syncconfig")
    assert (built.obj / ".config").read_text().startswith("--syncconfig-Kconfig-")


def lose_program(tree: Tree) -> None:
    (tree.obj / conf.PROGRAM).unlink()


def lose_watcher(tree: Tree) -> None:
    (tree.obj / conf.WATCHER).unlink()


def cut_off(tree: Tree) -> None:
    program = tree.obj / conf.PROGRAM
    program.write_bytes(program.read_bytes()[:5000])


def replace(tree: Tree) -> None:
    (tree.obj / conf.PROGRAM).write_text("#!/bin/sh\necho replaced > .config\n")


def spoil(tree: Tree) -> None:
    (tree.obj / conf.FILE).write_bytes(b"\x81\xff")


@pytest.mark.parametrize("change", [lose_program, lose_watcher, cut_off, replace, spoil])
def test_what_is_lost_is_made_again(built: Tree, change: Callable[[Tree], None]) -> None:
    expected = built.make("syncconfig")
    built.taken("syncconfig")
    change(built)
    built.taken("syncconfig")
    assert (built.obj / ".config").read_text() == expected
    assert "0 commands run" in built.taken("syncconfig")


@pytest.mark.parametrize("goal", ["pairconfig", "shellconfig", "otherconfig"])
def test_a_target_that_is_more_than_a_run_of_conf(built: Tree, goal: str) -> None:
    for first in (True, False):
        assert built.taken(goal) == f"the target {goal} is more than one run of {conf.CONF}"
        assert ("$ " in built.said) == first  # it is asked once
        assert not (built.obj / ".config").exists()


def test_a_failure_is_left_to_make(built: Tree) -> None:
    how = built.taken("allnoconfig", KCONFIG_ALLCONFIG="bad")
    assert how == "scripts/kconfig/conf --allnoconfig Kconfig ended with status 1"
    assert built.taken("noconfig") == "make failed when it was asked"


def test_what_is_no_text_is_not_remembered(built: Tree) -> None:
    (built.top / "answer").write_bytes(b"\xff\n")
    built.age()
    for _ in range(2):
        assert ", 0 answers known" in built.taken("syncconfig")
    ours = (built.obj / ".config").read_bytes()
    subprocess.run([*built.argv, "syncconfig"], check=True, env=clean_env(built.pins))
    assert (built.obj / ".config").read_bytes() == ours


def test_where_it_cannot_be_built_make_decides_from_then_on(
    built: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = built.top.parent / "broken.c"
    broken.write_text("#error here\n")
    monkeypatch.setattr(watch, "SOURCE", broken)
    assert "can't be built here" in built.taken("syncconfig")
    assert "#error here" in built.said
    assert "can't be built here" in built.taken("syncconfig")
    assert "#error here" not in built.said


def test_a_link_command_that_needs_a_shell(built: Tree) -> None:
    record = built.obj / "scripts/kconfig/.conf.cmd"
    for command in ("cc `flags` -o scripts/kconfig/conf a.o", "cc -o scripts/kconfig/other a.o"):
        record.write_text(f"cmd_scripts/kconfig/conf := {command}\n")
        assert built.taken("syncconfig") == "its program is not linked by a plain command"
    record.unlink()
    assert "can't be read" in built.taken("syncconfig")
