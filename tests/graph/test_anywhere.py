"""What one checkout made serves another one in another folder, and another user: real doit on the
fake sources, with one store."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import playground
import pytest
import skips
from playground import EVERYTHING, Kept, Playground
from test_shortway import plain_make

STORED = [name for name in EVERYTHING if not name.startswith(("fetch", "_unpack", "toolchain"))]
PANIC = "kernel/panic.c"
NOBODY = 65534


@pytest.fixture(scope="module", autouse=True)
def programs() -> Iterator[None]:
    """Those that each user of this host has: others may be in folders of root's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        yield


@pytest.fixture(scope="module")
def first(kept: Kept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a checkout that was built."""
    play = kept.play
    playground.copy(kept.bare, play.top)
    assert "not kept" not in play.doit(PIGGYBACK_STORE_SIZE="1G").text
    aside = tmp_path_factory.mktemp("first") / "store"
    playground.copy(play.top / "build" / "store", aside)
    playground.copy(play.top / "build" / "toolchains", aside.parent / "toolchains")
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
    assert "\n  store              libc  " in result.text
    again = second.doit()
    assert (again.ran, again.restored) == ([], [])


def test_a_libc_that_was_brought_back_is_linked_with(
    second: Playground, kept: Kept, first: Path
) -> None:
    second.doit()
    user = json.loads((second.here / "userspace.json").read_text())
    (copied,) = (first.parent / "toolchains").glob("[0-9a-f]*")
    home, other = Path(user["cc"]).parents[1], kept.play.top / "build" / "toolchains" / copied.name
    assert other.name != home.name
    for mine, theirs in ((path, copied / path.relative_to(home)) for path in home.rglob("*")):
        if mine.is_file():
            text = theirs.read_bytes().replace(bytes(other), bytes(home))
            assert mine.name == ".sha256" or mine.read_bytes() == text
    second.edit(second.linux.parent / "busybox/coreutils/echo.c", "argv[2]", "argv[3]")
    second.doit("busybox")
    assert second.digests()["busybox"] != kept.digests["busybox"]
    second.edit(second.linux.parent / "busybox/coreutils/echo.c", "argv[3]", "argv[2]")
    assert second.doit("busybox", PIGGYBACK_STORE_SIZE="0").ran == ["busybox"]
    assert second.digests()["busybox"] == kept.digests["busybox"]


def test_another_source_of_the_libc_is_built(second: Playground) -> None:
    second.doit("_unpack:musl")
    second.append(second.linux.parent / "musl/libc.c", "int more;\n")
    result = second.doit("busybox")
    assert "libc  /" not in result.text
    assert "busybox" in result.ran


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


def test_another_user_with_another_umask(kept: Kept, first: Path) -> None:
    """The store is a copy of the user's own, since only that is trusted."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    argv = [*playground.as_user(NOBODY), sys.executable, "-c", "import doit"]
    if subprocess.run(argv, check=False, capture_output=True).returncode:
        skips.this_host(f"{sys.executable} is not for everybody")
    base = Path(tempfile.mkdtemp(dir="/tmp", prefix="piggyback-user-"))
    try:
        base.chmod(0o755)
        play = clone(kept, base / "theirs", "build")
        (play.top / "build").mkdir()
        playground.copy(first, play.top / "build" / "store")
        subprocess.run(["chmod", "-R", "go=", play.top], check=True)
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", play.top, play.home], check=True)
        play.user, play.umask = NOBODY, 0o077
        result = play.doit()
        assert sorted(result.restored) == sorted(STORED), (result.text, result.why)
        assert compiled(play) == []
        assert play.digests() == kept.digests
        assert (play.images / "bzImage").stat().st_uid == NOBODY
    finally:
        shutil.rmtree(base)


def two_trees(kept: Kept, tmp_path: Path) -> tuple[Playground, Playground]:
    """Two checkouts with their trees unpacked, and one store."""
    plays = []
    for name in ("one", "two/deeper"):
        play = clone(kept, tmp_path / name)
        (play.top / "local.toml").write_text(f'build = "out"\nstore = "{tmp_path}/kept"\n')
        play.doit("_unpack:linux-6.1", "_unpack:busybox")
        plays.append(play)
    return plays[0], plays[1]


def with_debug_information(play: Playground) -> None:
    play.append(play.linux / "arch/x86/Makefile", "KBUILD_CFLAGS += -g\n")


def with_compressed_debug_information(play: Playground) -> None:
    play.append(play.linux / "arch/x86/Makefile", "KBUILD_CFLAGS += -g -gz\n")


def with_a_name_of_its_own(play: Playground) -> None:
    play.edit(play.linux / "Makefile", " -fmacro-prefix-map=$(srctree)/=", "")
    play.append(play.linux / PANIC, "const char *where = __FILE__;\n")


@pytest.mark.parametrize(
    "how",
    [
        with_compressed_debug_information,
        with_a_name_of_its_own,
        pytest.param(with_debug_information, marks=pytest.mark.long),
    ],
)
def test_a_kernel_that_holds_its_path_stays(
    kept: Kept, tmp_path: Path, how: Callable[[Playground], None]
) -> None:
    one, two = two_trees(kept, tmp_path)
    for play in (one, two):
        how(play)
        assert "vmlinux" in play.doit("bzImage").ran
    shutil.rmtree(one.images)
    assert "vmlinux" in one.doit("bzImage").restored


def test_a_busybox_stripped_of_its_path_stays(kept: Kept, tmp_path: Path) -> None:
    """The linker's build ID is a hash over the debug information, and stays."""
    one, two = two_trees(kept, tmp_path)
    for play in (one, two):
        play.edit(
            "configs/machines/fake.toml", 'arch = "x86_64"\n', 'arch = "x86_64"\ncflags = "-g"\n'
        )
        assert "busybox" in play.doit("rootfs").ran
    shutil.rmtree(one.images)
    assert "busybox" in one.doit("rootfs").restored


def test_trees_of_the_users_own(kept: Kept, tmp_path: Path) -> None:
    """They count by their content, wherever they lie, also inside the build folder."""
    one, two = two_trees(kept, tmp_path)
    mine = {one: tmp_path / "linux", two: two.top / "out" / "trees" / "mine"}
    words = {}
    for play, tree in mine.items():
        tree.parent.mkdir(exist_ok=True)
        playground.copy(play.linux.resolve(), tree)
        (tree / ".piggyback-source").unlink()
        words[play] = [f"kernel_src={tree}"]
    assert "vmlinux" in one.doit(*words[one], "bzImage").ran
    result = two.doit(*words[two], "bzImage")
    assert [name for name in STORED if name in result.ran] == []
    assert result.restored[-1] == "bzImage"
    assert (one.images / "bzImage").read_bytes() == (two.images / "bzImage").read_bytes()
    two.edit(mine[two] / PANIC, "printk(why)", "printk(why + 1)")
    assert "vmlinux" in two.doit(*words[two], "bzImage").ran


def test_a_host_with_another_program_that_kconfig_asks(second: Playground, kept: Kept) -> None:
    """It is configured anew, and nothing else: the configuration is the same."""
    (second.home / "bin").mkdir()
    (second.home / "bin" / "rustc").write_text("#!/bin/sh\necho 9\n")
    (second.home / "bin" / "rustc").chmod(0o755)
    result = second.doit(PATH=f"{second.home}/bin:{second.environ()['PATH']}")
    assert sorted(result.restored) == sorted({*STORED} - {"kernel_config"})
    assert second.digests() == kept.digests


def test_two_build_folders_of_a_checkout(kept: Kept, first: Path, tmp_path: Path) -> None:
    play = clone(kept, tmp_path / "project", "build")
    words = [f"store={first}", "vmlinux"]
    assert "vmlinux" in play.doit(*words).restored
    moved(play, play.top / "build" / "two")
    assert "vmlinux" in play.doit(*words, "build=build/two").restored


def test_through_links(kept: Kept, first: Path, tmp_path: Path) -> None:
    """The project by a link to it, and its build folder on another disk."""
    play = clone(kept, tmp_path / "real", "build")
    (tmp_path / "disk").mkdir()
    (play.top / "build").symlink_to(tmp_path / "disk")
    playground.copy(first, tmp_path / "disk" / "store")
    (tmp_path / "link").symlink_to(play.top)
    result = play.doit(cwd=tmp_path / "link")
    assert sorted(result.restored) == sorted(STORED), (result.text, result.why)
    assert play.digests() == kept.digests
