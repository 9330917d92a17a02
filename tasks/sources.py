"""Sources: fetched, verified and unpacked; after that no task needs the network.

configs/sources.toml -> fetch:NAME -> dl/NAME.json -> _unpack:NAME
                        (dl/, mirror, upstream, apt)      -> build/src/NAME/.piggyback-source
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tasks import toolchain
from tasks.config.pins import Source
from tasks.config.project import Project
from tasks.fetch import obtain, unpack
from tasks.graph.task import Job, Makes, Needs, TaskDict, task
from tasks.system import address


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


def _shown(source: Source) -> Source:
    """Return a pin without passwords, for journal and `why`."""
    return msgspec.structs.replace(source, urls=tuple(address.shown(url) for url in source.urls))


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
