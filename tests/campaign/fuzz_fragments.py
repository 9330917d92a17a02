"""Kernel fragments, .config files and Buildroot's defconfigs, through the one parser of such
files."""

from __future__ import annotations

import random
import re
from pathlib import Path

from fuzz import Target, mutated

from tasks.buildroot import config
from tasks.kconfig import dotconfig, fragments

LINES = [
    b"CONFIG_A=y",
    b"CONFIG_B=m",
    b"CONFIG_C=n",
    b"# CONFIG_D is not set",
    b"CONFIG_N=12",
    b"CONFIG_H=0xC0fe",
    b'CONFIG_S="a \\"b\\" # c \\\\"',
    b"# a comment",
    b"",
    b"CONFIG_A=y # why",
    b"CONFIG_E=y  # optional: new",
    b"# CONFIG_F is not set # optional",
    b"CONFIG_MODULES=y",
    b"CONFIG_I=-3",
    b"CONFIG_J=34c",
    b'CONFIG_T=""',
]
TOKENS = [
    b"CONFIG_",
    b"=",
    b"=y",
    b" is not set",
    b"# ",
    b"#",
    b'"',
    b"\\",
    b"\r",
    b"\r\n",
    b"\x0c",
    b"\x0b",
    b"\t",
    b" ",
    b"\xef\xbb\xbf",
    b"\xc2\xa0",
    b"\xe2\x80\xa8",
    b"\xef\xbc\x91",
    b"\xfc",
    b"\0",
    b"\x1b[2J",
    b" # optional",
    b"y" * 5000,
    b"9" * 5000,
    b"# CONFIG_X is not set\n",
    b"\nCONFIG_Y=y",
    b"  ",
    b"export ",
    b"yes",
    b"-",
    b"BR2_",
    b"\n",
]
SIGNS = b"\xef\xbb\xbf"


def fragment(rng: random.Random) -> bytes:
    """A fragment; some have line ends of other systems, a mark at the beginning, or changes
    anywhere."""
    ending = rng.choice([b"\n", b"\n", b"\r\n", b" \n", b"\t\n", b"\x0c\n"])
    text = (
        rng.choice([b"", b"", SIGNS])
        + ending.join(rng.choices(LINES, k=rng.randint(1, 8)))
        + rng.choice([b"", ending])
    )
    return mutated(rng, text, TOKENS, 2) if rng.random() < 0.7 else text


def conf(data: bytes) -> dict[str, str]:
    """What conf_read_simple of scripts/kconfig/confdata.c (Linux 6.1) reads of a user's file, by
    the bytes, with the type of a symbol that its value has; what it would pass over with a warning
    at most is left out."""
    found: dict[str, str] = {}
    for line in data.removeprefix(SIGNS).split(b"\n"):
        if line[:1] == b"#" and line[2:9] == b"CONFIG_":
            name, space, rest = line[9:].partition(b" ")
            if space and rest.startswith(b"is not set"):
                found[name.decode("latin-1")] = "n"
        elif line.startswith(b"CONFIG_") and b"=" in line:
            name, _, value = line[7:].removesuffix(b"\r").partition(b"=")
            text = value.decode("utf-8", "replace")
            if text[:1] in ("y", "m", "n"):
                text = text[0]
            elif text.startswith('"'):
                closed = re.match(r'"(?:[^"\\]|\\.)*"', text)
                text = closed[0] if closed else "no string"
            else:
                # here alone a fragment may say more than conf takes: blanks and a comment after a
                # number
                text = re.sub(r"[ \t]+#.*|[ \t]+$", "", text)
            found[name.decode("latin-1")] = text
    return found


def parse(data: bytes, folder: Path) -> None:
    """Parse it: what is taken is what conf would read, symbol by symbol, and a miniconfig of it
    says the same again."""
    path = folder / "x.config"
    path.write_bytes(data)
    requests = {one.symbol: one.value for one in fragments.parse(path)}
    read = conf(data)
    assert set(requests) == set(read), (requests, read)
    for name, value in read.items():
        assert fragments.same(requests[name], value), (name, requests[name], value)
    mini = fragments.miniconfig(fragments.merge([path], {path}))
    again = dotconfig.parse_config(mini)
    assert set(again) == set(requests)
    assert all(fragments.same(value, again[name]) for name, value in requests.items())
    assert set(conf(mini.encode())) == set(requests)


def dotconfig_text(rng: random.Random) -> bytes:
    """A .config file, cut short or changed."""
    text = b"\n".join(rng.choices(LINES[:7], k=5))
    return mutated(rng, text, TOKENS, 2) if rng.random() < 0.8 else text


def read_config(data: bytes, folder: Path) -> None:
    """Read it as a result of Kconfig: no symbol that stands in it is missed."""
    (folder / ".config").write_bytes(data)
    found = dotconfig.read_config(folder / ".config")
    names = re.findall(rb"^CONFIG_(\w+)=", data, re.MULTILINE | re.ASCII)
    assert {name.decode() for name in names} <= set(found)
    assert len(found) <= data.count(b"\n") + 1


def defconfig(rng: random.Random) -> bytes:
    """A fragment of Buildroot's."""
    return fragment(rng).replace(b"CONFIG_", b"BR2_")


def parse_defconfig(data: bytes, folder: Path) -> None:
    """Parse it; every request stands for itself, as a line of its own."""
    (folder / "b.config").write_bytes(data)
    for one in config.parse(fragments.read(folder / "b.config"), "b.config"):
        assert one.symbol.startswith("BR2_")
        assert "\n" not in one.line
        assert config.read(one.line) == {one.symbol: one.value}


TARGETS = [
    Target("fragment", fragment, parse),
    Target("config", dotconfig_text, read_config),
    Target("defconfig", defconfig, parse_defconfig),
]
