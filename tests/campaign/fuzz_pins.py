"""Tables of sources and of packages: what they say goes into addresses, names of files and words of
package managers."""

from __future__ import annotations

import random
import re
from pathlib import Path

from fuzz import Target, mutated

from tasks.config import packages, pins

TOP = Path(__file__).resolve().parents[2]
RELEASES = ("bookworm", "trixie", "sid", "")
PINS = b"""\
["tool"]
version = "1.2"
urls = ["https://files.example/tool-1.2.tar.gz"]
sha256 = "%s"
package = { name = "tool", kind = "binary", member = "usr/src/tool.tar.xz", \
suite = "bookworm bookworm-security", \
releases = { sid = { name = "tool2", member = "tool2.tar", suite = "sid" }, trixie = { } } }
outside_links = ["etc/x"]

["other"]
version = "7.3"
package = { name = "other", kind = "source", suite = "sid" }
""" % (b"0a" * 32)
TOKENS = [
    b"..",
    b"/",
    b"%2F",
    b"%00",
    b"-o",
    b"=",
    b"^",
    b"*",
    b" ",
    b"\\n",
    b"\\u0000",
    b"\\u001b[2J",
    b"{triple}",
    b"-",
    b"name = 'x'\n",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"releases = {}",
    b"9" * 5000,
    b"file:///etc/passwd",
    b"#",
    b",",
]


def make_pins(rng: random.Random) -> tuple[bytes, str]:
    """A table of sources with some changes, and a release to read it for."""
    return mutated(rng, PINS, TOKENS, rounds=3), rng.choice(RELEASES)


def check_pins(data: tuple[bytes, str], folder: Path) -> None:
    """Read it, and see that no name is more than a name."""
    (folder / "sources.toml").write_bytes(data[0])
    for name, source in pins.load(folder / "sources.toml", data[1]).items():
        words = [name, source.version, source.filename]
        if source.package:
            assert not source.package.releases
            words += [source.package.name, *(source.package.suite or "x").split(" ")]
            assert data[1] not in (source.package.suite or "").split(" ") or not data[1]
        for word in words:
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+~_-]*", word), word
        assert not source.sha256 or re.fullmatch("[0-9a-f]{64}", source.sha256)
        assert all(re.match("(?i)https?://[^/]", url) for url in source.urls)


def make_packages(rng: random.Random) -> tuple[bytes, str, str]:
    """The shipped table with some changes, and the words that are filled in."""
    table = (TOP / "configs" / "packages.toml").read_bytes().partition(b"\nflex = ")[0]
    triple = rng.choice(["x86_64-linux-gnu", "m68k", "a b", "-", "^a", "x*", ""])
    table += b'\n"{llvm_folder}clang{llvm}" = { why = "it", apt = "clang{llvm}" }\n'
    return (
        mutated(rng, table, TOKENS, rounds=3),
        triple,
        rng.choice(["1", "-19", "-", "-x-", "-1=2", "/opt/llvm/"]),
    )


def check_packages(data: tuple[bytes, str, str], folder: Path) -> None:
    """Read it, and see that what a manager is to install are names of packages."""
    from types import SimpleNamespace

    (folder / "configs").mkdir()
    (folder / "configs" / "packages.toml").write_bytes(data[0])
    table = packages.load(folder)
    machine = SimpleNamespace(triple=data[1], qemu=None)
    found = packages.needs(table, machine, toolchain="llvm", llvm=data[2])  # type: ignore[arg-type]
    for manager in table.managers:
        words = packages.commands(table, manager, found)[-1]
        for word in words[len(words) - len({need.packages[manager] for need in found}) :]:
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+._-]*(?<!-)", word), word


TARGETS = [Target("pins", make_pins, check_pins), Target("packages", make_packages, check_packages)]
