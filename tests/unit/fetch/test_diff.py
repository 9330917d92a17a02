"""What is read of a diff, and what a diff may not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.fetch.diff import Diff
from tasks.system.errors import PiggyError

HUNK = "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"


def read(text: str, strip: int = 1) -> Diff:
    return Diff(Path("p.patch"), text, strip)


def test_names_and_hunks() -> None:
    diff = read(
        "Subject: more\n---\n x.c | 2 +-\n\n"
        f"diff --git a/x.c b/x.c\nindex 1..2 100644\n--- a/x.c\n+++ b/x.c\n{HUNK}{HUNK}"
        f"--- old/y.c 2020-01-01 00:00:00\n+++ new/y.c 2020-01-01 00:00:00\n{HUNK}-- \n2.39.2\n"
    )
    assert {"x.c", "y.c"} <= set(diff.names)
    assert [(h.file, h.number, h.line) for h in diff.hunks] == [
        ("x.c", 1, 9),
        ("x.c", 2, 14),
        ("y.c", 1, 21),
    ]
    assert "Subject: more" not in diff.kept
    assert "-- " not in diff.kept


def test_byte_order_mark() -> None:
    diff = read(f"\ufeff--- a/x.c\n+++ b/x.c\n{HUNK}--- a/y.c\n+++ b/y.c\n{HUNK}")
    assert list(diff.names) == ["x.c", "y.c"]


@pytest.mark.parametrize(
    "text", ["-- \n2.39\n", "--\n", "---\n", "\n- a list\n", "diff --git a b c\n"]
)
def test_text_behind_a_hunk(text: str) -> None:
    assert len(read(f"--- a/x.c\n+++ b/x.c\n{HUNK}{text}").kept) == 7


def test_header_lines_inside_of_a_hunk() -> None:
    """A removed line `-- a/z.c` looks like a header."""
    diff = read("--- a/x.c\n+++ b/x.c\n@@ -1,2 +1,2 @@\n--- a/z.c\n+++ b/z.c\n same\n")
    assert list(diff.names) == ["x.c"]


def test_new_deleted_renamed() -> None:
    new = read("--- /dev/null\n+++ b/n.c\n@@ -0,0 +1 @@\n+a\n\\ No newline at end of file\n")
    assert (list(new.names), new.hunks[0].file) == (["n.c"], "n.c")
    assert new.kept[-1].startswith("\\ No newline")
    gone = read("--- a/o.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n")
    assert (list(gone.names), gone.hunks[0].file) == (["o.c"], "o.c")
    moved = read("diff --git a/d/o.c b/d/n.c\nrename from d/o.c\nrename to d/n.c\n")
    assert set(moved.names) == {"d/o.c", "d/n.c"}
    assert list(read(f"--- x.c\n+++ x.c\n{HUNK}", 0).names) == ["x.c"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"--- a/../x\n+++ b/../x\n{HUNK}", "'a/../x' leads out of the tree"),
        (f"--- /etc/x\n+++ /etc/x\n{HUNK}", "'/etc/x' is an absolute path"),
        ("diff --git a/x b/x\nrename from ../x\nrename to x\n", "'../x' leads out"),
        ("diff --git a/x b/x\ncopy from /etc/shadow\ncopy to x\n", "absolute path"),
        (f'--- "a/\\303"\n+++ "b/\\303"\n{HUNK}', "special character"),
        (f"--- a/x\x1b[31m\n+++ b/x\n{HUNK}", "special character"),
        (f"--- a/.piggyback-source\n+++ b/.piggyback-source\n{HUNK}", "file of Piggyback's"),
        (f"--- x\n+++ x\n{HUNK}", "with -p1 nothing is left of 'x'"),
        ("diff --git a/l b/l\nnew file mode 120000\n", "it is for a symbolic link"),
        ("diff --git a/l b/l\nnew file mode 160000\n", "it is for a submodule"),
        ("diff --git a/l b/l\nnew mode 104755\n", "a file of the mode 104755"),
        ("diff --git a/l b/l\nindex 1..2\nGIT binary patch\nliteral 3\n", "a binary file"),
        ("diff --git a/l b/l\nBinary files a/l and b/l differ\n", "a binary file"),
        ("--- a/x\n+++ b/x\n@@ -1,9 +1,3 @@\n a\n-b\n+B\n c\n", "p.patch:3: the hunk is shorter"),
        ("--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a\n!b\n", "p.patch:3: the hunk is shorter"),
        ("1,2d\n", "has no unified diff"),
        ("*** a/x\n--- b/x\n***************\n*** 1 ****\n! b\n--- 1 ----\n! B\n", "a context diff"),
        (f"--- a/x\n+++ b/x\n{HUNK}+d\n", "p.patch:8: the hunk before it is longer"),
        (f"--- a/x\n+++ b/x\n{HUNK}-d\n", "p.patch:8: the hunk before it is longer"),
        (f"--- a/x\n+++ b/x\n{HUNK}@@ -9 +9@@\n-d\n", "p.patch:8: this is no head of a hunk"),
        (f"--- a/x\n+++ b/x\n@@ 1 @@\n--- a/y\n+++ b/y\n{HUNK}", "p.patch:3: this is no head"),
        (
            f"diff --git a/p q b/p r\nrename from p q\n--- a/x\n+++ b/x\n{HUNK}",
            "p.patch:1: there is",
        ),
        (f"--- a/x\n+++ b/x\n{HUNK}Binary files a/l and b/l differ\n", "a binary file"),
        (f"--- a/\udcff\n+++ b/\udcff\n{HUNK}", "special character"),
        ("", "has no unified diff"),
    ],
)
def test_refused(text: str, why: str) -> None:
    with pytest.raises(PiggyError, match="p.patch") as error:
        read(text)
    assert why in str(error.value)
    with pytest.raises(PiggyError):
        read(text.replace("\n", "\r\n"))


def test_script_for_ed_is_not_kept() -> None:
    """GNU patch would run ed on it."""
    diff = read(f"1,2d\n!touch /tmp/x\n--- a/x.c\n+++ b/x.c\n{HUNK}5d\n.\n")
    assert diff.kept == f"--- a/x.c\n+++ b/x.c\n{HUNK}".splitlines()
