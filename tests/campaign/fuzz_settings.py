"""TOML files (local.toml, machine files)."""

from __future__ import annotations

import random
from pathlib import Path

from fuzz import Target, mutated

from tasks.kit import toml

SAMPLE = b'memory = 64\nfragments = "a,b"\n[machines.pc]\ntimeout = 5\n[[list]]\nx = 1979-05-27T07:32:00Z\n'
TOKENS = [b"[", b"[[", b"]", b"{", b"}", b'"', b"'''", b"= ", b"\\u0000", b"\\U0010FFFF", b"[" * 3000, b"{a=" * 2000,
          b"9" * 5000, b"1e999", b"nan", b"0x", b"#", b"machine = ", b"a.b.c = 1\n"]


def make(rng: random.Random) -> bytes:
    """A settings file with some changes."""
    return mutated(rng, SAMPLE, TOKENS)


def check(data: bytes, folder: Path) -> None:
    """Read it as a TOML file."""
    (folder / "local.toml").write_bytes(data)
    toml.read(folder / "local.toml")


TARGETS = [Target("toml", make, check)]
