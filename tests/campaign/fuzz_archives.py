"""Archives from elsewhere: tars in all compressions, as sources and as layers of our own, and
Debian's packages."""

from __future__ import annotations

import bz2
import functools
import gzip
import lzma
import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from fuzz import NUMBERS, Target, mutated
from tarbytes import BLOCK, END, extension, header, padded, record, summed

from tasks.fetch import apt, tarstream, untar
from tasks.fetch.download import Unavailable
from tasks.filesystem import tar
from tasks.system.errors import PiggyError

NAMES = [
    b"t",
    b"t/",
    b"t/a",
    b"t/a/b",
    b"t/a/b/c",
    b"t/l",
    b"t/l/x",
    b"t/m",
    b"t/m/../n",
    b"./t/a",
    b"t//a",
    b"../target",
    b"/etc/passwd",
    b"t/../../target",
    b"u/f",
    b".",
    b"..",
    b"t/\x1b[2J",
    b"t/\xff\xfe",
    b"t/a\nb",
    b"t/.piggyback-source",
    b"t/" + b"d/" * 150,
    b"t/" + b"n" * 98,
    b"",
    b"t/usr/src/tool.tar.xz",
    b"./usr/src/tool.tar.xz",
    b"t/A",
    b"t/a/",
]
TARGETS_OF_LINKS = [
    b"a",
    b"a/b",
    b"..",
    b"../..",
    b"../../target",
    b"l",
    b"m",
    b"m/..",
    b"/etc/passwd",
    b".",
    b"",
    b"t/a",
    b"t/l",
    b"a\0b",
    b"../out/passwd",
    b"/",
    b"b/../../..",
    b"\x1b[2J",
    b"./" * 45,
]
KINDS = [
    b"0",
    b"0",
    b"0",
    b"5",
    b"5",
    b"2",
    b"2",
    b"1",
    b"\0",
    b"7",
    b"3",
    b"4",
    b"6",
    b"S",
    b"V",
    b"M",
    b"D",
    b"Z",
]
MODES = [b"644", b"755", b"4755", b"2777", b"1777", b"0", b"7777", b"666", b"644\0junk", b"rw-"]
WORDS = [
    b"path",
    b"linkpath",
    b"size",
    b"mtime",
    b"GNU.sparse.map",
    b"GNU.sparse.size",
    b"GNU.sparse.major",
    b"GNU.sparse.name",
    b"hdrcharset",
    b"comment",
    b"SCHILY.xattr.security.capability",
]
COMPRESSIONS: list[Callable[[bytes], bytes]] = [
    bytes,
    functools.partial(gzip.compress, compresslevel=1, mtime=0),
    functools.partial(bz2.compress, compresslevel=1),
    functools.partial(lzma.compress, preset=0),
]


def number(rng: random.Random) -> bytes:
    """Return a number field, most often a good one."""
    value = (
        rng.choice([0, 1, 5, 512, 513, *NUMBERS])
        if rng.random() < 0.2
        else rng.choice([0, 1, 5, 700])
    )
    return (
        rng.choice(
            [
                b"%o" % value,
                b"%o " % value,
                b"\x80" + (value % 2**88).to_bytes(11, "big"),
                b"\xff" * 12,
            ]
        )
        if rng.random() < 0.1
        else b"%o" % value
    )


def records(rng: random.Random) -> bytes:
    """Return pax records, some of them wrong."""
    made = b"".join(
        record(
            rng.choice(WORDS),
            rng.choice(
                [
                    rng.choice(NAMES),
                    rng.choice(TARGETS_OF_LINKS),
                    str(rng.choice(NUMBERS)).encode(),
                    b"9" * rng.choice([5, 5000]),
                    b"",
                    b"1,2,3",
                    b"nan",
                    b"1e9",
                    b"-1.5",
                ]
            ),
        )
        for _ in range(rng.randint(1, 4))
    )
    return mutated(rng, made) if rng.random() < 0.3 else made


def member(rng: random.Random, wild: bool) -> bytes:
    """Return the blocks of one member. wild: with anything that the format has; else one that every
    program takes."""
    content = rng.randbytes(rng.choice([0, 1, 511, 512, 700]))
    if not wild:
        name, kind = rng.choice([(b"t/a", b"0"), (b"t/b/c", b"0"), (b"t/d", b"5"), (b"t/l", b"2")])
        return header(
            name,
            b"%o" % len(content) if kind == b"0" else b"0",
            kind,
            b"a" if kind == b"2" else b"",
            mode=rng.choice(MODES[:6]),
        ) + (padded(content) if kind == b"0" else b"")
    made = b""
    while rng.random() < 0.3:
        made += extension(
            *rng.choice(
                [
                    (b"L", rng.choice(NAMES) + b"\0"),
                    (b"K", rng.choice(TARGETS_OF_LINKS) + b"\0"),
                    (b"x", records(rng)),
                    (b"g", records(rng)),
                    (b"X", b""),
                ]
            )
        )
    size = b"%o" % len(content) if rng.random() < 0.8 else number(rng)
    kind = rng.choice(KINDS)
    made += header(
        rng.choice(NAMES),
        size,
        kind,
        rng.choice(TARGETS_OF_LINKS),
        mtime=number(rng),
        mode=rng.choice(MODES),
        magic=rng.choice([b"ustar\x0000", b"ustar  \0", b""]),
        prefix=rng.choice([b"", b"", b"t", b"..", b"/"]),
    )
    return made + padded(content)


def tarball(rng: random.Random) -> bytes:
    """Return an archive, uncompressed."""
    wild = rng.random() < 0.7
    data = (
        b"".join(member(rng, wild and rng.random() < 0.6) for _ in range(rng.randint(1, 8))) + END
    )
    if rng.random() < 0.3:  # noise in a header, which then has its check sum right again
        at = rng.randrange(len(data) // BLOCK) * BLOCK
        noisy = mutated(rng, data[at : at + BLOCK], rounds=2)[:BLOCK].ljust(BLOCK, b"\0")
        data = data[:at] + summed(noisy) + data[at + BLOCK :]
    return data[: rng.randrange(len(data))] if rng.random() < 0.05 else data


def make(rng: random.Random) -> bytes:
    """Return an archive, mostly compressed, sometimes with noise in what is compressed."""
    data = rng.choice(COMPRESSIONS)(tarball(rng))
    return mutated(rng, data, rounds=2) if rng.random() < 0.15 else data


def make_bomb(rng: random.Random) -> bytes:
    """Return an archive of long runs of zeros: in a member, in a header, or behind the end."""
    length = rng.choice([1 << 14, 1 << 19, 1 << 20])
    head = rng.choice(
        [
            header(size=b"%o" % length),
            header(b"./@", b"%o" % length, rng.choice([b"x", b"L", b"K", b"g"])),
            header(size=b"7" * 11),
            END,
        ]
    )
    whole = head + bytes(length) + (header() + END) * rng.choice([0, 1])
    return rng.choice(COMPRESSIONS[1:])(whole)


def check_bomb(data: bytes, folder: Path) -> None:
    """Lay it out with a small limit for what it may unpack to."""
    with mock.patch.object(tarstream, "SIZE_FLOOR", 1 << 18):
        check(data, folder)
    limit = max(1 << 18, tarstream.SIZE_RATIO * len(data))
    assert sum(path.stat().st_size for path in (folder / "out").rglob("*")) <= limit


def look(folder: Path, links: bool = True) -> None:
    """See that a tree has no set-id bits, nothing that others can write, no devices, and (links) no
    link that leads out."""
    top = os.path.realpath(folder)
    for where, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = os.path.join(where, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                assert not links or os.path.commonpath([top, os.path.realpath(path)]) == top, (
                    f"{path} leads out"
                )
            else:
                assert stat.S_ISREG(mode) or stat.S_ISDIR(mode), path
                assert not mode & 0o7022, f"{path} has mode {mode:o}"


def check(data: bytes, folder: Path) -> None:
    """Lay it out as a source; when that works, its links stay in it, and a second reading gives
    sizes that are true."""
    archive, out = folder / "t.tar", folder / "out"
    archive.write_bytes(data)
    out.mkdir()
    try:
        untar.extract(archive, out)
    except OSError as error:  # a name that is too long, ...: the caller says it (files.explained)
        raise PiggyError(f"the disk refuses it: {error.strerror}") from error
    finally:
        look(
            out, links=False
        )  # for its links an archive is refused when all are there, and the tree is removed then
    look(out)
    with tarstream.members(archive) as members:
        for one, content in members:
            assert one.kind != "file" or len(content.read()) == one.size


def check_layer(data: bytes, folder: Path) -> None:
    """Read it as an archive that we packed ourselves, and lay it out."""
    archive = folder / "t.tar"
    archive.write_bytes(data)
    for entry in tar.layer(archive).entries:
        assert entry.path.startswith("/")
        assert ".." not in entry.path.split("/")
        assert entry.kind == "link" or not entry.mode & 0o7022
    try:
        tar.unpack(archive, folder / "out")
    except OSError as error:
        raise PiggyError(f"the disk refuses it: {error.strerror}") from error
    look(folder / "out")


def make_layer(rng: random.Random) -> bytes:
    """Return an archive as `pack` makes it, or nearly."""
    data = b"".join(
        header(rng.choice([b"lib", b"lib/modules"]), b"0", b"5", mode=b"755")
        if rng.random() < 0.3
        else header(b"lib/%d.ko" % at, b"1", mode=b"644") + padded(b"x")
        for at in range(rng.randint(1, 4))
    )
    if rng.random() < 0.5:
        data += member(rng, True)
    return data + END


def ar(name: bytes, data: bytes) -> bytes:
    """Return a member of an ar archive. Source: deb(5), ar(5)."""
    return (
        b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, b"100644", len(data))
        + data
        + b"\n" * (len(data) % 2)
    )


def make_deb(rng: random.Random) -> bytes:
    """Return a binary package: its control part is good, its data an archive that may be
    anything."""
    content = padded(rng.randbytes(700)) if rng.random() < 0.8 else b""
    data = (
        tarball(rng)
        if rng.random() < 0.6
        else header(b"./usr/src/tool.tar.xz", b"%o" % 700) + content + END
    )
    control = header(b"./control", b"%o" % len(CONTROL)) + padded(CONTROL) + END
    made = (
        b"!<arch>\n"
        + ar(b"debian-binary", b"2.0\n")
        + ar(b"control.tar.gz", gzip.compress(control, 1, mtime=0))
        + ar(b"data.tar.gz", gzip.compress(data, 1, mtime=0))
    )
    return mutated(rng, made, rounds=2) if rng.random() < 0.1 else made


CONTROL = b"Package: t\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: x\n"


def check_deb(data: bytes, folder: Path) -> None:
    """Take the tarball out of it."""
    deb, out = folder / "t.deb", folder / "tool.tar.xz.part"
    deb.write_bytes(data)
    try:
        apt.tarball_in(deb, "usr/src/tool.tar.xz", out)
    except Unavailable as why:
        raise PiggyError(str(why)) from why
    assert out.stat().st_mode & 0o7022 == 0
    assert sorted(os.listdir(folder)) == ["t.deb", out.name]


TARGETS = [
    Target("archive", make, check),
    Target("bomb", make_bomb, check_bomb),
    Target("layer", make_layer, check_layer),
]
if shutil.which("dpkg-deb"):
    TARGETS.append(Target("deb", make_deb, check_deb))
