from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.kit.errors import PiggyError
from tasks.kit.tree import (
    Entry,
    Layer,
    busybox_layer,
    compose,
    content,
    landed_mode,
    overlay_layer,
    parents,
    size,
    snapshot,
)

Names = dict[str, Entry]


def names(*layers: Layer) -> Names:
    return {entry.path: entry for entry in compose(layers)}


def overlay(folder: Path, **files: str) -> Path:
    """Make an overlay folder; keyword a__b is the file a/b, its value the content."""
    folder.mkdir(mode=0o755, exist_ok=True)
    folder.chmod(0o755)
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        for parent in reversed(path.relative_to(folder).parents):
            (folder / parent).mkdir(exist_ok=True)
            (folder / parent).chmod(0o755)
        path.write_text(text)
        path.chmod(0o644)
    return folder


def busybox(folder: Path, links: str) -> Layer:
    folder.mkdir(exist_ok=True)
    (folder / "busybox").write_bytes(b"ELF")
    (folder / "busybox.links").write_text(links)
    return busybox_layer(folder / "busybox", folder / "busybox.links")


def test_entries_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Entry("/a", "file", 0o644).mode = 0  # type: ignore[misc]


def test_busybox_links_lead_to_busybox_from_wherever_the_root_is(tmp_path: Path) -> None:
    found = names(busybox(tmp_path, "/bin/ls\n/usr/sbin/httpd\n\n/linuxrc\n/bin/busybox\n"))
    assert list(found) == ["/", "/bin", "/bin/busybox", "/bin/ls", "/linuxrc", "/usr", "/usr/sbin", "/usr/sbin/httpd"]
    assert content(found["/bin/busybox"]) == b"ELF"
    for path, entry in found.items():
        if entry.kind == "link":
            assert not entry.target.startswith("/")
            assert os.path.normpath(os.path.join(os.path.dirname(path), entry.target)) == "/bin/busybox"


@pytest.mark.parametrize("line", ["bin/ls", "/bin/../ls", "/", "/bin/", "//bin/ls", "/bin//ls"])
def test_a_link_that_is_no_path_names_its_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(PiggyError, match=r"busybox\.links:2: "):
        busybox(tmp_path, f"/bin/ok\n{line}\n")


def test_missing_busybox_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="busybox: no such file"):
        busybox_layer(tmp_path / "busybox", tmp_path / "busybox.links")
    (tmp_path / "busybox").touch()
    with pytest.raises(PiggyError, match="busybox.links"):
        busybox_layer(tmp_path / "busybox", tmp_path / "busybox.links")


def test_a_later_layer_wins_and_folders_are_merged(tmp_path: Path) -> None:
    one = overlay(tmp_path / "one", etc__a="1", etc__b="1")
    two = overlay(tmp_path / "two", etc__b="2", etc__c="2")
    found = names(overlay_layer(one), overlay_layer(two))
    assert {path: content(entry) for path, entry in found.items() if entry.kind == "file"} == {
        "/etc/a": b"1", "/etc/b": b"2", "/etc/c": b"2"}


def test_a_file_takes_the_place_of_a_link_and_the_other_way_round(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", bin__ls="mine")
    (over / "bin/sh").symlink_to("/bin/dash")
    found = names(busybox(tmp_path / "b", "/bin/ls\n/bin/sh\n"), overlay_layer(over))
    assert (found["/bin/ls"].kind, content(found["/bin/ls"])) == ("file", b"mine")
    assert (found["/bin/sh"].kind, found["/bin/sh"].target) == ("link", "/bin/dash")


@pytest.mark.parametrize(("first", "second"), [("etc__x", "etc"), ("etc", "etc__x")])
def test_file_and_folder_of_one_name_are_refused_naming_both_layers(tmp_path: Path, first: str, second: str) -> None:
    layers = [overlay_layer(overlay(tmp_path / "one", **{first: ""})),
              overlay_layer(overlay(tmp_path / "two", **{second: ""}))]
    with pytest.raises(PiggyError, match="/etc is a (dir|file) in overlay .*one and a (dir|file) in overlay .*two"):
        compose(layers)


def test_a_folder_over_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="/bin/ls is a link in busybox and a dir in overlay"):
        compose([busybox(tmp_path / "b", "/bin/ls\n"), overlay_layer(overlay(tmp_path / "o", bin__ls__x=""))])


def test_a_link_below_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="/a is a link in busybox and a dir in busybox"):
        compose([busybox(tmp_path, "/a\n/a/b\n")])


def test_links_are_copied_never_followed(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", real__file="x")
    (over / "loop").symlink_to("loop")
    (over / "up").symlink_to("../..")
    (over / "passwd").symlink_to("/etc/passwd")
    (over / "dir").symlink_to("real")
    found = names(overlay_layer(over))
    assert {path: entry.target for path, entry in found.items() if entry.kind == "link"} == {
        "/loop": "loop", "/up": "../..", "/passwd": "/etc/passwd", "/dir": "real"}
    assert "/dir/file" not in found


def test_litter_and_gitkeep_stay_behind(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", etc__keep="", etc__swp="")
    for name in (".gitkeep", "a~", ".a.swp", ".a.swo", ".#lock", "#auto#"):
        (over / "etc" / name).write_text("")
    (over / "etc/dangling~").symlink_to("nowhere")
    (over / "empty").mkdir()
    (over / "empty/.gitkeep").touch()
    assert list(names(overlay_layer(over))) == ["/", "/empty", "/etc", "/etc/keep", "/etc/swp"]


def test_pipes_and_sockets_are_refused_with_a_hint(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", dev__x="")
    os.mkfifo(over / "dev/pipe")
    with pytest.raises(PiggyError, match="dev/pipe") as caught:
        overlay_layer(over)
    assert "device table" in caught.value.hint
    (over / "dev/pipe").unlink()
    here = os.getcwd()
    os.chdir(over)
    try:
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind("s")
    finally:
        os.chdir(here)
    with pytest.raises(PiggyError, match="'s' is neither"):
        overlay_layer(over)


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x7f"])
def test_control_characters_in_names_are_refused(tmp_path: Path, name: str) -> None:
    over = overlay(tmp_path / "over")
    (over / name).touch()
    with pytest.raises(PiggyError, match="control character"):
        overlay_layer(over)


def test_odd_names_survive(tmp_path: Path) -> None:
    odd = [b"-rf", b" a b ", b'q"q', b"<12>", b"caf\xe9", "caf\u00e9".encode(), b"$(x)", b"a\\b", b"*"]
    over = overlay(tmp_path / "over")
    for name in odd:
        with open(os.path.join(os.fsencode(over), name), "wb") as stream:
            stream.write(name)
    found = names(overlay_layer(over))
    assert {os.fsencode(path)[1:]: content(entry) for path, entry in found.items() if path != "/"} == {
        name: name for name in odd}


@pytest.mark.parametrize(("found", "umask", "landed"), [
    (0o100644, 0o022, 0o644), (0o100755, 0o022, 0o755), (0o100600, 0o077, 0o644), (0o100700, 0o077, 0o755),
    (0o100664, 0o002, 0o644), (0o100775, 0o002, 0o755), (0o100777, 0o000, 0o755), (0o100666, 0o000, 0o644),
    (0o100600, 0o022, 0o600), (0o100700, 0o022, 0o700), (0o104755, 0o022, 0o4755), (0o102755, 0o022, 0o2755),
    (0o100640, 0o022, 0o640), (0o100444, 0o022, 0o444), (0o100666, 0o022, 0o666), (0o100000, 0o022, 0o000),
    (0o100644, 0o002, 0o644), (0o100644, 0o077, 0o644),
    (0o040755, 0o022, 0o755), (0o040700, 0o077, 0o755), (0o042775, 0o002, 0o755), (0o041777, 0o022, 0o1777),
    (0o040700, 0o022, 0o700), (0o042700, 0o022, 0o700),
])
def test_modes_land_as_they_are_but_for_the_umask(found: int, umask: int, landed: int) -> None:
    assert landed_mode(found, umask) == landed


def test_checkouts_with_different_umasks_give_the_same_tree(tmp_path: Path) -> None:
    trees = []
    for umask in (0o022, 0o002, 0o077, 0o027, 0):
        before = os.umask(umask)
        try:
            folder = tmp_path / f"{umask:o}"
            (folder / "etc/init.d").mkdir(parents=True)
            for name, mode in (("etc/passwd", 0o666), ("etc/init.d/rcS", 0o777)):  # as git makes them
                os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY, mode))
        finally:
            os.umask(before)
        trees.append([(entry.path, entry.mode) for entry in compose([overlay_layer(folder)])])
        assert snapshot(folder) == snapshot(tmp_path / "22")
    assert trees[0] == [("/", 0o755), ("/etc", 0o755), ("/etc/init.d", 0o755), ("/etc/init.d/rcS", 0o755),
                        ("/etc/passwd", 0o644)]
    assert all(tree == trees[0] for tree in trees)


def test_order_is_by_component_and_each_folder_comes_first() -> None:
    layer = Layer("x", tuple(Entry(path, "file", 0o644) for path in ("/a/b", "/a-b", "/a.b/c", "/B", "/\udcff", "/z")))
    paths = [entry.path for entry in compose([layer])]
    assert paths == ["/", "/B", "/a", "/a/b", "/a-b", "/a.b", "/a.b/c", "/z", "/\udcff"]
    for path in paths:
        assert all(paths.index(parent) < paths.index(path) for parent in parents(path))


def test_the_order_of_names_in_a_layer_makes_no_difference() -> None:
    entries = tuple(Entry(path, "file", 0o644) for path in ("/c", "/a/x", "/b"))
    assert compose([Layer("x", entries)]) == compose([Layer("x", entries[::-1])])


def chmod(folder: Path) -> None:
    (folder / "etc/a").chmod(0o600)


def add_x(folder: Path) -> None:
    (folder / "etc/a").chmod(0o755)


def add_setuid(folder: Path) -> None:
    (folder / "etc/a").chmod(0o4644)


def delete(folder: Path) -> None:
    (folder / "etc/a").unlink()


def add(folder: Path) -> None:
    (folder / "etc/b").touch()


def add_empty_folder(folder: Path) -> None:
    (folder / "etc/new").mkdir()


def delete_empty_folder(folder: Path) -> None:
    (folder / "empty").rmdir()


def retarget(folder: Path) -> None:
    (folder / "link").unlink()
    (folder / "link").symlink_to("etc/b")


def link_for_file(folder: Path) -> None:
    (folder / "etc/a").unlink()
    (folder / "etc/a").symlink_to("b")


def rename(folder: Path) -> None:
    (folder / "etc/a").rename(folder / "etc/z")


def close_folder(folder: Path) -> None:
    (folder / "empty").chmod(0o700)


@pytest.mark.parametrize("change", [
    chmod, add_x, add_setuid, delete, add, add_empty_folder, delete_empty_folder, retarget, link_for_file, rename,
    close_folder])
def test_a_snapshot_sees_each_change_that_lands(tmp_path: Path, change: Callable[[Path], None]) -> None:
    over = overlay(tmp_path / "over", etc__a="1")
    (over / "link").symlink_to("etc/a")
    (over / "empty").mkdir(mode=0o755)
    (over / "empty").chmod(0o755)
    before = snapshot(over)
    assert before == snapshot(over)
    assert json.loads(json.dumps(before)) == before
    change(over)
    assert snapshot(over) != before


def test_a_snapshot_is_blind_to_what_does_not_land(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", etc__a="1")
    before = snapshot(over)
    (over / "etc/.a.swp").touch()
    (over / "etc/a~").touch()
    os.utime(over / "etc/a", (0, 0))
    assert snapshot(over) == before
    assert snapshot(tmp_path / "none") == []


def test_a_snapshot_survives_json_with_any_name(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over")
    with open(os.path.join(os.fsencode(over), b"\xff\xfe"), "wb"):
        pass
    assert json.loads(json.dumps(snapshot(over))) == snapshot(over)


def test_a_missing_overlay_or_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="overlay .*none: no such folder"):
        overlay_layer(tmp_path / "none")
    gone = Entry("/etc/x", "file", 0o644, source=tmp_path / "gone")
    for reader in (content, size):
        with pytest.raises(PiggyError, match="/etc/x: can't read .*gone"):
            reader(gone)
