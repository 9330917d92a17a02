"""What a store does not touch, and what it does not believe: files of the user's, and what somebody
else put there."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tasks.cache import store_tag
from tasks.cache.store import Store
from tasks.cache.store_files import Output, Result, short_hash
from tasks.cache.store_tag import LIST, TAG
from tasks.system import owned
from tasks.system.errors import PiggyError
from tests.unit.cache.test_store import KEY, World, put, world

__all__ = ["world"]  # the fixture
NAMES, STATE, REST = short_hash(b"names"), short_hash(b"state"), "5" * 30


def tree(top: Path) -> dict[str, object]:
    """Everything below a folder: modes, times but those of folders, contents, and where links
    lead."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        info = path.lstat()
        content = (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        )
        found[str(path.relative_to(top))] = (
            info.st_mode,
            0 if path.is_dir() else info.st_mtime_ns,
            content,
        )
    return found


def lay(path: Path, text: str = "mine", age: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (age, age))
    return path


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a result of an experiment": lambda top: lay(top / "results" / "experiment.csv"),
    "blobs of another program": lambda top: lay(top / "blobs" / "sha256" / REST),
    "blobs of another program, by names of our form": lambda top: lay(top / "blobs" / "ab" / REST),
    "results by MD5": lambda top: lay(top / "results" / KEY / NAMES / LIST),
    "a home": lambda top: lay(top / ".profile"),
    "a hidden folder": lambda top: (top / ".git").mkdir(parents=True),
    "results is a link": lambda top: (
        lay(top.parent / "elsewhere" / KEY / NAMES / STATE),
        top.mkdir(),
        (top / "results").symlink_to(top.parent / "elsewhere"),
    ),
    "another cache's tag": lambda top: lay(
        top / TAG, "Signature: 8a477f597d28d172789f06886806bc55\n# of cargo"
    ),
    "an empty tag, and a file": lambda top: (lay(top / TAG, ""), lay(top / "blobs" / "x")),
    "the begin of a tag that others have, and results": lambda top: (
        lay(top / TAG, "Signature: 8a477f597d28d172789f06886806bc55\n"),
        lay(top / "results" / KEY / NAMES / LIST),
    ),
    "a tag that is a link": lambda top: (lay(top / "x"), (top / TAG).symlink_to("x")),
    "a tag that is a pipe": lambda top: (top.mkdir(), os.mkfifo(top / TAG)),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_folder_that_is_no_store_is_refused_and_left_alone(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    top = tmp_path / "top" / "store"
    top.parent.mkdir()
    FOREIGN[what](top)
    before = tree(top.parent)
    message = f"the folder {top} is not empty, and it is no store of Piggyback's; it is left alone"
    for check in (store_tag.check, store_tag.opened):
        with pytest.raises(PiggyError) as caught:
            check(top)
        assert caught.value.message == message
    assert "'store=' must name a folder that is empty" in caught.value.hint
    store = Store(top, 1 << 20)  # and whoever does not ask
    (tmp_path / "output").write_text("x")
    result = Result("x", 0.0, {}, [Output(short_hash(b"x"), 1, 0o644)])
    for _ in range(2):
        store.put(KEY, {}, result, [tmp_path / "output"])
        assert store.find(KEY, lambda names: {}) is None
    assert tree(top.parent) == before
    assert capsys.readouterr().out == f"  store              {message}\n"


@pytest.mark.parametrize(
    "make",
    [
        lambda top: None,
        lambda top: top.mkdir(),
        lambda top: lay(top / "lock", ""),
        lambda top: (top / "results").mkdir(parents=True),
    ],
    ids=["missing", "empty", "lock", "empty results"],
)
def test_what_becomes_a_store(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "store")
    store = Store(tmp_path / "store", 1 << 20)
    assert put(store, tmp_path, 1, 100) != tmp_path
    assert (
        (tmp_path / "store" / TAG)
        .read_text()
        .startswith(
            "Signature: 8a477f597d28d172789f06886806bc55\n# A store of Piggyback, format 1.\n"
        )
    )
    store_tag.check(tmp_path / "store")


@pytest.mark.parametrize("length", [0, 20, 80])
def test_a_tag_that_a_power_cut_left(world: World, length: int) -> None:
    world.run()
    path = world.store.folder / TAG
    whole = path.read_text()
    path.write_text(whole[:length])
    for list_ in (world.store.folder / "results").glob(f"*/*/{LIST}"):
        if length != 20:  # of which nobody can tell whose it is
            list_.write_text("")
    assert store_tag.opened(world.store.folder) == ""
    assert path.read_text() == whole


def test_a_store_of_a_later_format(tmp_path: Path) -> None:
    store_tag.tag(tmp_path)
    lay(tmp_path / TAG, (tmp_path / TAG).read_text().replace("format 1.", "format 2."))
    with pytest.raises(PiggyError, match="has format 2, and this Piggyback knows 1"):
        store_tag.check(tmp_path)


@pytest.mark.parametrize("mode", [0o755, 0o775], ids=oct)
def test_a_store_from_before_there_were_tags_is_taken_over(world: World, mode: int) -> None:
    """As it was made, under a umask of 022 or 002."""
    world.run()
    folders = [
        world.store.folder,
        *(path for path in world.store.folder.rglob("*") if path.is_dir()),
    ]
    (world.store.folder / TAG).unlink()
    (world.store.folder / store_tag.USED).unlink()
    for path in folders:
        path.chmod(mode)
        os.chown(path, -1, os.getegid())
    world.store, world.values = Store(world.store.folder, 1 << 30), {}
    assert world.run() == "restored"
    assert (world.store.folder / TAG).is_file()
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o755}


def users_files(top: Path) -> None:
    """What somebody may have put into a store, all of it old; with names that are nearly ours, and
    links to what are."""
    outside = top.parent / "outside"
    lay(outside / KEY / NAMES / STATE)
    lay(outside / KEY / NAMES / LIST)
    lay(outside / REST)
    for name in (
        "notes.txt",
        "results/experiment.csv",
        f"results/{KEY}/readme",
        f"results/{KEY}/mine/{STATE}",
        f"results/{KEY}/{NAMES}/{STATE}.bak",
        f"results/{KEY}/{NAMES}/deep/{STATE}",
        "lists/list",
        f"results/{KEY.upper()}/{NAMES}/list",
        f"blobs/00/{REST}.orig",
        f"blobs/000/{REST}",
        f"blobs/{REST}",
        f"blobs/00/.{REST}.abc.part/{REST}",
        f"results/{KEY}/{NAMES}/.list.abc.part",
        f"results/{KEY}/{NAMES}/.other.abcdefgh.part",
        f"blobs/00/.{REST}.abcdefgh.part/other",
    ):
        lay(top / name)
    (top / "results" / ("1" * 32)).symlink_to(outside / KEY)
    (top / "results" / KEY / ("2" * 32)).symlink_to(outside / KEY / NAMES)
    (top / "results" / KEY / NAMES / ("3" * 32)).symlink_to(outside / KEY / NAMES / STATE)
    (top / "blobs" / "11").symlink_to(outside)
    (top / "blobs" / "00" / ("4" * 30)).symlink_to(outside / REST)
    (top / "lock").symlink_to(outside / REST)
    os.mkfifo(top / "blobs" / "00" / ("6" * 30))


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.trim(0),
        lambda store: store.clear(),
        lambda store: store.results(),
        lambda store: store.size(),
        lambda store: store.drop("00" + "4" * 30),
        lambda store: store.find(KEY, lambda names: dict.fromkeys(names, "")),
    ],
    ids=["trim", "clear", "results", "size", "drop", "find"],
)
def test_files_of_the_users_in_a_store_stay(tmp_path: Path, act: Callable[[Store], object]) -> None:
    top = tmp_path / "place" / "store"
    store_tag.tag(top)
    users_files(top)
    before = tree(top.parent)
    store = Store(top, 1 << 20)
    act(store)
    assert tree(top.parent) == before
    assert store.size() == 0
    place = put(store, tmp_path, 1, 1000)
    assert place != tmp_path
    store.clear()
    (top / "lock").unlink()
    (top / "lock").touch()
    store.clear()
    assert not place.exists()
    after = tree(top.parent)
    assert {**after, "store/lock": before["store/lock"]} == before


def test_results_that_became_a_link(world: World) -> None:
    world.run()
    results = world.store.folder / "results"
    results.rename(world.top / "moved")
    results.symlink_to(world.top / "moved")
    before = tree(world.top / "moved")
    world.store.trim(0)
    world.store.clear()
    assert tree(world.top / "moved") == before
    world.values = {}
    assert world.run() == "made"
    assert tree(world.top / "moved") == before


def rewrite(world: World, **changes: Any) -> None:
    """Write the result anew with other parts, as somebody would who knows how: all checksums are
    right."""
    (place,) = world.states()
    data = msgspec.msgpack.encode(msgspec.to_builtins(world.store.read(place)) | changes)
    place.write_bytes(hashlib.sha256(data).digest() + data)


@pytest.mark.parametrize(
    "name",
    [
        "xx{}",
        "../../../../../../../../..{}",
        "ab/../../../../victim",
        "ab" + "0" * 29 + "/",
        "",
        "A" * 32,
        "0" * 31,
        "0" * 33,
        "0" * 32 + "\n",
        "ab\0" + "0" * 29,
    ],
)
def test_a_planted_digest_leads_nowhere(world: World, name: str) -> None:
    victim = lay(world.top / "victim", "precious")
    world.run()
    right = [msgspec.to_builtins(output) for output in world.store.read(world.states()[0]).outputs]  # type: ignore[union-attr]
    rewrite(world, outputs=[[name.format(victim), 8, 0o644], right[1]])
    assert world.store.read(world.states()[0]) is None
    with pytest.raises(ValueError, match="is no digest"):
        world.store.blob(name.format(victim))
    world.store.drop(name.format(victim))
    world.values = {}
    assert world.run() == "made"
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": [["0" * 32, 8, 1 << 40]]},
        {"outputs": [["0" * 32, -1, 0o644]]},
        {"outputs": [["0" * 32, 8, -1]]},
        {"time": float("nan")},
        {"time": float("inf")},
        {"time": -1.0},
        {"time": "x"},
        {"values": []},
        {"values": {"a": msgspec.msgpack.Ext(5, b"x")}},
        {"made": {"a": 1}},
        {"task": 5},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_result_of_another_shape(world: World, changes: dict[str, Any]) -> None:
    world.run()
    rewrite(world, **changes)
    assert world.store.read(world.states()[0]) is None
    assert world.store.results() == []
    world.values = {}
    assert world.run() == "made"


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\xa4task\xa1\xff",
        b"\x91" * 100_000,
        b"",
        b"\x81\xa6values\x81\xa1a" + b"\x91" * 100_000,
    ],
    ids=["no UTF-8", "deep", "empty", "deep values"],
)
def test_a_result_that_is_no_message(world: World, data: bytes) -> None:
    world.run()
    world.states()[0].write_bytes(hashlib.sha256(data).digest() + data)
    assert world.store.read(world.states()[0]) is None
    world.values = {}
    assert world.run() == "made"


def test_modes_come_back_masked(world: World) -> None:
    world.run()
    outputs = [
        msgspec.to_builtins(output) for output in world.store.read(world.states()[0]).outputs
    ]  # type: ignore[union-attr]
    rewrite(world, outputs=[[*outputs[0][:2], 0o4777], [*outputs[1][:2], 0]])
    world.values = {}
    assert world.run() == "restored"
    assert [stat.S_IMODE((world.top / name).stat().st_mode) for name in world.outputs] == [
        0o755,
        0o400,
    ]


@pytest.mark.parametrize("how", ["absolute", "upwards", "by a link"])
def test_what_was_made_elsewhere_is_not_removed(
    world: World, how: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    victim = lay(tmp_path_factory.mktemp("elsewhere") / "victim", "precious")
    (world.top / "way").symlink_to(victim.parent)
    world.run()
    path = {
        "absolute": str(victim),
        "upwards": f"{world.top}/obj/../../{victim.parent.name}/victim",
        "by a link": f"{world.top}/way/victim",
    }[how]
    rewrite(world, made={path: "0" * 32, str(world.top / "obj/side.ko"): "0" * 32})
    world.values["record"]["outputs"][path] = "1" * 32
    world.write("src.c", "edited")
    (world.top / "out").unlink()
    world.write("src.c", "src.c")
    assert world.run() == "restored"
    assert victim.read_text() == "precious"
    assert not (world.top / "obj/side.ko").exists()
    assert path not in world.values["record"]["outputs"]


def test_what_lies_below() -> None:
    assert owned.below("/a/b/c", "/a")
    assert owned.below("build/x", "build")
    assert owned.below("x", "")
    for path in (
        "/a",
        "/ab/c",
        "/a/../c",
        "/a/b/..",
        "/a/",
        "/a/b/",
        "/a/.",
        "/a\0/b",
        "",
        "/etc/passwd",
    ):
        assert not owned.below(path, "/a"), path


PLACES: dict[str, Callable[[World], Path]] = {
    "store": lambda world: world.store.folder,
    "results": lambda world: world.store.folder / "results",
    "key": lambda world: world.states()[0].parents[1],
    "names": lambda world: world.states()[0].parent,
    "result": lambda world: world.states()[0],
    "list": lambda world: world.states()[0].with_name(LIST),
    "blobs": lambda world: world.store.folder / "blobs",
    "folder of a blob": lambda world: world.blobs()[0].parent,
    "blob": lambda world: world.blobs()[0],
}


@pytest.mark.parametrize("how", ["group", "others", "owner"])
@pytest.mark.parametrize("place", PLACES)
def test_what_others_can_write_is_not_taken(
    world: World, place: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.run()
    path = PLACES[place](world)
    if how == "owner":
        if os.geteuid():
            pytest.skip("only root can give files away")
        os.chown(path, 12345, -1)
    else:
        path.chmod(path.stat().st_mode | (0o020 if how == "group" else 0o002))
    world.store, world.values = Store(world.store.folder, 1 << 30), {}
    assert world.run() == "made"
    assert world.right()
    if place == "store":
        why = "it belongs to somebody else" if how == "owner" else "others can write there"
        assert store_tag.opened(path) == why
        assert capsys.readouterr().out == f"  store              {path} is not used: {why}\n"


@pytest.mark.parametrize("place", ["result", "list", "blob", "names", "lock"])
@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_something_else_in_place_of_a_file(world: World, place: str, kind: str) -> None:
    """Nothing hangs, and nothing that a link leads to is read or changed."""
    world.run()
    path = world.store.folder / "lock" if place == "lock" else PLACES[place](world)
    moved = world.top / "moved"
    if path.exists():
        path.rename(moved)
    else:
        moved.write_text("precious")
    {"pipe": lambda: os.mkfifo(path), "link": lambda: path.symlink_to(moved), "folder": path.mkdir}[
        kind
    ]()
    before = tree(moved) if moved.is_dir() else moved.read_bytes()
    world.values = {}
    assert world.run() == ("restored" if place == "lock" else "made")
    world.store.trim(0)
    world.store.results()
    assert (tree(moved) if moved.is_dir() else moved.read_bytes()) == before


def test_folders_are_made_for_us_alone_whatever_the_umask(world: World) -> None:
    old = os.umask(0)
    try:
        world.run()
        world.store, world.values = Store(world.store.folder, 1 << 30), {}
        assert world.run() == "restored"
    finally:
        os.umask(old)
    for path in [world.store.folder, *world.store.folder.rglob("*")]:
        assert not path.stat().st_mode & 0o022, path


def test_a_folder_below_one_that_all_can_write_to(tmp_path: Path) -> None:
    """As in /tmp: nobody else can rename what is ours there."""
    tmp_path.chmod(0o1777)
    store = Store(tmp_path / "store", 1 << 20)
    put(store, tmp_path, 1, 100)
    assert store_tag.opened(store.folder) == ""
    assert store.find(KEY, lambda names: dict.fromkeys(names, f"{1:032}"))
