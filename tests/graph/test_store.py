"""What was made earlier comes back: real doit on the fake sources, with the store on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import playground
import pytest
from playground import EVERYTHING, Kept, Playground
from test_kill import working_in

from tasks.cache.store import Store
from tasks.cache.store_files import Output

LINKS = ["Image", "piggy.gz", "piggy.o", "compressed_vmlinux", "bzImage"]
KERNEL = ["vmlinux", *LINKS]
CONFIGURED = ["kernel_config", *KERNEL]
ROOT = ["rootfs", "initramfs"]
STORED = [name for name in EVERYTHING if not name.startswith(("fetch", "_unpack", "toolchain"))]
BASE = "configs/kernel/fake-base.config"
PANIC = "kernel/panic.c"
MISC = "arch/x86/boot/compressed/misc.c"
ECHO = "build/src/busybox/coreutils/echo.c"
RC = "overlays/fake/etc/init.d/rcS"


@pytest.fixture(scope="module")
def filled(kept: Kept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project built with the store on, copied aside."""
    play = kept.play
    playground.copy(kept.bare, play.top)
    assert "not kept" not in play.doit(PIGGYBACK_STORE_SIZE="1G").text
    aside = tmp_path_factory.mktemp("store") / "filled"
    playground.copy(play.top, aside)
    return aside


@pytest.fixture
def play(kept: Kept, filled: Path) -> Iterator[Playground]:
    """The project, built and with a store."""
    playground.copy(filled, kept.play.top)
    kept.play.store_size = "1G"
    yield kept.play
    kept.play.store_size = "0"
    kept.play.close()


@contextlib.contextmanager
def changed(*paths: Path) -> Iterator[None]:
    """Put files back as they were, as an editor or git would: by writing them anew."""
    before = {path: path.read_bytes() for path in paths}
    yield
    for path, data in before.items():
        path.write_bytes(data)


def back(play: Playground, kept: Kept, expected: list[str]) -> None:
    """A run that only has these tasks' outputs from the store, and gives the first images; then
    nothing is to be done."""
    result = play.doit()
    assert sorted(result.restored) == sorted(expected), (result.text, result.why)
    assert result.ran == []
    for name in expected:
        assert f"store              {name}  " in result.text
    assert play.digests() == kept.digests
    assert play.doit().restored == []


def blobs(play: Playground) -> list[Path]:
    return sorted(
        path for path in (play.top / "build" / "store" / "blobs").rglob("*") if path.is_file()
    )


def test_an_edit_and_back(play: Playground, kept: Kept) -> None:
    with changed(play.linux / PANIC):
        play.edit(play.linux / PANIC, "printk(why)", "printk(why + 1)")
        after = play.doit()
        assert (after.ran, after.restored) == (KERNEL, [])
        edited = play.digests()
    back(play, kept, KERNEL)
    assert "from the store, as made earlier from the same: vmlinux, Image" in play.doit("why").text
    play.edit(play.linux / PANIC, "printk(why)", "printk(why + 1)")
    assert play.doit().restored == KERNEL
    assert play.digests() == edited


CHANGES: dict[str, tuple[str, Callable[[Playground], object], list[str]]] = {
    "symbol": (BASE, lambda play: play.append(BASE, "CONFIG_EXTRA=y\n"), CONFIGURED),
    "compressor": (
        BASE,
        lambda play: play.edit(BASE, "_GZIP=y\nCONFIG_BLOCK", "_XZ=y\nCONFIG_BLOCK"),
        CONFIGURED,
    ),
    "a comment in a fragment": (
        BASE,
        lambda play: play.append(BASE, "# more\n"),
        ["kernel_config"],
    ),
    "order of fragments": (
        "configs/machines/fake.toml",
        lambda play: play.edit(
            "configs/machines/fake.toml",
            '["fake-base", "fake-serial"]',
            '["fake-serial", "fake-base"]',
        ),
        ["kernel_config"],
    ),
    "overlay file": (RC, lambda play: play.append(RC, "echo more\n"), ROOT),
    "boot loader": (
        f"build/src/linux-6.1/{MISC}",
        lambda play: play.edit(play.linux / MISC, "VO__end", "2 * VO__end"),
        ["compressed_vmlinux", "bzImage"],
    ),
    "busybox": (ECHO, lambda play: play.edit(ECHO, "argv[2]", "argv[3]"), ["busybox", *ROOT]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_and_back(play: Playground, kept: Kept, name: str) -> None:
    file, change, expected = CHANGES[name]
    with changed(play.top / file):
        change(play)
        after = play.doit()
        assert (sorted(after.ran), after.restored) == (sorted(expected), [])
    back(play, kept, expected)
    if name == "symbol":
        why = play.doit("why").text
        assert "CONFIG_EXTRA y -> n" in why
        assert "from the store, as made earlier from the same: kernel_config, vmlinux" in why


# Kbuild's object folder is not taken back: what is made in it after a hit must not be made of the
# later state's parts.


def clean(play: Playground) -> dict[str, str]:
    """The digests of the images that a build from nothing gives, of the same sources, without the
    store."""
    shutil.rmtree(play.top / "build" / "clean" / "fake", ignore_errors=True)
    shutil.copytree(play.top / "dl", play.top / "build" / "clean" / "dl", dirs_exist_ok=True)
    play.doit(
        "build=build/clean",
        "dl=build/clean/dl",
        f"kernel_src={os.path.realpath(play.linux)}",
        f"busybox_src={os.path.realpath(play.top / 'build/src/busybox')}",
        PIGGYBACK_STORE_SIZE="0",
    )
    other = Playground(play.top, play.home)
    other.images = play.top / "build" / "clean" / "fake" / "images"
    return other.digests()


def config_on(play: Playground) -> None:
    play.append(BASE, "CONFIG_EXTRA=y\n")


def panic(play: Playground) -> None:
    play.edit(play.linux / PANIC, "printk(why)", "printk(why + 1)")


def header(play: Playground) -> None:
    play.edit(play.linux / "include/linux/panic.h", "30", "31")


def loader(play: Playground) -> None:
    play.edit(play.linux / MISC, "VO__end", "2 * VO__end")


def real_mode(play: Playground) -> None:
    play.edit(play.linux / "arch/x86/boot/main.c", ";;)\n\t\t;", ';;)\n\t\t__asm__("hlt");')


FIRST: dict[str, Callable[[Playground], None]] = {
    "symbol": config_on,
    "C file": panic,
    "boot loader": loader,
}
THEN: dict[str, tuple[Callable[[Playground], None], list[str]]] = {
    "C file": (
        lambda play: play.edit(play.linux / "lib/string.c", "return p - s", "return s - p"),
        KERNEL,
    ),
    "boot loader": (lambda play: play.edit(play.linux / MISC, "VO__end", "3 * VO__end"), LINKS[3:]),
    "real mode": (real_mode, LINKS[4:]),
}


PAIRS = {("symbol", "C file"), ("C file", "boot loader"), ("boot loader", "real mode")}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(first, then, marks=() if (first, then) in PAIRS else pytest.mark.long)
        for first in FIRST
        for then in THEN
    ],
)
def test_an_edit_right_after(play: Playground, first: str, then: str) -> None:
    files = [play.top / BASE, play.linux / PANIC, play.linux / MISC]
    with changed(*files):
        FIRST[first](play)
        play.doit()
    assert play.doit().restored
    edit, expected = THEN[then]
    edit(play)
    after = play.doit()
    assert (after.ran, after.restored) == (expected, [])
    assert play.digests() == clean(play)
    assert play.doit().ran == []


def test_without_the_object_folders(play: Playground, kept: Kept) -> None:
    """All but the store and the toolchain is gone, then one link has to be made."""
    shutil.rmtree(play.here)
    result = play.doit()
    assert sorted([*result.ran, *result.restored]) == sorted(EVERYTHING)
    assert sorted(result.restored) == sorted(STORED)
    assert play.digests() == kept.digests
    assert not (play.obj / "vmlinux").exists()
    real_mode(play)
    assert play.doit().ran == ["bzImage"]
    assert play.digests() == clean(play)


def test_a_tool_changes_back(play: Playground, kept: Kept) -> None:
    """What another compressor left in the object folder is not taken for what the first one
    made."""
    tool = play.home / "bin" / "gzip"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text('#!/bin/sh\nexec /bin/gzip "$@" -1\n')
    tool.chmod(0o755)
    path = f"{tool.parent}:{play.environ()['PATH']}"
    try:
        assert play.doit(PATH=path).ran == LINKS
        assert play.digests() != kept.digests
        assert play.doit().restored == LINKS
        real_mode(play)
        assert play.doit().ran == ["bzImage"]
        assert play.digests() == clean(play)
    finally:
        shutil.rmtree(tool.parent)


class Toggles:
    """Places of the sources that are in one of two states, and what a clean build gives of each
    state of all of them."""

    def __init__(self, play: Playground) -> None:
        self.play = play
        self.files = [
            play.top / BASE,
            play.linux / PANIC,
            play.linux / "include/linux/panic.h",
            play.linux / MISC,
            play.linux / "arch/x86/boot/main.c",
            play.top / RC,
        ]
        first = [path.read_bytes() for path in self.files]
        for change in (
            config_on,
            panic,
            header,
            loader,
            real_mode,
            lambda play: play.append(RC, "echo more\n"),
        ):
            change(play)
        self.contents = list(zip(first, [path.read_bytes() for path in self.files], strict=True))
        self.state = [1] * len(self.files)
        self.wanted: dict[tuple[int, ...], dict[str, str]] = {}

    def flip(self, number: int, old_time: bool) -> None:
        self.state[number] ^= 1
        self.files[number].write_bytes(self.contents[number][self.state[number]])
        if old_time:  # as `cp -p` or a checkout with kept times would
            os.utime(self.files[number], (0, 0))

    def right(self) -> bool:
        state = tuple(self.state)
        if state not in self.wanted:
            self.wanted[state] = clean(self.play)
        return self.play.digests() == self.wanted[state]


@pytest.mark.parametrize("rounds", [7, pytest.param(14, marks=pytest.mark.long)])
@pytest.mark.parametrize("seed", range(int(os.environ.get("PIGGYBACK_TEST_SEEDS", "1"))))
def test_edits_and_reverts_at_random(play: Playground, seed: int, rounds: int) -> None:
    """Whatever is edited and put back, asked for, cut off or thrown away: the images are those of a
    clean build."""
    dice = random.Random(seed)
    toggles = Toggles(play)
    play.store_size = dice.choice(("1G", "128K"))
    said = []
    for _ in range(rounds):
        for number in dice.sample(range(len(toggles.files)), dice.choice((1, 1, 2))):
            toggles.flip(number, dice.random() < 0.3)
        how = dice.random()
        if how < 0.2:
            play.doit(dice.choice(("vmlinux", "Image", "piggy.gz", "compressed_vmlinux")))
        elif how < 0.4:
            blow(play, dice.uniform(0.1, 1.2))
        elif how < 0.45:
            shutil.rmtree(play.obj)
        elif how < 0.5 and blobs(play):
            os.truncate(dice.choice(blobs(play)), 10)
        result = play.doit()
        said.append((tuple(toggles.state), how, result.ran, result.restored))
        assert toggles.right(), said
    assert play.store_size != "1G" or any(restored for *_, restored in said)


def blow(play: Playground, seconds: float) -> None:
    """Start a run and kill everything of it after so many seconds."""
    process = play.start()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=seconds)
    for pid in [process.pid, *working_in(play.top)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=20)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def blob(play: Playground, digest: str) -> Path:
    return play.top / "build" / "store" / "blobs" / digest[:2] / digest[2:]


def poison(play: Playground, task: str, image: str) -> None:
    """Have the store say of one task that it made something else, with all digests in order."""
    store = Store(play.top / "build" / "store", 1 << 30)
    content = (play.images / image).read_bytes() + b"poison"
    digest = hashlib.sha256(content).hexdigest()[:32]
    blob(play, digest).parent.mkdir(exist_ok=True)
    blob(play, digest).write_bytes(content)
    ((_, place, result),) = [one for one in store.results() if one[2].task == task]
    outputs = [Output(digest, len(content), 0o644), *result.outputs[1:]]
    data = msgspec.msgpack.encode(msgspec.structs.replace(result, outputs=outputs))
    place.write_bytes(hashlib.sha256(data).digest() + data)


def test_a_vmlinux_that_make_would_not_make(play: Playground, kept: Kept) -> None:
    """It is found out as soon as a link is to be made of it, and thrown out."""
    poison(play, "vmlinux", "vmlinux")
    (play.images / "vmlinux").unlink()
    said = play.fails()
    assert "store              vmlinux" in said
    assert "not what make makes from the same files" in said
    result = play.doit()
    assert "vmlinux" in result.ran
    assert play.digests() == kept.digests
    (play.images / "vmlinux").unlink()
    assert play.doit().restored == ["vmlinux"]
    assert play.digests() == kept.digests


def test_verify_does_not_believe_the_store(play: Playground) -> None:
    poison(play, "rootfs", "rootfs.ext2")
    (play.images / "rootfs.ext2").unlink()
    assert play.doit().restored == ["rootfs"]
    assert "rootfs.ext2 differs" in play.fails("verify")
    assert "  store  " not in (play.here / "logs" / "verify.log").read_text()


@pytest.mark.parametrize("then", ["the same", "an edit", "the later state"])
def test_kill_9_while_something_comes_back(
    play: Playground, kept: Kept, then: str, tmp_path: Path
) -> None:
    """Half-way between the first output of vmlinux and the second, which takes long to open."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\ndef wait(event, args):\n    if event == 'open' and args[1] and"
        " '/.System.map.' in str(args[0]):\n        time.sleep(60)\nsys.addaudithook(wait)\n"
    )
    with changed(play.linux / PANIC):
        panic(play)
        play.doit()
    process = play.start(PYTHONPATH=str(tmp_path))
    until = time.monotonic() + 20
    while not list(play.images.glob(".System.map.*.part")) and time.monotonic() < until:
        time.sleep(0.01)
    assert process.poll() is None
    process.kill()
    process.wait(20)
    if then != "the same":
        panic(play)
    if then == "an edit":
        loader(play)
    result = play.doit()
    assert result.restored
    assert play.digests() == (kept.digests if then == "the same" else clean(play))
    assert play.doit().ran == []


def test_a_small_store(play: Playground, kept: Kept) -> None:
    """The limit holds, and what does not fit any more is made."""
    play.store_size = "64K"
    for _ in range(3):
        with changed(play.linux / PANIC, play.top / RC):
            panic(play)
            play.append(RC, "echo more\n")
            play.doit()
        play.doit()
        assert play.digests() == kept.digests
        assert sum(path.stat().st_size for path in blobs(play)) <= 64 << 10


def test_off(play: Playground, kept: Kept) -> None:
    play.store_size = "0"
    before = blobs(play)
    with changed(play.linux / PANIC):
        panic(play)
        assert play.doit().ran == KERNEL
    assert play.doit().ran == KERNEL
    assert blobs(play) == before
    assert "off: store_size=0" in play.doit("store").text


def test_what_the_store_says(play: Playground) -> None:
    said = play.doit("store").text
    assert "vmlinux            1 result, the last used" in said
    assert "B of 1,073,741,824 B" in said
    assert "'store' does not know 'claer'" in play.fails("store", "claer")
    with changed(play.linux / PANIC):
        panic(play)
        play.doit()
    assert "the store should have it" in play.doit("plan").text
    assert "2 results" in play.doit("store").text
    play.doit("store", "clear")
    assert blobs(play) == []
    assert play.doit().ran == KERNEL


def test_how_often_something_was_found(play: Playground) -> None:
    with changed(play.linux / PANIC):
        panic(play)
        play.doit()
    before = json.loads(play.doit("store", "--json").text)
    play.doit()
    told = json.loads(play.doit("store", "--json").text)
    assert told["tasks"]["vmlinux"]["results"] == 2
    assert told["results"]["hits"] - before["results"]["hits"] == len(KERNEL)
    assert told["results"]["looked"] - before["results"]["looked"] == len(KERNEL)
    assert "  found              results " in play.doit("store").text


def test_a_run_by_force(play: Playground) -> None:
    (play.images / "Image").unlink()
    assert play.doit("Image").restored == ["Image"]
    result = play.doit("-a", "Image")
    assert "Image" in result.ran
    assert result.restored == []


def test_another_kernel_and_back(play: Playground, kept: Kept) -> None:
    """The toolchain, whose headers are the kernel's, is looked at again; nothing else runs."""
    play.doit("kernel=6.2")
    assert play.digests() != kept.digests
    result = play.doit()
    assert set(CONFIGURED) <= set(result.restored)
    assert not set(result.ran) & {*CONFIGURED, "busybox_config", "busybox", *ROOT}
    assert play.digests() == kept.digests
    real_mode(play)
    assert play.doit().ran == ["bzImage"]
    assert play.digests() == clean(play)


def test_two_tasks_at_a_time(play: Playground, kept: Kept) -> None:
    with changed(play.linux / PANIC, play.top / RC):
        panic(play)
        play.append(RC, "echo more\n")
        play.doit("-n", "2")
        assert play.digests() == clean(play)
    play.doit("-n", "2")
    assert play.digests() == kept.digests
    assert play.doit().ran == []


def test_the_matrix_takes_it_for_built(play: Playground) -> None:
    machine = play.top / "configs" / "machines" / "fake.toml"
    machine.write_text(machine.read_text().partition("[qemu]")[0])
    (play.images / "vmlinux").unlink()
    play.doit("matrix", "machines=fake")
    (row,) = json.loads((play.top / "build" / "matrix.json").read_text()).values()
    assert row["result"] == "built"
    assert row["sizes"]["vmlinux"] == (play.images / "vmlinux").stat().st_size


def test_a_file_that_names_the_version(play: Playground, kept: Kept) -> None:
    """A new one is an input, too, though no build read it."""
    (play.linux / "localversion-mine").write_text("-mine\n")
    result = play.doit()
    assert "vmlinux" in result.ran
    (play.linux / "localversion-mine").unlink()
    result = play.doit()
    assert "vmlinux" in result.restored
    assert play.digests() == kept.digests
