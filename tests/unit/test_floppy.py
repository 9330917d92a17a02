"""The stage `floppy`, and the initramfs inside the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import floppy, kernel, qemu
from tasks.config import project
from tasks.config.project import Project
from tasks.graph.task import TaskDict
from tasks.system.errors import PiggyError

TOP = Path(__file__).parents[2]


def load(**words: str) -> Project:
    return project.load(TOP, {}, {"machine": "floppy", **words})


def named(tasks: list[TaskDict], name: str) -> TaskDict:
    return next(task for task in tasks if task["basename"] == name)


def test_only_a_machine_that_boots_from_one_has_it() -> None:
    assert [task["basename"] for task in floppy.tasks(load())] == ["floppy"]
    assert not list(floppy.tasks(load(machine="pc")))
    assert "floppy" in load().goals
    assert "floppy" not in load(machine="pc").goals


def test_what_it_is_made_from_and_what_is_made_from_it() -> None:
    its = load()
    made = named(list(floppy.tasks(its)), "floppy")
    assert set(made["file_dep"]) >= {
        "build/floppy/images/bzImage",
        "build/floppy/userspace.json",
        "tasks/filesystem/floppy.S",
    }
    assert made["targets"] == ["build/floppy/images/floppy.img"]
    vmlinux = named(list(kernel.tasks(its)), "vmlinux")
    assert "build/floppy/images/initramfs.cpio" in vmlinux["file_dep"]
    for name in ("qemu_boot", "qemu_test"):
        assert made["targets"][0] in named(list(qemu.tasks(its)), name)["file_dep"]


def test_its_command_line_is_the_settings() -> None:
    assert floppy.words(load(append="quiet ip=off")).endswith("reboot=t quiet ip=off")
    assert floppy.words(load(display="vga")).startswith("console=tty0 console=ttyS0 ")


def test_the_kernel_packs_the_initramfs_itself() -> None:
    with pytest.raises(PiggyError, match="initramfs=xz, and the machine 'floppy' builds it into"):
        list(kernel.tasks(load(initramfs="xz")))
