"""The kinds of edits: each changes a world somehow at random, and says in words what it did."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

from world import World, clocks

Kind = Callable[[World, random.Random], str]
KINDS: dict[str, Kind] = {}
# what make by itself does not see, even where whatever changed has a new time, so that only a build
# from nothing can tell
BLIND = {
    "shadowing header",
    "shadowing folder",
    "first build fails",
    "tool",
    "two edits",
    "Kbuild beside Makefile",
}
# objects that may be made from a header that is edited, so that an edit of the real tree takes
# seconds
NARROW = 40


class Skip(Exception):
    """There is nothing that this kind could change just now."""


def kind(name: str) -> Callable[[Kind], Kind]:
    """Register a kind of edit."""

    def register(function: Kind) -> Kind:
        KINDS[name] = function
        return function

    return register


def pick(rng: random.Random, things: list[str]) -> str:
    """One of them."""
    if not things:
        raise Skip
    return rng.choice(sorted(things))


def sources(world: World, part: str = "vmlinux", ends: tuple[str, ...] = (".c",)) -> list[str]:
    """Sources that a part is really made from, as far as an edit of one of them is cheap."""
    ours = (
        "scripts/",
        "tools/",
        "include/generated",
        *(() if "box" in world.parts else ("include/uapi/",)),
    )
    found = world.used.get(part) or {"kernel/panic.c"}
    return [
        name
        for name in found
        if name.endswith(ends)
        and not name.startswith(ours)
        and (world.tree / name).is_file()
        and world.users.get(name, 1) <= NARROW
    ]


def line(rng: random.Random, path: str) -> str:
    """A line of code that makes a difference in whatever is made from the file."""
    name, value = f"campaign_{rng.getrandbits(40):010x}", rng.randrange(1000, 10000)
    if path.endswith(".S"):
        return f"\n\t.pushsection .rodata\n\t.long {value}\n\t.popsection\n"
    if path.endswith(".h"):
        return (
            f"\n#if !defined(__ASSEMBLY__) && !defined(__ASSEMBLER__) && !defined(LINKER_SCRIPT)\n"
            f"static const int {name} __attribute__((used)) = {value};\n#endif\n"
        )
    return f"\nstatic int __attribute__((used)) {name}(void) {{ return {value}; }}\n"


def write(world: World, path: Path, text: str, old_time: bool = False) -> None:
    """Write a file anew as an editor does, and remember what was there. old_time: as `cp -p` of a
    kept copy would."""
    info = path.stat()
    world.kept.append((str(path), path.read_text(errors="surrogateescape"), info.st_mtime_ns))
    path.write_text(text, errors="surrogateescape")
    if old_time:
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def add(world: World, path: Path, text: str, old_time: bool = False) -> None:
    """Add text to a file."""
    write(world, path, path.read_text(errors="surrogateescape") + text, old_time)


def any_file(world: World, rng: random.Random) -> Path:
    """A source of the kernel proper, of the boot folder, or of busybox."""
    part = rng.choice(world.parts)
    if part == "box":
        path = world.play.images / "busybox.config"  # it may be what was removed
        config = path.read_text() if path.exists() else ""
        applets = [name for name in ("echo", "cat") if f"CONFIG_{name.upper()}=y" in config]
        return world.box / "coreutils" / f"{pick(rng, applets)}.c"
    return world.tree / pick(
        rng, sources(world, part, (".c", ".h") if rng.random() < 0.4 else (".c",))
    )


@kind("code")
def code(world: World, rng: random.Random) -> str:
    path = any_file(world, rng)
    add(world, path, line(rng, path.name))
    return str(path)


@kind("comment")
def comment(world: World, rng: random.Random) -> str:
    path = any_file(world, rng)
    add(world, path, f"/* {rng.getrandbits(32)} */\n")
    return str(path)


@kind("assembler")
def assembler(world: World, rng: random.Random) -> str:
    heads = sources(world, "boot", ("head_64.S", "head_32.S"))
    path = world.tree / pick(
        rng, [*sources(world, "vmlinux", ("head.S", "head_32.S", "entry_32.S")), *heads]
    )
    add(world, path, line(rng, path.name))
    return str(path)


@kind("header")
def header(world: World, rng: random.Random) -> str:
    path = world.tree / pick(rng, sources(world, rng.choice(["vmlinux", "boot"]), (".h",)))
    add(
        world,
        path,
        line(rng, path.name) if rng.random() < 0.6 else f"/* {rng.getrandbits(32)} */\n",
    )
    return str(path)


@kind("same size")
def same_size(world: World, rng: random.Random) -> str:
    """Another number in a line of an earlier edit, half of the time under the file's old time."""
    path = any_file(world, rng)
    text = path.read_text(errors="surrogateescape")
    if "campaign_" not in text:
        text += line(rng, path.name)
        path.write_text(text, errors="surrogateescape")
        world.doit()
    old = rng.random() < 0.5
    text = re.sub(
        r"(campaign_\w+\D+)\d{4}", lambda found: f"{found[1]}{rng.randrange(1000, 10000)}", text
    )
    write(world, path, text, old)
    return f"{path}{' under its old time' if old else ''}"


@kind("old time")
def old_time(world: World, rng: random.Random) -> str:
    """Other code under the old time."""
    path = any_file(world, rng)
    add(world, path, line(rng, path.name), old_time=True)
    return str(path)


@kind("put back")
def put_back(world: World, rng: random.Random) -> str:
    """An earlier state of a file, with the time that it had then."""
    path, text, mtime = rng.choice(
        [item for item in world.kept if Path(item[0]).is_file()] or [("", "", 0)]
    )
    if not path:
        raise Skip
    write(world, Path(path), text)
    if rng.random() < 0.7:
        os.utime(path, ns=(mtime, mtime))
    return path


@kind("touch")
def touch(world: World, rng: random.Random) -> str:
    everything = world.kind == "fake" and rng.random() < 0.3
    files = (
        [world.tree / name for name in world.used.get("vmlinux", ())]
        if everything
        else [any_file(world, rng) for _ in range(10)]
    )
    when = time.time() + rng.choice([0, 0, -1e6, 86400])
    for path in filter(Path.is_file, files):
        os.utime(path, (when, when))
    return f"{len(files)} files, {when - time.time():+.0f} s"


@kind("future")
def future(world: World, rng: random.Random) -> str:
    """An edit whose file says that it was made tomorrow."""
    path = any_file(world, rng)
    add(world, path, line(rng, path.name))
    os.utime(path, (time.time() + 86400, time.time() + 86400))
    return str(path)


@kind("clock set back")
def clock(world: World, rng: random.Random) -> str:
    """All that was built, and all sources, are from an hour ahead; then somebody edits."""
    ahead = rng.choice([5, 3600]) * 1_000_000_000
    for top in (world.play.here, *([world.tree] if world.kind == "fake" else [])):
        clocks.shift(top, ahead)
    world.clocked.add(world.machine)
    then = KINDS[rng.choice(["code", "symbol"])]
    return f"{ahead // 10**9} s, then " + then(world, rng)


@kind("unused file")
def unused(world: World, rng: random.Random) -> str:
    fake = ["lib/unused.c", "include/linux/unused.h"]
    every = fake if world.kind == "fake" else ["fs/xfs/xfs_super.c", "fs/xfs/xfs_log.h"]
    path = world.tree / pick(rng, [name for name in every if world.users.get(name, 0) == 0])
    add(world, path, line(rng, path.name))
    return str(path)


@kind("nothing")
def nothing(world: World, rng: random.Random) -> str:
    return ""


@kind("revert")
def revert(world: World, rng: random.Random) -> str:
    changed = world.git("diff", "--name-only", "HEAD").split()
    path = pick(rng, changed)
    world.git("checkout", "-q", "-f", "HEAD", "--", path)
    return path


@kind("revert all")
def revert_all(world: World, rng: random.Random) -> str:
    world.cure()
    return ""


@kind("git switch")
def switch(world: World, rng: random.Random) -> str:
    name = f"campaign-{rng.randrange(8)}"
    world.git("checkout", "-q", "-f", "--detach", name)
    return name


@kind("git bisect step")
def bisect(world: World, rng: random.Random) -> str:
    """The first steps of a bisection, with a build at each."""
    world.git("reset", "-q", "--hard")
    world.git("bisect", "start", "-q", "campaign-7", "campaign-0", check=False)
    said = []
    for _ in range(rng.randrange(1, 3)):
        world.doit()
        said.append(rng.choice(["good", "bad"]))
        world.git("bisect", said[-1], check=False)
    head = world.git("rev-parse", "HEAD").strip()
    world.git("bisect", "reset", "-q", head, check=False)
    return f"{' '.join(said)} -> {head[:10]}"


@kind("git stash")
def stash(world: World, rng: random.Random) -> str:
    """Put the edits away, or have them back; what collides is given up."""
    if world.stashed:
        world.git("reset", "-q", "--hard")
        done = world.git("stash", "pop", check=False)
        if "CONFLICT" in done:
            world.git("checkout", "-q", "--theirs", ".", check=False)
        world.git("stash", "drop", "-q", check=False)
        world.git("reset", "-q")
        world.stashed = False
        return "pop"
    world.git("stash", "push", "-q", "-u", check=False)
    world.stashed = "campaign" in world.git("stash", "list") or bool(world.git("stash", "list"))
    return "push"


@kind("compile error")
def compile_error(world: World, rng: random.Random) -> str:
    """An error, a build that must fail, and the cure, half of the time with the old time."""
    path = any_file(world, rng)
    before, info = path.read_text(errors="surrogateescape"), path.stat()
    path.write_text(before + "\n#error campaign\n", errors="surrogateescape")
    result = world.doit()
    assert result.status != 0, f"a build with an error in {path} ended well"
    old = rng.random() < 0.5
    path.write_text(before + ("" if old else line(rng, path.name)), errors="surrogateescape")
    if old:
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    return f"{path}, cured{' under its old time' if old else ''}"


@kind("two edits")
def several(world: World, rng: random.Random) -> str:
    """Two or three kinds between two builds."""
    names = rng.sample(sorted(KINDS.keys() - {"two edits", "nothing"}), rng.randrange(2, 4))
    said = []
    for name in names:
        try:
            said.append(f"{name}: {KINDS[name](world, rng)}")
        except Skip:
            continue
    return "; ".join(said)
