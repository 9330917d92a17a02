"""Folders by words: what lies in them has the same name in each checkout.

Where a checkout, its build folder, a source tree and a toolchain lie does not decide what is built.
So names that are kept for others have a word in place of the folder: `<tree>/kernel/panic.c`. The
same name stands for another file in another checkout, of which the content is compared.

What was made may hold the path of such a folder all the same (debug information, `__FILE__`);
`Places.held` finds that out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

_PART = 1 << 20  # bytes of a file that are read at once
_ELF = b"\x7fELF"
# A section of DWARF: it names the folder in which the compiler ran, perhaps compressed. DWARF 5,
# section 3.1.1, DW_AT_comp_dir; the ID of a linked file is a hash over it, too.
_DEBUG = b".debug_info"


class Places:
    """The folders that have words.

    Attributes:
        base: What relative names start from.
        pairs: Each path of a folder and its word, as `<tree>`; the longest path first.
    """

    def __init__(self, folders: Mapping[str, Iterable[str]], base: str = "") -> None:
        """Take the folders in order; of two words for the same path the first one counts.

        Args:
            folders: Word to the absolute paths of its folder; names are given back with the first
                of them, the others lead to it by links. An empty path is no folder, and "/" none
                that a name need be freed of.
            base: What relative names start from.
        """
        self.base = base
        self._of: dict[str, str] = {}
        self._first: dict[str, str] = {}
        for word, paths in folders.items():
            for path in paths:
                if path.strip("/"):
                    self._of.setdefault(path.rstrip("/"), f"<{word}>")
                    self._first.setdefault(f"<{word}>", path.rstrip("/"))
        self.pairs = sorted(self._of.items(), key=lambda pair: -len(pair[0]))
        paths = "|".join(re.escape(path) for path, _ in self.pairs)
        self._paths = re.compile(rf"(?:{paths})(?=[/=\s'\"]|$)" if paths else r"(?!)")
        # Those without a folder here, too: they may have one elsewhere.
        words = "|".join(re.escape(f"<{word}>") for word in folders)
        self._words = re.compile(words or r"(?!)")

    # names of files ------------------------------------------------------------------------------

    def name(self, path: str) -> str:
        """Return the name of a file for others: with a word, or absolute if it lies in no place.

        A name that begins with "<" has a word, since all others are absolute.
        """
        full = os.path.join(self.base, path)
        for folder, word in self.pairs:
            if full.startswith(folder) and full[len(folder) : len(folder) + 1] in ("", "/"):
                return word + full[len(folder) :]
        return full

    def path(self, name: str) -> str:
        """Return the path of the file that a name stands for here; "" for an unknown word."""
        if not name.startswith("<"):
            return name
        word, slash, rest = name.partition("/")
        return self._first[word] + slash + rest if word in self._first else ""

    # texts ---------------------------------------------------------------------------------------

    def hidden(self, text: str) -> str:
        """Return a text with words in place of the paths in it.

        Raises:
            ValueError: It has one of the words already, and would not come back.
        """
        if self._words.search(text):
            raise ValueError("a text has a word of ours")
        return self._paths.sub(lambda found: self._of[found[0]], text)

    def shown(self, text: str) -> str:
        """Return a text with the paths in place of the words."""
        return self._words.sub(lambda found: self._first.get(found[0], found[0]), text)

    # contents ------------------------------------------------------------------------------------

    def held(self, files: Iterable[str | Path]) -> bool:
        """Tell whether the content of one of these files depends on a folder's path.

        It has the path in it, or is a linked file or an object with debug information.

        Raises:
            OSError: A file can't be read.
        """
        tops = self._outermost()
        return any(_holds(Path(file), tops) for file in files)

    def _outermost(self) -> list[bytes]:
        """Return the paths; one that lies in another one needs no look of its own."""
        paths = [path for path, _ in self.pairs]
        return [
            os.fsencode(path)
            for path in paths
            if not any(path.startswith(f"{other}/") for other in paths)
        ]


def _holds(file: Path, paths: Collection[bytes]) -> bool:
    more = max(map(len, [*paths, _DEBUG]))  # bytes of a part that may go on in the next one
    with file.open("rb") as stream:
        end, wanted = b"", list(paths)
        while part := stream.read(_PART):
            if not end and part.startswith(_ELF):
                wanted.append(_DEBUG)
            content = end + part
            if any(text in content for text in wanted):
                return True
            end = content[-more:]
    return False
