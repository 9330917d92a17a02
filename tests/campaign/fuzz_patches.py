"""Patches from elsewhere: read, and applied to copies of files of a tree, which stays as it is."""

from __future__ import annotations

import random
from pathlib import Path

from fuzz import Target, mutated

from tasks.fetch import series
from tasks.fetch.series import File, Patch

PATCHES = [
    b"--- a/kernel/x.c\n+++ b/kernel/x.c\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n",
    b"--- /dev/null\n+++ b/kernel/new.c\n@@ -0,0 +1,2 @@\n+one\n+two\n",
    b"--- a/kernel/y.c\t2020-01-01\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n",
    (
        b"diff --git a/kernel/y.c b/kernel/z.c\nsimilarity index 100%\nrename from kernel/y.c\n"
        b"rename to kernel/z.c\n"
    ),
    b"diff --git a/run.sh b/run.sh\nold mode 100644\nnew mode 100755\n",
    (
        b"diff --git a/l b/l\nnew file mode 120000\nindex 0..1\n--- /dev/null\n+++ b/l\n"
        b"@@ -0,0 +1 @@\n+../../target\n\\ No newline at end of file\n"
    ),
    b"diff --git a/copy b/copy2\ncopy from run.sh\ncopy to copy2\n",
]
TOKENS = [
    b"--- a/../../target\n+++ b/../../target\n@@ -1 +1 @@\n-precious\n+gone\n",
    b"--- a/link/passwd\n+++ b/link/passwd\n@@ -1 +1 @@\n-root:x:0:0\n+root::0:0\n",
    b"+++ b/l/x\n",
    b"1,2d\n",
    b"!touch ../../new\n.\n",
    b"*** a/kernel/x.c\n--- b/kernel/x.c\n***************\n*** 1 ****\n! a\n--- 1 ----\n! A\n",
    b"Index: ../../target\n",
    b"Prereq: x\n",
    b"GIT binary patch\n",
    b"@@ -1,99999999 +1,99999999 @@\n",
    b"rename to ../../target\n",
    b"rename to /etc/passwd\n",
    b"new file mode 120000\n",
    b"a/",
    b"b/.piggyback-source",
    b"\\ No newline at end of file\n",
]


def patch(rng: random.Random) -> bytes:
    """One or several diffs, as they are or changed."""
    text = b"Subject: some\n\n" + b"".join(rng.sample(PATCHES, rng.randint(1, 3)))
    return mutated(rng, text, TOKENS, 3) if rng.random() < 0.8 else text


def apply(data: bytes, folder: Path) -> None:
    """Apply it: the tree stays as it is, and what comes out lies in it and is a file."""
    tree = folder / "tree"
    (tree / "kernel").mkdir(parents=True)
    for name, text in (("kernel/x.c", "a\nb\nc\n"), ("kernel/y.c", "one\n"), ("run.sh", "#\n")):
        (tree / name).write_text(text)
    (tree / "link").symlink_to("../../etc")
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    (folder / "x.patch").write_bytes(data)
    found = series.applied([Patch(folder / "x.patch")], tree, None)
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before
    for name, file in found.items():
        assert not name.startswith("/")
        assert not {"..", "link", ""} & {*name.split("/")}
        assert file is None or isinstance(file, File)


TARGETS = [Target("patch", patch, apply)]
