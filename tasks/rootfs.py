"""The root filesystem, made without root, as a disk image and as an initramfs.

    busybox ---------------------+
    modules (where there are) ---+
    overlays/* in order ---------+-> one deterministic tree -> rootfs    -> images/rootfs.ext2
    configs/rootfs/devices.txt --+                          -> initramfs -> images/initramfs.cpio.gz
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tasks import modules
from tasks.kit import tree, ui
from tasks.kit.graph import Job, TaskDict, task
from tasks.kit.project import EPOCH, Project

UUID = "70696767-7962-4163-8b00-000000000001"  # of every root filesystem, so that images are bit-identical
SUFFIX = {"none": "", "gzip": ".gz", "bzip2": ".bz2", "lzma": ".lzma", "xz": ".xz", "lz4": ".lz4", "zstd": ".zst"}


def disk(project: Project) -> Path:
    """The ext2 image."""
    return project.images / "rootfs.ext2"


def archive(project: Project) -> Path:
    """The initramfs."""
    return project.images / f"initramfs.cpio{SUFFIX[project.settings.initramfs]}"


def table(project: Project) -> Path:
    """The device and permission table."""
    return Path("configs") / "rootfs" / f"{project.machine.rootfs.devices}.txt"


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `rootfs` and `initramfs`, for a machine that has a user space."""
    if not project.machine.userspace:
        return
    files = [project.images / "busybox", project.images / "busybox.links", table(project),
             *filter(None, [modules.archive(project)])]
    layers = {"overlays": " ".join(map(str, project.overlays))}
    trees = {str(folder): listing(project, folder) for folder in project.overlays}
    yield task(project, "rootfs", "root filesystem as an ext2 image, made without root", build_disk,
               files=files, targets=[disk(project)], trees=trees, tools=["mke2fs", "debugfs"],
               settings={**layers, "size": project.settings.rootfs_size, "free": project.settings.rootfs_free}, stored=True)
    yield task(project, "initramfs", "the same root filesystem as a compressed cpio archive", build_archive,
               files=files, targets=[archive(project)], trees=trees, tools=["lz4", "zstd"],
               settings={**layers, "compression": project.settings.initramfs}, stored=True)


def listing(project: Project, folder: Path) -> Callable[[], Mapping[str, str]]:
    """Return a function that lists an overlay as {path: kind, mode, and content digest or link target}."""
    def state() -> Mapping[str, str]:
        return {str(path): f"{kind} {mode:o} {project.stamps.digest(folder / str(path)) if kind == 'file' else target}"
                for path, kind, mode, target in tree.snapshot(folder)}
    return state


def compose(project: Project) -> tuple[tree.Entry, ...]:
    """Lay busybox, the modules, the overlays and the device table over each other."""
    from tasks.kit import devices, packed
    extra = modules.archive(project)
    layers = [tree.busybox_layer(project.images / "busybox", project.images / "busybox.links"),
              *([packed.layer(extra)] if extra else []), *(tree.overlay_layer(folder) for folder in project.overlays)]
    return devices.apply(tree.compose(layers), devices.read(table(project)))


def build_disk(job: Job) -> None:
    """Write rootfs.ext2."""
    from tasks.kit import ext2
    settings = job.project.settings
    stats = ext2.build(compose(job.project), disk(job.project), size=settings.rootfs_size * 1024 or None,
                       free=settings.rootfs_free * 1024, uuid=UUID, epoch=EPOCH, log=job.log)
    ui.line("", f"{ui.size(os.path.getsize(disk(job.project)))}, {ui.size(stats.bytes_free)} of it free")


def build_archive(job: Job) -> None:
    """Write the initramfs."""
    from tasks.kit import cpio
    cpio.build(compose(job.project), archive(job.project), compression=job.project.settings.initramfs, epoch=EPOCH,
               log=job.log)
