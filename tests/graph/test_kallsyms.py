"""The link of vmlinux with its table of symbols, on the fake kernel: begun with the last table the
short way, with make's result."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from playground import Playground
from test_shortway import LINKS, as_make_does, plain_make, short, way

FRAGMENT = "configs/kernel/fake-base.config"
MORE = "int more(void) { return 1; }\n"


@pytest.fixture
def listed(built: Playground) -> Playground:
    built.append(FRAGMENT, "CONFIG_KALLSYMS=y\n")
    built.doit("bzImage")
    return built


def links(play: Playground) -> int:
    """How often the last run linked vmlinux."""
    return (play.here / "logs/vmlinux.log").read_text().count("\n  LD ")


def test_as_long_as_no_symbol_comes_or_goes(listed: Playground, tmp_path: Path) -> None:
    panic, old = listed.linux / "kernel/panic.c", "panic_timeout--;"
    for new in ("printk(why), panic_timeout -= 3;", "panic_timeout *= 5;"):
        listed.edit(panic, old, new)
        old = new
        short(listed, tmp_path, *LINKS)
        assert links(listed) == 2


def test_a_symbol_that_comes_and_goes(listed: Playground, tmp_path: Path) -> None:
    """Its name makes the table longer, so one link more is needed, as for make; the next one begins
    with that table."""
    panic = listed.linux / "kernel/panic.c"
    before = panic.read_text()
    for text in (before + MORE, before):
        panic.write_text(text)
        short(listed, tmp_path, *LINKS)
        assert links(listed) == 3
        panic.write_text(text.replace("printk(why);", "printk(why), printk(why);"))
        short(listed, tmp_path, *LINKS)
        assert links(listed) == 2


@pytest.mark.parametrize("damage", [b"no object", None])
def test_a_table_that_is_spoilt_or_gone(
    listed: Playground, tmp_path: Path, damage: bytes | None
) -> None:
    for path in listed.obj.glob(".tmp_vmlinux.kallsyms?.o"):
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage)
    listed.append(listed.linux / "kernel/panic.c", MORE)
    listed.doit("bzImage")
    assert way(listed, "vmlinux") == (
        "short" if damage is None else "the command of vmlinux failed"
    )
    assert links(listed) >= 3
    assert as_make_does(listed, tmp_path)
    assert plain_make(listed, listed.obj) == []


def test_the_size_of_each_part_is_known_after_it(listed: Playground) -> None:
    """Which links vmlinux once more, with the tables that lie there."""
    listed.append(listed.linux / "kernel/panic.c", MORE)
    listed.doit("bzImage")
    assert "(kallsyms)" in listed.doit("size", "--all").text


def test_a_second_link_in_one_run(listed: Playground) -> None:
    """The third step's table is the last one, and has been moved by the first link."""
    listed.append(listed.linux / "kernel/panic.c", MORE)
    listed.doit("bzImage")
    assert (listed.obj / ".tmp_vmlinux.kallsyms3.o").exists()
    listed.edit(listed.linux / "kernel/panic.c", "printk(why);", "printk(why), printk(why);")
    listed.doit("bzImage")
    script = (listed.obj / "piggyback.link-vmlinux.sh").read_text()
    first = ".tmp_vmlinux.kallsyms1.o"
    (begun,) = [line for line in script.splitlines() if f" = {first} ]" in line]
    assert "kallsyms3.o" in begun
    assert not (listed.obj / ".tmp_vmlinux.kallsyms3.o").exists()
    subprocess.run(["sh", "-ec", begun], cwd=listed.obj, check=True)
    assert (listed.obj / first).exists()
