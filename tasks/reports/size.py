"""Where the bytes of the kernel, of busybox and of the root filesystem are.

images/* + Kbuild's records + the linker's map -> size [PATH]

    size                    the images, the kernel by folder, and what it takes in memory
    size kernel/sched       one folder, object or image more closely; `busybox`, `applets`,
                            `rootfs`, `floppy`
    size --symbols          the kernel by the Kconfig symbols that bring its objects in
    size --against REF      what grew and shrank; `size busybox --against REF` in busybox
    size --limit 900K       fail if the image is larger
    size --history          the sizes of this build and of earlier ones
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from tasks import rootfs
from tasks.config.project import Project
from tasks.graph import explain
from tasks.graph.explain import Graph
from tasks.graph.task import Command, Job, TaskDict, task
from tasks.guest import boot
from tasks.reports import plan, size_against, size_options, size_text, why
from tasks.reports.size_options import Asked, Limits
from tasks.reports.size_text import SHOWN, Node
from tasks.system import terminal
from tasks.system.errors import PiggyError, nearest
from tasks.system.files import read_regular
from tasks.system.pattern import pattern
from tasks.tuning import builds, history, sizes, userspace
from tasks.tuning.builds import Build
from tasks.tuning.compare import Comparison
from tasks.tuning.image import Row
from tasks.tuning.sizes import Record

_MEMORY = pattern(r"Memory: (\d+)K/(\d+)K available \([^()\n]{0,300}\)")


def tasks(project: Project, others: Sequence[TaskDict]) -> Iterator[TaskDict]:
    """Yield `size`, which looks at all other tasks to tell whether the images are up to date."""
    yield task(
        project,
        "size",
        "say where the bytes of kernel, busybox and rootfs are: size [PATH] [--against REF]",
        size,
        [[dict(one) for one in others]],
        command=Command(
            names=True, reads=True, params=size_options.PARAMS, check=size_options.refuse
        ),
    )


def size(
    job: Job,
    others: Sequence[TaskDict],
    names: Sequence[str] = (),
    **options: Any,
) -> None:
    """Print the sizes, or compare them with another build's.

    Args:
        job: The task's job.
        others: All other tasks.
        names: What is looked at more closely: folders, objects, images; and options after them.
        options: As `size_options.PARAMS` has them.

    Raises:
        Exceeded: A limit is exceeded.
        PiggyError: Nothing is built, or a name or a limit is none.
    """
    project = job.project
    names, asked = size_options.asked(names, options)
    limits = size_options.limits(project, asked.limit)
    build, record = _show(job, others, names, asked, limits)
    size_options.check(_limited(build, record, limits), limits)


def _show(
    job: Job, others: Sequence[TaskDict], names: Sequence[str], asked: Asked, limits: Limits
) -> tuple[Build, Record]:
    """Print what was asked for, and return what was measured.

    Raises:
        PiggyError: Nothing is built, or a name is none.
    """
    project = job.project
    build = builds.of_project(project)
    if asked.against and names:
        _show_rest(project, build, others, names, asked)
        return build, sizes.measure(build)
    record = sizes.measure(build)
    stale = stale_notes(build, others, _looked_at(build, names, asked, limits))
    if not stale:
        _note_commits(project, build, record)
    notes = [*stale, *sizes.notes(record)]
    shown = 0 if asked.whole else SHOWN
    other = None
    if asked.against:
        ref = builds.named(project, asked.against)
        other, more = size_against.kernel(project, record, asked.against, ref)
        notes += more
    if asked.as_json:
        found = _json(project, build, record, other, notes)
        if asked.against:
            found["against"]["others"] = _others(build, ref)
        found["limits"] = {**limits.machine, **limits.given}
        if asked.history:
            found["history"] = msgspec.to_builtins(history.of(project, build))
        print(json.dumps(found))
        return build, record
    for note in notes:
        terminal.line("note", note)
    shorten = functools.partial(why.short, project)
    lines = (
        size_text.against(other, shown)
        if other
        else size_text.history(history.of(project, build), build.image, shorten, shown)
        if asked.history
        else size_text.config_lines(
            size_text.by_config(record.raw, size_against.origin(project, record).chain), shown
        )
        if asked.symbols
        else _trees(project, build, record, names, asked.depth, shown)
    )
    print("\n".join(terminal.printable(line) for line in lines))
    return build, record


def _show_rest(
    project: Project, build: Build, others: Sequence[TaskDict], names: Sequence[str], asked: Asked
) -> None:
    """Print what grew and shrank in busybox and other images that are not the kernel.

    Raises:
        PiggyError: One can't be compared.
    """
    for note in stale_notes(build, others, [size_against.file_of(name) for name in names]):
        terminal.line("note", note)
    other = size_against.named(project, asked.against)
    for name in dict.fromkeys(names):
        found = size_against.rest(build, other, name)
        head, most = size_against.NAMES[name], 0 if asked.whole else SHOWN
        print("\n".join(map(terminal.printable, size_text.against(found, most, head))))


def _looked_at(build: Build, names: Sequence[str], asked: Asked, limits: Limits) -> list[str]:
    """Return the images of which something is shown, or that have a limit."""
    kernel = [name for name in (build.image, build.raw, build.packed) if name]
    shown = [*limits.machine, *limits.given]
    whole = asked.as_json or not names
    for name in [*kernel, *size_against.NAMES] if whole else names:
        first = name.strip("/").split("/")[0]
        if first in size_against.NAMES:
            shown.append(size_against.file_of(first))
        else:
            shown += [first] if first in kernel else kernel
    return [name for name in dict.fromkeys(shown) if name in build.files]


def _others(build: Build, other: Build | str) -> dict[str, Any]:
    """Return what grew and shrank in each image that is not the kernel, for programs.

    It is empty where the other build is known by its kernel alone.
    """
    found: dict[str, Any] = {}
    if isinstance(other, str):
        return found
    for name in size_against.NAMES:
        if size_against.file_of(name) in build.files.keys() & other.files.keys():
            try:
                one = size_against.rest(build, other, name)
                found[name] = {**msgspec.to_builtins(one), "words": one.words, "total": one.total}
            except PiggyError as error:
                found[name] = {"error": error.message}
    return found


def _trees(
    project: Project, build: Build, record: Record, names: Sequence[str], depth: int, most: int
) -> Iterator[str]:
    """Yield the lines of the groups that were asked for, or the overview.

    Raises:
        PiggyError: A name is none.
    """
    if not names:
        yield from _overview(build, record, depth, most)
        return
    for name in names:
        first, *rest = name.strip("/").split("/")
        rows = rows_of(project, build, record).get(first)
        if not rows and not rest:
            _apart(project, build, first)
        top = size_text.tree(first, rows()) if rows else size_text.tree(build.raw, record.raw)
        path = rest if rows else [first, *rest]
        node = top.at(path)
        if node is None:
            raise PiggyError(*_unknown(top, path, name, rows_of(project, build, record)))
        yield from size_text.show(node, depth, most)


def _apart(project: Project, build: Build, name: str) -> None:
    """Refuse the name of an image that is not built, or has no parts of its own to be told.

    Raises:
        PiggyError: It is one.
    """
    if name in build.files:
        count = build.files[name].stat().st_size
        raise PiggyError(
            f"'{name}' is not taken apart; it has {count:,} B",
            f"'doit size {build.raw}' and 'doit size {build.image}' show the kernel's parts",
        )
    made = "busybox" if name == "applets" else name
    has = boot.floppy(project) if made == "floppy" else project.machine.userspace
    if made in project.chain or (has and made in ("busybox", "rootfs", "floppy")):
        raise PiggyError(f"'{made}' is not built yet", f"'doit {made}' builds it")


def _unknown(top: Node, path: Sequence[str], name: str, others: Iterable[str]) -> tuple[str, str]:
    """Return message and hint for a path that leads nowhere."""
    known, node = top, top.at([])
    while path and (node := known.at(path[:1])):
        known, path = node, path[1:]
    images = others if known is top else ()
    near = nearest(path[0], [*known.below, *images]) if path else ""
    return (
        f"there is no '{name}' in {top.name}.{near}",
        f"'doit size' shows the folders; {', '.join(others)} can be named, too",
    )


def rows_of(project: Project, build: Build, record: Record) -> dict[str, Callable[[], list[Row]]]:
    """Return by name how to get the rows of each image that has its own."""
    found: dict[str, Callable[[], list[Row]]] = {build.raw: lambda: record.raw}
    if record.booted:
        found[build.image] = lambda: record.booted
    if "busybox" in build.files:
        found["busybox"] = lambda: size_against.apart(build, "busybox")
        found["applets"] = lambda: [
            Row(0, row.size, row.name, "") for row in size_against.apart(build, "applets")
        ]
    if "rootfs" in build.files:
        found["rootfs"] = lambda: userspace.rootfs(
            build.files["rootfs"],
            rootfs.compose(project),
            project.overlays,
            project.layout.images / "busybox",
        )
    if "floppy" in build.files:
        found["floppy"] = lambda: size_against.apart(build, "floppy")
    return found


def _limited(build: Build, record: Record, most: Limits) -> dict[str, int]:
    """Return the sizes that limits are held against: of the floppy that of what is not free.

    Raises:
        PiggyError: A floppy that has a limit is damaged.
    """
    if "floppy" in build.files and "floppy" in {**most.machine, **most.given}:
        taken = userspace.taken(userspace.files(build.files["floppy"]))
        return {**record.files, "floppy": taken}
    return record.files


def _overview(build: Build, record: Record, depth: int, most: int) -> Iterator[str]:
    if record.booted:
        yield from size_text.show(size_text.tree(build.image, record.booted), depth, most)
        yield ""
    yield from size_text.show(size_text.tree(build.raw, record.raw), depth, most)
    yield ""
    yield from size_text.ram(record.ram)
    if said := guest(build):
        yield f"  the guest said: {said}"
    if "floppy" in build.files:
        yield ""
        try:
            rows = userspace.files(build.files["floppy"])
            yield from size_text.show(size_text.tree("floppy", rows), depth, most)
        except PiggyError as error:  # a guest may have written to it
            yield f"the floppy is not taken apart: {error.message}"
    apart = (build.image, build.raw, "floppy")
    rest = {name: count for name, count in record.files.items() if name not in apart}
    if rest:
        yield ""
        for name, count in rest.items():
            yield f"{name:<{size_text.WIDTH}} {count:>16,}"


def guest(build: Build) -> str:
    """Return what the kernel printed of its memory when qemu_test last booted it; "" for nothing.

    Source: mem_init_print_info(), mm/page_alloc.c.
    """
    log = build.kept / "logs" / "console.log"
    try:
        if log.stat().st_mtime_ns < build.vmlinux.stat().st_mtime_ns:
            return ""
        found = _MEMORY.search(read_regular(log, 1 << 24).decode(errors="replace"))
    except OSError:
        return ""
    return found[0] if found else ""


def _note_commits(project: Project, build: Build, record: Record) -> None:
    """Note the commits of project and kernel tree, where these are as they were committed."""
    new = builds.commits(project, record.commits)
    if new:
        sizes.note(build, record, new)


def stale_notes(build: Build, others: Sequence[TaskDict], names: Sequence[str] = ()) -> list[str]:
    """Return a note for each image that is not what a run would make now.

    Args:
        build: The present build.
        others: All other tasks.
        names: The images; without any those of the kernel that have rows.
    """
    from doit.globals import Globals

    graph = Graph(others)
    stale = explain.stale(graph, Globals.dep_manager.get_values)
    shown = dict.fromkeys(names or filter(None, (build.image, build.raw, build.packed)))
    return [
        f"{name} is not up to date ('doit why {name}'): it is shown as it is"
        for name in shown
        if name in graph.nodes and plan.downstream(graph, plan.in_order(graph, [name]), stale)
    ]


def _json(
    project: Project,
    build: Build,
    record: Record,
    other: Comparison | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    shares = size_text.by_config(record.raw, size_against.origin(project, record).chain)
    found: dict[str, Any] = {
        "machine": project.settings.machine,
        "notes": list(notes),
        "files": record.files,
        "ram": {**msgspec.to_builtins(record.ram), "guest": guest(build)},
        "raw": {"name": build.raw, "rows": _objects(record.raw)},
        "booted": {"name": build.image, "rows": _objects(record.booted)},
        "symbols": msgspec.to_builtins(shares),
    }
    for name, rows_of_one in rows_of(project, build, record).items():
        if name not in (build.raw, build.image):
            try:
                rows = rows_of_one()
                found[name] = {"taken": userspace.taken(rows), "rows": _objects(rows)}
            except (PiggyError, OSError) as error:
                said = error.message if isinstance(error, PiggyError) else str(error)
                found[name] = {"error": said}
    if other is not None:
        found["against"] = {
            **msgspec.to_builtins(other),
            "words": other.words,
            "total": other.total,
        }
    return found


def _objects(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as objects of JSON."""
    names = ("offset", "size", "object", "name", "section", "about")
    return [dict(zip(names, msgspec.structs.astuple(row), strict=True)) for row in rows]
