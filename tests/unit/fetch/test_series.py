"""Series of patches: their order, and what they make of a tree that they leave alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.fetch import series
from tasks.fetch.series import File, Patch
from tasks.system.errors import PiggyError

X = "--- a/kernel/x.c\n+++ b/kernel/x.c\n"
B = f"{X}@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"
C = f"{X}@@ -2,3 +2,3 @@\n B\n-c\n+C\n d\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "kernel").mkdir(parents=True)
    (tree / "kernel" / "x.c").write_text("a\nb\nc\nd\n")
    (tree / "kernel" / "y.c").write_text("one\n")
    (tree / "link").symlink_to("kernel")
    return tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "patches"
    folder.mkdir()
    return folder


def applied(tree: Path, folder: Path, **patches: str) -> dict[str, File | None]:
    for name, text in patches.items():
        (folder / f"{name}.patch").write_bytes(text.encode())
    return series.applied(series.patches([folder]), tree, tree.parent / "log")


def test_in_the_order_of_names(tree: Path, folder: Path) -> None:
    assert applied(tree, folder, b2=C, b1=B) == {"kernel/x.c": File(b"a\nB\nC\nd\n")}
    assert (tree / "kernel/x.c").read_text() == "a\nb\nc\nd\n"


def test_quilt_series(tree: Path, folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "one.diff").write_text(B.replace("a/", "").replace("b/", ""))
    (folder / "off.patch").write_text("nonsense")
    (folder / "series").write_text("# first\n\nsub/one.diff -p0 # why\nback.patch -R\n")
    (folder / "back.patch").write_text(B)
    found = series.patches([folder])
    assert found == [Patch(folder / "sub/one.diff", 0), Patch(folder / "back.patch", 1, True)]
    assert series.files([folder]) == [folder / "series", *(patch.path for patch in found)]
    assert series.names([folder]) == ["kernel/x.c"]
    assert applied(tree, folder) == {"kernel/x.c": File(b"a\nb\nc\nd\n")}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("../x.patch", "leads out of"),
        ("/etc/passwd", "leads out of"),
        ("gone.patch", "there is no"),
        ("x.patch --posix", "'--posix' is not known"),
    ],
)
def test_wrong_series(folder: Path, line: str, why: str) -> None:
    (folder / "series").write_text(f"\n{line}\n")
    with pytest.raises(PiggyError, match=f"series:2: .*{why}"):
        series.patches([folder])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (B.replace("\n", "\r\n"), {"kernel/x.c": File(b"a\nB\nc\nd\n")}),
        (B.replace("-1,3 +1,3", "-3,3 +3,3"), {"kernel/x.c": File(b"a\nB\nc\nd\n")}),
        ("--- /dev/null\n+++ b/n/z.c\n@@ -0,0 +1 @@\n+two\n", {"n/z.c": File(b"two\n")}),
        ("--- a/kernel/y.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n", {"kernel/y.c": None}),
        (
            "diff --git a/kernel/y.c b/kernel/z.c\nrename from kernel/y.c\nrename to kernel/z.c\n",
            {"kernel/y.c": None, "kernel/z.c": File(b"one\n")},
        ),
        (
            "diff --git a/kernel/y.c b/kernel/y.c\nold mode 100644\nnew mode 100755\n",
            {"kernel/y.c": File(b"one\n", True)},
        ),
        ("diff --git a/e b/e\nnew file mode 100644\nindex 0..e69\n", {"e": File(b"")}),
    ],
)
def test_kinds(tree: Path, folder: Path, text: str, found: dict[str, File | None]) -> None:
    assert applied(tree, folder, one=text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (B.replace(" a\n", " q\n"), "hunk 1 of kernel/x.c (line 3 of the patch)\n    @@ -1,3"),
        (f"{B}@@ -9 +9 @@\n-q\n+Q\n", "hunk 2 of kernel/x.c (line 8 of the patch)"),
        (B.replace("-b\n+B", "-B\n+b"), "hunk 1 of kernel/x.c"),  # applied before
        (B.replace("x.c", "q.c"), "there is no kernel/q.c in the tree"),
        ("--- /dev/null\n+++ b/kernel/y.c\n@@ -0,0 +1 @@\n+two\n", "hunk 1 of kernel/y.c"),
        ("--- a/kernel/y.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-two\n", "hunk 1 of kernel/y.c"),
        (B.replace("kernel", "link"), "link/x.c is reached through the symbolic link"),
        (B.replace("/kernel/x.c", "/link"), "link is reached through the symbolic link"),
    ],
)
def test_does_not_apply(tree: Path, folder: Path, text: str, why: str) -> None:
    with pytest.raises(PiggyError) as error:
        applied(tree, folder, one=text)
    assert why in str(error.value), error.value
    assert "one.patch" in str(error.value)


def test_hidden_files_are_no_patches(folder: Path) -> None:
    """An editor makes such a link beside a file that is open in it."""
    (folder / "x.patch").write_text(B)
    (folder / ".#x.patch").symlink_to("me@here.1")
    assert series.patches([folder]) == [Patch(folder / "x.patch")]


def test_series_that_cant_be_read(folder: Path) -> None:
    (folder / "x.patch").write_text(B)
    (folder / "series").symlink_to("gone")
    with pytest.raises(PiggyError, match="series can't be read: No such file"):
        series.patches([folder])
    (folder / "series").unlink()
    (folder / "series").mkdir()
    with pytest.raises(PiggyError, match="series can't be read"):
        series.patches([folder])


def test_single_file(tree: Path, folder: Path) -> None:
    path = folder / "x.patch"
    path.write_text(B)
    assert series.patches([path]) == [Patch(path)]


def test_pipe_is_not_read(folder: Path) -> None:
    import os

    os.mkfifo(folder / "p.patch")
    with pytest.raises(PiggyError, match="can't be read"):
        series.read(Patch(folder / "p.patch"))
