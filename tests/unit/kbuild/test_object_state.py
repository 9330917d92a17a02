"""The states of an object's inputs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cmd_files import put

from tasks.cache.digests import Stamps
from tasks.kbuild.object_key import Roots
from tasks.kbuild.object_state import States
from tasks.kbuild.saved import Unfamiliar

AHEAD = 10**18


@pytest.fixture
def states(tmp_path: Path) -> States:
    put(tmp_path / "obj/include/config/auto.conf", "CONFIG_A=y\n")
    return States(Roots(str(tmp_path / "tree"), str(tmp_path / "obj")), Stamps(tmp_path / "stamps"))


@pytest.mark.parametrize(
    "text",
    [
        '__asm__(".incbin \\"logo\\"");',
        '.include "asm/macros.h"',
        "#if __has_include(<x.h>)",
        "# embed <x>",
        'char *s = "/*"; __asm__(".incbin \\"x\\""); /* */',
        'char c = \'"\'; /* " */ __asm__(".incbin x");',
        "// a comment \\\n.incbin",
        "/* one */ .incbin /* two */",
        "#define ON(x) IS_ENABLED(CONFIG_SERIAL_##x)",
        "char s[] = __TIMESTAMP__;",
        "#define HAS(p, x) p##_##x\nint b = HAS(CONFIG, A);",
        "#pragma GCC system_header",  # -MMD then leaves out what it includes
    ],
)
def test_a_source_that_names_what_no_record_names(states: States, text: str) -> None:
    path = put(Path(states.roots.tree) / "a.c", f"int a;\n{text}\n")
    with pytest.raises(Unfamiliar, match="names what no record names"):
        states.check(str(path), time.time_ns() + AHEAD, 0)


@pytest.mark.parametrize(
    "text",
    [
        # arch/x86/include/asm/nospec-branch.h, which nearly all objects of x86 read
        '/*\n * from C via asm(".include <asm/nospec-branch.h>") but let\'s not go there.\n */',
        "// .incbin is not used here",
        "int included = x.includes; /* __has_include */",
        'char *s = "/*"; /* .incbin */ char *t = "*/";',
    ],
)
def test_a_comment_reads_nothing(states: States, text: str) -> None:
    path = put(Path(states.roots.tree) / "a.h", f"int a;\n{text}\nint b;\n")
    states.check(str(path), time.time_ns() + AHEAD, 0)


def test_an_input_that_changed_after_its_state_was_read(states: States) -> None:
    path = put(Path(states.roots.tree) / "a.h", "int a;\n")
    began = time.time_ns()
    states.of([str(path)], str(path))
    while time.time_ns() - began < 20_000_000:  # more than a tick of the file system's clock
        time.sleep(0.01)
    path.write_text("int b;\n")
    with pytest.raises(Unfamiliar, match="changed"):
        states.check(str(path), began, 0)


def test_a_link_that_was_turned_after_the_compiler_read_it(states: States) -> None:
    """To a file that nobody touched meanwhile, and which has the state that would be recorded."""
    tree = Path(states.roots.tree)
    for name in ("one.c", "two.c"):
        put(tree / name, f'char *name = "{name}";\n')
    (tree / "a.c").symlink_to("one.c")
    time.sleep(0.03)  # more than a tick of the file system's clock
    began = time.time_ns()
    time.sleep(0.03)
    states.check(str(tree / "one.c"), began, 0)
    (tree / "a.c").unlink()
    (tree / "a.c").symlink_to("two.c")
    states.of([], str(tree / "a.c"))
    with pytest.raises(Unfamiliar, match="changed"):
        states.check(str(tree / "a.c"), began, 0)


def test_a_configuration_that_is_not_in_force(states: States, tmp_path: Path) -> None:
    name = "$(wildcard include/config/A)"
    assert states.of([], name) == "y"
    other = States(states.roots, Stamps(tmp_path / "stamps"), {"B": "y"})
    assert other.of([], name) == "n"
    assert other.of([], "$(wildcard include/config/B)") == "y"
