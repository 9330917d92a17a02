from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.filesystem.devices import apply, read
from tasks.filesystem.tree import Entry, Layer, compose
from tasks.system.errors import PiggyError

SHIPPED = Path(__file__).parents[3] / "configs/rootfs/devices.txt"


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "devices.txt"
    path.write_text(text)
    return path


def entries(tmp_path: Path, text: str) -> list[Entry]:
    return [row.entry for row in read(table(tmp_path, text))]


def test_a_node_with_every_field(tmp_path: Path) -> None:
    found = entries(tmp_path, "/dev/console c 600 1 5 5 1")
    assert found == [Entry("/dev/console", "char", 0o600, 1, 5, major=5, minor=1)]


def test_comments_blank_lines_dashes_tabs_and_quotes(tmp_path: Path) -> None:
    text = (
        '# all\n\n/proc\td\t755 0 0 - - - - -  # a mount point\n"/a b" p 644 0 0\n/dev/x b 640 0 6'
        " 8 0 0 0 -\n"
    )
    assert entries(tmp_path, text) == [
        Entry("/proc", "dir", 0o755),
        Entry("/a b", "fifo", 0o644),
        Entry("/dev/x", "block", 0o640, 0, 6, major=8),
    ]


def test_ranges_as_makedevs_has_them(tmp_path: Path) -> None:
    found = entries(
        tmp_path,
        "/dev/tty c 620 0 5 4 0 0 1 3\n/dev/hda b 640 0 0 3 1 1 1 2\n"
        "/dev/mtd c 640 0 0 90 0 0 2 2\n",
    )
    assert [(entry.path, entry.major, entry.minor) for entry in found] == [
        ("/dev/tty0", 4, 0),
        ("/dev/tty1", 4, 1),
        ("/dev/tty2", 4, 2),
        ("/dev/hda1", 3, 1),
        ("/dev/hda2", 3, 2),
        ("/dev/mtd0", 90, 0),
        ("/dev/mtd1", 90, 2),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/dev/x c 600 0", "4 fields"),
        ("/dev/x c 600 0 0 1 1 0 0 0 0", "11 fields"),
        ("dev/x c 600 0 0 1 1", "'dev/x' is no plain absolute path"),
        ("/dev/../x c 600 0 0 1 1", "no plain absolute path"),
        ("/dev/ d 755 0 0", "no plain absolute path"),
        ("//dev d 755 0 0", "no plain absolute path"),
        ("'/dev/a\x01' d 755 0 0", "control character"),
        ("/dev/x q 600 0 0 1 1", "unknown type 'q'"),
        ("/ f 600 0 0", "'/' can only be of type d"),
        ("/dev/x c 698 0 0 1 1", "the mode '698'"),
        ("/dev/x c 10000 0 0 1 1", "the mode '10000'"),
        ("/dev/x c 0x1 0 0 1 1", "the mode '0x1'"),
        ("/dev/x c 600 root 0 1 1", "UID 'root'"),
        ("/dev/x c 600 0 -1 1 1", "GID '-1'"),
        ("/dev/x c 600 4294967295 0 1 1", "UID '4294967295'"),
        ("/dev/x c 600 0 0 4096 1", "MAJOR '4096'"),
        ("/dev/x c 600 0 0 1 1048576", "MINOR '1048576'"),
        ("/dev/x c 600 0 0 \u0661 1", "MAJOR"),
        ("/dev/x c 600 0 0 1", "needs MAJOR and MINOR"),
        ("/dev/x c 600 0 0 - -", "needs MAJOR and MINOR"),
        ("/proc d 755 0 0 1 1", "are for devices"),
        ("/dev/x c 600 0 0 1 1 1 1", "need a COUNT"),
        ("/dev/x c 600 0 0 1 1 0 1 1000000", "range"),
        ("/dev/x c 600 0 0 1 1048570 0 10 2", "range"),
        ("'/dev/x c 600 0 0 1 1", "no closing quotation"),
        ("/dev/\x1b[2J d 755 0 0", "control character"),
        ("/dev/\u202e d 755 0 0", "control character"),
        ("/" + "n" * 248 + " d 755 0 0", "has more than"),
        ("/" + "\u00e9" * 124 + " d 755 0 0", "has more than"),
        ("/n" * 2048 + " d 755 0 0", "has more than"),
        ("/x c 600 0 0 " + "9" * 5000 + " 1", "MAJOR '99999999999999999999' is no number"),
        ("/a/./b d 755 0 0", "no plain absolute path"),
        ("/dev/x \u0001 600 0 0 1 1", "unknown type"),
    ],
)
def test_a_wrong_line_names_file_line_and_fault(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(PiggyError) as caught:
        read(table(tmp_path, f"# first\n{line}\n"))
    assert caught.value.message.startswith(f"{tmp_path}/devices.txt:2: ")
    assert message in caught.value.message


def test_a_missing_or_binary_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="none"):
        read(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"/dev/\xff")
    with pytest.raises(PiggyError, match="UTF-8"):
        read(tmp_path / "binary")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PiggyError, match="pipe: it is no regular file"):
        read(tmp_path / "pipe")
    with pytest.raises(PiggyError, match="device table .*: it is no regular file"):
        read(tmp_path)
    (tmp_path / "long").write_bytes(b"#" * (256 << 10) + b"\n")
    with pytest.raises(PiggyError, match="it is longer than 262144 bytes"):
        read(tmp_path / "long")
    (tmp_path / "link").symlink_to(SHIPPED)
    assert read(tmp_path / "link")


def test_a_table_that_asks_for_too_much_is_refused(tmp_path: Path) -> None:
    line = "/x c 600 0 0 1 0 0 1 4096\n"
    assert len(entries(tmp_path, line * 16)) == 65536
    with pytest.raises(
        PiggyError, match="devices.txt:17: up to here the table asks for more than 65536 names"
    ):
        entries(tmp_path, line * 9000)


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    (tmp_path / "crlf").write_bytes(b"/proc d 755 0 0\r\n/sys d 755 0 0\r\n")
    assert [row.entry.path for row in read(tmp_path / "crlf")] == ["/proc", "/sys"]
    with pytest.raises(PiggyError, match="devices.txt:2: .*control character"):
        entries(tmp_path, "# one\n/pr\u2028oc d 755 0 0\n")


TREE = compose(
    [
        Layer(
            "x",
            (
                Entry("/etc/shadow", "file", 0o644, source=b"s"),
                Entry("/bin/su", "link", 0o777, target="x"),
                Entry("/etc/init.d", "dir", 0o755),
            ),
        )
    ]
)


def applied(tmp_path: Path, text: str) -> dict[str, Entry]:
    return {entry.path: entry for entry in apply(TREE, read(table(tmp_path, text)))}


def test_files_and_folders_keep_their_content_and_get_mode_and_owner(tmp_path: Path) -> None:
    found = applied(tmp_path, "/etc/shadow f 4600 3 4\n/etc d 700 1 2\n/ d 711 0 0\n")
    assert found["/etc/shadow"] == Entry("/etc/shadow", "file", 0o4600, 3, 4, source=b"s")
    assert found["/etc"] == Entry("/etc", "dir", 0o700, 1, 2)
    assert found["/"].mode == 0o711
    assert found["/etc/init.d"].mode == 0o755


def test_new_nodes_bring_their_folders_and_keep_the_order(tmp_path: Path) -> None:
    found = applied(tmp_path, "/dev/pts/x c 600 0 0 5 1\n/a d 755 0 0\n")
    assert list(found) == [
        "/",
        "/a",
        "/bin",
        "/bin/su",
        "/dev",
        "/dev/pts",
        "/dev/pts/x",
        "/etc",
        "/etc/init.d",
        "/etc/shadow",
    ]


def test_a_later_line_wins(tmp_path: Path) -> None:
    assert applied(tmp_path, "/dev/x c 600 0 0 5 1\n/dev/x c 666 0 0 6 2\n")["/dev/x"] == Entry(
        "/dev/x", "char", 0o666, major=6, minor=2
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/etc/shadwo f 600 0 0", "no file /etc/shadwo in the tree. Did you mean '/etc/shadow'?"),
        ("/bin/su f 4755 0 0", "/bin/su is a link to x"),
        ("/etc f 600 0 0", "/etc is a dir in the tree, not a file"),
        ("/etc/shadow d 755 0 0", "/etc/shadow is a file in the tree, not a dir"),
        ("/etc/shadow c 600 0 0 1 1", "/etc/shadow is a file in the tree, not a char"),
        ("/etc/shadow/x c 600 0 0 1 1", "/etc/shadow is a file in the tree, not a folder"),
        ("/bin/su/x d 755 0 0", "/bin/su is a link in the tree, not a folder"),
    ],
)
def test_a_row_that_does_not_fit_the_tree(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(PiggyError) as caught:
        applied(tmp_path, line)
    assert caught.value.message == f"{tmp_path}/devices.txt:1: {message}"


def test_the_shipped_table_has_what_a_boot_needs() -> None:
    found = {entry.path: entry for entry in apply(compose([]), read(SHIPPED))}
    # Documentation/admin-guide/devices.txt
    for name, kind, major, minor in (
        ("console", "char", 5, 1),
        ("null", "char", 1, 3),
        ("tty", "char", 5, 0),
        ("tty0", "char", 4, 0),
        ("tty4", "char", 4, 4),
        ("ttyS0", "char", 4, 64),
        ("ttyAMA1", "char", 204, 65),
        ("hda", "block", 3, 0),
        ("hda1", "block", 3, 1),
        ("sda", "block", 8, 0),
        ("sdb2", "block", 8, 18),
    ):
        node = found[f"/dev/{name}"]
        assert (node.kind, node.major, node.minor) == (kind, major, minor), name
    assert found["/tmp"].mode == 0o1777
    assert {"/proc", "/sys", "/dev", "/mnt", "/root", "/var", "/dev/pts"} <= {
        path for path, entry in found.items() if entry.kind == "dir"
    }
