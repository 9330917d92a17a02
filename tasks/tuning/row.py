"""What a trial found, as a row that is kept: sizes, memory, objects, and how the boot went."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from tasks.config.project import Project
from tasks.graph.reason import Record
from tasks.kconfig import dotconfig
from tasks.system.errors import PiggyError
from tasks.system.files import decoded
from tasks.tuning import count, sizes
from tasks.tuning.sizes import Ram


class _Boot(msgspec.Struct):
    """What qemu_test writes down (see tasks/qemu.py)."""

    ready: float = 0.0
    failed: list[str] = []


_NOT_THERE = _Boot()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial found.

    Attributes:
        change: The change: symbol to value.
        config: The configuration, without what is off.
        files: The size of vmlinux and of each link up to the booted one, in their order; empty if
            it was not built.
        ram: What the kernel takes in memory.
        objects: The number of compiled objects in vmlinux (see sizes.memory).
        error: Why it was not built; "" if it was.
        booted: Whether the guest came to its shell; None if it was not tried.
        passed: Whether it passed all checks of qemu_test; None if it was not tried.
        failed: The checks that failed.
        said: Why it did not boot or pass, in a sentence.
        ready: Seconds from QEMU's start to the shell.
        instructions: Those executed from reset to the shell's answer; None if they were not
            counted.
        uncounted: Why they could not be counted; "" if they were, or it was not tried.
        seconds: How long the trial took.
    """

    change: dict[str, str]
    config: dict[str, str] = {}
    files: dict[str, int] = {}
    ram: Ram | None = None
    objects: int = 0
    error: str = ""
    booted: bool | None = None
    passed: bool | None = None
    failed: list[str] = []
    said: str = ""
    ready: float | None = None
    instructions: int | None = None
    uncounted: str = ""
    seconds: float = 0.0

    @property
    def built(self) -> bool:
        """Whether there are images."""
        return not self.error

    def differences(self, base: Row) -> dict[str, tuple[str, str]]:
        """Return the symbols that fell or rose with the change, each with both its values.

        Args:
            base: The row without a change.
        """
        return {
            name: (base.config.get(name, "n"), self.config.get(name, "n"))
            for name in dotconfig.differences(base.config, self.config)
            if name not in self.change
        }


def measured(its: Project, row: Row) -> Row:
    """Return a row with what the images of a build show.

    Args:
        its: The project as it was built.
        row: The row so far.

    Raises:
        PiggyError: An image is missing or damaged.
    """
    images = its.layout.images
    ram, objects = sizes.memory(images / "vmlinux")
    config = dotconfig.read_config(its.layout.config)
    return msgspec.structs.replace(
        row,
        config={name: value for name, value in config.items() if value != "n"},
        files={name: (images / name).stat().st_size for name in links(its)},
        ram=ram,
        objects=objects,
    )


def links(its: Project) -> list[str]:
    """Return vmlinux and the links of the chain up to the booted one, in their order."""
    found = [its.image]
    while found[-1] in its.chain:
        found.append(its.chain[found[-1]].after)
    return found[::-1]


def booted(its: Project, row: Row, error: str) -> Row:
    """Return a row with the verdict of the boot.

    Args:
        its: The project as it was booted.
        row: The row so far.
        error: What qemu_test failed of; "" if it passed.
    """
    boot = decoded(its.layout.boot_record, _Boot, _NOT_THERE, msgspec.json.decode)
    there = boot is not _NOT_THERE
    return msgspec.structs.replace(
        row,
        booted=there,
        passed=not error,
        failed=boot.failed,
        said=error,
        ready=boot.ready if there else None,
    )


def counted(its: Project, row: Row) -> Row:
    """Return a row with the instructions of its boot, or why they can't be counted.

    Args:
        its: The project as it was booted.
        row: The row so far; its guest came to its shell.
    """
    try:
        return msgspec.structs.replace(row, instructions=count.total(its))
    except PiggyError as error:
        return msgspec.structs.replace(row, uncounted=error.message)


def sources(its: Project, records: Mapping[str, Record]) -> dict[str, str]:
    """Return the files of the source tree that the images were made from, with their digests.

    Of a tree with patches, which is a copy in the build's folder, they are those of the unpacked
    one; the patches are known by themselves.

    Args:
        its: The project as it was built.
        records: The record of each task.
    """
    own = f"{its.layout.build.resolve()}/"  # what was made on the way
    found: dict[str, str] = {}
    for task in ("kernel_config", *links(its)):
        known = records.get(task, {})
        found |= known.get("discovered", {})
        for name in known.get("trees", {}):  # files that symbols name: " PATH"
            if name.startswith(" /"):
                found[name[1:]] = its.stamps.digest(name[1:])
    if its.layout.kernel_patches:
        copies = {f"{path(its.layout.kernel_src)}/" for path in (os.path.abspath, os.path.realpath)}
        tree = os.path.realpath(its.layout.build / "src" / its.kernel_pin.name)
        for copy in copies:
            for name in [name for name in found if name.startswith(copy)]:
                original = os.path.join(tree, name.removeprefix(copy))
                found[original] = its.stamps.digest(original)
    return {name: digest for name, digest in found.items() if not name.startswith((own, "CONFIG_"))}
