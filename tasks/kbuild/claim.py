"""Whose an object folder is, and whether what is in it can be believed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tasks.kbuild import make, manifest
from tasks.system import restart, terminal
from tasks.system.errors import PiggyError
from tasks.system.files import write_whole

BOOT = "piggyback.boot"  # during which run of the host the object folder is written to


def folder(source: Path, obj: Path, arch: str, tools: str, what: str) -> None:
    """Empty the object folder if it is another tree's or other tools', or a run was cut off.

    If the host was started anew in the middle of a run, or the manifest is damaged, nothing tells
    which files are whole. What the store of objects knows comes back from there.

    Args:
        source: The tree.
        obj: The object folder.
        arch: Kbuild's ARCH, "" for none.
        tools: A digest of the tools.
        what: "kernel" or "busybox", for a message.

    Raises:
        PiggyError: The tree was configured in place, or the folder is not ours.
    """
    if left := make.left_behind(source, arch):
        raise PiggyError(
            f"{source} was configured in place ({left} is there), and such a tree can't be"
            " built with O=",
            f"run 'make -C {source} mrproper' yourself (it removes {left} and all objects), or"
            " name a clean checkout, for example one made by 'git worktree add'",
        )
    owner, real = obj / "piggyback.tree", f"{os.path.realpath(source)}\n{tools}"
    record = obj / BOOT
    restarted, lost = restart.happened(record), restart.cut_off(record)
    why = "the host stopped in its build" if lost else ""
    if manifest.damaged(obj):
        why = f"{obj / manifest.FILE} is damaged or gone, which knows its files"
    if why:
        terminal.line("note", f"{what} is made from nothing: {why}")
    if obj.exists() and (why or not owner.exists() or owner.read_text() != real):
        names = os.listdir(obj)
        if names and not any(name.startswith(("piggyback.", ".piggyback.")) for name in names):
            raise PiggyError(
                f"the folder {obj} is not empty, and it is no object folder of Piggyback's; it"
                " is left alone",
                "move it away, or name another folder with 'build='",
            )
        _empty(obj, owner)
    elif restarted:  # what was cut short after the run
        make.repair(obj)
        manifest.purge(obj)
    if not owner.exists() or owner.read_text() != real:
        write_whole(owner, real)
    restart.at_work(record)


def _empty(obj: Path, owner: Path) -> None:
    """Empty an object folder; if that is cut off, the folder is still known as one to empty."""
    write_whole(owner, "")
    for entry in os.scandir(obj):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.name != owner.name:
            os.unlink(entry.path)
