"""Sources: fetched, verified and unpacked; after that no task needs the network.

configs/sources.toml -> fetch:NAME -> dl/NAME.json -> _unpack:NAME
                        (dl/, mirror, upstream, apt)      -> build/src/NAME/.piggyback-source -+
configs/patches/*/ (of a machine that has some) -----------------------------------------------+
                                     -> _patch:NAME -> build/MACHINE/src/NAME/.piggyback-source
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from tasks import toolchain
from tasks.cache.digests import MISSING
from tasks.cache.store_files import short_hash
from tasks.config.pins import Source
from tasks.config.project import Project
from tasks.fetch import obtain, patched, series, unpack
from tasks.graph.task import Job, Makes, Needs, TaskDict, task
from tasks.system import address, terminal


def needed(project: Project) -> list[Source]:
    """Return the pins that machine and settings need; source trees of the user's own need none."""
    found = toolchain.sources(project)
    if not project.settings.kernel_src:
        found.append(project.kernel_pin)
    if project.machine.userspace and not project.settings.busybox_src:
        found.append(project.source("busybox"))
    return found


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield `fetch` with a subtask for each source, and the tasks that unpack."""
    sources = needed(project)
    yield {
        "basename": "fetch",
        "name": None,
        "doc": "get and verify every source; afterwards no task needs the network",
    }
    for source in sources:
        record = project.layout.dl / f"{source.name}.json"
        yield {
            **task(
                project,
                "fetch",
                f"get and verify {source.filename}",
                fetch,
                [source],
                inputs=Needs(settings={"pin": msgspec.json.encode(_shown(source)).decode()}),
                outputs=Makes(targets=[record]),
            ),
            "name": source.name,
            "clean": [],
        }
    for source in sources:
        if source.name in toolchain.packed(project):
            continue  # a prebuilt toolchain, unpacked to build/toolchains by its provider
        yield {
            **task(
                project,
                "_unpack",
                f"unpack {source.filename}",
                unpack_source,
                [source],
                inputs=Needs(files=[project.layout.dl / f"{source.name}.json"]),
                outputs=Makes(targets=[unpack.stamp(project.layout.build, source.name)]),
            ),
            "name": source.name,
            "clean": [],  # a tree may hold the user's edits, and its stamp protects them
        }
    for source in sources:
        if places := patches_of(project).get(source.name):
            stamp = project.layout.here / "src" / source.name / unpack.STAMP
            yield {
                **task(
                    project,
                    "_patch",
                    f"patch {source.filename}",
                    patch_source,
                    [source.name, places],
                    inputs=Needs(
                        files=[unpack.stamp(project.layout.build, source.name)],
                        settings={"patches": ", ".join(map(str, places))},
                        trees={
                            "patch": partial(patch_states, project, places),
                            "source": partial(touched_states, project, source.name, places),
                        },
                        tools=["patch"],
                    ),
                    outputs=Makes(targets=[stamp, stamp.with_name(patched.RECORD)]),
                ),
                "name": source.name,
                "clean": [],
            }


def patches_of(project: Project) -> dict[str, tuple[Path, ...]]:
    """Return the folders of patches in force, by the source that they are for."""
    layout = project.layout
    return {project.kernel_pin.name: layout.kernel_patches, "busybox": layout.busybox_patches}


def patch_states(project: Project, places: Sequence[Path]) -> dict[str, str]:
    """Return the digest of each file that decides what is applied, in order, by path."""
    return {str(path): project.stamps.digest(path) for path in series.files(places)}


def _shown(source: Source) -> Source:
    """Return a pin without passwords, for journal and `why`."""
    return msgspec.structs.replace(source, urls=tuple(address.shown(url) for url in source.urls))


def touched_states(project: Project, name: str, places: Sequence[Path]) -> dict[str, str]:
    """Return the digest of each file of an unpacked tree that patches touch, by path."""
    tree = project.layout.build / "src" / name
    return {str(tree / file): project.stamps.digest(tree / file) for file in series.names(places)}


def fetch(job: Job, source: Source) -> None:
    """Get one source into dl/, with its record.

    The places are tried in this order: dl/, mirror, upstream, distribution.

    Args:
        job: The run of the task.
        source: The pin.

    Raises:
        PiggyError: No place has the source with the right hash.
    """
    settings = job.project.settings
    obtain.obtain(
        source,
        dl=job.project.layout.dl,
        mirror=settings.mirror,
        offline=settings.offline,
        apt_state=job.project.layout.build / "host" / "apt",
        log=job.log,
    )


def unpack_source(job: Job, source: Source) -> None:
    """Unpack one verified archive into build/src, unless that is done.

    An unpacked tree is not overwritten, as it may hold the user's edits.

    Args:
        job: The run of the task.
        source: The pin.

    Raises:
        PiggyError: The archive is damaged or hostile, or the disk is full.
    """
    got = obtain.obtain(
        source,
        dl=job.project.layout.dl,
        mirror="",
        offline=True,
        apt_state=job.project.layout.build / "host" / "apt",
        log=job.log,
    )
    unpack.unpack(
        got.path,
        got.sha256,
        job.project.layout.build / "src",
        source.name,
        outside_links=source.outside_links,
    )


def patch_source(job: Job, name: str, places: Sequence[Path]) -> None:
    """Bring the patched copy of a source up to date.

    Args:
        job: The run of the task.
        name: The source's name.
        places: The folders of patches.

    Raises:
        PiggyError: A patch does not apply, or a file that it touches was edited in the copy.
    """
    project = job.project
    tree, copy = _trees(project, name)
    wanted = series.applied(series.patches(places), tree, job.log)
    patched.share(tree, copy)
    changed = patched.update(tree, copy, wanted)
    unpack.point(copy.with_name(name), copy)
    count = len(changed)
    terminal.line("patched", f"{count} file{'s' * (count != 1)} of {name} changed by that")


def _trees(project: Project, name: str) -> tuple[Path, Path]:
    """Return the folder of an unpacked source, and that of its patched copy."""
    tree = (project.layout.build / "src" / name).resolve()
    return tree, project.layout.here / "src" / tree.name


def foretold(project: Project, name: str) -> dict[str, str]:
    """Return the digests that the files of a patched copy will have.

    Args:
        project: The project.
        name: The source's name.

    Returns:
        The digests of the files that `_patch:NAME` would write, by real path, and of its targets;
        {} if it would make the whole copy.

    Raises:
        PiggyError: It would fail.
    """
    tree, copy = _trees(project, name)
    if not copy.exists():
        return {}
    wanted = series.applied(series.patches(patches_of(project)[name]), tree, None)
    due = patched.due(tree, copy, wanted)
    digests = {
        os.path.realpath(copy / inner): short_hash(file.data) if file else MISSING
        for inner, file in due.items()
    }
    targets = [copy.with_name(name) / inner for inner in (unpack.STAMP, patched.RECORD)]
    return {**digests, **{str(path): project.stamps.digest(path) for path in targets}}


def edited(project: Project) -> list[Path]:
    """Return the files of patched copies that are not as the patches, applied anew, make them.

    Raises:
        PiggyError: A patch does not apply.
    """
    found = []
    for name, places in patches_of(project).items():
        if places:
            tree, copy = _trees(project, name)
            wanted = series.applied(series.patches(places), tree, None)
            found += patched.edited(copy.with_name(name), wanted)
    return found
