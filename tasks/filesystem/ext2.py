"""Write an ext2 image from entries, without root or mount, bit-identical wherever it is built.

    mke2fs (empty file system, all random values and times fixed)
      -> debugfs (a script that writes each entry) -> e2fsck -fn

`mke2fs -d` is not used: up to 1.47.0 it copies change times and owners from the host. libext2fs
takes its clock from E2FSPROGS_FAKE_TIME (since 1.41) or SOURCE_DATE_EPOCH (since 1.47.1):
lib/ext2fs/initialize.c and openfs.c. The sizes of mke2fs's tables are measured, not calculated: an
empty file system is made, its free blocks are read, and its size is corrected until the content
fits.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from tasks.filesystem import ext2_limits, tree
from tasks.filesystem.ext2_limits import BLOCK
from tasks.filesystem.tree import Entry
from tasks.system import files
from tasks.system.errors import PiggyError
from tasks.system.files import replacing
from tasks.system.pattern import pattern
from tasks.system.process import run

GROUP = 8 * BLOCK  # blocks in a group
ROUND = 4  # blocks in a page: an image of whole pages leaves a guest no partial one at its end
SPARE_INODES, BYTES_PER_SPARE_INODE = 64, 8192
EPOCH_MAX = 0x7FFFFFFF  # a 128-byte inode counts seconds in 32 signed bits
LINK_MAX = BLOCK - 1  # an ext2 link's target fits in a block
NUMBER_MAX = 65535  # do_mknod in debugfs.c, for major and minor
SCRIPT_LINE_MAX = 4096  # bytes: debugfs reads lines into a buffer of BUFSIZ
MODE = {"file": 0o100000, "dir": 0o040000, "char": 0o020000, "block": 0o060000, "fifo": 0o010000}
# Replaces the host's mke2fs.conf, whose defaults differ between distributions.
CONFIG = "[defaults]\n[fs_types]\n" + "".join(
    f"{name} = {{\n inode_size = 128\n}}\n" for name in ("ext2", "piggyback")
)
_ECHO = pattern(r"debugfs: .*|debugfs \d.*|Allocated inode: \d+|\s*")
_UUID = pattern(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class DoesNotFit(PiggyError):
    """The content is larger than the size of the image."""


class Stats(msgspec.Struct, frozen=True):
    """The sizes of a finished image.

    Attributes:
        blocks: Its blocks of 1 KiB.
        inodes: Its inodes.
        inodes_free: The free ones.
        bytes_used: Bytes of tables, folders and files.
        bytes_free: Bytes left.
    """

    blocks: int
    inodes: int
    inodes_free: int
    bytes_used: int
    bytes_free: int


def build(
    entries: Sequence[Entry],
    image: Path,
    *,
    size: int | None = None,
    free: int = 0,
    holes: bool = True,
    label: str = "rootfs",
    uuid: str,
    epoch: int,
    log: Path | None = None,
) -> Stats:
    """Write entries to an ext2 image, which appears whole or not at all.

    Args:
        entries: The entries, as `tree.compose` returns them.
        image: The image.
        size: Its size in bytes, a multiple of 1024; None fits it to the content.
        free: Bytes that a fitted image has left, at least.
        holes: Whether a file's blocks of zeros take no room.
        label: Its label, up to 16 bytes.
        uuid: Its UUID, and the seed of its directory hash.
        epoch: Every time in it, in seconds since 1970; from 1, since 0 means now to libext2fs.
        log: The file that gets the commands and their output.

    Raises:
        DoesNotFit: The content does not fit the size.
        PiggyError: It does not fit the disk, ext2 can't hold it, or a file of it is unreadable.
    """
    if not 1 <= epoch <= EPOCH_MAX:
        raise PiggyError(
            f"the time {epoch} of the image is not within 1 and {EPOCH_MAX} (2038)",
            "set another epoch",
        )
    if not _UUID.fullmatch(uuid):
        raise PiggyError(f"{uuid!r} is no UUID", "such as 5049c67b-5ad5-4d1e-8f0e-4d2f6c7a1b00")
    if len(os.fsencode(label)) > 16:
        raise PiggyError(f"the label {label!r} is longer than the 16 bytes that ext2 has for it")
    if size is not None and (size <= 0 or size % BLOCK):
        raise PiggyError(f"the image size of {size} bytes is no multiple of {BLOCK}")
    ext2_limits.check(entries)
    need = ext2_limits.blocks_needed(entries)
    whole = max(size or 0, need * BLOCK + free)
    if whole > tree.IMAGE_MAX:
        raise PiggyError(
            f"{image.name} would have {whole} bytes or more; an image may have {tree.IMAGE_MAX} (32"
            " GiB)",
            "keep what is that large on a disk of its own",
        )
    # The image is sparse: on the host's disk it takes only bitmaps, descriptors, used inodes and
    # content.
    written = (need + 3 * whole // (GROUP * BLOCK)) * BLOCK + 128 * len(entries)
    if written > files.free(image.parent):
        raise files.no_space(image, written)
    spare = (free if size is None else max(0, size - need * BLOCK)) // BYTES_PER_SPARE_INODE
    with replacing(image) as draft:
        stage = draft.parent / "stage"
        stage.mkdir()
        # Linux's ext2 driver needs no feature beyond these (fs/ext2/ext2.h)
        features = "none,filetype,sparse_super" + (
            ",ext_attr" if any(entry.attributes for entry in entries) else ""
        )
        # Ten inodes are reserved; the second of them is the root's.
        disk = _Disk(
            stage,
            ("-O", features, "-L", label, "-U", uuid, "-E", f"hash_seed={uuid}"),
            epoch,
            log,
            10 + len(entries) + SPARE_INODES,
        )
        more = replace(disk, inodes=disk.inodes + spare)
        if size is None:
            _fit(more, need + -(-free // BLOCK))
        else:
            fitted = _fit(disk, need) * BLOCK
            if (
                fitted > size
                or _format(more, size // BLOCK) < need
                and _format(disk, size // BLOCK) < need
            ):
                raise DoesNotFit(
                    f"{image.name} needs {fitted} bytes, and its size is set to {size}",
                    "raise the size, or leave it out to have it fitted",
                )
        empty = _superblock(disk)
        _populate(disk, entries, holes)
        run(["e2fsck", "-fn", "disk"], cwd=stage, env=disk.env, log=log)
        full = _superblock(disk)
        if empty.inodes_free - full.inodes_free != len(entries) - 1:
            raise PiggyError(
                f"{image.name}: {empty.inodes_free - full.inodes_free} names were written of "
                f"{len(entries) - 1}",
                "debugfs failed without a word; see the log",
            )
        (stage / "disk").chmod(0o644)
        (stage / "disk").rename(draft)
    return full


class _Disk(msgspec.Struct, frozen=True):
    """The file system in the making, stage/disk, with the options and inodes for mke2fs."""

    stage: Path
    options: tuple[str, ...]
    epoch: int
    log: Path | None
    inodes: int

    @property
    def env(self) -> dict[str, str]:
        now = str(self.epoch)
        return {
            "E2FSPROGS_FAKE_TIME": now,
            "SOURCE_DATE_EPOCH": now,
            "MKE2FS_CONFIG": "mke2fs.conf",
        }


def _fit(disk: _Disk, free: int) -> int:
    """Make an empty file system with `free` free blocks, and nearly as small as possible.

    Returns:
        Its blocks.
    """
    # In one group: boot block, superblock, descriptors, two bitmaps, inode table, root. mke2fs
    # wants 50 more.
    blocks = 6 + -(-disk.inodes // 8) + max(50, free)
    blocks += blocks // GROUP * 2  # the bitmaps of the other groups
    while True:
        blocks = -(-blocks // ROUND) * ROUND
        lacking = free - _format(disk, blocks)
        if lacking <= 0:
            return blocks
        # mke2fs drops a last group with less than its own tables and 50 blocks, and makes a smaller
        # file system than asked for. Small steps then find the size at which the group is kept.
        blocks += lacking if _superblock(disk).blocks == blocks else max(16, blocks // 4096)


def _format(disk: _Disk, blocks: int) -> int:
    """Make an empty file system of `blocks` blocks, and return how many are free.

    lost+found, 12 KiB, is removed; e2fsck makes it when it needs it.
    """
    with (disk.stage / "disk").open("wb") as stream:
        stream.truncate(blocks * BLOCK)
    (disk.stage / "mke2fs.conf").write_text(CONFIG)
    # With 128-byte inodes mke2fs warns of the year 2038; `build` refuses a later epoch.
    run(
        [
            "mke2fs",
            "-F",
            "-q",
            "-t",
            "ext2",
            "-T",
            "piggyback",
            "-b",
            str(BLOCK),
            "-I",
            "128",
            "-m",
            "0",
            "-r",
            "1",
            "-N",
            str(disk.inodes),
            *disk.options,
            "disk",
            str(blocks),
        ],
        cwd=disk.stage,
        env=disk.env,
        log=disk.log,
    )
    _debugfs(disk, ["rmdir lost+found"])
    return _superblock(disk).bytes_free // BLOCK


def _populate(disk: _Disk, entries: Iterable[Entry], holes: bool) -> None:
    """Write all entries with one debugfs script.

    The script names source files by links in the working folder, so that no path of the host needs
    quoting.
    """
    script: list[str] = []
    here = ""
    for number, entry in enumerate(entries):
        folder, name = os.path.split(entry.path)
        if folder != here:
            script.append(f"cd {_quoted(folder, entry)}")
            here = folder
        word, inode = _quoted(name, entry), _quoted(f"./{name}", entry)
        if entry.path == "/":
            inode = "<2>"
        elif entry.kind == "dir":
            script.append(f"mkdir {word}")
        elif entry.kind == "file":
            size = tree.size(entry)  # raises a clearer error than debugfs for an unreadable source
            source = disk.stage / f"f{number}"
            if isinstance(entry.source, bytes):
                source.write_bytes(entry.source)
            else:
                source.symlink_to(entry.source.absolute())
            script.append(f"write {source.name} {word}")
            if size and not holes:
                script.append(f"fallocate {inode} 0 {(size - 1) // BLOCK}")
        elif entry.kind == "link":
            script.append(f"symlink {word} {_quoted(entry.target, entry)}")
        else:
            if max(entry.major, entry.minor) > NUMBER_MAX:
                raise PiggyError(
                    f"{tree.few([entry.path])}: debugfs makes devices with numbers of up to"
                    f" {NUMBER_MAX}",
                    "leave it to devtmpfs",
                )
            script.append(
                f"mknod {word} "
                + ("p" if entry.kind == "fifo" else f"{entry.kind[0]} {entry.major} {entry.minor}")
            )
        if entry.kind != "link":  # a link always has mode 0777
            script.append(f"sif {inode} mode 0{MODE[entry.kind] | entry.mode:o}")
        script += [
            f"sif {inode} {field} {value}"
            for field, value in (("uid", entry.uid), ("gid", entry.gid))
            if value
        ]
        for nth, (key, value) in enumerate(entry.attributes):
            (disk.stage / f"a{number}.{nth}").write_bytes(value)
            script.append(f"ea_set -f a{number}.{nth} {inode} {_quoted(key, entry)}")
    _debugfs(disk, script)


def _quoted(word: str, entry: Entry) -> str:
    """Return a word quoted for debugfs: in quotes, with each quote inside doubled (lib/ss/parse.c).

    Raises:
        PiggyError: A script or ext2 can't hold it.
    """
    raw = os.fsencode(word)
    if any(letter in raw for letter in b"\n\r\0"):
        raise PiggyError(f"{entry.path!r} has a line break in its name or target", "rename it")
    if len(os.fsencode(os.path.basename(entry.path))) > tree.NAME_MAX:
        raise PiggyError(
            f"{tree.few([entry.path])}: ext2 holds names of up to {tree.NAME_MAX} bytes",
            "give it a shorter name",
        )
    if entry.kind == "link" and len(os.fsencode(entry.target)) > LINK_MAX:
        raise PiggyError(
            f"{tree.few([entry.path])}: ext2 holds link targets of up to {LINK_MAX} bytes",
            "shorten the target",
        )
    if 2 * len(raw) > SCRIPT_LINE_MAX:
        raise PiggyError(
            f"{tree.few([entry.path])}: the path is too long for debugfs", "shorten it"
        )
    return '"' + word.replace('"', '""') + '"'


def _debugfs(disk: _Disk, script: Sequence[str]) -> None:
    """Run a script of debugfs commands on the disk.

    debugfs always ends with status 0. So every line of output that is not an echo of a command is
    an error.

    Raises:
        PiggyError: There are such lines.
    """
    (disk.stage / "script").write_bytes(os.fsencode("\n".join(script) + "\n"))
    done = run(
        ["debugfs", "-w", "-f", "script", "disk"], cwd=disk.stage, env=disk.env, log=disk.log
    )
    wrong = [line for line in done.output.splitlines() if not _ECHO.fullmatch(line)]
    if wrong:
        raise PiggyError(
            f"debugfs failed: {wrong[0].strip()}",
            "\n    ".join(["it said:", *wrong[:10]]) + (f"\n  log: {disk.log}" if disk.log else ""),
        )


def has_attributes(image: Path) -> bool:
    """Tell whether an ext2 image has extended attributes (s_feature_compat in fs/ext2/ext2.h)."""
    with image.open("rb") as stream:
        stream.seek(1024 + 92)
        return bool(int.from_bytes(stream.read(4), "little") & 0x8)


def _superblock(disk: _Disk) -> Stats:
    """Read the counts in the superblock (ext2_super_block in fs/ext2/ext2.h, at byte 1024)."""
    with (disk.stage / "disk").open("rb") as stream:
        stream.seek(1024)
        inodes, blocks, _, free, inodes_free = struct.unpack("<5I", stream.read(20))
    return Stats(blocks, inodes, inodes_free, (blocks - free) * BLOCK, free * BLOCK)
