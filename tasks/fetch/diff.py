"""Unified diffs: the files that one names, and its hunks.

The headers of diff and of git (git-diff(1), "Generating patch text with -p") and the hunks are
kept. All other text, such as a message before them, is not: so GNU patch is given nothing that it
could take for a diff of another kind, such as a script for ed. Text that looks like a part of a
diff and can't be read as one is an error, as it would be left out without a word.

What a diff may not do: name a file by an absolute path or through ".."; make a link, a submodule or
a binary file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern
from tasks.system.terminal import printable

OURS = ".piggyback"  # what our own files in a tree begin with
_HUNK = pattern(r"@@ -\d{1,9}(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@")
_GIT = pattern(r"diff --git (\S+) (\S+)")
_EXTENDED = pattern(
    r"(?:old mode|new mode|deleted file mode|new file mode|copy from|copy to|rename from|rename to"
    r"|similarity index|dissimilarity index|index) (.+)"
)
_FILES = ("100644", "100755", "100664", "100600", "100775", "100700")
# What is no line of a message behind a hunk; "-- " is the signature of git format-patch.
_LEFT_OVER = pattern(r"\+|-(?!-\s*$|--(?:\s|$))")
_BINARY = pattern(r"Binary files .+ and .+ differ")
_NO_FILES = {"120000": "a symbolic link", "160000": "a submodule"}


class Hunk(msgspec.Struct, frozen=True):
    """A hunk: the file that its header names, its number in that file, its line in the diff."""

    file: str
    number: int
    line: int
    text: Sequence[str]


class Diff:
    """A diff, read.

    Attributes:
        names: The files that it names, as they are called in the tree, in order.
        hunks: The hunks.
        kept: The lines of headers and hunks, as they are.
    """

    def __init__(self, path: Path, text: str, strip: int = 1) -> None:
        """Read a diff.

        Args:
            path: Its file, for messages.
            text: Its text.
            strip: How many folders of the names in it are left out (patch -p).

        Raises:
            PiggyError: It has no unified diff, is cut short, or may not do what it does.
        """
        self.path, self.strip = path, strip
        self.names: dict[str, None] = {}
        self.hunks: list[Hunk] = []
        self.kept: list[str] = []
        self._file, self._git = "", False
        raw = text.removeprefix("\ufeff").split("\n")
        self._lines, number = [line.removesuffix("\r") for line in raw], 0
        after_hunk = False
        while number < len(raw):
            hunk = self._hunk(number)
            count = hunk or self._header(number)
            if not count:
                self._check_text(number, after_hunk)
            after_hunk = hunk > 0
            self.kept += raw[number : number + count]
            number += max(count, 1)
        if not self.names:
            raise PiggyError(
                f"{path} has no unified diff in it",
                "'diff -u', 'git diff' and 'git format-patch' write them",
            )

    def _hunk(self, first: int) -> int:
        """Take the hunk that begins at a line; return how many lines it has, 0 for none."""
        start = _HUNK.match(self._lines[first]) if self._file else None
        if not start:
            return 0
        old, new = (int(count) if count else 1 for count in start.groups())
        end = first + 1
        while old > 0 or new > 0 or self._line(end).startswith("\\"):
            sign = self._line(end)[:1] or " "
            if end >= len(self._lines) or sign not in " +-\\":
                raise self._refused(first, "the hunk is shorter than its head says")
            old -= sign in " -"
            new -= sign in " +"
            end += 1
        before = self.hunks[-1] if self.hunks else None
        number = before.number + 1 if before and before.file == self._file else 1
        self.hunks.append(Hunk(self._file, number, first + 1, self._lines[first:end]))
        return end - first

    def _header(self, number: int) -> int:
        """Take the header that begins at a line; return how many lines it has, 0 for none."""
        line = self._line(number)
        if (self._git and line.startswith("GIT binary patch")) or _BINARY.fullmatch(line):
            raise self._refused(number, "a binary file can't be patched")
        if git := _GIT.fullmatch(line):
            self._file, self._git = "", True
            self._name(number, git.groups(), self.strip)
            return 1
        if self._git and (extended := _EXTENDED.fullmatch(line)):
            if " mode " in line and extended[1] not in _FILES:
                what = _NO_FILES.get(extended[1], f"a file of the mode {extended[1]}")
                raise self._refused(number, f"it is for {what}, which can't be patched")
            if line.startswith(("copy", "rename")):  # these names have no a/ before them
                self._name(number, [extended[1]], max(0, self.strip - 1))
            return 1
        self._git = self._git and line.startswith("--- ")
        if not (
            line.startswith("--- ")
            and self._line(number + 1).startswith("+++ ")
            and _HUNK.match(self._line(number + 2))
        ):
            return 0
        old, new = (self._plain(at) for at in (number, number + 1))
        self._file = new or old
        return 2

    def _check_text(self, number: int, after_hunk: bool) -> None:
        """Check that a line that is neither header nor hunk is no part of a diff.

        Args:
            number: Its number.
            after_hunk: Whether it is the first line behind a hunk.

        Raises:
            PiggyError: It is one, and would be left out.
        """
        line, follows = self._line(number), self._line(number + 1)
        if after_hunk and _LEFT_OVER.match(line):
            raise self._refused(number, "the hunk before it is longer than its head says")
        if line.startswith("@@ ") and (self.names or self._line(number - 1).startswith("+++ ")):
            raise self._refused(number, "this is no head of a hunk: @@ -LINE,COUNT +LINE,COUNT @@")
        if line.startswith("diff --git ") and (
            follows.startswith("--- ") or _EXTENDED.fullmatch(follows)
        ):
            raise self._refused(number, "there is a blank in a file's name")
        if line.startswith("*** ") and self._line(number + 2).startswith("***************"):
            raise self._refused(number, "this is a context diff; 'diff -u' writes unified ones")

    def _plain(self, number: int) -> str:
        """Take the name of a --- or +++ line, which may have a date behind it; "" for none."""
        name = self._line(number)[4:].partition("\t")[0]
        return self._name(number, dict.fromkeys([name, name.split(" ")[0]]), self.strip)

    def _name(self, number: int, names: Iterable[str], strip: int) -> str:
        """Take the names of a file from a line; return the last one, "" for /dev/null.

        Raises:
            PiggyError: It is a name that no diff may have.
        """
        taken = ""
        for name in names:
            parts = name.split("/")
            if name.split(" ")[0] == "/dev/null":
                continue
            if name.startswith('"') or re.search(r"[\0-\x1f\x7f\udc80-\udcff]", name):
                raise self._refused(number, "there is a special character in a file's name")
            if name.startswith("/"):
                raise self._refused(number, f"'{name}' is an absolute path")
            if ".." in parts:
                raise self._refused(number, f"'{name}' leads out of the tree")
            if any(part.startswith(OURS) for part in parts):
                raise self._refused(number, f"'{name}' is a file of Piggyback's")
            taken = "/".join([part for part in parts if part not in ("", ".")][strip:])
            if not taken:
                raise self._refused(number, f"with -p{self.strip} nothing is left of '{name}'")
            self.names[taken] = None
        return taken

    def _line(self, number: int) -> str:
        return self._lines[number] if number < len(self._lines) else ""

    def _refused(self, number: int, why: str) -> PiggyError:
        return PiggyError(
            printable(f"{self.path}:{number + 1}: {why}"),
            "take the patch out of the series, or mend it",
        )
