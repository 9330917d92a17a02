"""More kinds of edits: of the configuration, the overlays, the tools, and what lies in build/; and
interrupted builds."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

from edits import KINDS, Skip, add, code, kind, pick, sources
from oracle import names
from world import (
    BOX_SYMBOLS,
    FRAGMENT,
    SYMBOLS,
    TOOLS,
    World,
    finish,
    nobody_works_in,
    objects,
    working_in,
)


@kind("symbol")
def symbol(world: World, rng: random.Random) -> str:
    """A symbol on or off in the campaign's fragment, or a comment in it."""
    path = world.top / "configs" / "kernel" / f"{FRAGMENT}.config"
    lines = path.read_text().splitlines()
    chosen = rng.choice([*SYMBOLS[world.kind], "# more"])
    key = chosen.partition("=")[0]
    rest = [one for one in lines if one.partition("=")[0] != key]
    new = rest if chosen in lines else [*rest, chosen]
    path.write_text("\n".join(new) + "\n")
    return f"{chosen} {'away' if chosen in lines else 'added'}"


@kind("fragments")
def fragments(world: World, rng: random.Random) -> str:
    """The machine's list of fragments: one more, one less, another order."""
    path = world.top / "configs" / "machines" / f"{world.machine}.toml"
    text = path.read_text()
    match = re.search(r"(?m)^fragments = \[(.*)\]$", text)
    assert match
    items = re.findall(r'"([^"]+)"', match[1])
    extra = "campaign-extra"
    (world.top / "configs" / "kernel" / f"{extra}.config").write_text(f"{SYMBOLS[world.kind][0]}\n")
    how = rng.choice(["order", "list"])
    if how == "order":
        rng.shuffle(items)
        # The campaign's own stays last: it names another compressor than the machine's.
        items.sort(key=lambda one: one == FRAGMENT)
    else:
        items = [one for one in items if one != extra] if extra in items else [*items, extra]
    path.write_text(
        text[: match.start(1)] + ", ".join(f'"{one}"' for one in items) + text[match.end(1) :]
    )
    return f"{how}: {' '.join(items)}"


@kind("busybox symbol")
def box_symbol(world: World, rng: random.Random) -> str:
    path = world.top / "configs" / "busybox" / f"{FRAGMENT}.config"
    chosen = rng.choice(BOX_SYMBOLS[world.kind])
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([one for one in lines if one != chosen] + ([] if chosen in lines else [chosen]))
        + "\n"
    )
    return f"{chosen} {'away' if chosen in lines else 'added'}"


@kind("overlay")
def overlay(world: World, rng: random.Random) -> str:
    etc = world.top / "overlays" / FRAGMENT / "etc"
    files = sorted(path for path in etc.rglob("*") if path.is_file() and not path.is_symlink())
    how = rng.choice(["add", "delete", "chmod", "link", "content", "folder", "rename", "touch"])
    path = rng.choice(files) if files else etc / "first"
    if how in ("add", "content") or not files:
        path = path if how == "content" else etc / f"file{rng.randrange(6)}"
        path.write_text(f"{rng.getrandbits(32)}\n")
    elif how == "delete":
        path.unlink()
    elif how == "chmod":
        path.chmod(rng.choice([0o600, 0o644, 0o755, 0o4755, 0o640]))
    elif how == "rename":
        path.rename(path.with_name(f"file{rng.randrange(6)}"))
    elif how == "touch":
        path.touch()
    elif how == "folder":
        folder = etc / "folder"
        folder.rmdir() if folder.exists() else folder.mkdir()
    else:
        (etc / "link").unlink(missing_ok=True)
        (etc / "link").symlink_to(rng.choice(["first", "/proc/mounts", "nowhere"]))
    return f"{how} {path.name}"


@kind("devices")
def devices(world: World, rng: random.Random) -> str:
    (path,) = [
        path
        for path in (world.top / "configs" / "rootfs").glob("*.txt")
        if path.stem == ("fake" if world.kind == "fake" else "devices")
    ]
    add(
        world,
        path,
        rng.choice(
            [f"/dev/campaign{rng.randrange(1000)} c 600 0 0 1 {rng.randrange(250)}\n", "# more\n"]
        ),
    )
    return ""


@kind("setting")
def setting(world: World, rng: random.Random) -> str:
    name, values = rng.choice(
        [
            ("rootfs_free", ["64", "512"]),
            ("initramfs", ["xz", "gzip"]),
            ("memory", ["64", "0"]),
            ("jobs", ["1", "0"]),
            ("rootfs_size", ["0", "8192"]),
            ("store_size", ["2G", "1M", "0"]),
        ]
    )
    world.words[name] = rng.choice(values)
    return f"{name}={world.words[name]}"


@kind("tool")
def tool(world: World, rng: random.Random) -> str:
    """Another program under a tool's name on PATH: of another behaviour, or just with another text;
    or the old one."""
    tools = TOOLS[world.kind]
    name = rng.choice(sorted(tools))
    path = world.base / "bin" / name.format(triple=world.triple)
    path.parent.mkdir(exist_ok=True)
    world.env["PATH"] = (
        f"{path.parent}:{world.env.get('PATH') or world.play.environ()['PATH']}".replace(
            f"{path.parent}:{path.parent}:", f"{path.parent}:"
        )
    )
    if path.exists() and rng.random() < 0.5:
        path.unlink()
        return f"{path.name} as it was"
    where = shutil.which(path.name, path=world.env["PATH"].replace(f"{path.parent}:", ""))
    words = rng.choice(tools[name])
    path.write_text(f'#!/bin/sh\n# {rng.getrandbits(16)}\nexec {where} "$@" {words}\n')
    path.chmod(0o755)
    return f"{path.name} {words}"


@kind("code of an action")
def action(world: World, rng: random.Random) -> str:
    path = world.top / "tasks" / "rootfs.py"
    text = path.read_text()
    path.write_text(
        re.sub(r'(UUID = "[-0-9a-f]+)\d\d"', rf'\g<1>{rng.randrange(10, 99)}"', text)
        if rng.random() < 0.5
        else text + "# more\n"
    )
    return ""


@kind("spoilt object")
def spoilt(world: World, rng: random.Random) -> str:
    """Files of the object folders deleted or cut short, then perhaps an edit of something else."""
    files = [path for path in objects(world) if path.stat().st_size]
    said = []
    for path in rng.sample(files, min(len(files), rng.choice([1, 1, 3, 20]))):
        how = rng.choice(["deleted", "halved", "emptied"])
        path.unlink() if how == "deleted" else os.truncate(
            path, path.stat().st_size // 2 if how == "halved" else 0
        )
        said.append(f"{path.relative_to(world.play.here)} {how}")
    return "; ".join(said + ([code(world, rng)] if rng.random() < 0.7 else []))


@kind("spoilt image")
def image(world: World, rng: random.Random) -> str:
    path = world.play.images / rng.choice(names(world))
    how = rng.choice(["deleted", "halved", "edited"])
    if not path.exists() or how == "deleted":
        path.unlink(missing_ok=True)
    elif how == "halved":
        os.truncate(path, path.stat().st_size // 2)
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    return f"{path.name} {how}" + (f", {code(world, rng)}" if rng.random() < 0.3 else "")


@kind("spoilt store")
def store(world: World, rng: random.Random) -> str:
    """What was made earlier is kept by what it was made from; damage some of it, and go back to an
    earlier state. A folder without a valid tag is no store, and refused."""
    files = sorted(
        path
        for path in (world.top / "build" / "store").rglob("*")
        if path.is_file() and path.name != "CACHEDIR.TAG"
    )
    for path in rng.sample(files, min(len(files), rng.choice([1, 5, 50]))):
        if rng.random() < 0.3:
            path.unlink()
        else:
            path.chmod(0o644)
            os.truncate(path, path.stat().st_size // 2) if rng.random() < 0.5 else path.write_bytes(
                b"damaged"
            )
    back = rng.choice(["revert all", "put back", "git switch", "symbol"])
    return f"{len(files)} files; {back}: {KINDS[back](world, rng)}"


@kind("folder gone")
def gone(world: World, rng: random.Random) -> str:
    folder = world.play.here / rng.choice(["kernel", "busybox", "images", "logs"])
    if folder.name == "kernel" and world.kind == "real" and rng.random() < 0.7:
        raise Skip
    shutil.rmtree(folder, ignore_errors=True)
    return folder.name


@kind("first build fails")
def first_build_fails(world: World, rng: random.Random) -> str:
    """From nothing, with an error in one source, which goes; then an edit of another kind."""
    if world.kind == "real" and rng.random() < 0.8:
        raise Skip
    shutil.rmtree(world.play.here / "kernel", ignore_errors=True)
    shutil.rmtree(world.play.images, ignore_errors=True)
    path = world.tree / pick(rng, sources(world))
    text, info = path.read_text(errors="surrogateescape"), path.stat()
    path.write_text(f"{text}\n#error no\n", errors="surrogateescape")
    world.doit()
    path.write_text(text, errors="surrogateescape")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    then = rng.choice(["shadowing header", "shadowing folder", "old time", "header", "symbol"])
    return f"{path}; {then}: {KINDS[then](world, rng)}"


@kind("other machine")
def other_machine(world: World, rng: random.Random) -> str:
    world.machine = rng.choice([name for name in world.plays if name != world.machine])
    return world.machine + (f", {code(world, rng)}" if rng.random() < 0.5 else "")


@kind("part of the chain")
def part(world: World, rng: random.Random) -> str:
    """An edit, a build of some links only, and another edit."""
    goals = ["vmlinux", "Image", "piggy.gz", "compressed_vmlinux", "busybox", "kernel_config"]
    first, goal = code(world, rng), rng.choice(goals)
    world.doit(goal)
    return f"{first}, {goal}, {code(world, rng)}"


@kind("two processes")
def two_processes(world: World, rng: random.Random) -> str:
    """The build after this edit is done with -n 2."""
    world.flags = ["-n", "2"]
    return several_edits(world, rng)


def several_edits(world: World, rng: random.Random) -> str:
    """One or two edits of code."""
    return ", ".join(code(world, rng) for _ in range(rng.randrange(1, 3)))


def pause(world: World, rng: random.Random) -> None:
    """Wait for a part of the time that a build after an edit takes."""
    time.sleep(rng.uniform(0, 1.8 if world.kind == "fake" else 12))


@kind("edit during the build")
def during(world: World, rng: random.Random) -> str:
    first, process = code(world, rng), world.start()
    pause(world, rng)
    second = KINDS[
        rng.choice(["code", "comment", "overlay", "symbol", "old time", "Makefile", "header"])
    ](world, rng)
    text = finish(process, world.play.limit)
    assert "Traceback" not in text, text
    return f"{first}, and while that is built {second}"


@kind("kill -9")
def killed(world: World, rng: random.Random) -> str:
    """Doit alone, or all that works there at once, killed in the build after an edit; perhaps
    another edit."""
    first, process = several_edits(world, rng), world.start()
    pause(world, rng)
    everybody = rng.random() < 0.6
    kill(world.play.top, process.pid, everybody)
    finish(process, world.play.limit)
    assert nobody_works_in(world.play.top) or world.kind == "real"
    return f"{first}, {'all' if everybody else 'doit'} killed" + (
        f", {code(world, rng)}" if rng.random() < 0.3 else ""
    )


def kill(top: Path, pid: int, everybody: bool) -> None:
    """kill -9 doit, or doit and every process that has the project in its command line or as its
    place."""
    for number in dict.fromkeys([pid, *(working_in(top) if everybody else [])]):
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
