"""What Kbuild and users write: strings of a .config, lists for an initramfs, a module's makefile,
records."""

from __future__ import annotations

import os
import random
from pathlib import Path

from fuzz import Target, mutated

from tasks.cache.digests import Stamps
from tasks.kbuild import (
    depfiles,
    ledger,
    manifest,
    module_source,
    named_files,
    records,
    saved,
    symbol_times,
    trace,
)
from tasks.system import files
from tasks.system.errors import PiggyError

CONFIG = (
    b'CONFIG_SMP=y\nCONFIG_INITRAMFS_SOURCE="HERE/root HERE/list"\nCONFIG_EXTRA_FIRMWARE="a.bin'
    b' sub/b.bin"\n'
    b'CONFIG_EXTRA_FIRMWARE_DIR="HERE/fw"\nCONFIG_NEW_FILE="list"\nCONFIG_MODULE_SIG_KEY="certs/signing_key.pem"\n'
)
CONFIG_TOKENS = [
    b'"',
    b'\\"',
    b"\\",
    b"$(srctree)/",
    b"${HOME}",
    b"$(shell touch pwned)",
    b"~root/",
    b"*",
    b"[a-",
    b"?",
    b" ",
    b"../" * 30,
    b"x" * 5000,
    b"\0",
    b"\x1b[31m",
    b"/dev/zero",
    b"HERE/fifo",
    b"HERE/root",
    b"CONFIG_",
    b'="x y"\n',
]
LIST = (
    b"# a list\ndir /dev 755 0 0\nfile /init HERE/root/init 755 0 0\nnod /dev/console 600 0 0 c 5"
    b" 1\nslink /a b 7 0 0\n"
)
LIST_TOKENS = [
    b"file /x ",
    b"HERE/root",
    b"HERE/fifo",
    b"${HOME}/x",
    b"${NOT_SET}",
    b"../" * 30,
    b"/dev/zero",
    b"\t",
    b"file " * 999,
]
MAKEFILE = (
    b"obj-m := mod.o\nmod-y := main.o ../common/part.o\nccflags-y := -I$(src)/../common -include"
    b" ../common/x.h\ninclude $(M)/../common/rules.mk\n"
)
MAKEFILE_TOKENS = [
    b"..",
    b"../",
    b"../" * 500,
    b"$(src)/",
    b"-I",
    b"#",
    b"...",
    b"a/" * 2000 + b"..",
    b"common",
    b"/../.." * 300,
]
RECORD = (
    b"savedcmd_kernel/x.o := gcc -Wp,-MMD,kernel/.x.o.d -c -o kernel/x.o /t/kernel/x.c \n\n"
    b"source_kernel/x.o := /t/kernel/x.c\n\ndeps_kernel/x.o := \\\n"
    b"    $(wildcard include/config/SMP) \\\n  /t/include/x.h \\\n\n"
    b"kernel/x.o: $(deps_kernel/x.o)\n\n$(deps_kernel/x.o):\n"
)
RECORD_TOKENS = [
    b"$(deps_kernel/x.o)",
    b"\\\n",
    b"$$",
    b"$(pound)",
    b"$(shell x)",
    b"savedcmd_",
    b"cmd_x := ",
    b" := ",
    b"../" * 50,
    b"\n\n",
    b"deps_" * 999,
]


def make_config(rng: random.Random) -> tuple[bytes, bytes]:
    """A configuration and a list; one of them, or both, with changes."""
    return (
        mutated(rng, CONFIG, CONFIG_TOKENS) if rng.random() < 0.8 else CONFIG,
        mutated(rng, LIST, LIST_TOKENS) if rng.random() < 0.8 else LIST,
    )


def check_config(data: tuple[bytes, bytes], folder: Path) -> None:
    """See what it names: what is there is told alike twice, and all that is missing is said."""
    for name in ("root/init", "fw/a.bin", "fw/sub/b.bin", "tree/lib/Makefile", "obj/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("$(CONFIG_NEW_FILE)\n")
    os.mkfifo(folder / "fifo")
    here = os.fsencode(folder)
    (folder / "list").write_bytes(data[1].replace(b"HERE", here))
    (folder / "config").write_bytes(data[0].replace(b"HERE", here))
    stamps = Stamps(folder / "stamps")
    found = named_files.find(folder / "config", folder / "tree", folder / "obj", stamps)
    assert named_files.find(folder / "config", folder / "tree", folder / "obj", stamps) == found
    assert found.digests().keys() == found.roots.keys()
    assert not any(path.is_symlink() or path.name == "pwned" for path in folder.rglob("*"))
    named_files.targets(folder / "obj", found.roots, [("a", "/x/a.bin")])
    if found.missing:
        raise PiggyError("\n".join(one.text for one in found.missing))


def make_makefile(rng: random.Random) -> bytes:
    """A makefile of a module with changes."""
    return mutated(rng, MAKEFILE, MAKEFILE_TOKENS)


def check_makefile(data: bytes, folder: Path) -> None:
    """Copy the module: nothing lies outside of the copy, and all that was found is in it."""
    top = folder / "project" / "mod"
    for name in ("mod/main.c", "common/part.c", "common/x.h", "common/rules.mk"):
        (folder / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "project" / name).write_text('#include "../common/x.h"\n')
    (top / "Kbuild").write_bytes(data)
    most, module_source.MOST = module_source.MOST, 50
    try:
        found = {
            name: path for name, path in module_source.files(top).items() if folder in path.parents
        }
    finally:
        module_source.MOST = most
    work = module_source.copy(found, "mod", folder / "copy")
    assert {"Kbuild", "main.c"} <= found.keys()
    copies = [(work / name).resolve() for name in found]
    assert all(folder / "copy" in path.parents and path.is_file() for path in copies)
    assert not any(path.is_symlink() for path in (folder / "copy").rglob("*"))
    if "../common/x.h" not in found:
        raise PiggyError("it names nothing above")


def make_record(rng: random.Random) -> bytes:
    """A .cmd file with changes."""
    return mutated(rng, RECORD, RECORD_TOKENS)


def check_record(data: bytes, folder: Path) -> None:
    """Read it in each of the ways; what can be run again is one command and its record."""
    record = folder / ".x.o.cmd"
    record.write_bytes(data)
    for read in (records.dependencies, records.symbols, records.command):
        read(str(record))
    records.closure(folder, "x.o", [])
    records.mentioned(str(record), "/t")
    command = saved.read(str(record))
    assert "\n" not in command.command
    assert command.script().startswith("set -e\n")


def make_state(rng: random.Random) -> bytes:
    """A file of ours in an object folder that somebody damaged."""
    whole = b"\x84\xa7digests\x81\xa1a\xa1b\xa5whole\xc3\xa7folders\x80\xa5since\x00"
    data = mutated(rng, whole, [b"\xdd\xff\xff\xff\xff", b"\x91" * 5000])
    return files.sealed(data) if rng.random() < 0.9 else data


def check_state(data: bytes, folder: Path) -> None:
    """Anything that can't be read is a folder of which nothing is known; make goes on, and it is
    whole again."""
    for name in (
        ledger.FILE,
        trace.FILE,
        named_files.CACHE,
        manifest.FILE,
        depfiles.CACHE,
        symbol_times.FILE,
    ):
        (folder / name).write_bytes(data)
    (folder / "tree").mkdir()
    trace.prerequisites(folder)
    manifest.purge(folder)
    symbol_times.settle(folder)
    depfiles.Depfiles(folder, folder / "tree")
    known = ledger.trusted(folder)
    with ledger.kept(folder, folder / "tree", Stamps(folder / "stamps")):
        pass
    assert ledger.trusted(folder)
    if not known:
        raise PiggyError("nothing is known")


TARGETS = [
    Target("config strings", make_config, check_config),
    Target("module makefile", make_makefile, check_makefile),
    Target("saved command", make_record, check_record),
    Target("object folder", make_state, check_state),
]
