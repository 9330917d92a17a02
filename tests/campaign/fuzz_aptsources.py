"""The system's package sources, in both formats of sources.list(5): whatever stands there, only
known options pass."""

from __future__ import annotations

import random
import re
from pathlib import Path
from unittest import mock

from fuzz import Target, mutated

from tasks.fetch import apt_sources
from tasks.fetch.download import Unavailable
from tasks.system.errors import PiggyError

LINES = [
    b"deb http://a/debian bookworm main contrib",
    b"deb-src [signed-by=/k.gpg] http://a/debian bookworm main",
    b"deb [ arch = amd64,i386 trusted=yes ] http://a ./",
    b"# deb http://a s m",
    b"deb cdrom:[Debian]/ s m",
    b"",
    (
        b"deb [signed-by=/k.gpg,0123456789ABCDEF by-hash=no] http://[::1]:80/d bookworm-security"
        b" main # note"
    ),
]
FIELDS = [
    b"Types: deb",
    b"Types: deb deb-src",
    b"URIs: http://a/debian",
    b"Suites: bookworm\n  bookworm-updates",
    b"Components: main",
    b"Signed-By: /k.gpg",
    b"Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDME",
    b"Enabled: no",
    b"Architectures: amd64",
    b"By-Hash: force",
]
WEAK = [
    b"trusted=yes",
    b'"trusted"=yes',
    b"%74rusted=yes",
    b"trusted+=yes",
    b"TRUSTED=yes",
    b"check-valid-until=no",
    b"check-date=no",
    b"allow-weak=yes",
    b"allow-insecure=yes",
    b"signed-by-=/k.gpg",
    b'"signed-by"=/l',
    b"arch+=x",
]
TOKENS = [
    *WEAK,
    *(word.replace(b"=", b": ").title() for word in WEAK),
    b"[",
    b"]",
    b"] [",
    b'"',
    b"'",
    b"%20",
    b"%5d",
    b"\\",
    b"=",
    b"+=",
    b"-=",
    b"\n",
    b"\r",
    b"\x0c",
    b"\xc2\x85",
    b"\n\n",
    b"\n \n",
    b"\n ",
    b"\t",
    b"#",
    b":",
    b"deb ",
    b"deb [trusted=yes] http://b s m\n",
    b"Trusted: yes\n",
    b"Types: deb\n",
    b"cdrom:",
    b"\0",
    b"Suites-Add: x\n",
]
OPTIONS = {"arch", "signed-by", "by-hash", "target"}
NAMES = {
    "types",
    "targets",
    "uris",
    "suites",
    "components",
    "signed-by",
    "enabled",
    "architectures",
    "architectures-add",
    "architectures-remove",
    "by-hash",
}


def make_lines(rng: random.Random) -> bytes:
    """Lines with options that weaken trust, and noise."""
    made = []
    for _ in range(rng.randint(1, 3)):
        line = rng.choice(LINES)
        if b"[" in line and rng.random() < 0.5:
            line = line.replace(b"[", b"[" + rng.choice(WEAK) + b" ", 1)
        made.append(line)
    data = b"\n".join(made) + b"\n"
    return mutated(rng, data, TOKENS, rounds=3) if rng.random() < 0.8 else data


def make_paragraphs(rng: random.Random) -> bytes:
    """Paragraphs with fields that weaken trust, and noise."""
    made = []
    for _ in range(rng.randint(1, 3)):
        fields = (
            [*FIELDS[:1], *FIELDS[2:5], *rng.sample(FIELDS[5:], 2)]
            if rng.random() < 0.8
            else rng.sample(FIELDS, 4)
        )
        if rng.random() < 0.3:
            fields.append(rng.choice(WEAK).replace(b"=", b": "))
        rng.shuffle(fields)
        made.append(b"\n".join(fields))
    data = b"\n\n".join(made) + b"\n"
    return mutated(rng, data, TOKENS, rounds=3) if rng.random() < 0.8 else data


def check_lines(data: bytes, folder: Path) -> None:
    """Each line of the copy has one group of known options, in plain words that apt can read in one
    way only."""
    text = data.decode(errors="replace")
    made = apt_sources.lines(text)
    for line in made.removesuffix("\n").split("\n") if made else []:
        found = re.fullmatch(
            r"(deb|deb-src) \[([^\[\]\"'%\\#]*)] ([^\s\"'\\#]+)((?:[ \t]+[^\s\[\]\"'%\\#]+)+)", line
        )
        assert found, line
        assert line.isascii()
        assert line.isprintable() or "\t" in line
        names = [re.split(r"[-+]?=", word)[0] for word in found[2].split()]
        assert set(names) <= OPTIONS, line
        assert "target" in names
        # a source that had its keys named has them named in the copy
        for original in re.findall(
            r"^[ \t]*deb(?:-src)?[ \t]+\[([^]\n]*)\][ \t]*(\S+)", text, re.MULTILINE
        ):
            if (
                original[1] == found[3]
                and text.count(original[1]) == 1
                and re.search(r"(?<!\S)signed-by=", original[0])
            ):
                assert "signed-by" in names, line
    suite({"a.list": made})


def check_paragraphs(data: bytes, folder: Path) -> None:
    """Each field of the copy is a known one, and stands once in its paragraph."""
    made = apt_sources.paragraphs(data.decode(errors="replace"))
    for paragraph in made.removesuffix("\n").split("\n\n") if made else []:
        lines = paragraph.split("\n")
        assert all(line.isprintable() or "\t" in line for line in lines), paragraph
        names = [
            line.partition(":")[0].lower() for line in lines if not line.startswith((" ", "\t"))
        ]
        assert not any(line.startswith("#") or not line.strip() for line in lines), paragraph
        assert set(names) <= NAMES, paragraph
        assert len(set(names)) == len(names), paragraph
        assert {"types", "uris", "suites", "targets"} <= set(names), paragraph
    suite({"a.sources": made})


def suite(copies: dict[str, str]) -> None:
    """Make another suite of a copy: its options are the copy's. Refuse where the copy is empty."""
    if not copies.get("a.list", copies.get("a.sources")):
        raise PiggyError("nothing is left")
    with mock.patch.object(apt_sources, "codename", return_value="bookworm"):
        try:
            made = apt_sources.of_suite(copies, "sid")
        except Unavailable:
            return
    for text in made.values():
        assert re.search(r"^(?i:suites): sid$|] \S+ sid main$", text, re.MULTILINE), text


TARGETS = [
    Target("apt lines", make_lines, check_lines),
    Target("apt paragraphs", make_paragraphs, check_paragraphs),
]
