"""Kinds of edits after which the links of the image chain have other sizes, or are other files:
arrays that cross pages, another compressor, what the last links of vmlinux add."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from arrays import resize
from edits import kind, pick, sources, write
from world import FRAGMENT, World

# Each compressor that a kernel can be packed with here, and its program.
COMPRESSORS = {
    "fake": {
        "GZIP": "gzip",
        "BZIP2": "bzip2",
        "LZMA": "lzma",
        "XZ": "xz",
        "LZ4": "lz4",
        "ZSTD": "zstd",
    },
    "real": {"GZIP": "gzip", "LZMA": "lzma", "XZ": "xz", "LZ4": "lz4", "ZSTD": "zstd"},
}
# Symbols that change more than the objects that read them: the steps of a link, or all flags.
OPTIONS = {
    "fake": ["CONFIG_KALLSYMS=y", "CONFIG_RELOCATABLE=y", "CONFIG_DEBUG_INFO=y"],
    "real": ["CONFIG_KALLSYMS=y", "CONFIG_RELOCATABLE=y"],
}


@kind("size")
def size(world: World, rng: random.Random) -> str:
    """An array in a section of the kernel, or of its loader, comes or gets another size."""
    choice = sources(world)
    if rng.random() < 0.2:
        choice = [name for name in sources(world, "boot") if "/compressed/" in name]
    path = world.tree / pick(rng, choice)
    text, said = resize(rng, path.read_text(errors="surrogateescape"))
    write(world, path, text)
    return f"{path}: {said}"


def _set(path: Path, gone: str, lines: Iterable[str]) -> None:
    """Put lines into a fragment in place of those that match."""
    rest = [line for line in path.read_text().splitlines() if not re.search(gone, line)]
    path.write_text("\n".join([*rest, *lines]) + "\n")


@kind("compressor")
def compressor(world: World, rng: random.Random) -> str:
    """The kernel is packed by another program; half of the time a size changes, too."""
    programs = COMPRESSORS[world.kind]
    name = pick(rng, [name for name, program in programs.items() if shutil.which(program)])
    others = [one for one in ("GZIP", "XZ") if one != name]
    _set(
        world.top / "configs" / "kernel" / f"{FRAGMENT}.config",
        r"CONFIG_KERNEL_",
        [f"CONFIG_KERNEL_{name}=y", *(f"# CONFIG_KERNEL_{one} is not set" for one in others)],
    )
    return name + (f", {size(world, rng)}" if rng.random() < 0.5 else "")


@kind("option")
def option(world: World, rng: random.Random) -> str:
    """A symbol on or off that changes how vmlinux or a later link is made."""
    chosen = rng.choice(OPTIONS[world.kind])
    path = world.top / "configs" / "kernel" / f"{FRAGMENT}.config"
    there = chosen in path.read_text().splitlines()
    _set(path, f"^{chosen}$", [] if there else [chosen])
    return f"{chosen} {'away' if there else 'added'}" + (
        f", {size(world, rng)}" if rng.random() < 0.5 else ""
    )
