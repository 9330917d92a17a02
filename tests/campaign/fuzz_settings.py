"""TOML files (local.toml, machine files), and what settings come to with the environment and the
command line."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import NamedTuple

from fuzz import Target, mutated

from tasks.config import machine, resolve, toml
from tasks.config.settings import Settings
from tasks.system.errors import PiggyError

TOP = Path(__file__).parents[2]
SAMPLE = (
    b'memory = 64\nfragments = "a,b"\n[machines.pc]\ntimeout = 5\n[[list]]\nx ='
    b" 1979-05-27T07:32:00Z\n"
)
LOCAL = (
    b'memory = 64\nfragments = "net, ~/x"\noffline = true\nstore_size ='
    b' "2G"\n[machines.pc]\ntimeout = 5\nnet = "nat"\n'
)
PC = (
    TOP / "configs" / "machines" / "pc.toml"
).read_bytes() + b'\n[settings]\nmemory = 64\nappend = "quiet"\n'
CHAINS = (TOP / "configs" / "chains.toml").read_bytes()
TOKENS = [
    b"[",
    b"[[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"'''",
    b"= ",
    b"\\u0000",
    b"\\U0010FFFF",
    b"[" * 3000,
    b"{a=" * 2000,
    b"9" * 5000,
    b"1e999",
    b"nan",
    b"0x",
    b"#",
    b"machine = ",
    b"a.b.c = 1\n",
    b"~nosuchuser/",
    b'"\\u001b[2J"',
    b"[machines.",
    b"../",
    b"x" * 300,
    b"true",
    b"-1",
    b"display.none",
    b"kernel",
]
NAMES = [
    *Settings.__struct_fields__,
    "",
    "x",
    "Memory",
    "kern\udcffel",
    "a\x1b[2J",
    "y" * 5000,
    "machines",
]
VALUES = [
    "",
    "1",
    "0",
    "-1",
    "yes",
    "NO",
    "9" * 5000,
    "64",
    "pc",
    "x86_64",
    "../pc",
    "/",
    "a" * 100_000,
    "\udcff",
    "\x1b]0;x\x07",
    "~",
    "~root/x",
    "~nosuchuser",
    "a,~nosuchuser,b",
    "net?",
    "2G",
    "nat",
    "gzip",
    "\n",
    "a=b",
    "\u202e",
    "\u0661",
]


class Said(NamedTuple):
    """What all sources of settings say."""

    local: bytes
    machine: bytes
    environ: dict[str, str]
    words: dict[str, str]


def text(rng: random.Random) -> bytes:
    """A settings file with some changes."""
    return mutated(rng, SAMPLE, TOKENS)


def read(data: bytes, folder: Path) -> None:
    """Read it as a TOML file."""
    (folder / "local.toml").write_bytes(data)
    found = toml.read(folder / "local.toml")
    assert "\0" not in repr_of_strings(found)


def repr_of_strings(data: object) -> str:
    """All text in plain data."""
    if isinstance(data, dict):
        return "".join(key + repr_of_strings(value) for key, value in data.items())
    return (
        "".join(map(repr_of_strings, data))
        if isinstance(data, list)
        else data
        if isinstance(data, str)
        else ""
    )


def said(rng: random.Random) -> Said:
    """Settings of all sources, some of them wrong."""
    names = rng.choices(
        [name for name in NAMES if "\udcff" not in name], k=rng.choice([0, 0, 0, 1, 2])
    )
    environ = {f"PIGGYBACK_{name.upper()}": rng.choice(VALUES) for name in names}
    environ |= {
        name: rng.choice(VALUES) for name in rng.sample(resolve.PLAIN_ENV, rng.choice([0, 0, 0, 1]))
    }
    words = {rng.choice(NAMES): rng.choice(VALUES) for _ in range(rng.choice([0, 0, 0, 1, 2]))}
    return Said(
        rng.choice([LOCAL, mutated(rng, LOCAL, TOKENS, 2)]),
        rng.choice([PC, PC, mutated(rng, PC, TOKENS, 2)]),
        environ,
        words,
    )


def resolved(given: Said, folder: Path) -> None:
    """Resolve them; each value has its type, and the last source that names a setting is where it
    comes from."""
    machines = folder / "configs" / "machines"
    machines.mkdir(parents=True)
    for name in ("pc", "x86_64"):
        (machines / f"{name}.toml").write_bytes(given.machine)
    (folder / "local.toml").write_bytes(given.local)
    found = resolve.resolve(folder, given.environ, given.words)
    for name, value in given.words.items():
        assert found.origins[name] == "command line"
        ours = getattr(found.values, name)
        assert isinstance(ours, bool | int) or ours == value
    for name in Settings.__struct_fields__:
        value = getattr(found.values, name)
        assert type(value) is type(getattr(Settings(), name))
        assert (
            isinstance(value, bool | int) or ("\0" not in value and value.encode()) or value == ""
        )
        if name in resolve.PATHS:
            assert not os.path.expanduser(value).startswith("~")


def machine_file(rng: random.Random) -> tuple[bytes, bytes]:
    """A machine's file and the chains, with some changes."""
    which = rng.randrange(4)
    return (mutated(rng, PC, TOKENS, 3) if which else PC), (
        mutated(rng, CHAINS, TOKENS, 3) if not which else CHAINS
    )


def load(data: tuple[bytes, bytes], folder: Path) -> None:
    """Load it as a machine; what it names is there, and its chain has a beginning."""
    for name in ("kernel", "busybox", "buildroot", "rootfs"):
        (folder / "configs" / name).parent.mkdir(exist_ok=True)
        (folder / "configs" / name).symlink_to(TOP / "configs" / name)
    (folder / "overlays").symlink_to(TOP / "overlays")
    (folder / "configs" / "machines").mkdir()
    (folder / "configs" / "machines" / "pc.toml").write_bytes(data[0])
    (folder / "configs" / "chains.toml").write_bytes(data[1])
    model, chain = machine.load(folder, "pc")
    if model.kernel.image not in ("vmlinux", *chain):
        raise AssertionError(model.kernel.image)
    for name in model.kernel.fragments:
        assert (TOP / "configs" / "kernel" / f"{name}.config").is_file()
    settled: set[str] = {"vmlinux"}
    for name, link in chain.items():
        assert link.after in settled
        settled.add(name)
    if data == (PC, CHAINS):
        raise PiggyError("nothing was changed")


TARGETS = [
    Target("toml", text, read),
    Target("settings", said, resolved),
    Target("machine", machine_file, load),
]
