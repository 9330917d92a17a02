"""More kinds of edits: of files that symbols name (a built-in initramfs, firmware, a text),
wherever they lie.

Each first has the campaign's fragment name them, and builds; see World.outside.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from edits import BLIND, Skip, code, kind
from world import FRAGMENT, World

REQUESTS = {
    "INITRAMFS_SOURCE": 'CONFIG_INITRAMFS_SOURCE="{here}/root {here}/list"',
    "EXTRA_FIRMWARE": 'CONFIG_EXTRA_FIRMWARE="a.bin sub/b.bin"',
    "EXTRA_FIRMWARE_DIR": 'CONFIG_EXTRA_FIRMWARE_DIR="{here}/fw"',
    "BANNER_FILE": 'CONFIG_BANNER_FILE="{here}/banner"',
    "BLK_DEV_INITRD": "CONFIG_BLK_DEV_INITRD=y",
    "FW_LOADER": "CONFIG_FW_LOADER=y",
    "BOOT_CONFIG": "CONFIG_BOOT_CONFIG=y",
    "BOOT_CONFIG_EMBED": "CONFIG_BOOT_CONFIG_EMBED=y",
    "BOOT_CONFIG_EMBED_FILE": 'CONFIG_BOOT_CONFIG_EMBED_FILE="{here}/bootconfig"',
}
ONLY = {
    "fake": {"FW_LOADER", "BOOT_CONFIG", "BOOT_CONFIG_EMBED", "BOOT_CONFIG_EMBED_FILE"},
    "real": {"BANNER_FILE"},
}
BLIND.update(
    {"initramfs folder", "initramfs list", "firmware", "other file of a symbol"}
)  # modes, and old times


def laid_out(world: World) -> Path:
    """Lay the files out, have the fragment name them, and build once; then do nothing. Returns
    their folder."""
    here = world.outside
    if not here.exists():
        for name in ("root/init", "root/bin/x", "fw/a.bin", "fw/sub/b.bin", "elsewhere", "banner"):
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).write_text(f"{name}\n")
        (here / "bootconfig").write_text("kernel.quiet\n")
        (here / "root" / "link").symlink_to("init")
        (here / "list").write_text(
            f"dir /listed 755 0 0\nfile /listed/x {here}/elsewhere 644 0 0\n"
        )
    fragment = world.top / "configs" / "kernel" / f"{FRAGMENT}.config"
    lines = fragment.read_text().splitlines()
    asked = [
        text.format(here=here)
        for symbol, text in REQUESTS.items()
        if symbol not in ONLY.get(world.kind, set())
    ]
    if missing := [text for text in asked if text not in lines]:
        fragment.write_text("\n".join([*lines, *missing]) + "\n")
        world.doit()
    return here


def changed(rng: random.Random, path: Path, text: str) -> str:
    """Give a file another content, now and then under the old time, or in a folder with the old
    time; say how."""
    how = rng.choice(["", "", "under the old time", "an hour old"])
    info = path.stat() if path.exists() else path.parent.stat()
    path.write_text(text)
    when = {
        "under the old time": info.st_mtime_ns,
        "an hour old": time.time_ns() - 3600 * 10**9,
    }.get(how)
    if when:
        os.utime(path, ns=(when, when))
    return f"{path.name} {how}".strip()


def content(rng: random.Random) -> str:
    """Some text, often of the same length."""
    return f"{rng.randrange(1000, 10000)}\n" * rng.choice([1, 1, 1, 50])


def then_code(world: World, rng: random.Random, said: str) -> str:
    """Now and then a source is edited, too."""
    return f"{said}, {code(world, rng)}" if rng.random() < 0.3 else said


@kind("initramfs folder")
def initramfs_folder(world: World, rng: random.Random) -> str:
    root = laid_out(world) / "root"
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    path = rng.choice(files) if files else root / "init"
    quiet = path.parent.stat()

    def link() -> None:
        (root / "link").unlink(missing_ok=True)
        (root / "link").symlink_to(rng.choice(["init", "bin/x", "nowhere"]))

    def folder() -> None:
        where = root / "folder"
        where.rmdir() if where.exists() else where.mkdir()

    ways: dict[str, Callable[[], object]] = {
        "content": lambda: changed(rng, path, content(rng)),
        "add": lambda: changed(rng, root / "bin" / f"file{rng.randrange(6)}", content(rng)),
        "delete": lambda: path.unlink(missing_ok=True),
        "mode": lambda: path.exists() and path.chmod(rng.choice([0o600, 0o755, 0o644])),
        "folder's mode": lambda: (root / "bin").chmod(rng.choice([0o700, 0o755])),
        "link": link,
        "folder": folder,
        "rename": lambda: path.exists() and path.rename(path.with_name(f"file{rng.randrange(6)}")),
        "touch": lambda: path.exists() and path.touch(),
    }
    how = rng.choice(sorted(ways))
    said = ways[how]()
    if rng.random() < 0.3:
        os.utime(path.parent, ns=(quiet.st_atime_ns, quiet.st_mtime_ns))
    return then_code(world, rng, f"{how} {path.name}: {said}")


@kind("initramfs list")
def initramfs_list(world: World, rng: random.Random) -> str:
    here = laid_out(world)
    if rng.random() < 0.5:
        return then_code(world, rng, changed(rng, here / "elsewhere", content(rng)))
    lines = (here / "list").read_text().splitlines()[:2]
    more = rng.choice(
        [
            [],
            [f"file /listed/y {here}/elsewhere {rng.choice([600, 644])} 0 0"],
            [f"# {rng.random()}"],
        ]
    )
    return then_code(world, rng, changed(rng, here / "list", "\n".join([*lines, *more]) + "\n"))


@kind("firmware")
def firmware(world: World, rng: random.Random) -> str:
    here = laid_out(world) / "fw"
    return then_code(
        world,
        rng,
        changed(rng, here / rng.choice(["a.bin", "sub/b.bin", "unused.bin"]), content(rng)),
    )


@kind("other file of a symbol")
def other_file(world: World, rng: random.Random) -> str:
    here = laid_out(world)
    name, text = (
        ("banner", content(rng))
        if world.kind == "fake"
        else ("bootconfig", f"kernel.campaign = {rng.random()}\n")
    )
    return then_code(world, rng, changed(rng, here / name, text))


@kind("file of a symbol gone")
def gone(world: World, rng: random.Random) -> str:
    """A build that must fail, and say which file; then the file is back, as it was or with other
    content."""
    here = laid_out(world)
    if str(here) not in (world.play.images / "config").read_text():
        raise Skip  # a machine without this fragment
    path = here / rng.choice(["fw/a.bin", "elsewhere", "list"])
    path.rename(here / "away")
    try:
        result = world.doit()
    finally:
        (here / "away").rename(path)
    assert result.status != 0, "a build without a file that a symbol names ended well"
    assert f"there is no {path}" in result.text, result.text
    also = path.name != "list" and rng.random() < 0.5
    return f"{path.name}, back" + (f", {changed(rng, path, content(rng))}" if also else "")
