"""The root filesystem, made without root, as a disk image and as an initramfs.

busybox ---------------------+
modules (where there are) ---+
overlays/* in order ---------+-> one deterministic tree -> rootfs    -> images/rootfs.ext2
configs/rootfs/overlays.txt -+                          -> initramfs -> images/initramfs.cpio.gz
configs/rootfs/devices.txt --+
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tasks import modules
from tasks.config.project import EPOCH, Project
from tasks.filesystem import overlay, tree
from tasks.graph.stored import States
from tasks.graph.task import Job, Kept, Makes, Needs, TaskDict, task
from tasks.kconfig import dotconfig
from tasks.system import terminal
from tasks.system.errors import PiggyError

# The same for every root filesystem, so that images are bit-identical.
UUID = "70696767-7962-4163-8b00-000000000001"
OVERLAYS = Path("overlays")
MODES = Path("configs") / "rootfs" / "overlays.txt"  # modes of the files in overlays/


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `rootfs` and `initramfs`; none for a machine without user space."""
    if not project.machine.userspace:
        return
    files = [
        project.layout.images / "busybox",
        project.layout.images / "busybox.links",
        project.layout.device_table,
        MODES,
        *filter(None, [modules.archive(project)]),
    ]
    layers = {"overlays": " ".join(map(str, project.overlays))}
    disk, archive = (
        {str(folder): listing(project, folder, most) for folder in project.overlays}
        for most in (tree.DISK_FILE_MAX, tree.ARCHIVE_FILE_MAX)
    )
    yield task(
        project,
        "rootfs",
        "root filesystem as an ext2 image, made without root",
        build_disk,
        inputs=Needs(
            files=files,
            trees=disk,
            tools=["mke2fs", "debugfs"],
            settings={
                **layers,
                "size": project.settings.rootfs_size,
                "free": project.settings.rootfs_free,
                "init": first_program(project, "init"),
            },
        ),
        outputs=Makes(
            targets=[project.layout.rootfs], written=True, goes_on=not project.settings.snapshot
        ),
        store=Kept(states=without_table_modes),
    )
    yield task(
        project,
        "initramfs",
        "the same root filesystem as a compressed cpio archive",
        build_archive,
        inputs=Needs(
            files=files,
            trees=archive,
            tools=["lz4", "zstd"],
            settings={
                **layers,
                "compression": project.settings.initramfs,
                "init": first_program(project, "rdinit"),
            },
        ),
        outputs=Makes(targets=[project.layout.initramfs]),
        store=Kept(states=without_table_modes),
    )


def listing(project: Project, folder: Path, most: int) -> Callable[[], Mapping[str, str]]:
    """Return a function that lists an overlay, as an input of tasks.

    Args:
        project: The project.
        folder: The overlay.
        most: The largest file that the image can hold, in bytes. A larger file is not read, so that
            the refusal of the image is not delayed.

    Returns:
        The function. It returns, by path, the kind, the mode, and the content's digest or the
        link's target.
    """

    def content(path: Path) -> str:
        try:
            size = path.stat().st_size
        except OSError:
            size = 0
        return f"{size} bytes" if size > most else project.stamps.digest(path)

    def state() -> Mapping[str, str]:
        return {
            path: f"{kind} {rest}" + (f" {content(folder / path)}" if kind == "file" else "")
            for path, (kind, rest) in overlay.snapshot(folder).items()
        }

    return state


def without_table_modes(project: Project) -> States:
    """Return what takes the mode out of the state of an overlay's file that has one in the table.

    The mode on the disk is then that of the user's umask, and decides nothing.
    """
    known: Mapping[str, Mapping[str, tree.Entry]] = {}
    with contextlib.suppress(PiggyError):  # the task says what is wrong with it
        known = tables()

    def counts(name: str, state: str) -> str:
        kind, _, rest = state.split(" ", 2) if state.count(" ") > 1 else (state, "", "")
        for folder in project.overlays:
            path = name.removeprefix(f"{folder} ")
            entry = known.get(folder.name, {}).get(f"/{path}")
            if path != name and folder.parent == OVERLAYS and entry and entry.kind == kind:
                return f"{kind} {rest}"
        return state

    return counts


def tables() -> dict[str, dict[str, tree.Entry]]:
    """Return the modes of the files in overlays/ by overlay, then by path in it."""
    from tasks.filesystem import devices

    return overlay.tables([(row.entry, row.where) for row in devices.read(MODES)])


def first_program(project: Project, parameter: str) -> str:
    """Return the program that init= or rdinit= on the kernel's command line names, "" for none.

    Settings and machine file are searched. The last one counts (init_setup() and rdinit_setup() in
    init/main.c).

    Args:
        project: The project.
        parameter: "init" or "rdinit".
    """
    words = " ".join(
        [
            project.machine.qemu.append if project.machine.qemu else "",
            project.display.append,
            project.settings.append,
        ]
    ).split()
    return next(
        (word.partition("=")[2] for word in reversed(words) if word.startswith(f"{parameter}=")), ""
    )


def compose(
    project: Project, say: Callable[[str], None] = lambda text: None
) -> tuple[tree.Entry, ...]:
    """Merge busybox, the modules, the overlays and the device table to one tree.

    Args:
        project: The project.
        say: Called with a sentence for each kind of change that an overlay's files undergo.

    Raises:
        PiggyError: The layers contradict each other, or an overlay holds what an image can't.
    """
    from tasks.filesystem import devices, tar

    extra = modules.archive(project)
    layers = [
        tree.busybox_layer(
            project.layout.images / "busybox", project.layout.images / "busybox.links"
        ),
        *([tar.layer(extra)] if extra else []),
    ]
    known = tables()
    for folder in project.overlays:
        layer, notes = overlay.layer(
            folder, known.get(folder.name) if folder.parent == OVERLAYS else None
        )
        layers.append(layer)
        for note in notes:
            say(note)
    return devices.apply(tree.compose(layers), devices.read(project.layout.device_table))


def unpacked(project: Project) -> int:
    """Return the bytes of RAM that the initramfs takes when it is unpacked."""
    from tasks.filesystem import cpio

    return cpio.in_memory(compose(project))


def has_attributes(project: Project) -> bool:
    """Tell whether the ext2 image has extended attributes."""
    from tasks.filesystem import ext2

    return ext2.has_attributes(project.layout.rootfs)


def check_applets(project: Project, entries: Sequence[tree.Entry]) -> None:
    """Check that busybox has the applets that scripts of the root filesystem call.

    Raises:
        PiggyError: It lacks some; the message names script, line and applet.
    """
    from tasks.filesystem import scripts

    config = dotconfig.read_config(project.layout.busybox_config)
    # busybox may come from the store, and its tree be gone.
    applets = scripts.applets_of(project.layout.busybox_src.resolve()) or scripts.off_in(config)
    found = scripts.missing(entries, applets, config)
    if found:
        names = sorted({call.name for _, call in found})
        lines = [f"{path}:{call.line} calls {call.name}" for path, call in found]
        raise PiggyError(
            "scripts of the root filesystem call applets that busybox was built without:\n    "
            + "\n    ".join(lines),
            f"switch on {', '.join(names)} in busybox's configuration (doit busybox_menuconfig), or"
            " have the script ask first: command -v NAME",
        )


@functools.cache
def say_once(text: str) -> None:
    """Print a note, but only once in a run: rootfs and initramfs have the same overlays."""
    terminal.line("note", text)


def build_disk(job: Job) -> None:
    """Write rootfs.ext2.

    Raises:
        PiggyError: The content does not fit, or has no init.
    """
    from tasks.filesystem import ext2

    settings = job.project.settings
    entries = compose(job.project, say_once)
    tree.check_init(entries, first_program(job.project, "init"))
    check_applets(job.project, entries)
    stats = ext2.build(
        entries,
        job.project.layout.rootfs,
        size=settings.rootfs_size * 1024 or None,
        free=settings.rootfs_free * 1024,
        uuid=UUID,
        epoch=EPOCH,
        log=job.log,
    )
    terminal.line(
        "",
        f"{terminal.size(os.path.getsize(job.project.layout.rootfs))},"
        f" {terminal.size(stats.bytes_free)} of it free",
    )


def init_link(entries: Sequence[tree.Entry], asked: str) -> str:
    """Return what /init of the initramfs links to; "" for no link.

    The link does not depend on the command line, so that a boot with rdinit= leaves the archive as
    it is: only a tree without an init of its own has none.

    Args:
        entries: The tree.
        asked: The program that rdinit= names; "" for none.
    """
    if asked:
        try:
            tree.check_init(entries, ramfs=True)
        except PiggyError:
            return ""
    return "sbin/init"


def build_archive(job: Job) -> None:
    """Write the initramfs.

    Raises:
        PiggyError: The archive can't hold the content, or the content has no init.
    """
    from tasks.filesystem import cpio

    entries = compose(job.project, say_once)
    init = first_program(job.project, "rdinit")
    tree.check_init(entries, init, ramfs=True)
    check_applets(job.project, entries)
    if lost := [entry.path for entry in entries if entry.attributes]:
        say_once(
            "a cpio archive holds no extended attributes (file capabilities): those of"
            f" {tree.few(lost)} are in rootfs.ext2 only"
        )
    cpio.build(
        entries,
        job.project.layout.initramfs,
        compression=job.project.settings.initramfs,
        epoch=EPOCH,
        init_link=init_link(entries, init),
        log=job.log,
    )
