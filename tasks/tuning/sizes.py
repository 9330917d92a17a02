"""The measurement of one build: what each byte of its images is, as a record that is kept.

images/vmlinux + the saved link in the object folder -> pieces of vmlinux (tuning/pieces.py)
                                    + the images     -> rows of these     (tuning/image.py)

A record is kept in build/MACHINE/sizes/, so that a build that is gone can be compared with: of a
vmlinux alone, as the store has it, objects are told by names only. Its name is the digest of its
vmlinux and one of the rest of its state, as several images and configurations may have one vmlinux.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tasks.cache.digests import content_digest
from tasks.kbuild import records, saved, trace
from tasks.kbuild.saved import Unfamiliar
from tasks.kconfig import dotconfig
from tasks.system.errors import PiggyError
from tasks.system.files import read_regular, write_whole
from tasks.tuning import elf, image, pieces, relink
from tasks.tuning.builds import PACKED, Build
from tasks.tuning.elf import Elf
from tasks.tuning.image import Part, Row
from tasks.tuning.pieces import Piece

FORMAT = 2  # of a record; one of another format counts as missing
FOLDER, SUFFIX = "sizes", ".record"
# The groups of what is in an image only in compressed form, whose sizes are estimates.
ESTIMATED = tuple(f"({name})" for name in PACKED)
# start_kernel() is in init/main.c; an object has it, too, but not the end that the linker sets.
_KERNEL = ("start_kernel", "_end")
_MOST = 50  # records that are kept
_LONGEST = 1 << 28  # bytes of a record


class Ram(msgspec.Struct, frozen=True):
    """Bytes that the kernel takes in memory.

    They are by kind; it frees `init` once it has booted, and of `brk`, which x86 has, what it did
    not use (reserve_brk() in arch/x86/kernel/setup.c).
    """

    text: int
    rodata: int
    data: int
    bss: int
    init: int
    brk: int = 0

    @property
    def kept(self) -> int:
        """What is left after the boot."""
        return self.text + self.rodata + self.data + self.bss


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The measurement.

    Attributes:
        format: See FORMAT.
        state: The digests of vmlinux, of the images that have rows, and of the configuration.
        time: When it was made (seconds since 1970).
        commits: The commits at which it was made, of project and kernel tree (see `note`).
        why: Why objects are told by names alone; "" if they are by the linker's map.
        files: The size of each image.
        config: The configuration.
        pieces: All that vmlinux has in memory.
        raw: The rows of the uncompressed image.
        booted: The rows of the image that is booted; empty if it is the uncompressed one.
        ram: What it takes in memory.
    """

    format: int
    state: str
    time: float
    commits: list[str]
    why: str
    files: dict[str, int]
    config: dict[str, str]
    pieces: list[Piece]
    raw: list[Row]
    booted: list[Row]
    ram: Ram


def measure(build: Build, known: Mapping[str, str] | None = None) -> Record:
    """Measure a build, or return the record of it.

    Args:
        build: The build.
        known: Objects by name, for a vmlinux without an object folder.

    Raises:
        PiggyError: vmlinux is damaged, or is another kind of ELF file.
    """
    digest = content_digest(build.vmlinux)
    shown = dict.fromkeys(filter(None, (build.image, build.raw, build.packed)))
    state = " ".join([digest, *(f"{name} {content_digest(build.files[name])}" for name in shown)])
    config = dotconfig.read_config(build.config) if build.config else {}
    if build.config:
        state += f" {content_digest(build.config)}"
    records = _of(build.kept, digest)
    found = next((one for one in records if one.state == state), None)
    files = {name: path.stat().st_size for name, path in build.files.items()}
    if found and (not found.why or not build.obj):
        return msgspec.structs.replace(found, files=files)  # what is no kernel may be made anew
    if not build.obj and set(build.files) == {"vmlinux"}:  # a store's, from when it had a folder
        for one in records:
            if not one.why and (not config or config == one.config):
                return one
    real = kernel(build.vmlinux)
    parts, why = _pieces(build, real, known or {})
    data = build.files[build.raw].read_bytes()
    raw = image.rows(data, [Part(real, parts)])
    packed = build.files[build.packed].read_bytes() if build.packed else b""
    if packed:
        raw = _shared(build, data, raw, len(packed))
    behind = [row for row in raw if row.offset >= len(data)]
    raw = raw[: len(raw) - len(behind)]
    record = Record(
        format=FORMAT,
        state=state,
        time=time.time(),
        commits=found.commits if found else [],
        why=why,
        files=files,
        config=config,
        pieces=parts,
        raw=raw,
        booted=_booted(build, [*raw, *behind], packed, Part(real, parts)),
        ram=_ram(real, parts),
    )
    _keep(build.kept, record)
    return record


def kernel(path: Path) -> Elf:
    """Read a vmlinux.

    Raises:
        PiggyError: It is none: a program, an object, a loader, or it has no symbols any more.
    """
    real = elf.read(path)
    if missing := [name for name in _KERNEL if name not in real.addresses]:
        raise PiggyError(
            f"{path} is no vmlinux with its symbols: it has no '{missing[0]}'",
            "vmlinux is what the linker made, in images/ or in the object folder",
        )
    return real


def read(kept: Path, digest: str) -> Record | None:
    """Return the last record of a vmlinux; None if there is none that can be read.

    Args:
        kept: The machine's folder.
        digest: The digest of vmlinux.
    """
    return next(iter(_of(kept, digest)), None)


def notes(record: Record) -> list[str]:
    """Return a note if objects are told by names alone."""
    if not record.why:
        return []
    how = "objects are told by the names of their functions alone"
    return [f"{record.why}; so {how} ('doit -a vmlinux' makes a folder that fits)"]


def note(build: Build, record: Record, commits: Sequence[str]) -> None:
    """Keep with a record that it was made at these commits, for a comparison with them."""
    more = [*record.commits, *commits]
    _keep(build.kept, msgspec.structs.replace(record, commits=more, time=time.time()))


def of_commit(kept: Path, commit: str) -> Record | None:
    """Return the last record that was made of a commit; None if there is none."""
    found = [record for path in _all(kept) if (record := _decoded(path))]
    return max(
        (record for record in found if commit in record.commits),
        key=lambda record: record.time,
        default=None,
    )


def _decoded(path: Path) -> Record | None:
    try:
        record = msgspec.msgpack.decode(zlib.decompress(read_regular(path, _LONGEST)), type=Record)
    except (OSError, zlib.error, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return record if record.format == FORMAT else None


def _keep(kept: Path, record: Record) -> None:
    """Keep a record; a disk that is full costs the record alone."""
    digest, _, rest = record.state.partition(" ")
    name = f"{digest}-{hashlib.sha256(rest.encode()).hexdigest()[:16]}{SUFFIX}"
    with contextlib.suppress(OSError):
        data = zlib.compress(msgspec.msgpack.encode(record), 1)
        write_whole(kept / FOLDER / name, data)
        for path in _all(kept)[_MOST:]:
            path.unlink(missing_ok=True)


def _of(kept: Path, digest: str) -> list[Record]:
    """Return the records of a vmlinux that can be read, the newest first."""
    return [record for path in _all(kept, digest) if (record := _decoded(path))]


def _all(kept: Path, digest: str = "") -> list[Path]:
    """Return the records, of all or of one vmlinux, the newest first."""
    found = (kept / FOLDER).glob(f"{digest}*{SUFFIX}")
    paths = [(path.stat().st_mtime_ns, path) for path in found]
    return [path for _, path in sorted(paths, reverse=True)]


def _pieces(build: Build, real: Elf, known: Mapping[str, str]) -> tuple[list[Piece], str]:
    """Return the pieces of vmlinux, and why they are told by names alone, or ""."""
    if build.obj is None:
        return pieces.by_symbols(real, known), "there is no object folder that it was linked in"
    try:
        linked, inputs = relink.vmlinux(build.obj, build.kept)
    except Unfamiliar as error:
        return pieces.by_symbols(real, known), error.message
    if linked.layout == real.layout:
        return pieces.by_map(real, inputs), ""
    # The folder has another state: most names are in the objects that they were in.
    other = pieces.objects_of(pieces.by_map(linked, inputs))
    why = f"the object folder {build.obj} has another state than {build.vmlinux}"
    return pieces.by_symbols(real, {**known, **other}), why


def _shared(build: Build, data: bytes, raw: list[Row], total: int) -> list[Row]:
    """Return the rows of the uncompressed image with their shares of the compressed file.

    x86 compresses a table of relocations behind the image, with CONFIG_X86_NEED_RELOCS; such a file
    has a row behind the others. The saved command names it.
    """
    words: list[str] = []
    if build.obj is not None:
        with contextlib.suppress(Unfamiliar, OSError):
            targets = [
                (build.obj / f"piggyback.{name}").read_text().strip()
                for name in (build.packed, build.raw)
            ]
            command = saved.read(trace.record_of(build.obj, targets[0])).command
            words = [word for word in dict.fromkeys(command.split()) if word not in targets]
    for word in words:
        path = (build.obj or Path()) / word
        if path.suffix == ".relocs" and path.is_file():
            more = path.read_bytes()
            raw = [*raw, Row(len(data), len(more), f"({path.name})", "")]
            data += more
    return image.shares(data, raw, total)


def _booted(build: Build, raw: list[Row], packed: bytes, kernel: Part) -> list[Row]:
    """Return the rows of the booted image, that of the compressed kernel divided by estimates.

    Args:
        build: The build.
        raw: The rows of the uncompressed image.
        packed: The compressed kernel; empty if there is none.
        kernel: vmlinux.
    """
    if build.image == build.raw:
        return []
    data = build.files[build.image].read_bytes()
    if build.files[build.image] == build.vmlinux:
        return image.rows(data, [kernel])
    found = image.rows(data, _loader(build))
    at = data.find(packed) if packed else -1
    if at < 0:
        return found
    inside, offset = [], at
    for row in raw:
        inside.append(
            Row(offset, row.about, f"({build.packed})/{row.object}", row.name, row.section)
        )
        offset += row.about
    return image.replaced(data, found, at, len(packed), inside)


def _loader(build: Build) -> list[Part]:
    """Return the linked files, other than vmlinux, that the booted image is made from.

    They are found by Kbuild's records: a file of the chain whose command calls the linker.
    """
    obj = build.obj
    if obj is None:
        return []
    links = {
        record.read_text(errors="replace").strip(): name
        for name in build.files
        if (record := obj / f"piggyback.{name}").is_file()
    }
    goal = next((target for target, name in links.items() if name == build.image), "")
    linkers = {said.env.get("LD", "") for said in trace.read(obj).goals.values()} - {""}
    parts = []
    if goal and not os.path.exists(trace.record_of(obj, goal)):
        with contextlib.suppress(Unfamiliar, PiggyError, OSError):
            linked, inputs = relink.zboot(obj, goal, build.files[build.image], build.kept)
            parts.append(Part(linked, pieces.by_map(linked, inputs), f"({build.image})"))
    for path in sorted(records.closure(obj, goal, ["vmlinux"]) if goal else ()):
        with contextlib.suppress(Unfamiliar, PiggyError):
            command = saved.read(path)
            if command.command.split()[:1] and command.command.split()[0] in linkers:
                linked, inputs = relink.other(obj, command.target, build.kept)
                own = pieces.by_map(linked, inputs)
                name = links.get(command.target, os.path.basename(command.target))
                parts.append(Part(linked, own, f"({name})"))
    return parts


def memory(vmlinux: Path) -> tuple[Ram, int]:
    """Return what a vmlinux takes in memory, and how many compiled objects it was linked from.

    An object counts if it was made from a source that the compiler names in it, as GCC and Clang
    do of C; assembler sources have no name.

    Raises:
        PiggyError: It is damaged.
    """
    real = elf.read(vmlinux)
    return _ram(real, pieces.by_symbols(real, {})), real.sources


def _ram(real: Elf, parts: Sequence[Piece]) -> Ram:
    """Return what vmlinux takes in memory.

    Source: free_initmem() frees from __init_begin to __init_end (include/asm-generic/sections.h);
    on some architectures further parts go, which the guest reports.
    """
    begin, end = (real.addresses.get(name, 0) for name in ("__init_begin", "__init_end"))
    kinds = dict.fromkeys("trdb", 0)
    init = brk = 0
    for piece in parts:
        if piece.section == ".brk":
            brk += piece.size
        elif begin <= piece.address < end:
            init += piece.size
        else:
            kinds["r" if piece.section == ".rodata" else piece.letter] += piece.size
    return Ram(kinds["t"], kinds["r"], kinds["d"], kinds["b"], init, brk)
