"""Folders by words: a name is the same in each checkout, and leads to the file of this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.cache import places
from tasks.cache.places import Places

HERE = Places(
    {
        "tree": ["/p/build/src/linux-1", "/p/build/src/linux"],
        "tools": [""],
        "build": ["/p/build", "/disk/build"],
        "top": ["/p"],
    },
    base="/p",
)
THERE = Places(
    {"tree": ["/srv/linux"], "tools": ["/opt/x"], "build": ["/q/out"], "top": ["/q"]}, base="/q"
)


@pytest.mark.parametrize(
    ("path", "name", "back", "there"),
    [
        ("/p/build/src/linux-1/a.c", "<tree>/a.c", "/p/build/src/linux-1/a.c", "/srv/linux/a.c"),
        ("/p/build/src/linux/a.c", "<tree>/a.c", "/p/build/src/linux-1/a.c", "/srv/linux/a.c"),
        ("/p/build/src/linux-1/", "<tree>/", "/p/build/src/linux-1/", "/srv/linux/"),
        ("/p/build/src/linux-1", "<tree>", "/p/build/src/linux-1", "/srv/linux"),
        ("/p/build/src/linux-12/a.c", "<build>/src/linux-12/a.c", None, "/q/out/src/linux-12/a.c"),
        ("/disk/build/x", "<build>/x", "/p/build/x", "/q/out/x"),
        ("/disk/builds/x", "/disk/builds/x", None, "/disk/builds/x"),
        ("build/x", "<build>/x", "/p/build/x", "/q/out/x"),
        ("configs/x", "<top>/configs/x", "/p/configs/x", "/q/configs/x"),
        ("../p2/x", "<top>/../p2/x", "/p/../p2/x", "/q/../p2/x"),
        ("/usr/include/stdio.h", "/usr/include/stdio.h", None, "/usr/include/stdio.h"),
        ("<tree>/x", "<top>/<tree>/x", "/p/<tree>/x", "/q/<tree>/x"),
        ("/<tree>/x", "/<tree>/x", None, "/<tree>/x"),
    ],
)
def test_names(path: str, name: str, back: str | None, there: str) -> None:
    assert HERE.name(path) == name
    assert HERE.path(name) == (path if back is None else back)
    assert THERE.path(name) == there


def test_a_word_without_a_folder_leads_nowhere() -> None:
    assert HERE.path("<tools>/bin/gcc") == ""
    assert HERE.path("<strange>/x") == ""
    assert HERE.path("<tree") == ""


def test_of_two_words_for_a_folder_the_first_counts() -> None:
    same = Places({"build": ["/p"], "top": ["/p/"]}, base="/p")
    assert same.name("x") == "<build>/x"
    assert (same.path("<build>/x"), same.path("<top>/x")) == ("/p/x", "/p/x")


def test_the_root_folder_is_no_place() -> None:
    root = Places({"top": ["/"]}, base="/")
    assert root.name("x") == "/x"
    assert root.pairs == []


def test_texts() -> None:
    text = "gcc -I/p/build/src/linux-1/include -I/p/build/src/linux-12 -DX='/p' -o /p/build/x.o"
    hidden = HERE.hidden(text)
    assert hidden == "gcc -I<tree>/include -I<build>/src/linux-12 -DX='<top>' -o <build>/x.o"
    assert HERE.shown(hidden) == text
    assert THERE.hidden(THERE.shown(hidden)) == hidden
    assert HERE.shown("<tools>/bin") == "<tools>/bin"


@pytest.mark.parametrize("word", ["<tree>", "<tools>"])
def test_a_text_with_a_word_would_not_come_back(word: str) -> None:
    with pytest.raises(ValueError, match="has a word of ours"):
        HERE.hidden(f"-DX={word}")


@pytest.mark.parametrize(
    ("content", "held"),
    [
        (b"", False),
        (b"\x7fELF .text", False),
        (b"\x7fELF .debug_info\0", True),
        (b"says .debug_info", False),
        (b"in /p/kernel/panic.c", True),
        (b"-I/disk/build", True),
        (b"in /disk/kernel", False),
    ],
)
def test_contents(tmp_path: Path, content: bytes, held: bool) -> None:
    (tmp_path / "plain").write_bytes(b"nothing")
    (tmp_path / "file").write_bytes(content)
    assert HERE.held([tmp_path / "plain", tmp_path / "file"]) is held
    assert not Places({}).held([tmp_path / "plain"])


@pytest.mark.parametrize("at", range(60, 68))
def test_a_path_across_two_parts_of_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(places, "_PART", 64)
    for start, text in ((b"", b"/disk/build"), (b"\x7fELF", b".debug_info")):
        content = start.ljust(at, b" ") + text
        (tmp_path / "file").write_bytes(content + b" " * 100)
        assert HERE.held([tmp_path / "file"])
        (tmp_path / "file").write_bytes(content[:-1] + b" " * 100)
        assert not HERE.held([tmp_path / "file"])


def test_a_file_that_can_not_be_read_is_not_without_paths(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        HERE.held([tmp_path / "gone"])
