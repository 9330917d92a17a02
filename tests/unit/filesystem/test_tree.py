from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.filesystem.tree import (
    INITS,
    Entry,
    Layer,
    busybox_layer,
    check_init,
    check_names,
    chunks,
    compose,
    content,
    few,
    find,
    parents,
    size,
)
from tasks.system.errors import PiggyError

Names = dict[str, Entry]


def names(*layers: Layer) -> Names:
    return {entry.path: entry for entry in compose(layers)}


def files(name: str, **content: str) -> Layer:
    """A layer of files; keyword a__b is the file /a/b, its value the content."""
    return Layer(
        name,
        tuple(
            Entry("/" + path.replace("__", "/"), "file", 0o644, source=text.encode())
            for path, text in content.items()
        ),
    )


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
    assert list(found) == [
        "/",
        "/bin",
        "/bin/busybox",
        "/bin/ls",
        "/linuxrc",
        "/usr",
        "/usr/sbin",
        "/usr/sbin/httpd",
    ]
    assert content(found["/bin/busybox"]) == b"ELF"
    for path, entry in found.items():
        if entry.kind == "link":
            assert not entry.target.startswith("/")
            assert (
                os.path.normpath(os.path.join(os.path.dirname(path), entry.target))
                == "/bin/busybox"
            )


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


def test_a_later_layer_wins_and_folders_are_merged() -> None:
    found = names(files("one", etc__a="1", etc__b="1"), files("two", etc__b="2", etc__c="2"))
    assert {path: content(entry) for path, entry in found.items() if entry.kind == "file"} == {
        "/etc/a": b"1",
        "/etc/b": b"2",
        "/etc/c": b"2",
    }


def test_a_file_takes_the_place_of_a_link_and_the_other_way_round(tmp_path: Path) -> None:
    found = names(
        busybox(tmp_path / "b", "/bin/ls\n/bin/sh\n"),
        files("over", bin__ls="mine"),
        Layer("link", (Entry("/bin/sh", "link", 0o777, target="/bin/dash"),)),
    )
    assert (found["/bin/ls"].kind, content(found["/bin/ls"])) == ("file", b"mine")
    assert (found["/bin/sh"].kind, found["/bin/sh"].target) == ("link", "/bin/dash")


@pytest.mark.parametrize(("first", "second"), [("etc__x", "etc"), ("etc", "etc__x")])
def test_file_and_folder_of_one_name_are_refused_naming_both_layers(
    first: str, second: str
) -> None:
    with pytest.raises(PiggyError, match="/etc is a (dir|file) in one and a (dir|file) in two"):
        compose([files("one", **{first: ""}), files("two", **{second: ""})])


def test_a_folder_over_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="/bin/ls is a link in busybox and a dir in over"):
        compose([busybox(tmp_path / "b", "/bin/ls\n"), files("over", bin__ls__x="")])


def test_a_link_below_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="/a is a link in busybox and a dir in busybox"):
        compose([busybox(tmp_path, "/a\n/a/b\n")])


def test_order_is_by_component_and_each_folder_comes_first() -> None:
    layer = Layer(
        "x",
        tuple(
            Entry(path, "file", 0o644) for path in ("/a/b", "/a-b", "/a.b/c", "/B", "/\udcff", "/z")
        ),
    )
    paths = [entry.path for entry in compose([layer])]
    assert paths == ["/", "/B", "/a", "/a/b", "/a-b", "/a.b", "/a.b/c", "/z", "/\udcff"]
    for path in paths:
        assert all(paths.index(parent) < paths.index(path) for parent in parents(path))


def test_the_order_of_names_in_a_layer_makes_no_difference() -> None:
    entries = tuple(Entry(path, "file", 0o644) for path in ("/c", "/a/x", "/b"))
    assert compose([Layer("x", entries)]) == compose([Layer("x", entries[::-1])])


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    gone = Entry("/etc/x", "file", 0o644, source=tmp_path / "gone")
    for reader in (content, size):
        with pytest.raises(PiggyError, match="/etc/x: can't read .*gone"):
            reader(gone)


def test_a_source_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"123")
    entry = Entry("/x", "file", 0o644, source=tmp_path / "x")
    assert list(chunks(entry, 3)) == [b"123"]
    for length in (2, 4):
        with pytest.raises(PiggyError, match="/x: .* changed while it was read"):
            list(chunks(entry, length))


def test_names_in_messages_are_few_and_printable() -> None:
    assert few(["a", "b"]) == "a, b"
    assert few(["a\x1b[2J", "b\udcff", "c", "d", "e"]) == r"a\x1b[2J, b\udcff, c and 2 more"


@pytest.mark.parametrize(
    "entry",
    [
        Entry("/" + "a" * 256, "file", 0o644),
        Entry("/d/" + "\u00e9" * 128, "dir", 0o755),
        Entry("/dir" * 1024, "dir", 0o755),
        Entry("/a", "link", 0o777, target="x" * 4096),
    ],
)
def test_what_linux_cannot_name(entry: Entry) -> None:
    with pytest.raises(PiggyError, match="less than 4096 bytes|up to 255 bytes"):
        check_names([entry])


LINKED = compose(
    [
        Layer(
            "x",
            (
                Entry("/usr/lib/boot/init", "file", 0o755),
                Entry("/usr/sbin/init", "link", 0o777, target="../lib/boot/init"),
                Entry("/sbin", "link", 0o777, target="usr/sbin"),
                Entry("/abs", "link", 0o777, target="/sbin/../sbin/./init"),
                Entry("/a", "link", 0o777, target="b"),
                Entry("/b", "link", 0o777, target="a"),
                Entry("/out", "link", 0o777, target="x"),
                Entry("/up", "link", 0o777, target="../../usr"),
            ),
        )
    ]
)


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/usr/lib/boot/init", "/usr/lib/boot/init"),
        ("/sbin/init", "/usr/lib/boot/init"),
        ("/abs", "/usr/lib/boot/init"),
        ("/a", None),
        ("/out", None),
        ("/up/sbin", "/usr/sbin"),
        ("/", "/"),
        ("/none/..", None),
    ],
)
def test_a_path_is_followed_as_the_guest_does(path: str, to: str | None) -> None:
    found = find(LINKED, path)
    assert (found and found.path) == to


def with_init(path: str, **fields: object) -> tuple[Entry, ...]:
    return compose(
        [
            Layer(
                "x",
                (
                    Entry(path, **{"kind": "file", "mode": 0o755, **fields}),  # type: ignore[arg-type]
                    Entry("/bin/sh", "file", 0o755),
                ),
            )
        ]
    )


def test_an_init_is_where_the_kernel_looks_for_it() -> None:
    for path in INITS:
        check_init(with_init(path))
    check_init(LINKED)
    check_init(with_init("/my/own"), "/my/own")
    check_init(with_init("/init"), ramfs=True)
    check_init(with_init("/sbin/init"), ramfs=True)
    check_init(with_init("/x"), "/bin/sh")


@pytest.mark.parametrize(
    ("tree", "asked", "ramfs", "message"),
    [
        (
            with_init("/x"),
            "",
            False,
            (
                "the kernel looks for /sbin/init, /etc/init, /bin/init (at last for /bin/sh), and"
                " there is none"
            ),
        ),
        (
            with_init("/etc/init"),
            "",
            True,
            "the kernel looks for /init, /sbin/init, and there is none",
        ),
        (
            with_init("/sbin/init"),
            "/my/own",
            False,
            "the kernel is told init=/my/own, and there is no such file",
        ),
        (
            with_init("/sbin/init"),
            "/my/own",
            True,
            "the kernel is told rdinit=/my/own, and there is no such file",
        ),
    ],
)
def test_a_tree_without_init_is_refused(
    tree: tuple[Entry, ...], asked: str, ramfs: bool, message: str
) -> None:
    with pytest.raises(PiggyError) as caught:
        check_init(tree, asked, ramfs)
    assert caught.value.message == f"no init in the root file system: {message}"
    assert "CONFIG_INIT=y" in caught.value.hint
    assert ("append='rdinit=/bin/sh'" if ramfs else "append='init=/bin/sh'") in caught.value.hint


def test_an_init_that_cannot_be_started_is_refused() -> None:
    with pytest.raises(
        PiggyError, match="/sbin/init has mode 644: the kernel can't start it as init"
    ):
        check_init(with_init("/sbin/init", mode=0o644))
    with pytest.raises(PiggyError, match="/sbin/init is a dir"):
        check_init(with_init("/sbin/init", kind="dir"))
