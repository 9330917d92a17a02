"""Which files of an overlay's folder are in the image, in which form, and with which notes."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import skips

from tasks.filesystem import devices
from tasks.filesystem.overlay import Name, landed_mode, layer, snapshot, tables
from tasks.filesystem.tree import Entry, Layer, compose, content
from tasks.system.errors import PiggyError

TOP = Path(__file__).parents[3]
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


def test_links_are_copied_never_followed(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", real__file="x")
    (over / "loop").symlink_to("loop")
    (over / "up").symlink_to("../..")
    (over / "passwd").symlink_to("/etc/passwd")
    (over / "dir").symlink_to("real")
    found = names(layer(over)[0])
    assert {path: entry.target for path, entry in found.items() if entry.kind == "link"} == {
        "/loop": "loop",
        "/up": "../..",
        "/passwd": "/etc/passwd",
        "/dir": "real",
    }
    assert "/dir/file" not in found


def test_litter_and_gitkeep_stay_behind(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", etc__keep="", etc__swp="")
    for name in (".gitkeep", "a~", ".a.swp", ".a.swo", ".#lock", "#auto#"):
        (over / "etc" / name).write_text("")
    (over / "etc/dangling~").symlink_to("nowhere")
    (over / "empty").mkdir()
    (over / "empty/.gitkeep").touch()
    assert list(names(layer(over)[0])) == ["/", "/empty", "/etc", "/etc/keep", "/etc/swp"]


def test_pipes_and_sockets_are_refused_with_a_hint(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", dev__x="")
    os.mkfifo(over / "dev/pipe")
    with pytest.raises(PiggyError, match="dev/pipe") as caught:
        layer(over)[0]
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
        layer(over)[0]


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x7f"])
def test_control_characters_in_names_are_refused(tmp_path: Path, name: str) -> None:
    over = overlay(tmp_path / "over")
    (over / name).touch()
    with pytest.raises(PiggyError, match="control character"):
        layer(over)[0]


def test_odd_names_survive(tmp_path: Path) -> None:
    odd = [
        b"-rf",
        b" a b ",
        b'q"q',
        b"<12>",
        b"caf\xe9",
        "caf\u00e9".encode(),
        b"$(x)",
        b"a\\b",
        b"*",
    ]
    over = overlay(tmp_path / "over")
    for name in odd:
        with open(os.path.join(os.fsencode(over), name), "wb") as stream:
            stream.write(name)
    found = names(layer(over)[0])
    assert {
        os.fsencode(path)[1:]: content(entry) for path, entry in found.items() if path != "/"
    } == {name: name for name in odd}


@pytest.mark.parametrize(
    ("kind", "found", "landed"),
    [
        ("file", 0o644, 0o644),
        ("file", 0o755, 0o755),
        ("file", 0o600, 0o600),
        ("file", 0o700, 0o700),
        ("file", 0o640, 0o640),
        ("file", 0o664, 0o644),
        ("file", 0o775, 0o755),
        ("file", 0o666, 0o644),
        ("file", 0o777, 0o755),
        ("file", 0o000, 0o000),
        ("file", 0o4755, 0o4755),
        ("file", 0o4775, 0o4755),
        ("file", 0o2755, 0o2755),
        ("file", 0o444, 0o444),
        ("dir", 0o755, 0o755),
        ("dir", 0o700, 0o700),
        ("dir", 0o2775, 0o755),
        ("dir", 0o2700, 0o700),
        ("dir", 0o1777, 0o1777),
        ("link", 0o777, 0o777),
    ],
)
def test_modes_land_as_they_are_or_narrower(kind: str, found: int, landed: int) -> None:
    mode = landed_mode(Name("x", kind, found))
    assert mode == landed
    assert not mode & ~found


def test_a_folder_that_nobody_else_may_read_makes_nothing_readable(tmp_path: Path) -> None:
    """mktemp -d makes such a folder."""
    over = overlay(tmp_path / "over", etc__shadow="", etc__key="")
    for path, mode in (
        (over / "etc/shadow", 0o600),
        (over / "etc/key", 0o700),
        (over / "etc", 0o700),
        (over, 0o700),
    ):
        path.chmod(mode)
    found, said = layer(over)
    assert {entry.path: entry.mode for entry in found.entries} == {
        "/etc": 0o700,
        "/etc/shadow": 0o600,
        "/etc/key": 0o700,
    }
    assert said == ()


def test_what_is_narrowed_is_said(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", a="", b="", c="", d="", e="")
    for name, mode in (("a", 0o664), ("b", 0o775), ("c", 0o666), ("d", 0o4777)):
        (over / name).chmod(mode)
    (said,) = layer(over)[1]
    assert (
        said
        == f"overlay {over}: modes narrowed, since only the owner may write: /a (664 -> 644), /b"
        " (775 -> 755), /c (666 -> 644) and 1 more"
    )


KNOWN = {
    path: Entry(path, kind, mode)
    for path, kind, mode in (
        ("/etc", "dir", 0o755),
        ("/etc/init.d", "dir", 0o755),
        ("/etc/init.d/rcS", "file", 0o755),
        ("/etc/passwd", "file", 0o644),
    )
}


def checkout(folder: Path, umask: int) -> Path:
    """Create files as git does under a given umask."""
    before = os.umask(umask)
    try:
        for name, mode in (("etc/passwd", 0o666), ("etc/init.d/rcS", 0o777)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY, mode))
    finally:
        os.umask(before)
    return folder


def test_checkouts_with_different_umasks_give_the_same_tree(tmp_path: Path) -> None:
    for umask, said in ((0o022, 0), (0o002, 0), (0o077, 1), (0o027, 1), (0, 0)):
        found, notes = layer(checkout(tmp_path / f"{umask:o}", umask), KNOWN)
        assert [(entry.path, entry.mode) for entry in compose([found])] == [
            ("/", 0o755),
            ("/etc", 0o755),
            ("/etc/init.d", 0o755),
            ("/etc/init.d/rcS", 0o755),
            ("/etc/passwd", 0o644),
        ]
        assert len(notes) == said
    assert (
        "modes of configs/rootfs/overlays.txt: /etc (700 -> 755), "
        in layer(tmp_path / "77", KNOWN)[1][0]
    )


def test_without_a_table_nothing_is_widened(tmp_path: Path) -> None:
    found = {entry.path: entry.mode for entry in layer(checkout(tmp_path / "x", 0o077))[0].entries}
    assert found == {
        "/etc": 0o700,
        "/etc/init.d": 0o700,
        "/etc/init.d/rcS": 0o700,
        "/etc/passwd": 0o600,
    }


def test_the_table_has_what_ships_as_git_has_it() -> None:
    """Each file of overlays/ has a line with the mode that git gives it; no other line exists."""
    table = tables(
        [(row.entry, row.where) for row in devices.read(TOP / "configs/rootfs/overlays.txt")]
    )
    done = subprocess.run(
        ["git", "ls-files", "-sz", "overlays"], cwd=TOP, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("this is no git checkout")
    found: dict[str, dict[str, int]] = {}
    for line in filter(None, done.stdout.split("\0")):
        mode, path = int(line[:6], 8) & 0o777, line.partition("\t")[2]
        overlay, _, name = path.removeprefix("overlays/").partition("/")
        if not name.endswith(".gitkeep"):
            found.setdefault(overlay, {})[f"/{name}"] = mode
    assert {
        overlay: {path: entry.mode for path, entry in entries.items() if entry.kind == "file"}
        for overlay, entries in table.items()
    } == found
    for name, entries in table.items():
        assert {entry.path for entry in layer(TOP / "overlays" / name)[0].entries} <= set(
            entries
        ), name
        assert {(entry.mode, entry.uid, entry.gid) for entry in entries.values()} <= {
            (0o755, 0, 0),
            (0o644, 0, 0),
        }


@pytest.mark.parametrize("line", ["/base f 644 0 0", "/base/x c 600 0 0 1 3", "/ d 755 0 0"])
def test_a_line_of_the_table_that_names_no_file_of_an_overlay(tmp_path: Path, line: str) -> None:
    (tmp_path / "t").write_text(line + "\n")
    with pytest.raises(PiggyError, match="t:1: .* is no file or folder of an overlay"):
        tables([(row.entry, row.where) for row in devices.read(tmp_path / "t")])


def test_version_control_stays_behind_and_is_said(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", etc__a="", sub__git="")
    subprocess.run(["git", "init", "-q", over], check=True)
    (over / "sub/.git").write_text("gitdir: elsewhere\n")  # as in a git submodule
    for name in (".gitignore", "etc/a~", "etc/.gitkeep"):
        (over / name).touch()
    (over / ".svn").mkdir()
    found, (said,) = layer(over)
    assert [entry.path for entry in found.entries] == ["/etc", "/sub", "/etc/a", "/sub/git"]
    assert (
        said == f"overlay {over}: left out, as files of version control and of editors are: .git,"
        " .gitignore, .svn and 2 more"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("etc__init.d__rcS", b"#!/bin/sh\r\necho\r\n"),
        ("usr__bin__x", b"#!/bin/sh -e\r\n"),
        ("x", b"#!/bin/sh\r"),
        ("etc__inittab", b"::sysinit:/etc/init.d/rcS\r\n"),
        ("etc__init.d__S10x", b"echo\r\n"),
        ("etc__fstab", b"#\n#\r\n"),
    ],
)
def test_line_ends_of_windows_are_refused_where_they_do_harm(
    tmp_path: Path, name: str, content: bytes
) -> None:
    over = overlay(tmp_path / "over", **{name: ""})
    (over / name.replace("__", "/")).write_bytes(content)
    with pytest.raises(PiggyError, match="has the line ends of Windows") as caught:
        layer(over)
    assert caught.value.message.startswith(f"overlay {over}: '{name.replace('__', '/')}' ")
    subprocess.run(
        ["sh", "-c", caught.value.hint.partition(";")[0]], check=True
    )  # the command in the hint works
    layer(over)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.html", b"<html>\r\n"),
        ("x", b"#!/bin/sh\nprintf 'a\r\n'\r\n"),
        ("etc__motd", b"hello\r\n"),
        ("etc__inittab", b"a\n"),
    ],
)
def test_line_ends_of_windows_elsewhere_are_let_pass(
    tmp_path: Path, name: str, content: bytes
) -> None:
    over = overlay(tmp_path / "over", **{name: ""})
    (over / name.replace("__", "/")).write_bytes(content)
    layer(over)


def attributes(path: Path, **values: bytes) -> None:
    try:
        for name, value in values.items():
            os.setxattr(path, name.replace("__", "."), value)
    except OSError as error:
        skips.this_host(f"no extended attributes ({error})")


def test_attributes_land_but_for_those_of_the_host(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", a="", etc__b="")
    before = snapshot(over)
    attributes(over / "a", user__z=b"\0\xff", user__b=b"", user__xdg__origin=b"secret")
    attributes(over / "etc", user__d=b"1")
    assert {entry.path: entry.attributes for entry in layer(over)[0].entries} == {
        "/a": (("user.b", b""), ("user.z", b"\0\xff")),
        "/etc": (("user.d", b"1"),),
        "/etc/b": (),
    }
    assert snapshot(over) != before


def test_file_capabilities_land(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", ping="")
    value = struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0)  # VFS_CAP_REVISION_2, cap_net_raw+ep
    attributes(over / "ping", security__capability=value)
    assert layer(over)[0].entries[0].attributes == (("security.capability", value),)


def test_an_acl_is_said_and_gives_the_group_no_more_than_it_had(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", a="")
    entries = (
        (1, 6, -1),
        (2, 6, 1000),
        (4, 0, -1),
        (16, 6, -1),
        (32, 0, -1),
    )  # owner, a user, group, mask, others
    attributes(
        over / "a",
        system__posix_acl_access=struct.pack("<I", 2)
        + b"".join(struct.pack("<HHi", *entry) for entry in entries),
    )
    assert (over / "a").stat().st_mode & 0o777 == 0o660  # the mask
    found, said = layer(over)
    assert (found.entries[0].mode, found.entries[0].attributes) == (0o600, ())
    assert (
        said[-1]
        == f"overlay {over}: access control lists are left out, since they name users of this"
        " machine: /a"
    )


def test_a_missing_overlay_is_named(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="overlay .*none: no such folder"):
        layer(tmp_path / "none")


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


@pytest.mark.parametrize(
    "change",
    [
        chmod,
        add_x,
        add_setuid,
        delete,
        add,
        add_empty_folder,
        delete_empty_folder,
        retarget,
        link_for_file,
        rename,
        close_folder,
    ],
)
def test_a_snapshot_sees_each_change_that_lands(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    over = overlay(tmp_path / "over", etc__a="1")
    (over / "link").symlink_to("etc/a")
    (over / "empty").mkdir(mode=0o755)
    (over / "empty").chmod(0o755)
    before = snapshot(over)
    assert before == snapshot(over)
    assert {path: tuple(state) for path, state in json.loads(json.dumps(before)).items()} == before
    change(over)
    assert snapshot(over) != before


def test_a_snapshot_is_blind_to_what_does_not_land(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over", etc__a="1")
    before = snapshot(over)
    (over / "etc/.a.swp").touch()
    (over / "etc/a~").touch()
    os.utime(over / "etc/a", (0, 0))
    assert snapshot(over) == before
    assert snapshot(tmp_path / "none") == {}


def test_a_snapshot_survives_json_with_any_name(tmp_path: Path) -> None:
    over = overlay(tmp_path / "over")
    with open(os.path.join(os.fsencode(over), b"\xff\xfe"), "wb"):
        pass
    assert {
        path: tuple(state) for path, state in json.loads(json.dumps(snapshot(over))).items()
    } == snapshot(over)
