from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.cache import store, store_files
from tasks.cache.digests import Stamps
from tasks.cache.places import Places
from tasks.cache.store import Store, bytes_of
from tasks.cache.store_files import Output, Result, short_hash
from tasks.cache.store_tag import LIST, USED
from tasks.graph.inputs import RESTORED, Inputs
from tasks.graph.stored import Stored

DAY = 86400
KEY = short_hash(b"key")


def action_one(job: object) -> int:
    return 1


def action_two(job: object) -> int:
    return 2


class World:
    """A task with every kind of input, that makes `out` and `map` from what it reads."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.store = Store(top / "store", 1 << 30)
        self.stamps = Stamps(top / "stamps")
        self.values: dict[str, Any] = {}
        self.settings = {"level": "9"}
        self.action: Any = action_one
        self.name, self.outputs, self.gone = "vmlinux", ["out", "map"], ["sign"]
        self.tree = {"etc/rc": "file 755 x"}
        self.discovered, self.made = ["src.c", "CONFIG_SMP"], ["obj/side.ko"]
        (top / "bin").mkdir()
        (top / "obj").mkdir()
        self.write("bin/gcc", "compiler")
        (top / "bin" / "gcc").chmod(0o755)
        for name in ("in", "src.c", "other.h"):
            self.write(name, name)
        self.write(".config", "CONFIG_SMP=y\n")
        self.more: dict[str, Any] = {}
        self.runs = 0

    def write(self, name: str, text: str) -> None:
        (self.top / name).write_text(text)
        old = (
            time.time_ns() - 10**9
        )  # a file that was there before; its ctime can't be set, so the tests wait instead
        os.utime(self.top / name, ns=(old, old))

    def listing(self) -> Mapping[str, str]:
        return self.tree

    def path(self, name: str) -> str:
        return name if name.startswith("CONFIG_") else str(self.top / name)

    def inputs(self, **more: Any) -> Inputs:
        places = Places({"top": [str(self.top)]}, base=str(self.top))
        stored = Stored(store=self.store, places=lambda: places, relative=False)
        words: dict[str, Any] = {"store": stored, **more}
        return Inputs(
            self.stamps,
            self.action,
            settings=self.settings,
            files=[self.path("in")],
            trees={"overlay": self.listing},
            tools=["gcc"],
            outputs=[self.path(name) for name in self.outputs],
            config=self.path(".config"),
            within=str(self.top),
            gone=[self.path(name) for name in self.gone],
            **words,
        )

    def content(self) -> str:
        """What the action makes: all that it reads."""
        read = [self.top / name for name in ("in", "src.c", ".config", "bin/gcc")]
        return (
            f"{self.name} {self.settings} {self.action.__name__} {self.tree}"
            f" {[path.read_text() for path in read]}"
        )

    def run(self, during: Callable[[], None] = lambda: None, **more: Any) -> str:
        """Do what doit and the graph do; return "fresh", "restored" or "made"."""
        inputs = self.inputs(**more)
        task = SimpleNamespace(name=self.name, values={}, value_savers=[])
        if inputs(task, json.loads(json.dumps(self.values))):
            return "fresh"
        kept = inputs.bring_back(self.name)
        if kept:
            task.values.update(kept[0])
        else:
            self.runs += 1
            for name in self.outputs:
                (self.top / name).write_text(f"{name}: {self.content()}")
            (self.top / "out").chmod(0o751)
            (self.top / "obj/side.ko").write_text(self.content())
            (self.top / "sign").touch()
            during()
            task.values.update(
                {
                    "discovered": [self.path(name) for name in self.discovered],
                    "commands": 7,
                    "made": [self.path(name) for name in self.made],
                    **self.more,
                }
            )
        for saver in task.value_savers:
            task.values.update(saver())
        self.values = task.values
        return "restored" if kept else "made"

    def right(self) -> bool:
        return all(
            (self.top / name).read_text() == f"{name}: {self.content()}" for name in self.outputs
        )

    def blobs(self) -> list[Path]:
        return sorted(path for path in (self.top / "store" / "blobs").rglob("*") if path.is_file())

    def states(self) -> list[Path]:
        return sorted(
            path
            for path in (self.top / "store" / "results").rglob("*")
            if path.is_file() and path.name != LIST
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    made = World(tmp_path)
    settle()
    return made


def settle() -> None:
    """Wait until what was written just now is older than a task that begins."""
    time.sleep(0.012)


EDITS: dict[str, Callable[[World], None]] = {
    "setting": lambda world: world.settings.update(level="1"),
    "code": lambda world: setattr(world, "action", action_two),
    "file": lambda world: world.write("in", "edited"),
    "tree": lambda world: world.tree.update({"etc/more": "link x"}),
    "tool": lambda world: world.write("bin/gcc", "another"),
    "source": lambda world: world.write("src.c", "edited"),
    "symbol": lambda world: world.write(".config", "CONFIG_SMP=m\n"),
}
REVERTS: dict[str, Callable[[World], None]] = {
    "setting": lambda world: world.settings.update(level="9"),
    "code": lambda world: setattr(world, "action", action_one),
    "file": lambda world: world.write("in", "in"),
    "tree": lambda world: world.tree.pop("etc/more") and None,
    "tool": lambda world: world.write("bin/gcc", "compiler"),
    "source": lambda world: world.write("src.c", "src.c"),
    "symbol": lambda world: world.write(".config", "CONFIG_SMP=y\n"),
}


@pytest.mark.parametrize("part", EDITS)
def test_each_part_of_the_inputs_counts(world: World, part: str) -> None:
    assert world.run() == "made"
    first = (world.top / "out").read_text()
    EDITS[part](world)
    settle()
    assert world.run() == "made"
    assert (world.top / "out").read_text() != first
    REVERTS[part](world)
    assert world.run() == "restored"
    assert (world.top / "out").read_text() == first
    assert world.right()
    EDITS[part](world)
    assert world.run() == "restored"
    assert world.right()
    assert world.run() == "fresh"
    assert world.runs == 2


@pytest.mark.parametrize("change", ["name", "outputs"])
def test_another_task_or_output_is_another_key(world: World, change: str) -> None:
    world.run()
    setattr(world, change, {"name": "Image", "outputs": ["out", "other"]}[change])
    world.values = {}
    assert world.run() == "made"


def test_what_comes_back(world: World) -> None:
    """Contents, modes and values; what was made beside the targets is not kept."""
    world.run()
    assert RESTORED not in world.values
    record = world.values["record"]
    for name in ("out", "map", "sign"):
        assert (world.top / name).exists()
        if name != "sign":
            (world.top / name).unlink()
    world.values = {}
    assert world.run() == "restored"
    assert (world.top / "out").stat().st_mode & 0o777 == 0o751
    assert not (
        world.top / "sign"
    ).exists()  # as asked: the folder is not in the state of this result
    assert {name: world.values[name] for name in ("commands", RESTORED)} == {
        "commands": 7,
        RESTORED: True,
    }
    assert world.values["record"] == record
    assert (world.top / "out").stat().st_nlink == 1


def test_what_was_made_beside_the_targets_goes_unless_it_is_the_same(world: World) -> None:
    world.run()
    world.write("src.c", "edited")
    settle()
    world.run()
    world.write("src.c", "src.c")
    assert world.run() == "restored"
    assert not (
        world.top / "obj/side.ko"
    ).exists()  # of the later state; make would take it for good
    assert world.path("obj/side.ko") not in world.values["record"]["outputs"]
    assert world.run() == "fresh"


def test_a_target_under_another_setting_stays(world: World) -> None:
    world.run()
    world.outputs = ["out.xz", "map"]
    settle()
    world.run()
    world.outputs = ["out", "map"]
    assert world.run() == "restored"
    assert (world.top / "out.xz").exists()


def test_a_result_in_use_elsewhere_is_not_enough(world: World) -> None:
    """A task that may no longer use the store runs where it was brought back, even if nothing
    changed."""
    world.run()
    world.values = {}
    assert world.run() == "restored"
    assert world.run(store=None) == "made"
    assert world.run(store=None) == "fresh"
    assert world.inputs().reasons == []


def test_a_run_by_force_is_a_run(world: World) -> None:
    world.run()
    inputs = world.inputs()
    assert inputs(SimpleNamespace(values={}, value_savers=[]), {}) is False
    inputs.forced = True
    assert inputs.bring_back(world.name) is None
    inputs.forced = False
    assert inputs.bring_back(world.name) is not None


def test_off(world: World) -> None:
    world.store.limit = 0
    assert world.run() == "made"
    world.values = {}
    assert world.run() == "made"
    assert not world.store.folder.exists()
    world.store.limit = 1 << 30
    world.values = {}
    assert world.run() == "made"
    world.store.limit = 0
    world.values = {}
    assert world.run() == "made"


# What must not be kept: what may have been made from something else than the record says.


def touched_known(world: World) -> None:
    world.write("src.c", "edited while it ran")


def touched_and_back(world: World) -> None:
    world.write("src.c", "edited while it ran")
    world.write("src.c", "src.c")


UNSURE: dict[str, Callable[[World], None]] = {
    "discovered input": touched_known,
    "discovered input, and back": touched_and_back,
    "declared file": lambda world: world.write("in", "edited"),
    "declared file, and back": lambda world: (world.write("in", "edited"), world.write("in", "in"))[
        0
    ],
    "tool": lambda world: world.write("bin/gcc", "another"),
    "tree": lambda world: world.tree.update({"more": "x"}),
    "symbol": lambda world: world.write(".config", "# CONFIG_SMP is not set\n"),
    "input gone": lambda world: (world.top / "src.c").unlink(),
    "output gone": lambda world: (world.top / "map").unlink(),
}


@pytest.mark.parametrize("again", [False, True], ids=["first run", "later run"])
@pytest.mark.parametrize("what", UNSURE)
def test_what_changed_meanwhile_is_not_kept(world: World, what: str, again: bool) -> None:
    if again:
        world.store.limit = 0
        world.run()
        world.store.limit = 1 << 30
        world.values["record"]["settings"]["level"] = "8"
        settle()
    world.run(during=lambda: UNSURE[what](world))
    assert world.states() == []


def test_an_output_that_is_not_the_recorded_one_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = Store._keep

    def late(self: Store, number: int, output: Output, fill: Any) -> int:
        world.write(world.outputs[number], "somebody else wrote this")
        return keep(self, number, output, fill)

    monkeypatch.setattr(Store, "_keep", late)
    world.run()
    assert world.states() == []
    assert world.blobs() == []
    assert "vmlinux is not kept: an output changed" in capsys.readouterr().out


# Damage


@pytest.mark.parametrize("how", ["cut", "same size", "gone", "folder"])
def test_a_damaged_blob(world: World, how: str) -> None:
    world.run()
    right = {blob: blob.read_bytes() for blob in world.blobs()}
    assert len(right) == 2
    for blob in right:
        blob.chmod(0o644)
        if how == "cut":
            os.truncate(blob, 3)
        elif how == "same size":
            blob.write_bytes(b"x" * blob.stat().st_size)
        else:
            blob.unlink()
        if how == "folder":
            blob.mkdir()
    for name in world.outputs:
        (world.top / name).write_text("mine")
    world.values = {}
    assert world.run() == "made"
    assert world.right()
    if how != "folder":
        assert {blob: blob.read_bytes() for blob in world.blobs()} == right  # mended
        world.values = {}
        assert world.run() == "restored"


def test_nothing_is_written_when_one_of_the_outputs_is_damaged(world: World) -> None:
    world.run()
    world.values = {}
    by_digest = {
        store_files.short_hash((world.top / name).read_bytes()): name for name in world.outputs
    }
    for name in world.outputs:
        (world.top / name).write_text("mine")
    for blob in world.blobs():
        if by_digest[blob.parent.name + blob.name] == "map":
            blob.chmod(0o644)
            blob.write_bytes(b"")
    inputs = world.inputs()
    inputs(SimpleNamespace(values={}, value_savers=[]), {})
    assert inputs.bring_back(world.name) is None
    assert [(world.top / name).read_text() for name in world.outputs] == ["mine", "mine"]
    assert not list(world.top.glob(".*.part"))


def test_a_result_that_is_not_whole(world: World) -> None:
    """Each cut and each flipped bit is found out."""
    world.run()
    (place,) = world.states()
    data = place.read_bytes()
    dice = random.Random(1)
    spoilt = [data[:length] for length in (0, 1, 31, 32, 33, len(data) // 2, len(data) - 1)]
    for _ in range(40):
        at = dice.randrange(len(data))
        spoilt.append(data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :])
    for bad in spoilt:
        place.write_bytes(bad)
        assert world.store.read(place) is None
        assert place.read_bytes() == bad  # to look at it removes nothing
        world.values = {}
        assert world.inputs().bring_back(world.name) is None
        assert not place.exists()
    place.write_bytes(data)
    assert world.store.read(place) is not None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data + b"\0x",
        lambda data: data[:5] + b"?" + data[6:],
    ],
)
def test_a_list_that_is_not_whole(world: World, spoil: Callable[[bytes], bytes]) -> None:
    world.run()
    (place,) = (world.top / "store" / "results").rglob(LIST)
    place.write_bytes(spoil(place.read_bytes()))
    world.values = {}
    assert world.run() == "made"
    assert world.right()
    world.values = {}
    assert world.run() == "restored"


def test_two_lists_under_one_key(world: World) -> None:
    """What a source includes depends on itself, so that the list of one state is not that of
    another."""
    world.run()
    world.write("src.c", "includes other.h")
    world.discovered = ["src.c", "CONFIG_SMP", "other.h"]
    settle()
    assert world.run() == "made"
    world.write("src.c", "src.c")
    assert world.run() == "restored"
    world.write("src.c", "includes other.h")
    assert world.run() == "restored"
    world.write("other.h", "edited")
    settle()
    assert world.run() == "made"


def test_nothing_discovered(world: World) -> None:
    world.discovered = []
    world.run()
    world.values = {}
    assert world.run() == "restored"


def test_what_the_action_is_unsure_of_is_not_kept(world: World) -> None:
    world.more = {"unsure": True}
    world.run()
    assert world.states() == []
    assert "unsure" not in world.values
    world.values, world.more = {}, {"unsure": False}
    world.run()
    assert len(world.states()) == 1


def test_names_that_are_no_utf_8(world: World) -> None:
    odd = os.fsdecode(b"\xffsrc.c")
    (world.top / odd).write_text("x")
    world.discovered = [odd]
    settle()
    world.run()
    world.values = {}
    assert world.run() == "restored"
    (world.top / odd).write_text("y")
    world.values = {}
    assert world.run() == "made"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"what": object()}, "unsupported"),
        ({"what": Path("x")}, "unsupported"),
        ({"what": 1 << 70}, "serialize ints"),
        ({"what": os.fsdecode(b"\xff")}, "surrogate"),
    ],
    ids=["object", "path", "number", "text"],
)
def test_what_can_not_be_written_down_is_said(
    world: World, values: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A task whose results are never kept would be made anew for ever, and nobody would know."""
    world.more = values
    world.run()
    assert world.states() == world.blobs() == []
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("  store              vmlinux is not kept: ")
    assert said in line


def test_an_output_that_is_no_file_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store", 1 << 20)
    output = Output("folder", 4096, 0o755)
    store.put(KEY, {}, Result("_unpack", 0.0, {}, [output]), [tmp_path])
    assert capsys.readouterr().out == (
        "  store              unpack is not kept: 'folder' is no digest\n"
    )


def test_an_input_that_is_missing_each_time_is_said(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    (world.top / "headers").mkdir()
    world.discovered = ["src.c", "headers/never.h"]
    time.sleep(0.1)  # the folder is older than the run
    world.run()
    assert world.run() == "fresh"
    assert world.states() == []
    assert capsys.readouterr().out == (
        f"  store              vmlinux is not kept: {world.top}/headers/never.h, which it was made"
        " from, is missing\n"
    )


def test_an_input_that_may_have_gone_meanwhile_is_not_believed(world: World) -> None:
    """Its folder was touched while the action ran."""
    world.discovered = ["src.c", "gone.h"]
    world.run()
    assert world.run() != "fresh"
    assert world.states() == []


@pytest.mark.parametrize("what", ["symbols", "folder"])
def test_what_was_made_from_something_that_can_not_be_read_is_not_kept(
    world: World, what: str
) -> None:
    if what == "symbols":
        (world.top / ".config").unlink()
        world.content = lambda: ""  # type: ignore[method-assign]
    else:
        world.listing = lambda: 1 / 0  # type: ignore
        with pytest.raises(ZeroDivisionError):  # a bug is none of these
            world.run()

        def fail() -> Mapping[str, str]:
            raise OSError("no folder")

        world.listing = fail  # type: ignore[method-assign]
    settle()
    world.run()
    assert world.states() == []
    assert world.inputs()(SimpleNamespace(value_savers=[], values={}), world.values) is False


# Space


def put(cache: Store, top: Path, number: int, size: int, used: float | None = None) -> Path:
    """Put a result of `size` bytes in, last used at that time; return its place."""
    path = top / "output"
    path.write_bytes(random.Random(number).randbytes(size))
    output = Output(store_files.short_hash(path.read_bytes()), size, 0o644)
    found = {"src.c": f"{number:032}"}
    before = {place for _, place, _ in cache.results()}
    cache.put(KEY, found, Result("vmlinux", 0.0, {}, [output]), [path])
    (place,) = {place for _, place, _ in cache.results()} - before or {top}
    if used is not None and place != top:
        os.utime(place, (used, used))
    return place


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = Store(tmp_path / "store", 1 << 20)
    now = time.time()
    places = [put(cache, tmp_path, number, 100_000, now - DAY + number) for number in range(9)]
    assert [place.exists() for place in places] == [True] * 9
    assert cache.find(
        KEY, lambda names: dict.fromkeys(names, f"{0:032}")
    )  # the oldest is used again
    last = put(cache, tmp_path, 9, 200_000)
    assert last.exists()
    kept = [place.exists() for place in places]
    assert kept[0]
    assert kept[1:] == sorted(kept[1:])
    assert not kept[1]
    assert 0.5 * (1 << 20) < cache.size() <= 1 << 20
    blobs = [path for path in (tmp_path / "store" / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == sum(kept) + 1


def test_the_limit_holds_over_many(tmp_path: Path) -> None:
    cache = Store(tmp_path / "store", 1 << 20)
    for number in range(60):
        put(cache, tmp_path, number, 50_000 + number * 1000)
        assert cache.size() <= (1 << 20) + 4096
        assert cache.find(KEY, lambda names, number=number: dict.fromkeys(names, f"{number:032}"))
    again = Store(tmp_path / "store", 1 << 18)  # another run, with a smaller limit
    put(again, tmp_path, 100, 1000)
    assert again.size() <= 1 << 18


def test_all_files_are_looked_at_once_in_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    size = Store.size
    monkeypatch.setattr(Store, "size", lambda self: looks.append(1) or size(self))
    used = tmp_path / "store" / USED
    for number in range(4):  # runs of their own
        cache = Store(tmp_path / "store", 1 << 20)
        put(cache, tmp_path, number, 100_000)
        assert len(looks) == 1
        assert int(used.read_text().split()[1]) == size(cache)
    for text in ("", "x", "1 2", f"{int(time.time()) + 99} 5", f"{int(time.time())} -5", "\0"):
        looks.clear()
        used.write_text(text)
        put(Store(tmp_path / "store", 1 << 20), tmp_path, 99, 1000)
        assert looks, text
        assert int(used.read_text().split()[1]) == size(cache)
    used.write_text(f"{int(time.time())} {1 << 20}")  # as told by another run: full
    oldest = cache.results()[-1][1]
    os.utime(oldest, (1, 1))
    smaller = Store(tmp_path / "store", 300_000)
    put(smaller, tmp_path, 100, 1000)
    assert not oldest.exists()
    assert size(smaller) <= 300_000
    assert not used.exists()


def test_what_is_larger_than_the_store_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store", 1 << 20)
    small = put(store, tmp_path, 1, 1000)
    assert capsys.readouterr().out == ""
    assert put(store, tmp_path, 2, 2 << 20) == tmp_path
    assert small.exists()
    assert capsys.readouterr().out == (
        "  store              vmlinux is not kept: it takes 2,097,152 B, and store_size= allows"
        " 1,048,576 B\n"
    )


def test_a_blob_that_another_result_has_stays(tmp_path: Path) -> None:
    cache = Store(tmp_path / "store", 1 << 30)
    path = tmp_path / "output"
    path.write_bytes(b"same" * 1000)
    output = Output(store_files.short_hash(path.read_bytes()), 4000, 0o644)
    for number in range(3):
        cache.put(
            KEY, {"src.c": f"{number:032}"}, Result("Image", float(number), {}, [output]), [path]
        )
    assert len(list((tmp_path / "store" / "blobs").rglob("*/*"))) == 1
    oldest = min(place for _, place, _ in cache.results())
    os.utime(oldest, (1, 1))
    cache.trim(cache.size() - 4096)
    assert not oldest.exists()
    assert len(cache.results()) == 2
    _, _, result = cache.results()[0]
    assert cache.bring_back(result, [tmp_path / "back"])


def test_what_a_killed_run_left_goes_when_it_is_old(tmp_path: Path) -> None:
    cache = Store(tmp_path / "store", 1 << 30)
    place = put(cache, tmp_path, 1, 1000)
    blobs = tmp_path / "store" / "blobs"
    rest, state = "5" * 30, "a" * 32
    litter = [
        blobs / "00" / rest,
        blobs / "00" / f".{rest}.abcd_123.part" / rest,
        blobs / "00" / f".{rest}.abcd_124.part",
        tmp_path / "store" / "results" / KEY / ("b" * 32) / f".{state}.abcd_123.part" / state,
        tmp_path / "store" / "results" / KEY / ("b" * 32) / ".list.abcd_123.part",
    ]
    for path in litter:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"orphan")
    cache.trim(1 << 30)
    assert all(
        path.exists() for path in litter
    )  # a run that is at work just now may have written them
    folders = {
        parent
        for path in litter
        for parent in path.parents
        if parent.name.endswith(("part", "b" * 32, "00"))
    }
    for old in [*litter, *folders]:
        os.utime(old, (1, 1))
    cache.trim(1 << 30)
    cache.trim(1 << 30)
    assert not any(path.exists() for path in litter)
    assert place.exists()
    assert cache.bring_back(cache.results()[0][2], [tmp_path / "back"])


def test_clear(world: World) -> None:
    world.run()
    world.store.clear()
    assert world.store.results() == []
    assert world.store.size() == 0
    world.values = {}
    assert world.run() == "made"


# Faults


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_store_that_takes_nothing_costs_a_line(
    world: World, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path) -> Any:
        raise OSError(number, os.strerror(number), os.fspath(path))

    world.run()
    monkeypatch.setattr(store, "replacing_file", full)
    for text in ("one", "two"):
        world.write("src.c", text)
        settle()
        assert world.run() == "made"
        assert world.right()
    said = f"  store              {world.store.folder} takes nothing now: {os.strerror(number)}\n"
    assert capsys.readouterr().out == said


def test_a_store_that_is_no_folder(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.store.folder.write_text("a file")
    assert world.run() == "made"
    assert world.right()
    assert (
        capsys.readouterr().out
        == f"  store              the store {world.store.folder} is no folder\n"
    )
    assert world.store.size() == 0
    assert world.store.results() == []


@pytest.fixture
def modest() -> Iterator[None]:
    """Have modes of files bind us even if we are root: without the capabilities CAP_DAC_OVERRIDE
    and CAP_DAC_READ_SEARCH (capabilities(7), capget(2))."""
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; the lower halves first
    assert libc.capget(header, sets) == 0
    effective = sets[0]
    sets[0] = effective & ~0b110
    assert libc.capset(header, sets) == 0
    yield
    sets[0] = effective
    assert libc.capset(header, sets) == 0


def test_a_read_only_store_still_gives(world: World, modest: None) -> None:
    world.run()
    files = [world.store.folder, *world.store.folder.rglob("*")]
    for path in files:
        path.chmod(0o555 if path.is_dir() else 0o444)
    world.values = {}
    try:
        with pytest.raises(PermissionError):
            (world.store.folder / "new").touch()
        assert world.run() == "restored"
        world.write("src.c", "edited")
        assert world.run() == "made"
        assert [world.store.folder, *world.store.folder.rglob("*")] == files
    finally:
        for path in files:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_no_room_for_the_outputs_is_left_to_the_task(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run()
    world.values = {}

    def full(source: Path, draft: Path, digest: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(store, "_copy", full)
        assert world.run() == "made"
    world.values = {}
    assert world.run() == "restored"


def test_where_the_kernel_can_not_copy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As between two file systems on older kernels."""

    def refuse(*words: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    world.run()
    world.values = {}
    assert world.run() == "restored"
    assert world.right()


def test_who_trims_is_not_waited_for(tmp_path: Path) -> None:
    cache = Store(tmp_path / "store", 1 << 20)
    put(cache, tmp_path, 1, 100_000)
    with (tmp_path / "store" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cache.trim(1)
        assert len(cache.results()) == 1
    cache.trim(1)
    assert cache.results() == []


def work(top: Path, seed: int) -> None:
    """A run of its own: puts, finds and trims, and what it brings back must be right."""
    dice = random.Random(seed)
    top.mkdir()
    cache = Store(top.parent / "store", 3 << 18)
    for _ in range(120):
        number = dice.randrange(25)
        size = 20_000 + number * 1000
        found = cache.find(KEY, lambda names, number=number: dict.fromkeys(names, f"{number:032}"))
        if found and cache.bring_back(found[0], [top / "back"]):
            assert (top / "back").read_bytes() == random.Random(number).randbytes(size)
        else:
            (top / "output").write_bytes(random.Random(number).randbytes(size))
            output = Output(short_hash((top / "output").read_bytes()), size, 0o644)
            cache.put(
                KEY, {"src.c": f"{number:032}"}, Result("x", 0.0, {}, [output]), [top / "output"]
            )


def test_several_at_once(tmp_path: Path) -> None:
    """Each of them puts, finds, and makes room."""
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=work, args=(tmp_path / str(seed), seed)) for seed in range(4)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    cache = Store(tmp_path / "store", 3 << 18)
    put(cache, tmp_path, 1000, 10)
    assert 0 < cache.size() <= 4 * (3 << 18)
    back = 0
    for _, _, result in cache.results():
        if cache.bring_back(result, [tmp_path / "back"]):
            back += 1
        else:  # another one made room between its content and the result
            assert not cache.blob(result.outputs[0].digest).exists()
    assert back


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("500M", 500 << 20),
        ("2G", 2 << 30),
        ("1.5K", 1536),
        ("1T", 1 << 40),
        ("0G", 0),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert bytes_of(text) == count
