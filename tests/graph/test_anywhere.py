"""What one checkout made serves another one in another folder, and another user: real doit on the
fake sources, with one store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import playground
import pytest
from playground import EVERYTHING, Kept, Playground
from test_shortway import plain_make

STORED = [name for name in EVERYTHING if not name.startswith(("fetch", "_unpack", "toolchain"))]
PANIC = "kernel/panic.c"
HELD = 'const char *where = "{}";\n'


@pytest.fixture(scope="module")
def first(kept: Kept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a checkout that was built."""
    play = kept.play
    playground.copy(kept.bare, play.top)
    assert "not kept" not in play.doit(PIGGYBACK_STORE_SIZE="1G").text
    aside = tmp_path_factory.mktemp("first") / "store"
    playground.copy(play.top / "build" / "store", aside)
    return aside


@pytest.fixture
def second(kept: Kept, first: Path, tmp_path: Path) -> Iterator[Playground]:
    """Another checkout, in another folder, with a build folder of another name, with that store."""
    play = clone(kept, tmp_path / "a" / "second")
    playground.copy(first, play.top / "kept")
    (play.top / "local.toml").write_text('build = "out"\nstore = "kept"\n')
    yield play
    play.close()


def clone(kept: Kept, top: Path, build: str = "out") -> Playground:
    """A checkout that nothing was built in."""
    home = top.parent / "home"
    home.mkdir(parents=True, exist_ok=True)
    playground.copy(kept.bare, top)
    play = Playground(top, home)
    play.store_size = "1G"
    moved(play, top / build)
    return play


def moved(play: Playground, build: Path) -> None:
    """Have the playground look into another build folder."""
    play.here = build / play.machine
    play.images, play.history = play.here / "images", play.here / "logs" / "history.jsonl"
    play.linux, play.obj = build / "src" / "linux-6.1", play.here / "kernel" / "6.1"


def compiled(play: Playground) -> list[str]:
    """The objects that the last run of each task compiled."""
    logs = [path.read_text() for path in (play.here / "logs").glob("*.log")]
    return re.findall(r"^  (?:CC|AS|LD|LINK) +(\S+)$", "\n".join(logs), re.MULTILINE)


def test_all_is_brought_back_elsewhere(second: Playground, kept: Kept) -> None:
    result = second.doit()
    assert sorted(result.restored) == sorted(STORED), (result.text, result.why)
    assert compiled(second) == []
    assert second.digests() == kept.digests
    again = second.doit()
    assert (again.ran, again.restored) == ([], [])


def test_an_edit_elsewhere_gives_what_make_gives(
    second: Playground, kept: Kept, tmp_path: Path
) -> None:
    second.doit()
    second.edit(second.linux / PANIC, "printk(why)", "printk(why + 1)")
    assert "vmlinux" in second.doit().ran
    assert plain_make(second, second.obj) == []
    clean = clone(kept, tmp_path / "clean")
    clean.store_size = "0"
    moved(clean, clean.top / "build")
    clean.doit("_unpack:linux-6.1")
    clean.edit(clean.linux / PANIC, "printk(why)", "printk(why + 1)")
    clean.doit()
    assert second.digests() == clean.digests()
    second.edit(second.linux / PANIC, "printk(why + 1)", "printk(why)")
    assert "vmlinux" in second.doit().restored
    assert second.digests() == kept.digests
