"""What `doit size` reads: linked files, linkers' maps, its own records, the kernel's Makefiles."""

from __future__ import annotations

import functools
import random
import tempfile
import zlib
from pathlib import Path

import msgspec
from fuzz import Target, mutated

from tasks.kbuild.brought_in import BroughtIn
from tasks.system.errors import PiggyError
from tasks.tuning import elf, image, linkmap, pieces, sizes
from tasks.tuning.image import Part
from tests.support.linking import link
from tests.unit.kbuild.test_brought_in import MAKEFILES
from tests.unit.tuning.test_compare import OLD
from tests.unit.tuning.test_linkmap import GNU, LLD


@functools.cache
def linked() -> tuple[bytes, str, bytes, bytes]:
    """A linked file, its map, and two images of it."""
    with tempfile.TemporaryDirectory() as name:
        made = link(Path(name))
        return (
            made.program.read_bytes(),
            made.plan.read_text(),
            made.binary.read_bytes(),
            made.stripped.read_bytes(),
        )


def make_elf(rng: random.Random) -> tuple[bytes, bytes]:
    program, _, *images = linked()
    data = rng.choice(images)
    if rng.random() < 0.3:
        data = mutated(rng, data)
    if rng.random() < 0.5:  # the headers alone, which lead furthest
        end = len(program) - 10 * 64
        return mutated(rng, program[:64]) + program[64:end] + mutated(rng, program[end:]), data
    return mutated(rng, program), data


def check_elf(case: tuple[bytes, bytes], folder: Path) -> None:
    found = elf.parse(case[0])
    own = pieces.by_map(found, linkmap.parse(linked()[1]))
    assert sum(piece.size for piece in own) == sum(
        section.size for section in found.sections if section.alloc
    )
    pieces.by_symbols(found, pieces.objects_of(own))
    rows = image.rows(case[1], [Part(found, own)])
    assert sum(row.size for row in rows) == len(case[1])
    if case[1]:
        shared = image.shares(case[1], rows, 1000)
        assert sum(row.about for row in shared) == 1000


def make_map(rng: random.Random) -> bytes:
    return mutated(rng, rng.choice([GNU, LLD, linked()[1]]).encode(), [b" 0x", b"()", b"\n", b"("])


def check_map(case: bytes, folder: Path) -> None:
    found = linkmap.parse(case.decode(errors="replace"))
    program = elf.parse(linked()[0])
    assert sum(piece.size for piece in pieces.by_map(program, found)) == sum(
        section.size for section in program.sections if section.alloc
    )
    if not any(part.object == "kernel/panic.o" for part in found):
        raise PiggyError("an object was passed over")


def make_record(rng: random.Random) -> bytes:
    data = msgspec.msgpack.encode(OLD)
    if rng.random() < 0.5:
        return mutated(rng, zlib.compress(data))
    return zlib.compress(mutated(rng, data))


def check_record(case: bytes, folder: Path) -> None:
    path = folder / sizes.FOLDER / f"abc{sizes.SUFFIX}"
    path.parent.mkdir()
    path.write_bytes(case)
    sizes.of_commit(folder, "abc")
    if sizes.read(folder, "abc") is None:
        raise PiggyError("no record")


def make_makefiles(rng: random.Random) -> dict[str, bytes]:
    tokens = [
        b"$(CONFIG_X)",
        b"ifdef CONFIG_X\n",
        b"endif\n",
        b"else",
        b"\\\n",
        b"#",
        b"obj-",
        b"/",
    ]
    return {name: mutated(rng, text.encode(), tokens) for name, text in MAKEFILES.items()}


def check_makefiles(case: dict[str, bytes], folder: Path) -> None:
    for name, data in case.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    tree = BroughtIn(folder, {"NET": "y", "ATA": "y", "X": "m"}, "x86")
    for path in ("net/ipv4/tcp.o", "drivers/ata/core.o", "arch/x86/pci/common.o"):
        assert {*tree.chain(path)} <= {"NET", "ATA", "X"}
    if not tree.chain("net/ipv4/tcp.o"):
        raise PiggyError("a folder was passed over")


TARGETS = [
    Target("linked file", make_elf, check_elf),
    Target("linker's map", make_map, check_map),
    Target("record of sizes", make_record, check_record),
    Target("makefiles of symbols", make_makefiles, check_makefiles),
]
